/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "policy.h"

static const struct fc_policy_limits limits = {
    .max_downtime_ms = 300,
    .fixed_ms = 100,
    .max_rounds = 30,
};

/* 1 MB/s and 1000 bytes a page: a thousand pages are a second. */
static struct fc_policy_input input(uint32_t rounds, uint64_t dirty)
{
    return (struct fc_policy_input){ .now_ms = rounds * 1000,
                                     .rounds = rounds,
                                     .dirty_pages = dirty,
                                     .page_bytes = 1000,
                                     .link_bps = 1000000 };
}

static enum fc_policy_action step(struct fc_policy *p,
                                  const struct fc_policy_limits *l,
                                  uint32_t rounds, uint64_t dirty)
{
    struct fc_policy_input in = input(rounds, dirty);
    struct fc_policy_output out;
    fc_policy_decide(p, l, &in, &out);
    assert_non_null(out.reason);
    assert_true(*out.reason);
    return out.action;
}

/* A downtime would be promised that is not kept. */
static void test_estimate(void **state)
{
    (void)state;
    static const struct {
        uint32_t page_bytes;
        uint64_t link_bps, pages_ps, dirty, want;
    } cases[] = {
        { 1000, 1000000, 0, 0, 100 },
        { 1000, 1000000, 0, 500, 600 },
        { 1000, 0, 0, 500, 100 },    /* nothing known to be slow */
        { 1000, 0, 1000, 500, 600 }, /* the path is the limit */
        { 1000, 1000000, 100, 500, 5100 },
        { 1000, 1000000, 1000000, 500, 600 },
        { 0, 4096000, 0, 1000, 1100 }, /* nothing encoded yet: whole pages */
        { 4096, 1, 0, 1ull << 40, 100 + ((4096ull * 1000) << 40) },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fc_policy_input in = { .page_bytes = cases[i].page_bytes,
                                      .link_bps = cases[i].link_bps,
                                      .pages_ps = cases[i].pages_ps };
        assert_int_equal(fc_policy_estimate_ms(&limits, &in, cases[i].dirty),
                         cases[i].want);
    }
}

/* One decision each: the guest would be stopped too soon, or too late. */
static void test_first_decisions(void **state)
{
    (void)state;
    static const struct {
        uint32_t rounds;
        uint64_t dirty;
        uint64_t deadline_ms;
        bool abort_at_deadline, abort_wanted, decided_stop;
        enum fc_policy_action want;
    } cases[] = {
        { 1, 0, 0, false, false, false, FC_POLICY_STOP },
        { 1, 49, 0, false, false, false, FC_POLICY_STOP },
        /* within the limit, but a round would lower it: it may shrink */
        { 1, 150, 0, false, false, false, FC_POLICY_CONTINUE },
        /* asked again after the sync: no more second thoughts */
        { 1, 150, 0, false, false, true, FC_POLICY_STOP },
        { 1, 250, 0, false, false, true, FC_POLICY_CONTINUE },
        { 1, 5000, 0, false, false, false, FC_POLICY_CONTINUE },
        { 29, 5000, 0, false, false, false, FC_POLICY_CONTINUE },
        { 30, 5000, 0, false, false, false, FC_POLICY_STOP },
        { 5, 5000, 5001, false, false, false, FC_POLICY_CONTINUE },
        { 5, 5000, 5000, false, false, false, FC_POLICY_STOP },
        { 5, 5000, 5000, true, false, false, FC_POLICY_ABORT },
        /* at the deadline, but good enough */
        { 5, 150, 5000, true, false, false, FC_POLICY_STOP },
        { 5, 10, 5000, true, true, false, FC_POLICY_ABORT },
        { 1, 0, 0, false, true, false, FC_POLICY_ABORT },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fc_policy p = { 0 };
        struct fc_policy_limits l = limits;
        struct fc_policy_input in = input(cases[i].rounds, cases[i].dirty);
        struct fc_policy_output out;
        l.deadline_ms = cases[i].deadline_ms;
        l.abort_at_deadline = cases[i].abort_at_deadline;
        in.abort_wanted = cases[i].abort_wanted;
        in.decided_stop = cases[i].decided_stop;
        fc_policy_decide(&p, &l, &in, &out);
        if (out.action != cases[i].want)
            fail_msg("case %zu: %d (%s)", i, out.action, out.reason);
    }
}

/* A guest whose dirty set shrinks would not be given its rounds. */
static void test_converging(void **state)
{
    (void)state;
    struct fc_policy p = { 0 };
    uint64_t dirty = 100000;
    uint32_t round = 1;
    while (step(&p, &limits, round, dirty) == FC_POLICY_CONTINUE) {
        dirty = dirty * 6 / 10;
        round++;
    }
    /* well below the limit: to where a round is no longer worth it */
    assert_true(dirty <= 20 || (dirty * 1000000 / 1000000 <= 50));
    assert_true(round < 20);
}

/* A working set that stays within the limit would be sent again and again. */
static void test_small_working_set(void **state)
{
    (void)state;
    struct fc_policy p = { 0 };
    assert_int_equal(step(&p, &limits, 1, 180), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &limits, 2, 175), FC_POLICY_STOP);
}

/* Runs the watch with `pages_per_look` more dirty pages every 10 ms, given as
 * a list that repeats; returns the action that ended it. */
