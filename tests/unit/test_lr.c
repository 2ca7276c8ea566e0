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

#include "halflife.h"
#include "lr.h"
#include "samples.h"

#define N 256u

static uint64_t seed = 88172645463325252ull;

static float uniform(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (float)(seed >> 40) / (float)(1 << 24);
}

static float x[N][FC_FEATURE_STRIDE];
static uint8_t touched[N];

/* Features at random, of which two decide. */
static void draw(float a, float b, float bias)
{
    for (unsigned i = 0; i < N; i++) {
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
            x[i][k] = 2 * uniform() - 1;
        float score = a * x[i][3] + b * x[i][30] + bias;
        touched[i] = uniform() < 1 / (1 + expf(-score));
    }
}

/* It must find what decides, and follow when that changes. */
static void regression_learns_and_follows(void **state)
{
    (void)state;
    static struct fc_lr lr;
    float w, p[FC_HORIZONS][N];
    float *const out[FC_HORIZONS] = { p[0], p[1], p[2], p[3] };
    fc_lr_init(&lr);
    for (unsigned i = 0; i < 200; i++) {
        draw(4, -3, -1);
        fc_lr_learn(&lr, 1, N, x[0], NULL, touched);
    }
    w = lr.w[3][1];
    assert_true(w > 3.5f && w < 4.5f);
    assert_true(fabsf(lr.w[30][1] + 3) < 0.5f);
    assert_true(fabsf(lr.w[FC_FEATURE_STRIDE][1] + 1) < 0.3f);
    assert_true(fabsf(lr.w[7][1]) < 0.3f);
    assert_true(lr.w[3][0] == 0); /* another horizon's is left alone */
    draw(4, -3, -1);
    fc_lr_p(lr.w, N - 1, x[0], NULL, out);
    for (unsigned i = 0; i < N - 1; i++) {
        float score = 4 * x[i][3] - 3 * x[i][30] - 1;
        assert_true(fabsf(p[1][i] - 1 / (1 + expf(-score))) < 0.12f);
    }
    for (unsigned i = 0; i < 1500; i++) {
        draw(-4, 3, 1);
        fc_lr_learn(&lr, 1, N, x[0], NULL, touched);
    }
    assert_true(lr.w[3][1] < -2 && lr.w[30][1] > 1);
}

/* Before anything is known it says what the region's own gaps say. */
static void regression_begins_with_hazards(void **state)
{
    (void)state;
    static struct fc_lr lr;
    float row[FC_FEATURE_STRIDE] = { 0 }, p[FC_HORIZONS][2];
    float *const out[FC_HORIZONS] = { p[0], p[1], p[2], p[3] };
    fc_lr_init(&lr);
    row[FC_FEATURE_HAZARD_1] = log2f(0.9f / 0.1f) / 12;
    fc_lr_p(lr.w, 1, row, NULL, out);
    assert_true(fabsf(p[1][0] - 0.9f) < 0.01f);
    assert_true(fabsf(p[0][0] - 0.5f) < 0.01f);
}

/* Labels all of one kind must not drive weights to infinity. */
static void regression_stays_finite(void **state)
{
    (void)state;
    static struct fc_lr lr;
    fc_lr_init(&lr);
    memset(x, 0, sizeof(x));
    memset(touched, 0, sizeof(touched));
    for (unsigned i = 0; i < 3000; i++)
        fc_lr_learn(&lr, 0, N, x[0], NULL, touched);
    for (unsigned k = 0; k < FC_LR_DIM; k++)
        assert_true(isfinite(lr.w[k][0]) && fabsf(lr.w[k][0]) < 40);
}

/* The EWMA scorer must use the half-life that ranks, and change with it. */
static void the_best_half_life_is_found(void **state)
{
    (void)state;
    struct fc_halflife h;
    fc_halflife_init(&h);
    for (unsigned round = 0; round < 2; round++) {
        unsigned best = round ? 1 : 5;
        for (unsigned t = 0; t < 1000; t++) {
            for (unsigned i = 0; i < N; i++) {
                for (unsigned k = 0; k < FC_REGION_RATES; k++)
                    x[i][FC_FEATURE_RATE_0 + k] = 2 * uniform() - 1;
                touched[i] = x[i][FC_FEATURE_RATE_0 + best] > 0.5f;
            }
            fc_halflife_learn(&h, N, x[0], touched);
        }
        assert_int_equal(h.best, best);
    }
}

/* What was said must come back in the tick in which it is due, once. */
static void samples_come_when_due(void **state)
{
    (void)state;
    struct fc_samples s;
    unsigned came = 0, taken = 0;
    fc_samples_init(&s);
    for (uint32_t now = 1000; now < 3000; now++) {
        const struct fc_sample *due;
        while ((due = fc_samples_due(&s, 2, now))) {
            assert_int_equal(due->due, now);
            assert_int_equal(due->taken + 200, now);
            assert_int_equal(due->number[0], due->taken);
            came++;
        }
        if (!fc_samples_wanted(&s, 2, now))
            continue;
        struct fc_sample *add = fc_samples_add(&s, 2, now, 200);
        assert_non_null(add);
        add->n = 1;
        add->number[0] = now;
        taken++;
    }
    assert_in_range(came, taken - FC_SAMPLES_PENDING, taken - 1);
    assert_true(came > 100);
    fc_samples_forget(&s, 2);
    assert_null(fc_samples_due(&s, 2, 5000));
    assert_true(fc_samples_wanted(&s, 2, 5000));
    fc_samples_dispose(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regression_learns_and_follows),
        cmocka_unit_test(regression_begins_with_hazards),
        cmocka_unit_test(regression_stays_finite),
        cmocka_unit_test(the_best_half_life_is_found),
        cmocka_unit_test(samples_come_when_due),
    };
    return cmocka_run_group_tests_name("lr", tests, NULL, NULL);
}
