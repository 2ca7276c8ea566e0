/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_GOLDEN_H
#define FC_TEST_GOLDEN_H

/*
 * Golden files: tests/unit/golden/NAME, as hex with 16 bytes a line; "* N" is
 * the line before, N times more. Tests run from the top of the tree. With
 * FC_GOLDEN_WRITE set the file is written instead, to be looked at and
 * committed.
 */
#define GOLDEN_LINE 16u
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void golden_write(FILE *f, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i += GOLDEN_LINE) {
        size_t n = len - i < GOLDEN_LINE ? len - i : GOLDEN_LINE, same = 0;
        for (size_t k = 0; k < n; k++)
            fprintf(f, "%02x%c", bytes[i + k], k + 1 == n ? '\n' : ' ');
        while (len - i >= GOLDEN_LINE * (same + 2) &&
               !memcmp(bytes + i, bytes + i + GOLDEN_LINE * (same + 1),
                       GOLDEN_LINE))
            same++;
        if (same)
            fprintf(f, "* %zu\n", same);
        i += GOLDEN_LINE * same;
    }
}

/* The file's bytes, at most `cap`, and how many there were. */
static inline size_t golden_read(FILE *f, uint8_t *bytes, size_t cap)
{
    size_t n = 0, times;
    unsigned byte;
    for (;;) {
        while (n < cap && fscanf(f, "%2x", &byte) == 1)
            bytes[n++] = (uint8_t)byte;
        if (fscanf(f, " * %zu", &times) != 1)
            return n;
        for (; times && n >= GOLDEN_LINE && cap - n >= GOLDEN_LINE; times--) {
            memcpy(bytes + n, bytes + n - GOLDEN_LINE, GOLDEN_LINE);
            n += GOLDEN_LINE;
        }
    }
}

static inline void assert_golden(const char *name, const void *bytes,
                                 size_t len)
{
    char path[256];
    snprintf(path, sizeof(path), "tests/unit/golden/%s.hex", name);
    if (getenv("FC_GOLDEN_WRITE")) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        golden_write(f, bytes, len);
        fclose(f);
        return;
    }
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("no golden file %s", path);
    uint8_t *want = malloc(len + GOLDEN_LINE);
    assert_non_null(want);
    size_t n = golden_read(f, want, len + GOLDEN_LINE);
    fclose(f);
    assert_int_equal(n, len);
    assert_memory_equal(want, bytes, len);
    free(want);
}

#endif
