/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Chances that are off by a constant law would stay off, or calibrating would
 * change the order of a list. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "calibrate.h"
#include "mixture_kit.h"

#define N 1000u

static struct fc_calibrate c;

/* A scorer whose `said` comes true with the chance that `truth` gives. */
static void teach(float (*truth)(float said), unsigned calls)
{
    static float said[N];
    static uint8_t touched[N];
    for (unsigned t = 0; t < calls; t++) {
        for (unsigned j = 0; j < N; j++) {
            said[j] = fc_squash((chance() - 0.5f) * 16);
            touched[j] = chance() < truth(said[j]);
        }
        fc_calibrate_learn(&c, N, said, touched);
    }
}

static float calibrated(float p)
{
    float out;
    fc_calibrate_apply(&c, 1, &p, &out);
    return out;
}

static float as_said(float said)
{
    return said;
}

static float too_sure(float said)
{
    return fc_squash(0.5f * fc_stretch(said));
}

static float an_octave_less(float said)
{
    return fc_squash(fc_stretch(said) - 1);
}

static float backwards(float said)
{
    return 1 - said;
}

static void test_starts_as_the_identity(void **state)
{
    (void)state;
    fc_calibrate_init(&c);
    for (float p = 0.0001f; p < 1; p += 0.0173f)
        assert_float_equal(calibrated(p), p, 1e-5);
    assert_float_equal(fc_calibrate_error(&c), 0, 0);
}

static void test_learns_what_comes_true(void **state)
{
    static float (*const laws[])(float) = { as_said, too_sure, an_octave_less };
    (void)state;
    for (unsigned l = 0; l < 3; l++) {
        fc_calibrate_init(&c);
        teach(laws[l], 400);
        for (float p = 0.01f; p < 1; p += 0.0173f)
            assert_float_equal(calibrated(p), laws[l](p), 0.03);
        assert_true(fc_calibrate_error(&c) < 0.02f);
    }
}

static void test_follows_a_change(void **state)
{
    (void)state;
    fc_calibrate_init(&c);
    teach(as_said, 300);
    assert_float_equal(calibrated(0.5f), 0.5f, 0.03);
    teach(an_octave_less, 2000);
    assert_float_equal(calibrated(0.5f), 0.25f, 0.03);
}

static void test_order_is_kept(void **state)
{
    (void)state;
    fc_calibrate_init(&c);
    teach(backwards, 100);
    float before = calibrated(0);
    for (float p = 0.001f; p < 1; p += 0.001f) {
        float now = calibrated(p);
        assert_true(now > before);
        assert_true(now >= 0 && now <= 1);
        before = now;
    }
    /* of a scorer that is wrong throughout little more than the mean is left */
    assert_float_equal(calibrated(0.2f), 0.5f, 0.15);
}

static void test_in_bulk_as_singly(void **state)
{
    float p[67], bulk[67];
    (void)state;
    fc_calibrate_init(&c);
    teach(too_sure, 50);
    for (unsigned i = 0; i < 67; i++)
        p[i] = chance();
    fc_calibrate_apply(&c, 67, p, bulk);
    for (unsigned i = 0; i < 67; i++)
        assert_float_equal(bulk[i], calibrated(p[i]), 1e-6);
}

static void test_absurd_input(void **state)
{
    const float odd[] = { NAN, -3, 7, INFINITY, -INFINITY, 0, 1 };
    const uint8_t touched[] = { 1, 1, 0, 0, 1, 0, 1 };
    float out[7];
    (void)state;
    fc_calibrate_init(&c);
    fc_calibrate_learn(&c, 7, odd, touched);
    fc_calibrate_learn(&c, 0, odd, touched);
    fc_calibrate_apply(&c, 7, odd, out);
    for (unsigned i = 0; i < 7; i++)
        assert_true(out[i] >= 0 && out[i] <= 1);
    assert_true(isfinite(fc_calibrate_error(&c)));
    assert_int_equal(c.labels, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_as_the_identity),
        cmocka_unit_test(test_learns_what_comes_true),
        cmocka_unit_test(test_follows_a_change),
        cmocka_unit_test(test_order_is_kept),
        cmocka_unit_test(test_in_bulk_as_singly),
        cmocka_unit_test(test_absurd_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
