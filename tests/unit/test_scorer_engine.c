/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's pages would be scored by something else than what was written,
 * or the published lists would not keep their promise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "io.h"
#include "lists.h"
#include "mixture_kit.h"
#include "scorer_engine.h"

#define PAGES 8200u /* no multiple of a word */
#define WORDS (PAGES / 64 + 1)
#define HOT 64u    /* pages 0.. of each guest here */
#define WARM 4096u /* pages from here on, now and then */

static uint64_t bits[WORDS];
static struct fc_scorer s;
static struct fc_lists *lists;

static void set_bit(uint64_t page)
{
    bits[page / 64] |= 1ull << page % 64;
}

static int set_up(void **state)
{
    const struct fc_lists_config config = {
        .kind = FC_ENGINE_MEMORY,
        .tick_ms = FC_SCORER_TICK_MS,
        .horizon_ms = { 1000, 1000, 10000, 60000 },
        .room = 1000,
        .risk = 0.05f,
        .calm = FC_SCORER_LONG,
        .busy = FC_SCORER_SHORT,
    };
    (void)state;
    memset(bits, 0, sizeof(bits));
    int rc = fc_scorer_init(&s, "mixture", PAGES);
    return rc ? rc : fc_lists_create(&config, &lists);
}

static int tear_down(void **state)
{
    (void)state;
    fc_lists_destroy(lists);
    fc_scorer_dispose(&s);
    return 0;
}

static float p_of(uint64_t page, uint32_t horizon_ms)
{
    float p = s.ops->p_dirty(s.state, page, horizon_ms);
    assert_true(p >= 0 && p <= 1);
    return p;
}

static void tick(void)
{
    assert_int_equal(s.ops->update(s.state, bits, 1000), 0);
    fc_lists_tick(lists, fc_scorer_engine(&s), 1000, 0);
}

/* Hot pages each second, sixteen of the warm ones somewhere. */
static void guest_second(void)
{
    memset(bits, 0, sizeof(bits));
    for (uint64_t p = 0; p < HOT; p++)
        set_bit(p);
    for (unsigned i = 0; i < 16; i++)
        set_bit(WARM + (uint64_t)(chance() * 4000));
    set_bit(PAGES - 1);
}

static void test_hot_warm_and_cold(void **state)
{
    (void)state;
    for (unsigned t = 0; t < 200; t++) {
        guest_second();
        tick();
    }
    assert_true(p_of(5, 1000) > 0.9f);
    assert_true(p_of(PAGES - 1, 1000) > 0.5f);
    assert_true(p_of(2000, 10000) < 0.05f);
    float warm = 0;
    for (uint64_t p = WARM; p < WARM + 256; p++)
        warm += p_of(p, 1000) / 256;
    assert_true(warm < 0.1f);
    assert_true(p_of(UINT64_MAX, 1000) < 0.5f);
    assert_true(s.ops->bytes(s.state) < 8 << 20);
}

static void test_longer_is_likelier(void **state)
{
    static const uint32_t horizons[] = { 1,     500,   1000,  3000,
                                         10000, 30000, 60000, 600000 };
    (void)state;
    for (unsigned t = 0; t < 100; t++) {
        guest_second();
        tick();
    }
    for (uint64_t page = 0; page < PAGES; page += 97)
        for (unsigned h = 1; h < 8; h++)
            assert_true(p_of(page, horizons[h]) >=
                        p_of(page, horizons[h - 1]) - 1e-5f);
}

/* A page written once in a window of sixteen seconds must not look like one
 * that is written each second, though its bit is set all the time. */
static void test_long_windows(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned t = 0; t < 16; t++) {
            guest_second();
            tick();
        }
        memset(bits, 0, sizeof(bits));
        for (unsigned t = 0; t < 16; t++) {
            for (uint64_t p = 0; p < HOT; p++)
                set_bit(p);
            if (t == 2)
                for (uint64_t p = 1024; p < 1040; p++)
                    set_bit(p);
            if (t)
                s.ops->continues(s.state);
            tick();
        }
    }
    assert_true(p_of(5, 1000) > 0.8f);
    assert_true(p_of(1030, 1000) < 0.2f);
}