static enum fc_policy_action watch(struct fc_policy *p, uint32_t round,
                                   uint64_t dirty, const unsigned *growth,
                                   unsigned n, uint64_t *watched_ms_r)
{
    struct fc_policy_input in = input(round, dirty);
    struct fc_policy_output out;
    uint64_t start = in.now_ms;
    for (unsigned i = 0;; i++) {
        fc_policy_decide(p, &limits, &in, &out);
        *watched_ms_r = in.now_ms - start;
        if (out.action != FC_POLICY_WAIT)
            return out.action;
        assert_in_range(out.wait_ms, 1, 100);
        in.now_ms += 10;
        in.dirty_pages += growth[i % n];
        assert_true(i < 10000);
    }
}

/* A guest that never gets better would be sent round after round, or one with
 * lulls be stopped outside of them. */
static void test_stuck(void **state)
{
    (void)state;
    static const unsigned steady[] = { 10 };
    static const unsigned bursts[] = { 30, 30, 30, 30, 30, 30, 30, 1 };
    uint64_t ms;
    struct fc_policy p = { 0 };
    assert_int_equal(step(&p, &limits, 1, 5000), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &limits, 2, 5000), FC_POLICY_CONTINUE);
    /* no lull to be had: after the watch one round, then the stop */
    assert_int_equal(watch(&p, 3, 4900, steady, 1, &ms), FC_POLICY_CONTINUE);
    assert_in_range(ms, 2900, 3100);
    assert_int_equal(step(&p, &limits, 4, 4900), FC_POLICY_STOP);

    memset(&p, 0, sizeof(p));
    assert_int_equal(step(&p, &limits, 1, 5000), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &limits, 2, 5000), FC_POLICY_CONTINUE);
    assert_int_equal(watch(&p, 3, 4900, bursts, 8, &ms), FC_POLICY_CONTINUE);
    assert_in_range(ms, 50, 100);
    /* the round in the lull found little: stop, or a last short round */
    assert_int_equal(step(&p, &limits, 4, 40), FC_POLICY_STOP);
}

/* A guest that has written to all of its working set looks as if it rested:
 * round after round would be begun for that. */
static void test_saturated(void **state)
{
    (void)state;
    static const unsigned filling[] = { 400, 200, 100, 50, 25, 12, 6, 3, 1 };
    struct fc_policy p = { 0 };
    uint64_t ms;
    uint32_t round = 3, lulls = 0;
    assert_int_equal(step(&p, &limits, 1, 5000), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &limits, 2, 5000), FC_POLICY_CONTINUE);
    while (watch(&p, round, 4800, filling, 9, &ms) == FC_POLICY_CONTINUE) {
        lulls++;
        round++; /* a second each */
    }
    assert_in_range(lulls, 1, 3);
}

/* Watching again and again would make it endless. */
static void test_watch_is_bounded(void **state)
{
    (void)state;
    static const unsigned bursts[] = { 30, 30, 30, 30, 30, 30, 30, 1 };
    struct fc_policy p = { 0 };
    uint64_t ms, sum = 0;
    enum fc_policy_action a = FC_POLICY_CONTINUE;
    uint32_t round = 1;
    for (; round < 1000 && a == FC_POLICY_CONTINUE; round++) {
        a = watch(&p, round, 5000, bursts, 8, &ms);
        sum += ms;
    }
    assert_int_equal(a, FC_POLICY_STOP);
    assert_true(sum <= 3200);
    assert_true(round <= 30 + 1);
}

/* Stock receivers' migrations would differ from stock xl's. */
static void test_stock(void **state)
{
    (void)state;
    assert_int_equal(fc_policy_stock(0, 1000), FC_POLICY_CONTINUE);
    assert_int_equal(fc_policy_stock(1, -1), FC_POLICY_CONTINUE);
    assert_int_equal(fc_policy_stock(1, 50), FC_POLICY_CONTINUE);
    assert_int_equal(fc_policy_stock(1, 49), FC_POLICY_STOP);
    assert_int_equal(fc_policy_stock(0, 0), FC_POLICY_STOP);
    assert_int_equal(fc_policy_stock(4, 1000), FC_POLICY_CONTINUE);
    assert_int_equal(fc_policy_stock(5, -1), FC_POLICY_STOP);
    assert_int_equal(fc_policy_stock(5, 1000), FC_POLICY_STOP);
}

/* Rounds would be made that cannot help, or a floor that was set too high
 * would end them early. */
static void test_floor(void **state)
{
    (void)state;
    struct fc_policy_limits known = limits;
    struct fc_policy p = { 0 };
    known.floor_pages = 2000;
    assert_int_equal(step(&p, &known, 1, 2400), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &known, 2, 2250), FC_POLICY_STOP);

    p = (struct fc_policy){ 0 }; /* above the floor: on */
    assert_int_equal(step(&p, &known, 1, 6000), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &known, 2, 2400), FC_POLICY_CONTINUE);

    p = (struct fc_policy){ 0 }; /* a little above, and flat: it is there */
    assert_int_equal(step(&p, &known, 1, 2900), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &known, 2, 2700), FC_POLICY_STOP);

    p = (struct fc_policy){ 0 }; /* well above it, though flat: on */
    assert_int_equal(step(&p, &known, 1, 3100), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &known, 2, 2900), FC_POLICY_CONTINUE);

    p = (struct fc_policy){ 0 }; /* still halving: the floor is lower */
    assert_int_equal(step(&p, &known, 1, 3500), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &known, 2, 1800), FC_POLICY_CONTINUE);
    assert_int_equal(step(&p, &known, 3, 1600), FC_POLICY_STOP);

    p = (struct fc_policy){ 0 }; /* a first round always has a second */
    assert_int_equal(step(&p, &known, 1, 1000), FC_POLICY_CONTINUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_first_decisions),
        cmocka_unit_test(test_converging),
        cmocka_unit_test(test_small_working_set),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_saturated),
        cmocka_unit_test(test_watch_is_bounded),
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_stock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
