/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "approx.h"
#include "gaps.h"

static float chance(const struct fc_gaps *g, const struct fc_region *r,
                    uint32_t quiet, float horizon)
{
    float h[4] = { horizon, horizon, horizon, horizon }, p[4];
    fc_gaps_p(g, r, quiet, h, p);
    assert_true(p[0] == p[3]);
    return p[0];
}

/* Features and chances are made of these. */
static void approximations_are_near(void **state)
{
    (void)state;
    for (float x = 1e-30f; x < 1e30f; x *= 1.37f) {
        fc_float8 v = { x, 1, x, 1, x, 1, x, x };
        fc_approx_log2_8(&v);
        assert_true(fabsf(fc_approx_log2(x) - log2f(x)) < 1e-4f);
        assert_true(fabsf(v[7] - log2f(x)) < 1e-4f);
    }
    for (float x = -125.0f; x < 125.0f; x += 0.173f) {
        fc_float8 v = { 0, x, 0, x, 0, 0, 0, x };
        fc_approx_exp2_8(&v);
        assert_true(fabsf(fc_approx_exp2(x) / exp2f(x) - 1.0f) < 1e-4f);
        assert_true(fabsf(v[1] / exp2f(x) - 1.0f) < 1e-4f);
    }
    fc_float8 wild = { -INFINITY, INFINITY, -1e9f, 1e9f, NAN, 0, 1, -1 };
    fc_approx_exp2_8(&wild);
    for (unsigned i = 0; i < 8; i++)
        assert_true(isfinite(wild[i]) && wild[i] >= 0);
    assert_true(isfinite(fc_approx_exp2(-INFINITY)));
    assert_true(fabsf(fc_approx_within(0.5f, 2) - 0.75f) < 1e-3f);
}

/* A region touched every 20 ticks is due shortly before, not at once after. */
static void a_period_is_learned(void **state)
{
    (void)state;
    struct fc_gaps g;
    struct fc_region r = { .number = 0 };
    fc_gaps_init(&g);
    for (unsigned i = 0; i < 30; i++)
        fc_gaps_ended(&r, 20);
    assert_true(chance(&g, &r, 0, 1) < 0.1f);
    assert_true(chance(&g, &r, 0, 10) < 0.3f);
    assert_true(chance(&g, &r, 0, 23) > 0.9f);
    assert_true(chance(&g, &r, 15, 8) > 0.9f);
}

/* Bursts with a long pause between: within a burst the next touch is near,
 * past its end far. */
static void bursts_are_told_from_pauses(void **state)
{
    (void)state;
    struct fc_gaps g;
    struct fc_region r = { .number = 0 };
    fc_gaps_init(&g);
    for (unsigned burst = 0; burst < 10; burst++) {
        for (unsigned i = 0; i < 20; i++)
            fc_gaps_ended(&r, 1);
        fc_gaps_ended(&r, 600);
    }
    assert_true(chance(&g, &r, 0, 1) > 0.8f);
    assert_true(chance(&g, &r, 8, 20) < 0.4f);
    assert_true(chance(&g, &r, 500, 600) > 0.8f);
}

/* A region never seen to pause is taken for one like the guest's others. */
static void the_guest_is_the_prior(void **state)
{
    (void)state;
    struct fc_gaps quiet, busy;
    struct fc_region r = { .number = 0 };
    uint32_t age[64];
    uint8_t no[64] = { 0 }, yes[64];
    memset(yes, 1, sizeof(yes));
    fc_gaps_init(&quiet);
    fc_gaps_init(&busy);
    for (unsigned i = 0; i < 64; i++)
        age[i] = 100;
    for (unsigned i = 0; i < 200; i++) {
        fc_gaps_learn(&quiet, 64, age, no);
        fc_gaps_learn(&busy, 64, age, yes);
    }
    assert_true(chance(&quiet, &r, 100, 1) < 0.001f);
    assert_true(chance(&busy, &r, 100, 1) > 0.05f);
}

/* More time can only bring more touches; a chance is one at any age. */
static void chances_are_chances(void **state)
{
    (void)state;
    struct fc_gaps g;
    struct fc_region r = { .number = 0 };
    fc_gaps_init(&g);
    for (uint32_t i = 1; i < 100000; i = i * 3 / 2 + 1)
        fc_gaps_ended(&r, i);
    for (uint32_t quiet = 0; quiet < 1u << 30; quiet = quiet * 2 + 1) {
        float before = 0;
        for (float h = 1; h < 1e6f; h *= 3) {
            float p = chance(&g, &r, quiet, h);
            assert_true(p >= before - 1e-6f && p <= 1);
            before = p;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(approximations_are_near),
        cmocka_unit_test(a_period_is_learned),
        cmocka_unit_test(bursts_are_told_from_pauses),
        cmocka_unit_test(the_guest_is_the_prior),
        cmocka_unit_test(chances_are_chances),
    };
    return cmocka_run_group_tests_name("gaps", tests, NULL, NULL);
}
