/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The GRU would adapt to a guest that never was: labels that did not come
 * true, rows of two regions in one window, or a pause taken for quiet. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "adapt.h"
#include "engine.h"
#include "gru.h"
#include "gru_train.h"
#include "windows.h"

#define REGION 16u    /* pages */
#define TICK_MS 1000u /* a step of the GRU at each tick */
#define HORIZON_TICKS                                                          \
    11u           /* of the third horizon: a tenth late still counts           \
                   */
#define WHOLE 44u /* steps until a window is whole: its rows and 12 */
#define MOST_AT_ONCE 16u
#define TICKS 400u
#define X_ERROR 2e-4f /* of the 16 bits in which rows are kept */

static struct fc_engine *engine;
static struct fc_windows *windows;
static unsigned now;        /* ticks of the engine */
static bool written[TICKS]; /* the one region that is looked at */
static float row[TICKS][FC_FEATURE_STRIDE]; /* its features */

/* What was offered: in place of the thread that learns (adapt.c). */
static struct offered {
    unsigned at; /* tick */
    float x[FC_ADAPT_STEPS][FC_FEATURE_STRIDE];
    float said[FC_ADAPT_STEPS][FC_GRU_OUTPUTS];
    signed char touched[FC_ADAPT_STEPS][FC_GRU_OUTPUTS];
} offered[64];
static unsigned offers;

bool fc_adapt_offer(struct fc_adapt *adapt, const struct fc_adapt_window *w)
{
    struct offered *o = &offered[offers++];
    (void)adapt;
    assert_true(offers < sizeof(offered) / sizeof(offered[0]));
    o->at = now;
    memcpy(o->x, w->x, sizeof(o->x));
    memcpy(o->said, w->said, sizeof(o->said));
    memcpy(o->touched, w->touched, sizeof(o->touched));
    return true;
}

static struct fc_gru_model *model_of(uint32_t step_ms)
{
    const struct fc_gru_shape shape = { FC_FEATURE_STRIDE, 16 };
    struct fc_gru_purpose purpose = { .features_hash = fc_feature_hash(),
                                      .step_ms = step_ms,
                                      .horizon_ms = { 1000, 1000, 10000,
                                                      60000 } };
    struct fc_gru_model *model;
    float *params = calloc(fc_gru_offsets(shape).total, sizeof(*params));
    assert_non_null(params);
    fc_gru_random_params(shape, 5, params);
    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &model), 0);
    free(params);
    return model;
}

static int set_up(void **state)
{
    struct fc_gru_model *model = model_of(TICK_MS);
    const struct fc_engine_config config = {
        .kind = FC_ENGINE_MEMORY,
        .pages = 4096,
        .tick_ms = TICK_MS,
        .horizon_ms = { 1000, 1000, 10000, 60000 },
        .gru = model,
    };
    (void)state;
    now = offers = 0;
    memset(written, 0, sizeof(written));
    int rc = fc_engine_create(&config, &engine);
    fc_gru_model_unref(model);
    return rc ? rc : fc_windows_new(&windows);
}

static int tear_down(void **state)
{
    (void)state;
    fc_windows_free(windows);
    fc_engine_destroy(engine);
    return 0;
}

/* A tick in which the region is written or not. */
static void live(bool write, uint32_t elapsed_ms)
{
    if (write)
        assert_int_equal(fc_engine_write(engine, 5 * REGION, 3), 0);
    assert_int_equal(fc_engine_tick(engine, elapsed_ms, NULL), 0);
    written[++now] = write;
    if (fc_engine_active(engine) == 1)
        memcpy(row[now], fc_engine_features(engine), sizeof(row[now]));
    fc_windows_tick(windows, engine, NULL);
}

static bool written_within(unsigned from, unsigned ticks)
{
    for (unsigned t = from + 1; t <= from + ticks; t++)
        if (written[t])
            return true;
    return false;
}

