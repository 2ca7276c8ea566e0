/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../rng.h"
#include "blockset.h"
#include "err.h"
#include "golden.h"
#include "wire.h"

static void init(struct fc_blockset *s, uint32_t blocks, bool all)
{
    assert_int_equal(fc_blockset_init(s, blocks, all), 0);
}

static bool same(const struct fc_blockset *a, const struct fc_blockset *b)
{
    size_t bytes = ((size_t)a->blocks + 63) / 64 * 8;

    return a->blocks == b->blocks && a->count == b->count &&
           !memcmp(a->words, b->words, bytes);
}

/* Would break: a block is taken for valid that is not, at a word's edge. */
static void matches_a_plain_array(void **state)
{
    (void)state;
    enum { N = 197 };
    struct fc_blockset s;
    bool model[N + 1] = { false };
    init(&s, N, false);
    for (unsigned step = 0; step < 20000; step++) {
        uint32_t b = test_rng() % N, n = test_rng() % (N - b + 1);
        bool on = test_rng() & 1;
        if (step % 3 == 1) {
            assert_int_equal(fc_blockset_set(&s, b), !model[b]);
            model[b] = true;
        } else {
            n = step % 3 ? 1 : n;
            fc_blockset_set_range(&s, b, n, on);
            memset(model + b, on, n);
        }
        uint32_t count = 0, next = b, clear = b;
        for (uint32_t i = 0; i < N; i++)
            count += model[i];
        while (next < N && !model[next])
            next++;
        while (clear < N && model[clear])
            clear++;
        assert_int_equal(s.count, count);
        uint32_t within = 0;
        for (uint32_t i = b; i < b + n; i++)
            within += model[i];
        assert_int_equal(fc_blockset_count_range(&s, b, n), within);
        assert_int_equal(fc_blockset_test(&s, b), model[b]);
        assert_int_equal(fc_blockset_next(&s, b), next);
        assert_int_equal(fc_blockset_next_clear(&s, b), clear);
    }
    fc_blockset_fill(&s, true);
    assert_int_equal(s.count, N);
    assert_int_equal(fc_blockset_next_clear(&s, 0), N);
    fc_blockset_dispose(&s);
    assert_int_equal(fc_blockset_init(&s, 0, false), FC_EINVAL);
    assert_int_equal(fc_blockset_init(&s, FC_BLOCKSET_MAX + 1, false),
                     FC_EINVAL);
}

/* Would break: what is worked on is not the set that was looked at. */
static void a_copy_is_the_same(void **state)
{
    (void)state;
    struct fc_blockset a, b;
    init(&a, 100, false);
    init(&b, 100, true);
    fc_blockset_set_range(&a, 10, 60, true);
    fc_blockset_copy(&b, &a);
    assert_true(same(&a, &b));
    fc_blockset_set_range(&b, 10, 50, false);
    assert_int_equal(a.count, 60);
    assert_int_equal(fc_blockset_next(&b, 0), 60);
    fc_blockset_dispose(&a);
    fc_blockset_dispose(&b);
}

static void round_trip(const struct fc_blockset *s, size_t cap)
{
    struct fc_blockset got;
    uint8_t *buf = malloc(cap);
    uint32_t at = 0, next, next_too;
    size_t len;

    assert_non_null(buf);
    init(&got, s->blocks, test_rng() & 1);
    while (at < s->blocks) {
        assert_int_equal(fc_blockset_encode(s, at, buf, cap, &len, &next), 0);
        assert_true(len <= cap && next > at);
        assert_int_equal(fc_blockset_decode(&got, at, buf, len, &next_too), 0);
        assert_int_equal(next, next_too);
        at = next;
    }
    assert_true(same(s, &got));
    fc_blockset_dispose(&got);
    free(buf);
}

/* Would break: the destination has another set than the source sent. */
static void goes_over_the_wire(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 400; i++) {
        struct fc_blockset s;
        uint32_t blocks = 1 + test_rng() % 5000;
        init(&s, blocks, i % 7 == 0);
        unsigned runs = i % 11 ? test_rng() % 40 : 0;
        for (unsigned j = 0; j < runs; j++) {
            uint32_t b = test_rng() % blocks;
            uint32_t most = i % 3 ? 3 : blocks;
            uint32_t n = test_rng() % most;
            fc_blockset_set_range(&s, b, n < blocks - b ? n : blocks - b,
                                  test_rng() % 4 != 0);
        }
        for (uint32_t b = 0; i % 5 == 0 && b < blocks; b += 2)
            fc_blockset_set(&s, b); /* the bitmap is shorter */
        round_trip(&s, FC_BLOCKSET_PIECE_MIN + test_rng() % 900);
        fc_blockset_dispose(&s);
    }
}

