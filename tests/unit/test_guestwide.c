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

#include "cycle.h"
#include "guestwide.h"

/* A guest that works 2 s of each 7: by this a migration finds its moment. */
static void a_cycle_is_found(void **state)
{
    (void)state;
    struct fc_cycle c;
    fc_cycle_init(&c);
    for (unsigned t = 0; t < 2400; t++)
        fc_cycle_add(&c, t % 140 < 40 ? 500.0f : 5.0f, 1);
    assert_in_range(c.length * FC_CYCLE_TICKS, 135, 145);
    assert_true(c.clear > 0.8f);
    /* 2400 % 140 == 20: amid the work; 60 ticks on it is quiet */
    assert_true(fc_cycle_ahead(&c, 60) < -3.0f);
    assert_true(fabsf(fc_cycle_ahead(&c, 140)) < 0.5f);
    float phase = fc_cycle_phase(&c);
    assert_true(phase >= 0 && phase < 0.3f);
}

/* Seeing a cycle where none is would move migrations about for nothing. */
static void no_cycle_is_seen_in_noise_or_rest(void **state)
{
    (void)state;
    struct fc_cycle c;
    uint64_t x = 88172645463325252ull;
    fc_cycle_init(&c);
    for (unsigned t = 0; t < 3000; t++)
        fc_cycle_add(&c, 7.0f, 1);
    assert_int_equal(c.length, 0);
    fc_cycle_init(&c);
    for (unsigned t = 0; t < 3000; t++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        fc_cycle_add(&c, (float)(x % 1000), 1);
    }
    assert_int_equal(c.length, 0);
    assert_true(fc_cycle_ahead(&c, 10) == 0);
    assert_true(fc_cycle_phase(&c) == 0);
}

/* Rates come from counters that may jump, hints from the guest: whatever they
 * are, features stay within sense. */
static void absurd_rates_are_clipped(void **state)
{
    (void)state;
    struct fc_guestwide g;
    float row[FC_FEATURE_STRIDE] = { 0 };
    const float wild[] = { NAN, INFINITY, -INFINITY, -1e30f, 1e30f };
    fc_guestwide_init(&g, 4, 1280);
    fc_guestwide_add(&g, UINT32_MAX, UINT32_MAX, 1);
    for (unsigned i = 0; i < 5; i++) {
        float w = wild[i];
        struct fc_rates rates = { w, w, w, w, w, { w, w, w, w }, UINT64_MAX };
        fc_guestwide_row(&g, &rates, 20, row);
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
            assert_true(row[k] >= -2.0f && row[k] <= 2.0f);
    }
}

/* An event announced and one that goes on are told apart. */
static void hints_become_features(void **state)
{
    (void)state;
    struct fc_guestwide g;
    float row[FC_FEATURE_STRIDE] = { 0 };
    struct fc_rates rates = { .hint = { 0.25f, 0.75f, 0, 0 } };
    fc_guestwide_init(&g, 4, 1280);
    fc_guestwide_row(&g, &rates, 20, row);
    assert_true(row[FC_FEATURE_HINT_SOON] == 0.75f);
    assert_true(row[FC_FEATURE_HINT_BUSY] == 0);
    rates.hint[3] = 1;
    fc_guestwide_row(&g, &rates, 20, row);
    assert_true(row[FC_FEATURE_HINT_BUSY] == 1);
    fc_guestwide_row(&g, NULL, 20, row);
    assert_true(row[FC_FEATURE_HINT_SOON] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cycle_is_found),
        cmocka_unit_test(no_cycle_is_seen_in_noise_or_rest),
        cmocka_unit_test(absurd_rates_are_clipped),
        cmocka_unit_test(hints_become_features),
    };
    return cmocka_run_group_tests_name("guestwide", tests, NULL, NULL);
}
