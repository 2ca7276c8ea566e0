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

#include "engine.h"
#include "err.h"
#include "gru.h"

#define PAGES 65536u
#define REGION 16u

static const struct fc_engine_config memory = {
    .kind = FC_ENGINE_MEMORY,
    .pages = PAGES,
    .tick_ms = 50,
    .horizon_ms = { 50, 1000, 10000, 30000 },
};

static const struct fc_engine_config disk = {
    .kind = FC_ENGINE_DISK,
    .pages = 100000,
    .tick_ms = 600000,
    .horizon_ms = { 600000, 1800000, 14400000, 86400000 },
};

static struct fc_engine *engine(const struct fc_engine_config *config)
{
    struct fc_engine *e = NULL;
    assert_int_equal(fc_engine_create(config, &e), 0);
    return e;
}

static uint64_t seed = 88172645463325252ull;

static uint32_t some(uint32_t below)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)((seed >> 32) % below);
}

/*
 * A guest: regions 0..63 are written every tick, 64..127 every 20th (one after
 * another), 128..1023 now and then.
 */
static void guest_tick(struct fc_engine *e, unsigned t)
{
    for (uint64_t r = 0; r < 64; r++)
        fc_engine_write(e, r * REGION, 2);
    for (uint64_t r = 64; r < 128; r++)
        if ((t + r) % 20 == 0)
            fc_engine_write(e, r * REGION + 5, 3);
    for (unsigned i = 0; i < 3; i++)
        fc_engine_write(e, (128 + some(896)) * REGION + some(REGION), 1);
    assert_int_equal(fc_engine_tick(e, 50, NULL), 0);
}

/* All scores of all scorers. */
static void assert_chances(struct fc_engine *e)
{
    uint32_t n = fc_engine_active(e);
    for (unsigned id = 0; id <= FC_SCORER_MIXTURE; id++)
        for (unsigned z = 0; z < FC_HORIZONS; z++) {
            const float *p = fc_engine_scores(e, id, z);
            for (uint32_t i = 0; p && i < n; i++)
                assert_true(p[i] >= 0 && p[i] <= 1);
        }
    const float *x = fc_engine_features(e);
    for (uint32_t i = 0; i < n * FC_FEATURE_STRIDE; i++)
        assert_true(x[i] >= -2 && x[i] <= 2);
}

/* The whole point: the next writes are foreseen, page by page. */
static void a_guest_is_learned(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&memory);
    struct fc_engine_stats st;
    for (unsigned t = 0; t < 600; t++)
        guest_tick(e, t);
    /* the next tick is number 600: regions with (600 + r) % 20 == 0 */
    for (uint64_t r = 64; r < 128; r++) {
        float p = fc_engine_p(e, r * REGION + 6, 0);
        assert_true((600 + r) % 20 == 0 ? p > 0.3f : p < 0.3f);
        assert_true(fc_engine_p(e, r * REGION + 6, 1) > 0.8f);
    }
    assert_true(fc_engine_p(e, 0, 0) > 0.9f);
    assert_true(fc_engine_p(e, 10, 0) < 0.1f); /* of region 0, never written */
    assert_true(fc_engine_p(e, 500 * REGION, 0) < 0.1f);
    assert_true(fc_engine_p(e, 60000, 1) < 0.1f); /* idle */
    assert_chances(e);
    fc_engine_stats(e, &st);
    assert_int_equal(st.ticks, 600);
    assert_true(st.labels > 100000);
    assert_true(st.calibration_error[0] < 0.02f);
    fc_engine_destroy(e);
}

/* Readers index all arrays by the same place. */
static void references_name_their_regions(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&memory);
    for (unsigned t = 0; t < 40; t++)
        guest_tick(e, t);
    const struct fc_region_ref *ref = fc_engine_regions(e);
    uint32_t n = fc_engine_active(e);
    assert_true(n > 128);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(ref[i].pages, REGION);
        assert_int_equal(fc_engine_find(e, ref[i].first + 3), i);
        if (ref[i].first < 64 * REGION) {
            assert_int_equal(ref[i].quiet, 0);
            assert_int_equal(ref[i].now, 3);
            assert_int_equal(ref[i].mixed, 3);
        } else {
            assert_int_equal(ref[i].now == 0, ref[i].quiet > 0);
        }
    }
    assert_int_equal(fc_engine_find(e, PAGES), UINT32_MAX);
    fc_engine_destroy(e);
}