/* Would break: a set's size on the wire is without bound. */
static void is_never_longer_than_a_bitmap(void **state)
{
    (void)state;
    struct fc_blockset s;
    uint8_t buf[4096];
    uint32_t next;
    size_t len;
    init(&s, 8000, false);
    for (uint32_t b = 0; b < 8000; b += 2)
        fc_blockset_set(&s, b);
    assert_int_equal(fc_blockset_encode(&s, 0, buf, sizeof(buf), &len, &next),
                     0);
    assert_int_equal(next, 8000);
    assert_int_equal(len, FC_BLOCKSET_HEAD_BYTES + 1000);
    assert_int_equal(
        fc_blockset_encode(&s, 8000, buf, sizeof(buf), &len, &next), FC_EINVAL);
    assert_int_equal(fc_blockset_encode(&s, 0, buf, 63, &len, &next),
                     FC_EINVAL);
    fc_blockset_dispose(&s);
}

/* Would break: the format changes without its document and version. */
static void is_as_documented(void **state)
{
    (void)state;
    struct fc_blockset s;
    uint8_t buf[128];
    size_t len, more;
    uint32_t next;
    init(&s, 1000, false);
    fc_blockset_set_range(&s, 3, 4, true);
    fc_blockset_set_range(&s, 900, 100, true);
    assert_int_equal(fc_blockset_encode(&s, 0, buf, 64, &len, &next), 0);
    assert_int_equal(next, 1000);
    fc_blockset_dispose(&s);
    init(&s, 13, false);
    for (uint32_t b = 1; b < 13; b += 2)
        fc_blockset_set(&s, b);
    assert_int_equal(fc_blockset_encode(&s, 2, buf + len, 64, &more, &next), 0);
    assert_golden("block-set", buf, len + more);
    fc_blockset_dispose(&s);
}

static int decode(uint32_t blocks, uint32_t first, const uint32_t *words,
                  size_t count, size_t len)
{
    struct fc_blockset s;
    uint8_t buf[256] = { 0 };
    uint32_t next;

    init(&s, blocks, false);
    for (size_t i = 0; i < count; i++)
        fc_le_store(buf + i * 4, words[i], 4);
    int rc = fc_blockset_decode(&s, first, buf, len, &next);
    if (rc)
        assert_int_equal(s.count, 0);
    fc_blockset_dispose(&s);
    return rc;
}

/* Would break: a hostile peer writes past the set, or leaves blocks out. */
static void bad_pieces_are_refused(void **state)
{
    (void)state;
#define PIECE(...) (const uint32_t[]){ __VA_ARGS__ }
    assert_int_equal(decode(100, 0, PIECE(0, 100, 0, 8, 90, 10), 6, 24), 0);
    const struct {
        uint32_t words[8];
        size_t len;
    } bad[] = {
        { { 0, 100, 0, 8, 90, 11 }, 24 },         /* past the piece */
        { { 0, 100, 0, 8, UINT32_MAX, 10 }, 24 }, /* wraps */
        { { 0, 100, 0, 8, 5, 0 }, 24 },           /* an empty run */
        { { 0, 100, 0, 16, 5, 5, 0, 5 }, 32 },    /* two that are one */
        { { 0, 101, 0, 8, 90, 10 }, 24 },         /* past the disk */
        { { 0, 0, 0, 0 }, 16 },                   /* nothing covered */
        { { 1, 99, 0, 8, 80, 10 }, 24 },          /* not where it should be */
        { { 0, 100, 2, 8, 90, 10 }, 24 },         /* an unknown kind */
        { { 0, 100, 0, 16, 90, 10 }, 24 },        /* longer than it is */
        { { 0, 100, 0, 4, 90 }, 20 },             /* half a run */
        { { 0, 100, 1, 8, 1, 1 }, 24 },           /* a short bitmap */
        { { 0, 28, 1, 4, 0x10000000 }, 20 },      /* spare bits */
        { { 0, 100, 0 }, 12 },                    /* half a head */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (decode(100, 0, bad[i].words, 8, bad[i].len) != FC_EFORMAT)
            fail_msg("piece %zu was not refused", i);
    assert_int_equal(decode(100, 100, PIECE(100, 1, 0, 0), 4, 16), FC_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_a_plain_array),
        cmocka_unit_test(a_copy_is_the_same),
        cmocka_unit_test(goes_over_the_wire),
        cmocka_unit_test(is_never_longer_than_a_bitmap),
        cmocka_unit_test(is_as_documented),
        cmocka_unit_test(bad_pieces_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
