/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "ranking.h"
#include "scorer.h"

#define PAGES 4096u
#define WORDS (PAGES / 64)

static uint64_t bits[WORDS];

static void set_bit(uint64_t page)
{
    bits[page / 64] |= 1ull << page % 64;
}

/* A guest: which pages it writes in second t. */
typedef void pattern(unsigned t);

/* The same for every run. */
static uint64_t mixed(uint64_t page, uint64_t t)
{
    uint64_t x = page * 0x9e3779b97f4a7c15ull + t * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 31) * 0x94d049bb133111ebull;
    return x ^ x >> 29;
}

static void hot_set(unsigned t)
{
    for (uint64_t p = 0; p < 256; p++)
        if (mixed(p, t) % 3)
            set_bit(p);
    set_bit(1024 + t * 37 % 2048); /* and something here and there */
}

static void periodic(unsigned t)
{
    /* pages 512..767 every fourth second, 768..1023 every 64th */
    for (uint64_t p = 512; p < 768; p++)
        if ((p + t) % 4 == 0)
            set_bit(p);
    for (uint64_t p = 768; p < 1024; p++)
        if ((p + t) % 64 == 0)
            set_bit(p);
}

static bool is_periodic_hot(uint64_t page)
{
    return page >= 512 && page < 768;
}

static void phases(unsigned t)
{
    uint64_t first = t < 300 ? 0 : 2048;
    for (uint64_t p = first; p < first + 256; p++)
        set_bit(p);
}

struct scored {
    float p;
    int written;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    return (x->p < y->p) - (x->p > y->p);
}

/* Average precision of "will be written" against what was, ties broken against
 * us: quiet pages first. */
static double average_precision(struct scored *list, unsigned count)
{
    double sum = 0;
    unsigned hits = 0;
    for (unsigned i = 0; i < count; i++)
        list[i].p -= list[i].written ? 1e-9f : 0;
    qsort(list, count, sizeof(*list), by_score);
    for (unsigned i = 0; i < count; i++)
        if (list[i].written) {
            hits++;
            sum += (double)hits / (i + 1);
        }
    return hits ? sum / hits : 1;
}

/* Mean AP over the seconds from `from` to `to`, scored before they are seen;
 * what counts is what is written next, or with `is_hot` what that says. */
static double run(const char *name, pattern *guest, unsigned from, unsigned to,
                  bool (*is_hot)(uint64_t page))
{
    static struct scored list[PAGES];
    struct fc_scorer s;
    double sum = 0;
    assert_int_equal(fc_scorer_init(&s, name, PAGES), 0);
    for (unsigned t = 0; t < to; t++) {
        memset(bits, 0, sizeof(bits));
        guest(t);
        for (uint64_t p = 0; t >= from && p < PAGES; p++) {
            list[p].p = s.ops->p_dirty(s.state, p, 1000);
            list[p].written =
                is_hot ? is_hot(p) : (int)(bits[p / 64] >> p % 64 & 1);
            assert_true(list[p].p >= 0 && list[p].p <= 1);
        }
        if (t >= from)
            sum += average_precision(list, PAGES);
        assert_int_equal(s.ops->update(s.state, bits, 1000), 0);
    }
    fc_scorer_dispose(&s);
    return sum / (to - from);
}

/* Hot pages would be staged in vain, cold ones left behind. */
static void test_hot_set(void **state)
{
    (void)state;
    assert_true(run("ewma", hot_set, 60, 120, NULL) > 0.6);
    assert_true(run("frequency", hot_set, 60, 120, NULL) > 0.6);
}

/* Pages written often must rank above pages written seldom, though both rest
 * most of the time. */
static void test_periodic(void **state)
{
    struct fc_scorer s;
    double often = 0, seldom = 0;
    (void)state;
    assert_true(run("ewma", periodic, 120, 240, is_periodic_hot) > 0.97);
    assert_true(run("frequency", periodic, 120, 240, is_periodic_hot) > 0.99);
    assert_int_equal(fc_scorer_init(&s, "frequency", PAGES), 0);
    for (unsigned t = 0; t < 256; t++) {
        memset(bits, 0, sizeof(bits));
        periodic(t);
        s.ops->update(s.state, bits, 1000);
    }
    for (uint64_t p = 512; p < 768; p++)
        often += s.ops->p_dirty(s.state, p, 1000) / 256;
    for (uint64_t p = 768; p < 1024; p++)
        seldom += s.ops->p_dirty(s.state, p, 1000) / 256;
    /* one in four and one in 64, as calibrated chances */
    assert_true(often > 0.2 && often < 0.3);
    assert_true(seldom > 0.01 && seldom < 0.03);
    fc_scorer_dispose(&s);
}

/* After a change of phase the EWMA must follow within seconds. */
static void test_phase_change(void **state)
{
    (void)state;
    assert_true(run("ewma", phases, 306, 316, NULL) > 0.95);
    assert_true(run("ewma", phases, 360, 370, NULL) > 0.95);
}