/* A habit with gaps shorter and longer than the horizon. */
static bool habit(unsigned tick)
{
    return tick % 61 < 20 ? tick % 3 == 0 : tick % 17 == 0;
}

static void tells_what_came_true(void **state)
{
    unsigned yes = 0, no = 0;
    (void)state;
    for (unsigned t = 1; t < 4 * WHOLE; t++)
        live(habit(t), TICK_MS);
    assert_int_equal(offers, 3);
    for (unsigned o = 0; o < offers; o++)
        for (unsigned i = 0; i < FC_ADAPT_STEPS; i++) {
            unsigned then = offered[o].at - (WHOLE - 1) + i;
            const signed char *touched = offered[o].touched[i];
            bool within = written_within(then, HORIZON_TICKS);
            assert_int_equal(touched[0], written[then + 1]);
            assert_int_equal(touched[1], written[then + 1]);
            assert_int_equal(touched[2], within);
            assert_int_equal(touched[3], -1); /* a minute is not over */
            yes += within;
            no += !within;
            for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
                assert_float_equal(offered[o].x[i][k], row[then][k], X_ERROR);
            for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
                assert_true(offered[o].said[i][z] >= 0 &&
                            offered[o].said[i][z] <= 1);
        }
    assert_true(yes > 10 && no > 10); /* the habit tests both */
}

/* A tick of three steps leaves the short horizons unknown. */
static void does_not_guess_between_looks(void **state)
{
    (void)state;
    for (unsigned t = 1; t < 2 * WHOLE && !offers; t++)
        live(true, t == 20 ? 3 * TICK_MS : TICK_MS);
    assert_int_equal(offers, 1);
    unsigned first = offered[0].at - (WHOLE - 1), unknown = 19 - first;
    assert_true(first < 19);
    for (unsigned i = 0; i < FC_ADAPT_STEPS; i++) {
        assert_int_equal(offered[0].touched[i][0], i == unknown ? -1 : 1);
        assert_int_equal(offered[0].touched[i][2], 1);
    }
}

static void a_pause_ends_windows(void **state)
{
    (void)state;
    for (unsigned t = 1; t <= 30; t++)
        live(true, TICK_MS);
    live(true, 5 * TICK_MS);
    unsigned paused = now;
    while (!offers && now < 4 * WHOLE)
        live(true, TICK_MS);
    assert_int_equal(offers, 1);
    assert_int_equal(offered[0].at, paused + WHOLE - 1);
}

static void regions_do_not_mix(void **state)
{
    (void)state;
    for (unsigned t = 1; t <= 2 * WHOLE; t++) {
        for (uint64_t r = 0; r < 100; r++)
            if (r % 2 || t % 2)
                assert_int_equal(fc_engine_write(engine, r * REGION, 1), 0);
        assert_int_equal(fc_engine_tick(engine, TICK_MS, NULL), 0);
        now++;
        fc_windows_tick(windows, engine, NULL);
        for (unsigned o = 0; o < offers; o++) {
            /* it is written at each tick, or at each second one */
            const signed char(*touched)[FC_GRU_OUTPUTS] = offered[o].touched;
            bool each = touched[0][0] && touched[1][0];
            for (unsigned i = 2; i < FC_ADAPT_STEPS; i++)
                assert_int_equal(touched[i][0], each ? 1 : touched[i % 2][0]);
            assert_true(each || touched[0][0] != touched[1][0]);
        }
    }
    assert_true(offers > MOST_AT_ONCE / 2 && offers <= 2 * MOST_AT_ONCE);
}

static void nothing_without_a_model(void **state)
{
    (void)state;
    assert_int_equal(fc_engine_set_gru(engine, NULL), 0);
    for (unsigned t = 1; t <= 2 * WHOLE; t++)
        live(true, TICK_MS);
    assert_int_equal(offers, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_what_came_true, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(does_not_guess_between_looks, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_pause_ends_windows, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(regions_do_not_mix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_without_a_model, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests_name("windows", tests, NULL, NULL);
}
