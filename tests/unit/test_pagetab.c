/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "pagetab.h"
#include "scorer.h"

#define PFNS 5000u
#define QUIET 1000u

static struct fc_pagetab t;
static uint64_t bits[PFNS / 64 + 1];
static uint64_t now;
static const struct fc_hash some = { 1, 2 };

static int setup(void **state)
{
    (void)state;
    now = 1000000;
    memset(bits, 0, sizeof(bits));
    return fc_pagetab_init(&t, PFNS, now);
}

static int teardown(void **state)
{
    (void)state;
    fc_pagetab_dispose(&t);
    return 0;
}

static bool candidate(uint64_t pfn)
{
    return fc_pagetab_candidate(&t, pfn, now, QUIET, false);
}

static void seen(uint64_t pfn, bool cleaned)
{
    memset(bits, 0, sizeof(bits));
    if (pfn < PFNS)
        bits[pfn / 64] |= 1ull << pfn % 64;
    assert_int_equal(fc_pagetab_seen(&t, bits, cleaned, now), 0);
}

static void stage(uint64_t pfn)
{
    assert_true(candidate(pfn));
    fc_pagetab_begin(&t, pfn);
    assert_false(candidate(pfn));
    assert_int_equal(fc_pagetab_read(&t, pfn, FC_PAGE_DATA, now), 0);
    fc_pagetab_staged(&t, pfn, some);
}

/* A page must be quiet for its time before it is read. */
static void test_quiet(void **state)
{
    (void)state;
    assert_false(candidate(7));
    now += QUIET;
    assert_true(candidate(7));
    seen(7, false);
    assert_false(candidate(7)); /* its bit stands: nobody knows since when */
    assert_true(candidate(8));
    now += 10 * QUIET;
    seen(7, false);
    assert_false(candidate(7));
    seen(7, true); /* taken: quiet from here on */
    assert_false(candidate(7));
    now += QUIET;
    seen(~0ull, false);
    assert_true(candidate(7));
    assert_false(candidate(PFNS));
}

/* A page written after it was copied must not count as valid. */
static void test_valid(void **state)
{
    (void)state;
    now += QUIET;
    fc_pagetab_begin(&t, 9);
    seen(9, false); /* written while it is read or under way */
    fc_pagetab_read(&t, 9, FC_PAGE_DATA, now);
    fc_pagetab_staged(&t, 9, some);
    assert_int_equal(t.staged, 1);
    assert_int_equal(t.valid, 0);
    assert_true(fc_pagetab_is_stale(&t, 9));
    seen(9, true);
    now += 4 * QUIET;
    assert_true(candidate(9));
    struct fc_hash known = fc_pagetab_begin(&t, 9);
    assert_true(fc_hash_equal(known, some));
    fc_pagetab_read(&t, 9, FC_PAGE_SAME, now);
    assert_int_equal(t.valid, 1);
    assert_false(candidate(9));
    fc_pagetab_blind(&t);
    assert_int_equal(t.valid, 0);
    assert_int_equal(t.staged, 1);
}

/* Pages that change again and again must not be sent again and again. */
static void test_backoff(void **state)
{
    uint64_t waited[6];
    (void)state;
    now += QUIET;
    for (unsigned round = 0; round < 6; round++) {
        stage(100);
        seen(100, true);
        uint64_t start = now;
        while (!candidate(100))
            now += 100;
        waited[round] = now - start;
    }
    assert_true(waited[0] >= 2 * QUIET - 100 && waited[0] <= 2 * QUIET + 100);
    assert_true(waited[5] >= 32 * QUIET);
    /* a page that then keeps still earns its trust back */
    stage(100);
    for (unsigned i = 0; i < 8; i++) {
        fc_pagetab_evicted(&t, 100);
        now += 2000 * QUIET;
        stage(100);
    }
    seen(100, true);
    uint64_t start = now;
    while (!candidate(100))
        now += 100;
    assert_true(now - start <= 2 * QUIET + 100);
}

/* What the destination refused, lost or evicted is not staged. */
static void test_not_staged(void **state)
{
    (void)state;
    now += QUIET;
    stage(1);
    fc_pagetab_evicted(&t, 1);
    assert_int_equal(t.staged, 0);
    assert_true(candidate(1));
    assert_false(fc_pagetab_candidate(&t, 1, now, QUIET, true));

    fc_pagetab_begin(&t, 2);
    fc_pagetab_read(&t, 2, FC_PAGE_DATA, now);
    fc_pagetab_failed(&t, 2);
    assert_int_equal(t.staged, 0);
    assert_true(candidate(2));
    fc_pagetab_staged(&t, 2, some); /* an answer nobody waits for */
    assert_int_equal(t.staged, 0);

    /* evicted by news that overtook the acknowledgement */
    fc_pagetab_begin(&t, 3);
    fc_pagetab_read(&t, 3, FC_PAGE_DATA, now);
    fc_pagetab_evicted(&t, 3);
    fc_pagetab_staged(&t, 3, some);
    assert_int_equal(t.staged, 0);

    /* a new store: also for what is under way */
    stage(4);
    fc_pagetab_begin(&t, 5);
    fc_pagetab_read(&t, 5, FC_PAGE_DATA, now);
    fc_pagetab_unstage_all(&t);
    fc_pagetab_staged(&t, 5, some);
    assert_int_equal(t.staged + t.valid, 0);
    assert_true(candidate(4) && candidate(5));
}

