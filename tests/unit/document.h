/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_DOCUMENT_H
#define FC_TEST_DOCUMENT_H

/*
 * Holds what a program prints against the document that explains it. Tests run
 * from the top of the tree. Include after cmocka.h.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The whole text; the caller's to free. */
static inline char *read_document(const char *path)
{
    char *text = calloc(1, 65536);
    FILE *f = fopen(path, "r");
    assert_non_null(text);
    if (!f)
        fail_msg("no document %s", path);
    size_t n = fread(text, 1, 65535, f);
    assert_in_range(n, 1, 65534);
    fclose(f);
    return text;
}

/* Each key of the object stands in the text between `before` and `after`. */
static inline void assert_documented(struct json_object *o, const char *text,
                                     const char *before, const char *after)
{
    char word[100];
    json_object_object_foreach(o, key, value)
    {
        (void)value;
        snprintf(word, sizeof(word), "%s%s%s", before, key, after);
        if (!strstr(text, word))
            fail_msg("%s is not documented", key);
    }
}

#endif