static void test_lists(void **state)
{
    struct fc_rank_view v;
    struct fc_staleness_view held;
    const struct fc_rank_reader *r = fc_lists_reader(lists);
    (void)state;
    for (unsigned t = 0; t < 400; t++) {
        guest_second();
        tick();
    }
    assert_int_equal(fc_rank_reader_look(r, FC_RANK_DELTA, &v), 0);
    assert_int_equal(v.tick, 400);
    assert_true(v.count >= HOT / 16);
    for (unsigned i = 0; i < HOT / 16; i++)
        assert_true(v.entries[i].first < HOT ||
                    v.entries[i].first >= PAGES - 16);
    assert_true(v.entries[0].next_ms < 2000);
    assert_int_equal(fc_rank_reader_look(r, FC_RANK_STAGING, &v), 0);
    for (unsigned i = 0; i < v.count; i++)
        assert_true(v.entries[i].first >= HOT);
    assert_int_equal(fc_rank_reader_look(r, FC_RANK_SHADOW, &v), 0);
    assert_int_equal(v.count, 0);
    fc_lists_look(lists, &held);
    assert_true(held.labels > 1000);
    int fd = fc_lists_fd(lists);
    assert_true(fd >= 0);
    fc_close(&fd);
}

/* Of what the staging list of each second said is clean for ten, at most about
 * a twentieth is written. */
static void test_the_risk_is_held(void **state)
{
    static uint64_t written_at[PAGES / 16 + 1];
    static struct {
        uint64_t first;
        unsigned at;
    } listed[20000];
    unsigned count = 0, stale = 0, judged = 0, next = 0;
    struct fc_rank_view v;
    (void)state;
    for (unsigned t = 1; t <= 900; t++) {
        memset(bits, 0, sizeof(bits));
        for (uint64_t r = 0; r < 200; r++) /* the higher the colder */
            if (chance() < 40.0f / (float)(r * r + 40)) {
                set_bit(r * 16 + (uint64_t)(chance() * 15));
                written_at[r] = t;
            }
        for (; next < count && listed[next].at + 10 == t; next++) {
            judged++;
            stale += written_at[listed[next].first / 16] > listed[next].at;
        }
        tick();
        if (t < 400 ||
            fc_rank_reader_look(fc_lists_reader(lists), FC_RANK_STAGING, &v))
            continue;
        for (unsigned i = 0; i < v.count && count < 20000; i++) {
            listed[count].first = v.entries[i].first;
            listed[count++].at = t;
        }
    }
    assert_true(judged > 500);
    assert_true(stale < judged / 10); /* twice the risk at most */
}

static void test_migration_horizon(void **state)
{
    struct fc_rates rates = { .cpu = 0.5f, .wall_s = 1700000000 };
    (void)state;
    fc_scorer_engine_rates(&s, &rates);
    fc_scorer_engine_migration(&s, 300000);
    for (unsigned t = 0; t < 20; t++) {
        guest_second();
        tick();
    }
    fc_scorer_engine_migration(&s, 0);
    fc_scorer_engine_migration(&s, UINT64_MAX);
    tick();
    assert_true(p_of(5, 3600000) > 0.5f);
    /* another scorer has none of this */
    struct fc_scorer other;
    assert_int_equal(fc_scorer_init(&other, "ewma", 64), 0);
    assert_null(fc_scorer_engine(&other));
    fc_scorer_engine_rates(&other, &rates);
    fc_scorer_engine_migration(&other, 5);
    fc_scorer_dispose(&other);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_hot_warm_and_cold), T(test_longer_is_likelier),
        T(test_long_windows),      T(test_lists),
        T(test_the_risk_is_held),  T(test_migration_horizon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
