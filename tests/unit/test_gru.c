/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "gru.h"
#include "gru_train.h"

#define MAX_N 67u

static const struct fc_gru_purpose purpose = {
    .features_hash = 1,
    .step_ms = 1000,
    .horizon_ms = { 50, 1000, 10000, 60000 },
};
static uint64_t rng_state = 88172645463325252ull;

/* uniform on [-1, 1) */
static float rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (float)(rng_state >> 40) * 0x1p-23f - 1.0f;
}

static float *random_floats(size_t n, float scale)
{
    float *v = malloc(n * sizeof(*v));
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = scale * rng();
    return v;
}

static struct fc_gru_model *model_of(struct fc_gru_shape shape, float scale)
{
    struct fc_gru_model *model;
    float *params = random_floats(fc_gru_offsets(shape).total, scale);
    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &model), 0);
    free(params);
    return model;
}

static void assert_near(const float *a, const float *b, size_t n, float within)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= within))
            fail_msg("[%zu]: %.9g, not %.9g", i, a[i], b[i]);
}

/* Three steps of `n` regions by a kernel beside the scalar one, in heap blocks
 * of exactly the size, so that the sanitizer sees a step too far. */
static void compare(const struct fc_gru_kernel *kernel,
                    struct fc_gru_shape shape, uint32_t n, float scale)
{
    const struct fc_gru_kernel *scalar = NULL;
    for (unsigned i = 0; fc_gru_kernel_at(i); i++)
        scalar = fc_gru_kernel_at(i);
    assert_string_equal(scalar->name, "scalar");

    struct fc_gru_model *model = model_of(shape, 0.3f);
    size_t states = (size_t)n * shape.hidden, outs = n * FC_GRU_OUTPUTS;
    float *h = random_floats(states, 1), *h_want = malloc(states * 4);
    float *out = random_floats(outs, 1), *out_want = random_floats(outs, 1);
    memcpy(h_want, h, states * 4);
    for (unsigned step = 0; step < 3; step++) {
        float *x = random_floats((size_t)n * shape.inputs, scale);
        kernel->step(model, n, x, h, out);
        scalar->step(model, n, x, h_want, out_want);
        assert_near(h, h_want, states, 1e-5f);
        assert_near(out, out_want, outs, 1e-5f * (1 + scale));
        free(x);
    }
    free(h), free(h_want), free(out), free(out_want);
    fc_gru_model_unref(model);
}

/* Would break: what is predicted depends on the processor. */
static void kernels_agree(void **state)
{
    (void)state;
    static const uint32_t inputs[] = { 1, 15, 16, 17, 40, FC_GRU_MAX_INPUTS };
    static const uint32_t counts[] = { 1, 3, 4, 7, 8, 9, MAX_N };

    assert_non_null(fc_gru_kernel_at(0));
    for (unsigned k = 0; fc_gru_kernel_at(k); k++)
        for (unsigned i = 0; i < sizeof(inputs) / sizeof(*inputs); i++)
            for (uint32_t hidden = 16; hidden <= FC_GRU_MAX_HIDDEN;
                 hidden += 16)
                for (unsigned c = 0; c < sizeof(counts) / sizeof(*counts); c++)
                    compare(fc_gru_kernel_at(k),
                            (struct fc_gru_shape){ inputs[i], hidden },
                            counts[c], 1.0f);
}

/* Would break: a wild input makes a state that is not a number, for good. */
static void wild_inputs_saturate(void **state)
{
    (void)state;
    struct fc_gru_shape shape = { 24, 32 };
    struct fc_gru_model *model = model_of(shape, 0.5f);
    for (unsigned k = 0; fc_gru_kernel_at(k); k++) {
        float *x = random_floats((size_t)MAX_N * shape.inputs, 1e6f);
        float *h = random_floats((size_t)MAX_N * shape.hidden, 1);
        float out[MAX_N * FC_GRU_OUTPUTS];
        fc_gru_kernel_at(k)->step(model, MAX_N, x, h, out);
        for (size_t i = 0; i < (size_t)MAX_N * shape.hidden; i++)
            assert_true(fabsf(h[i]) <= 1.0f);
        for (size_t i = 0; i < MAX_N * FC_GRU_OUTPUTS; i++)
            assert_true(isfinite(out[i]));
        free(x), free(h);
    }
    fc_gru_model_unref(model);
}

/* Would break: the engine's step is not one of the kernels', or it looks at
 * neighbours: each region's result is its own. */
static void regions_are_independent(void **state)
{
    (void)state;
    struct fc_gru_shape shape = { 24, 32 };
    struct fc_gru_model *model = model_of(shape, 0.5f);
    float *x = random_floats((size_t)MAX_N * shape.inputs, 1);
    float *h = calloc((size_t)MAX_N * shape.hidden, sizeof(*h));
    float out[MAX_N * FC_GRU_OUTPUTS], one[FC_GRU_OUTPUTS];

    assert_non_null(h);
    fc_gru_step(model, MAX_N, x, h, out);
    for (unsigned i = 0; i < MAX_N; i++) {
        float single[32] = { 0 };
        fc_gru_step(model, 1, x + i * shape.inputs, single, one);
        assert_memory_equal(single, h + i * shape.hidden, sizeof(single));
        assert_memory_equal(one, out + i * FC_GRU_OUTPUTS, sizeof(one));
    }
    free(x), free(h);
    fc_gru_model_unref(model);
}

/* Would break: a model that cannot be run, or that spoils every score. */
static void bad_models_are_refused(void **state)
{
    (void)state;
    static const struct fc_gru_shape bad[] = {
        { 0, 16 }, { FC_GRU_MAX_INPUTS + 1, 16 }, { 4, 0 }, { 4, 8 },
        { 4, 17 }, { 4, FC_GRU_MAX_HIDDEN + 16 },
    };
    struct fc_gru_shape good = { 4, 16 };
    struct fc_gru_model *model;
    size_t total = fc_gru_offsets(good).total;
    float *params = random_floats(total, 1);

    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(fc_gru_model_new(bad[i], &purpose, params, &model),
                         FC_EINVAL);
    params[total - 1] = 2 * FC_GRU_MAX_WEIGHT;
    assert_int_equal(fc_gru_model_new(good, &purpose, params, &model),
                     FC_EINVAL);
    params[total - 1] = NAN;
    assert_int_equal(fc_gru_model_new(good, &purpose, params, &model),
                     FC_EINVAL);
    free(params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_agree),
        cmocka_unit_test(wild_inputs_saturate),
        cmocka_unit_test(regions_are_independent),
        cmocka_unit_test(bad_models_are_refused),
    };
    return cmocka_run_group_tests_name("gru", tests, NULL, NULL);
}
