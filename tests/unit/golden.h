/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_GOLDEN_H
#define FC_TEST_GOLDEN_H

/*
 * Golden files: tests/unit/golden/NAME, as hex with 16 bytes a line. Tests run
 * from the top of the tree. With FC_GOLDEN_WRITE set the file is written
 * instead, to be looked at and committed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void assert_golden(const char *name, const void *bytes,
                                 size_t len)
{
    char path[256];
    snprintf(path, sizeof(path), "tests/unit/golden/%s.hex", name);
    if (getenv("FC_GOLDEN_WRITE")) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        for (size_t i = 0; i < len; i++)
            fprintf(f, "%02x%c", ((const uint8_t *)bytes)[i],
                    i % 16 == 15 || i + 1 == len ? '\n' : ' ');
        fclose(f);
        return;
    }
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("no golden file %s", path);
    uint8_t *want = malloc(len + 1);
    size_t n = 0;
    unsigned byte;
    assert_non_null(want);
    while (n <= len && fscanf(f, "%2x", &byte) == 1)
        want[n++] = (uint8_t)byte;
    fclose(f);
    assert_int_equal(n, len);
    assert_memory_equal(want, bytes, len);
    free(want);
}

#endif