/* Zero pages are known, cost nothing, and may become others. */
static void test_zero(void **state)
{
    (void)state;
    now += QUIET;
    stage(10);
    seen(10, true);
    now += 4 * QUIET;
    fc_pagetab_begin(&t, 10);
    fc_pagetab_read(&t, 10, FC_PAGE_ZERO, now);
    assert_int_equal(t.zero, 1);
    assert_int_equal(t.staged, 0);
    assert_int_equal(t.present, 1);
    assert_false(candidate(10));
    fc_pagetab_unstage_all(&t);
    assert_int_equal(t.zero, 1);
    seen(10, true);
    assert_int_equal(t.zero, 0);
    now += 4 * QUIET;
    assert_true(candidate(10));
}

/* Holes must cost no memory, and a page ballooned in must be noticed. */
static void test_absent(void **state)
{
    (void)state;
    now += QUIET;
    size_t before = fc_pagetab_bytes(&t);
    for (uint64_t p = 1024; p < 2048; p++)
        fc_pagetab_begin(&t, p);
    for (uint64_t p = 1024; p < 2048; p++)
        assert_int_equal(fc_pagetab_read(&t, p, FC_PAGE_ABSENT, now), 0);
    fc_pagetab_trim(&t, 1024);
    fc_pagetab_trim(&t, 1536);
    assert_int_equal(fc_pagetab_bytes(&t), before);
    assert_int_equal(t.present, 0);
    assert_false(candidate(1500));
    seen(1500, true);
    now += QUIET;
    assert_true(candidate(1500));
    assert_false(candidate(1501));
}

/* Bits beyond the map, and a map that ends inside a word. */
static void test_bits_beyond(void **state)
{
    (void)state;
    memset(bits, 0xff, sizeof(bits));
    assert_int_equal(fc_pagetab_seen(&t, bits, false, now), 0);
    assert_int_equal(fc_pagetab_seen(&t, bits, true, now), 0);
    now += QUIET;
    assert_true(candidate(PFNS - 1));
    stage(PFNS - 1);
    assert_int_equal(t.staged, 1);
}

/* The source's memory for 1 GiB of guest is promised to stay below 48 bytes a
 * page, in the worst case: every page written and staged. */
static void test_memory(void **state)
{
    const uint64_t ram = 1u << 18, pfns = 1u << 20; /* 3 GiB of hole */
    struct fc_pagetab big;
    struct fc_scorer ewma, frequency;
    uint64_t *all = calloc(pfns / 64, 8);
    (void)state;
    assert_non_null(all);
    memset(all, 0xff, ram / 8);
    assert_int_equal(fc_pagetab_init(&big, pfns, 0), 0);
    assert_int_equal(fc_scorer_init(&ewma, "ewma", pfns), 0);
    assert_int_equal(fc_scorer_init(&frequency, "frequency", pfns), 0);
    assert_int_equal(fc_pagetab_seen(&big, all, true, 0), 0);
    ewma.ops->update(ewma.state, all, 1000);
    frequency.ops->update(frequency.state, all, 1000);
    for (uint64_t p = 0; p < ram; p++) {
        fc_pagetab_begin(&big, p);
        fc_pagetab_read(&big, p, FC_PAGE_DATA, 0);
        fc_pagetab_staged(&big, p, some);
    }
    assert_int_equal(big.staged, ram);
    size_t bytes = fc_pagetab_bytes(&big) + ewma.ops->bytes(ewma.state) +
                   frequency.ops->bytes(frequency.state) +
                   pfns / 8 /* the sampler's bits */ +
                   65536 * 8 /* the ranking */;
    print_message("%.1f bytes a page\n", (double)bytes / (double)ram);
    assert_true(bytes < 48 * ram);
    fc_pagetab_dispose(&big);
    fc_scorer_dispose(&ewma);
    fc_scorer_dispose(&frequency);
    free(all);
}

static void count_up(void *user, struct fc_hash hash)
{
    assert_true(fc_hash_equal(hash, some));
    ++*(unsigned *)user;
}

/* The hash set of a migration is made from this. */
static void test_each_staged(void **state)
{
    unsigned n = 0;
    (void)state;
    now += QUIET;
    stage(0);
    stage(511);
    stage(512);
    stage(4000);
    seen(512, false); /* not valid, but still held by the destination */
    fc_pagetab_evicted(&t, 4000);
    fc_pagetab_each_staged(&t, count_up, &n);
    assert_int_equal(n, 3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_quiet),       TEST(test_valid),  TEST(test_backoff),
        TEST(test_not_staged),  TEST(test_zero),   TEST(test_absent),
        TEST(test_bits_beyond), TEST(test_memory), TEST(test_each_staged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