/* A broken sampler or a hostile trace may feed anything. */
static void what_is_out_of_range_is_cut(void **state)
{
    (void)state;
    struct fc_engine_config odd = memory;
    odd.pages = 100;
    struct fc_engine *e = engine(&odd);
    assert_int_equal(fc_engine_write(e, UINT64_MAX, UINT64_MAX), 0);
    assert_int_equal(fc_engine_write(e, 100, 1), 0);
    assert_int_equal(fc_engine_write(e, 5, 0), 0);
    assert_int_equal(fc_engine_active(e), 0);
    assert_int_equal(fc_engine_write(e, 90, UINT64_MAX), 0);
    assert_int_equal(fc_engine_read(e, 0, 1), FC_EINVAL);
    assert_int_equal(fc_engine_tick(e, 0, NULL), 0);
    assert_int_equal(fc_engine_tick(e, UINT32_MAX, NULL), 0);
    assert_int_equal(fc_engine_active(e), 2);
    const struct fc_region_ref *ref = fc_engine_regions(e);
    assert_int_equal(ref[1].first, 96);
    assert_int_equal(ref[1].pages, 4);
    assert_chances(e);
    fc_engine_destroy(e);
    odd.tick_ms = 0;
    assert_int_equal(fc_engine_create(&odd, &e), FC_EINVAL);
    odd = memory;
    odd.horizon_ms[2] = 49;
    assert_int_equal(fc_engine_create(&odd, &e), FC_EINVAL);
    odd = memory;
    odd.pages = 0;
    assert_int_equal(fc_engine_create(&odd, &e), FC_EINVAL);
}

/* A guest that writes everywhere must not make the engine grow for ever, and
 * its hot pages must stay known. */
static void the_bound_on_regions_holds(void **state)
{
    (void)state;
    struct fc_engine_config small = memory;
    struct fc_engine_stats st;
    small.max_active = 256;
    struct fc_engine *e = engine(&small);
    for (unsigned t = 0; t < 2000; t++) {
        fc_engine_write(e, (t * 7 % (PAGES / REGION)) * REGION, 1);
        for (uint64_t r = 0; r < 8; r++)
            fc_engine_write(e, (1000 + r) * REGION, 1);
        assert_int_equal(fc_engine_tick(e, 50, NULL), 0);
        assert_true(fc_engine_active(e) <= 256);
    }
    for (uint64_t r = 0; r < 8; r++) {
        assert_int_not_equal(fc_engine_find(e, (1000 + r) * REGION),
                             UINT32_MAX);
        assert_true(fc_engine_p(e, (1000 + r) * REGION, 0) > 0.8f);
    }
    fc_engine_stats(e, &st);
    assert_true(st.active < 256);
    fc_engine_destroy(e);
}

/* Regions long idle give their memory back. */
static void idle_regions_go(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&memory);
    fc_engine_write(e, 0, PAGES / 2);
    assert_int_equal(fc_engine_tick(e, 50, NULL), 0);
    assert_int_equal(fc_engine_active(e), PAGES / 2 / REGION);
    assert_int_equal(fc_engine_tick(e, 700000, NULL), 0);
    for (unsigned t = 0; t < 1000; t++)
        assert_int_equal(fc_engine_tick(e, 50, NULL), 0);
    assert_true(fc_engine_active(e) < 16);
    fc_engine_destroy(e);
}

/* Ticks come late, some by much: time must not drift, rates must hold. */
static void uneven_ticks_keep_time(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&memory);
    const struct fc_region_ref *ref;
    fc_engine_write(e, 0, 1);
    assert_int_equal(fc_engine_tick(e, 50, NULL), 0);
    for (unsigned t = 0; t < 100; t++)
        assert_int_equal(fc_engine_tick(e, 60, NULL), 0);
    ref = fc_engine_regions(e);
    assert_in_range(ref[0].quiet, 119, 121);
    for (unsigned t = 0; t < 100; t++)
        assert_int_equal(fc_engine_tick(e, t % 2 ? 10 : 90, NULL), 0);
    ref = fc_engine_regions(e);
    assert_in_range(ref[0].quiet, 218, 224);
    fc_engine_destroy(e);
}