/* The EWMA's chance must be near the truth for steady rates, and fade. */
static void test_ewma_rates(void **state)
{
    struct fc_scorer s;
    float tenth = 0;
    (void)state;
    assert_int_equal(fc_scorer_init(&s, "ewma", PAGES), 0);
    for (unsigned t = 0; t < 400; t++) {
        memset(bits, 0, sizeof(bits));
        set_bit(1);
        if (t % 10 == 0)
            set_bit(2);
        s.ops->update(s.state, bits, 1000);
        if (t >= 390)
            tenth += s.ops->p_dirty(s.state, 2, 1000) / 10;
    }
    float hot = s.ops->p_dirty(s.state, 1, 1000);
    float never = s.ops->p_dirty(s.state, 3, 1000);
    assert_true(hot > 0.55f);
    assert_true(tenth > 0.05f && tenth < 0.15f);
    assert_true(never < 0.002f);
    assert_true(s.ops->p_dirty(s.state, 2, 10000) > 2 * tenth);
    memset(bits, 0, sizeof(bits));
    for (unsigned t = 0; t < 120; t++)
        s.ops->update(s.state, bits, 1000);
    assert_true(s.ops->p_dirty(s.state, 1, 1000) < 0.05f);
    /* and over the wrap of its clock, in long windows */
    for (unsigned t = 0; t < 400; t++)
        s.ops->update(s.state, bits, 100000);
    assert_true(s.ops->p_dirty(s.state, 1, 1000) < 0.01f);
    fc_scorer_dispose(&s);
}

/* Memory would grow with the physical map instead of what is written. */
static void test_sparse(void **state)
{
    struct fc_scorer s;
    static uint64_t many[(1u << 20) / 64];
    (void)state;
    const char *const names[] = { "ewma", "frequency" };
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(fc_scorer_init(&s, names[i], 1u << 20), 0);
        memset(many, 0, sizeof(many));
        many[5] = ~0ull;
        s.ops->update(s.state, many, 1000);
        assert_true(s.ops->bytes(s.state) < 64 * 1024);
        assert_true(s.ops->p_dirty(s.state, ~0ull, 1000) < 0.5f);
        fc_scorer_dispose(&s);
    }
    assert_int_equal(fc_scorer_init(&s, "oracle", 1), FC_EINVAL);
}

/* A map whose size is no multiple of a word or a chunk must not be overrun. */
static void test_odd_sizes(void **state)
{
    (void)state;
    for (uint64_t pages = 1; pages < 1200; pages += 37) {
        struct fc_scorer s;
        uint64_t *exact = malloc((pages + 63) / 64 * 8);
        memset(exact, 0xff, (pages + 63) / 64 * 8);
        assert_int_equal(fc_scorer_init(&s, "ewma", pages), 0);
        assert_int_equal(s.ops->update(s.state, exact, 1), 0);
        (void)s.ops->p_dirty(s.state, pages - 1, 1);
        fc_scorer_dispose(&s);
        free(exact);
    }
}

static bool even(void *user, uint64_t page)
{
    (void)user;
    return page % 2 == 0;
}

/* The order of staging: coldest first, none that may not be, none twice. */
static void test_ranking(void **state)
{
    struct fc_scorer s;
    struct fc_ranking r = { 0 };
    static uint8_t seen[PAGES];
    float last = 0;
    uint64_t page;
    unsigned count = 0;
    (void)state;
    assert_int_equal(fc_scorer_init(&s, "ewma", PAGES), 0);
    for (unsigned t = 0; t < 100; t++) {
        memset(bits, 0, sizeof(bits));
        hot_set(t);
        s.ops->update(s.state, bits, 1000);
    }
    assert_int_equal(
        fc_ranking_build(&r, &s, 0, PAGES, even, NULL, 10000, 0.5f, PAGES), 0);
    memset(seen, 0, sizeof(seen));
    while (fc_ranking_next(&r, &page)) {
        float p = s.ops->p_dirty(s.state, page, 10000);
        assert_true(page % 2 == 0 && page < PAGES && !seen[page]++);
        assert_true(p <= 0.5f && p >= last * 0.9f); /* one bucket */
        if (p > last)
            last = p;
        assert_true(page >= 256); /* the hot set */
        count++;
    }
    assert_true(count > 1500);
    assert_int_equal(
        fc_ranking_build(&r, &s, 100, 3000, even, NULL, 10000, 1.0f, 10), 0);
    for (count = 0; fc_ranking_next(&r, &page); count++)
        assert_true(page >= 100 && page < 3000);
    assert_int_equal(count, 10);
    fc_ranking_dispose(&r);
    fc_scorer_dispose(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hot_set),      cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_phase_change), cmocka_unit_test(test_ewma_rates),
        cmocka_unit_test(test_sparse),       cmocka_unit_test(test_odd_sizes),
        cmocka_unit_test(test_ranking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
