/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A list that promises 5 % would go stale far more often than that. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mixture_kit.h"
#include "staleness.h"

#define N 600u
#define MOST_DELAY 256u

static struct fc_staleness s;

/* Ticks of a guest in which what is said with chance p comes true with
 * truth(p), known `delay` ticks later. Returns what the lists of the last half
 * showed. */
static double live(float (*truth)(float), unsigned ticks, unsigned delay)
{
    static float thresholds[MOST_DELAY], said[N];
    static uint8_t touched[N];
    double listed = 0, stale = 0;
    for (unsigned t = 0; t < ticks; t++) {
        float then = thresholds[t % (delay + 1)];
        thresholds[t % (delay + 1)] = fc_staleness_threshold(&s);
        if (t <= delay)
            continue;
        for (unsigned j = 0; j < N; j++) {
            said[j] = fc_squash((chance() - 0.8f) * 14);
            touched[j] = chance() < truth(said[j]);
            if (t >= ticks / 2 && said[j] <= then) {
                listed++;
                stale += touched[j];
            }
        }
        fc_staleness_learn(&s, N, said, touched, NULL, then);
    }
    return listed > 0 ? stale / listed : 1;
}

static float honest(float p)
{
    return p;
}

static float four_times(float p)
{
    return 4 * p;
}

static float a_quarter(float p)
{
    return p / 4;
}

static float never_cold(float p)
{
    return 0.3f + 0.7f * p;
}

static void test_starts_with_what_is_said(void **state)
{
    struct fc_staleness_view v;
    (void)state;
    fc_staleness_init(&s, 0.05f, 20);
    assert_float_equal(fc_staleness_threshold(&s), 0.05f, 1e-6);
    fc_staleness_look(&s, &v);
    assert_float_equal(v.confidence, 0, 0);
    assert_false(v.held);
}

static void test_holds_the_risk(void **state)
{
    static float (*const guests[])(float) = { honest, four_times, a_quarter };
    static const unsigned delays[] = { 1, 20, 200 };
    static const float risks[] = { 0.01f, 0.05f, 0.2f };
    (void)state;
    for (unsigned g = 0; g < 3; g++)
        for (unsigned d = 0; d < 3; d++)
            for (unsigned r = 0; r < 3; r++) {
                fc_staleness_init(&s, risks[r], delays[d]);
                double seen = live(guests[g], 1500, delays[d]);
                assert_true(seen < 1.3 * (double)risks[r]);
                /* too little is as bad, unless all of it is listed that is
                 * not said to be worse by far */
                assert_true(seen > 0.5 * (double)risks[r] ||
                            fc_staleness_threshold(&s) >
                                fminf(0.99f, 3.99f * risks[r]));
            }
}

static void test_follows_a_guest_that_changes(void **state)
{
    struct fc_staleness_view v;
    (void)state;
    fc_staleness_init(&s, 0.05f, 20);
    live(honest, 1000, 20);
    float before = fc_staleness_threshold(&s);
    double seen = live(four_times, 1500, 20);
    assert_true(fc_staleness_threshold(&s) < before / 2);
    assert_true(seen < 0.065);
    fc_staleness_look(&s, &v);
    assert_true(v.held);
    assert_true(v.reachable);
    assert_true(v.confidence > 0.85f && v.confidence < 0.96f);
}

/* A calm past is no leave to list what is said to be written soon. */
static void test_calm_ends(void **state)
{
    const float calm[] = { 0.4f, 0.4f, 0.01f, 0.3f };
    const uint8_t clean[] = { 0, 0, 0, 0 };
    (void)state;
    fc_staleness_init(&s, 0.05f, 20);
    for (unsigned t = 0; t < 2000; t++)
        fc_staleness_learn(&s, 4, calm, clean, NULL,
                           fc_staleness_threshold(&s));
    assert_true(fc_staleness_threshold(&s) >= 0.01f);
    assert_true(fc_staleness_threshold(&s) < 0.3f);
}

/* What a busy phase has taught is not held against the calm one after it. */
static void test_forgets_a_phase(void **state)
{
    const float said[] = { 0.01f, 0.01f, 0.02f, 0.02f };
    const uint8_t clean[] = { 0, 0, 0, 0 }, written[] = { 1, 1, 1, 1 };
    unsigned calls = 0;
    (void)state;
    fc_staleness_init(&s, 0.05f, 20);
    for (unsigned t = 0; t < 200; t++)
        fc_staleness_learn(&s, 4, said, written, NULL,
                           fc_staleness_threshold(&s));
    assert_true(fc_staleness_threshold(&s) < 0.01f);
    for (; calls < 1000 && fc_staleness_threshold(&s) < 0.02f; calls++)
        fc_staleness_learn(&s, 4, said, clean, NULL,
                           fc_staleness_threshold(&s));
    assert_true(calls < 500);
}

static void test_says_what_it_cannot_hold(void **state)
{
    struct fc_staleness_view v;
    (void)state;
    fc_staleness_init(&s, 0.01f, 20);
    live(never_cold, 1000, 20);
    fc_staleness_look(&s, &v);
    assert_false(v.reachable);
    assert_true(v.confidence < 0.8f);
}

static void test_sizes_count(void **state)
{
    /* One large item that is always touched beside many small clean ones. */
    const float said[] = { 0.02f, 0.001f, 0.001f, 0.001f, 0.001f };
    const uint8_t touched[] = { 1, 0, 0, 0, 0 };
    const uint32_t pages[] = { 512, 1, 1, 1, 1 };
    (void)state;
    fc_staleness_init(&s, 0.25f, 1);
    for (unsigned t = 0; t < 500; t++)
        fc_staleness_learn(&s, 5, said, touched, pages,
                           fc_staleness_threshold(&s));
    assert_true(fc_staleness_threshold(&s) < 0.02f);
    fc_staleness_init(&s, 0.25f, 1);
    for (unsigned t = 0; t < 500; t++)
        fc_staleness_learn(&s, 5, said, touched, NULL,
                           fc_staleness_threshold(&s));
    assert_true(fc_staleness_threshold(&s) > 0.02f);
}

static void test_absurd_input(void **state)
{
    const float said[] = { NAN, -1, 2, INFINITY };
    const uint8_t touched[] = { 1, 0, 1, 0 };
    struct fc_staleness_view v;
    (void)state;
    fc_staleness_init(&s, NAN, 0);
    assert_true(s.risk >= 0.0001f && s.risk <= 0.5f);
    fc_staleness_init(&s, 7, UINT32_MAX);
    assert_float_equal(s.risk, 0.5f, 0);
    for (unsigned t = 0; t < 100; t++)
        fc_staleness_learn(&s, 4, said, touched, NULL, NAN);
    fc_staleness_learn(&s, 0, said, touched, NULL, 1);
    fc_staleness_look(&s, &v);
    assert_true(v.threshold >= 0 && v.threshold <= 1);
    assert_true(v.confidence >= 0 && v.confidence <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_with_what_is_said),
        cmocka_unit_test(test_holds_the_risk),
        cmocka_unit_test(test_follows_a_guest_that_changes),
        cmocka_unit_test(test_calm_ends),
        cmocka_unit_test(test_forgets_a_phase),
        cmocka_unit_test(test_says_what_it_cannot_hold),
        cmocka_unit_test(test_sizes_count),
        cmocka_unit_test(test_absurd_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