/* A horizon set at run time is the one that is answered for. */
static void the_last_horizon_can_be_set(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&memory);
    for (unsigned t = 0; t < 300; t++)
        guest_tick(e, t);
    uint32_t at = fc_engine_find(e, 100 * REGION); /* every 20 ticks */
    assert_true(fc_engine_scores(e, FC_SCORER_MARKOV, 3)[at] > 0.9f);
    assert_int_equal(fc_engine_set_horizon(e, 3, 49), FC_EINVAL);
    assert_int_equal(fc_engine_set_horizon(e, 4, 100), FC_EINVAL);
    assert_int_equal(fc_engine_set_horizon(e, 3, 50), 0);
    guest_tick(e, 300); /* (300 + 100) % 20 == 0: written just now */
    at = fc_engine_find(e, 100 * REGION);
    assert_true(fc_engine_scores(e, FC_SCORER_MARKOV, 3)[at] < 0.2f);
    fc_engine_destroy(e);
}

/* Extents ahead of a stream are ranked before they were ever read. */
static void a_disk_stream_is_followed(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&disk);
    for (unsigned t = 0; t < 400; t++) {
        fc_engine_read(e, 1000 + t, 1);
        fc_engine_write(e, 50000 + t % 7, 1);
        assert_int_equal(fc_engine_tick(e, 600000, NULL), 0);
    }
    uint32_t next = fc_engine_find(e, 1400);
    assert_int_not_equal(next, UINT32_MAX);
    assert_true(fc_engine_scores(e, FC_SCORER_READAHEAD, 0)[next] > 0.2f);
    assert_true(fc_engine_p(e, 1400, 0) > 0.5f);
    assert_true(fc_engine_p(e, 1100, 0) < 0.05f);
    /* written only: known, but not expected to be read */
    assert_true(fc_engine_p(e, 50000, 0) < 0.05f);
    const float *x = fc_engine_features(e);
    uint32_t written = fc_engine_find(e, 50000);
    assert_int_not_equal(written, UINT32_MAX);
    assert_true(x[written * FC_FEATURE_STRIDE + FC_FEATURE_OTHER_0] >
                x[next * FC_FEATURE_STRIDE + FC_FEATURE_OTHER_0]);
    assert_chances(e);
    fc_engine_destroy(e);
}

/* A nightly job reads the same extents: the feature must say so beforehand. */
static void yesterday_is_remembered(void **state)
{
    (void)state;
    struct fc_engine *e = engine(&disk);
    for (unsigned t = 0; t < 144 * 8; t++) { /* ten minutes each */
        struct fc_rates rates = { .wall_s = 1700000000u + t * 600u };
        fc_engine_read(e, 90000, 1);
        if (t % 144 < 8)
            fc_engine_read(e, 20000, 1);
        assert_int_equal(fc_engine_tick(e, 600000, &rates), 0);
        uint32_t at = fc_engine_find(e, 20000);
        const float *x = fc_engine_features(e) + at * FC_FEATURE_STRIDE;
        if (t > 144 && t % 144 == 2)
            assert_true(x[FC_FEATURE_YESTERDAY] > 0.5f);
        if (t > 160 && t % 144 == 70)
            assert_true(x[FC_FEATURE_YESTERDAY] < -0.5f);
        if (t == 144 * 7 + 2)
            assert_true(x[FC_FEATURE_LAST_WEEK] > 0.5f);
        if (t == 144 * 7 + 70)
            assert_true(x[FC_FEATURE_LAST_WEEK] < -0.5f);
    }
    fc_engine_destroy(e);
}

/* A model whose answer is `p` whatever the input. */
static struct fc_gru_model *constant_model(float logit, uint64_t hash)
{
    struct fc_gru_shape shape = { .inputs = FC_FEATURE_STRIDE, .hidden = 16 };
    struct fc_gru_offsets o = fc_gru_offsets(shape);
    struct fc_gru_purpose purpose = { .features_hash = hash, .step_ms = 1000 };
    struct fc_gru_model *model = NULL;
    float *params = calloc(o.total, sizeof(*params));
    assert_non_null(params);
    for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
        params[o.bo + z] = logit;
    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &model), 0);
    free(params);
    return model;
}

/* The GRU has its say when there is one, and only then; a model for other
 * features is refused. */
static void the_gru_takes_part(void **state)
{
    (void)state;
    struct fc_gru_model *model = constant_model(2, fc_feature_hash());
    struct fc_gru_model *other = constant_model(2, fc_feature_hash() + 1);
    struct fc_engine *e = engine(&memory);
    float weight[FC_SCORERS], sum = 0;
    for (unsigned t = 0; t < 30; t++)
        guest_tick(e, t);
    assert_null(fc_engine_scores(e, FC_SCORER_GRU, 0));
    assert_null(fc_engine_scores(e, FC_SCORER_READAHEAD, 0));
    fc_engine_weights(e, 1, weight);
    assert_true(weight[FC_SCORER_GRU] == 0);
    assert_int_equal(fc_engine_set_gru(e, other), FC_EINVAL);
    assert_int_equal(fc_engine_set_gru(e, model), 0);
    for (unsigned t = 30; t < 90; t++)
        guest_tick(e, t);
    const float *p = fc_engine_scores(e, FC_SCORER_GRU, 2);
    assert_true(fabsf(p[0] - 0.8808f) < 0.001f);
    fc_engine_weights(e, 1, weight);
    assert_true(weight[FC_SCORER_GRU] > 0);
    for (unsigned id = 0; id < FC_SCORERS; id++)
        sum += weight[id];
    assert_true(fabsf(sum - 1) < 0.01f);
    assert_chances(e);
    assert_int_equal(fc_engine_set_gru(e, NULL), 0);
    guest_tick(e, 90);
    assert_null(fc_engine_scores(e, FC_SCORER_GRU, 0));
    fc_engine_destroy(e);
    fc_gru_model_unref(model);
    fc_gru_model_unref(other);
}

/* Many regions: those that wait for their turn must still be scored in time.
 */
static void quiet_regions_take_turns(void **state)
{
    (void)state;
    struct fc_engine_config large = memory;
    large.pages = 1u << 20;
    struct fc_engine *e = engine(&large);
    for (unsigned t = 0; t < 100; t++) {
        if (t == 0)
            fc_engine_write(e, 0, large.pages);
        fc_engine_write(e, 0, 16 * REGION);
        assert_int_equal(fc_engine_tick(e, 50, NULL), 0);
    }
    assert_int_equal(fc_engine_active(e), large.pages / REGION);
    assert_true(fc_engine_p(e, 8, 0) > 0.9f);
    for (uint64_t r = 100; r < large.pages / REGION; r += 1000)
        assert_true(fc_engine_p(e, r * REGION, 0) < 0.1f);
    fc_engine_destroy(e);
}

/* A model is bound to the table by this; names are what people see. */
static void the_table_is_whole(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FC_FEATURE_COUNT; i++)
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(fc_feature_table[i].name,
                                    fc_feature_table[k].name);
    assert_string_equal(fc_feature_table[FC_FEATURE_GAP].name, "gap");
    assert_int_equal(fc_feature_table[FC_FEATURE_RATE_6].half_life_ms, 256000);
    assert_string_equal(fc_scorer_name(FC_SCORER_MIXTURE), "mixture");
    assert_null(fc_scorer_name(FC_SCORER_MIXTURE + 1));
}

/* Training would learn from other features than the engine has in service. */
static void features_alone_are_the_same(void **state)
{
    struct fc_engine_config config = memory;
    struct fc_engine *whole = engine(&config);
    config.features_only = true;
    struct fc_engine *bare = engine(&config);
    (void)state;
    for (unsigned t = 0; t < 300; t++) {
        uint64_t before = seed;
        guest_tick(whole, t);
        seed = before; /* the same guest */
        guest_tick(bare, t);
        uint32_t n = fc_engine_active(whole);
        assert_int_equal(fc_engine_active(bare), n);
        assert_memory_equal(fc_engine_features(bare), fc_engine_features(whole),
                            n * FC_FEATURE_STRIDE * sizeof(float));
    }
    for (unsigned id = 0; id <= FC_SCORER_MIXTURE; id++)
        assert_null(fc_engine_scores(bare, id, 1));
    fc_engine_destroy(bare);
    fc_engine_destroy(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_is_learned),
        cmocka_unit_test(references_name_their_regions),
        cmocka_unit_test(what_is_out_of_range_is_cut),
        cmocka_unit_test(the_bound_on_regions_holds),
        cmocka_unit_test(idle_regions_go),
        cmocka_unit_test(uneven_ticks_keep_time),
        cmocka_unit_test(the_last_horizon_can_be_set),
        cmocka_unit_test(a_disk_stream_is_followed),
        cmocka_unit_test(yesterday_is_remembered),
        cmocka_unit_test(the_gru_takes_part),
        cmocka_unit_test(quiet_regions_take_turns),
        cmocka_unit_test(the_table_is_whole),
        cmocka_unit_test(features_alone_are_the_same),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
