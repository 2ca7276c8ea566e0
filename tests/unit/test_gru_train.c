/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "gru_train.h"
#include "matrix.h"

static uint64_t rng_state = 88172645463325252ull;

/* uniform on [-1, 1) */
static float rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (float)(rng_state >> 40) * 0x1p-23f - 1.0f;
}

static void fill(float *v, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        v[i] = scale * rng();
}

static void assert_near(const float *a, const float *b, size_t n, float within)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= within))
            fail_msg("[%zu]: %.9g, not %.9g", i, a[i], b[i]);
}

/* ---- PyTorch's numbers -------------------------------------------------- */

static float *read_block(FILE *f, const char *name, size_t n)
{
    char word[32];
    size_t count;
    float *v = malloc(n * sizeof(*v));
    assert_non_null(v);
    assert_int_equal(fscanf(f, "%31s %zu", word, &count), 2);
    assert_string_equal(word, name);
    assert_int_equal(count, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(fscanf(f, "%f", &v[i]), 1);
    return v;
}

/* PyTorch's logits and last state, step by step through every kernel. */
static void check_kernels(struct fc_gru_shape shape, const float *params,
                          const struct fc_gru_batch *b, const float *logits,
                          const float *state)
{
    static const struct fc_gru_purpose purpose;
    struct fc_gru_model *model;
    float h[64 * 4], out[64];

    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &model), 0);
    for (unsigned k = 0; fc_gru_kernel_at(k); k++) {
        memcpy(h, b->h, b->rows * shape.hidden * sizeof(*h));
        for (uint32_t step = 0; step < b->steps; step++) {
            size_t cell = (size_t)step * b->rows;
            fc_gru_kernel_at(k)->step(model, b->rows,
                                      b->x + cell * shape.inputs, h, out);
            assert_near(out, logits + cell * FC_GRU_OUTPUTS,
                        b->rows * FC_GRU_OUTPUTS, 2e-6f);
        }
        assert_near(h, state, b->rows * shape.hidden, 2e-6f);
    }
    fc_gru_model_unref(model);
}

/* Would break: forward, gradient or Adam is not what it is called. */
static void agrees_with_pytorch(void **unused)
{
    (void)unused;
    FILE *f = fopen("tests/unit/golden/gru-torch.txt", "r");
    struct fc_gru_shape shape;
    struct fc_gru_batch b = { .now = NULL };
    struct fc_gru_trainer t;

    assert_non_null(f);
    assert_int_equal(fscanf(f, "#%*[^\n] shape %u %u %u %u", &shape.inputs,
                            &shape.hidden, &b.steps, &b.rows),
                     4);
    size_t cells = (size_t)b.steps * b.rows;
    size_t total = fc_gru_offsets(shape).total;
    size_t outs = cells * FC_GRU_OUTPUTS, states = b.rows * shape.hidden;
    float *params = read_block(f, "params", total);
    float *x = read_block(f, "x", cells * shape.inputs);
    float *label = read_block(f, "label", outs);
    float *weight = read_block(f, "weight", outs);
    float *h = read_block(f, "h", states);
    float *logits = read_block(f, "logits", outs);
    float *state = read_block(f, "state", states);
    float *loss = read_block(f, "loss", 1);
    float *gradient = read_block(f, "gradient", total);
    float *updated = read_block(f, "updated", total);
    fclose(f);

    b.x = x, b.label = label, b.weight = weight, b.h = h;
    check_kernels(shape, params, &b, logits, state);
    assert_int_equal(fc_gru_trainer_init(&t, shape, params, b.steps, b.rows),
                     0);
    assert_true(fabs(fc_gru_trainer_gradient(&t, &b) - loss[0]) < 1e-6);
    assert_near(t.grads, gradient, total, 1e-6f);
    fc_gru_trainer_update(&t, 0.01f, 1e9f);
    assert_near(t.params, updated, total, 1e-5f);
    fc_gru_trainer_dispose(&t);
    free(params), free(x), free(label), free(weight), free(h), free(logits);
    free(state), free(loss), free(gradient), free(updated);
}

/* ---- finite differences ------------------------------------------------- */

enum { INPUTS = 7, HIDDEN = 16, STEPS = 5, ROWS = 6 };
static const struct fc_gru_shape small = { INPUTS, HIDDEN };
static float sx[STEPS * ROWS * INPUTS], slabel[STEPS * ROWS * FC_GRU_OUTPUTS];
static float sweight[STEPS * ROWS * FC_GRU_OUTPUTS], sh[ROWS * HIDDEN];
static float sparams[4096];

static struct fc_gru_batch small_batch(void)
{
    size_t total = fc_gru_offsets(small).total;
    assert_true(total <= sizeof(sparams) / sizeof(*sparams));
    fill(sparams, total, 0.5f);
    fill(sx, STEPS * ROWS * INPUTS, 1.5f);
    fill(sh, ROWS * HIDDEN, 0.8f);
    for (unsigned i = 0; i < STEPS * ROWS * FC_GRU_OUTPUTS; i++) {
        slabel[i] = rng() < 0 ? 0.0f : 1.0f;
        sweight[i] = rng() < -0.3f ? 0.0f : 1.0f + rng();
    }
    return (struct fc_gru_batch){ STEPS, ROWS, sx, NULL, slabel, sweight, sh };
}

/* Would break: an error in the chain rule, which training would only hide. */
static void gradient_is_the_difference_quotient(void **state)
{
    (void)state;
    struct fc_gru_batch b = small_batch();
    struct fc_gru_trainer t;
    size_t total = fc_gru_offsets(small).total;
    double most = 0, worst = 0;

    assert_int_equal(fc_gru_trainer_init(&t, small, sparams, STEPS, ROWS), 0);
    fc_gru_trainer_gradient(&t, &b);
    float *grads = malloc(total * sizeof(*grads));
    assert_non_null(grads);
    memcpy(grads, t.grads, total * sizeof(*grads));
    for (size_t i = 0; i < total; i++) {
        float keep = t.params[i], step = 0.01f;
        t.params[i] = keep + step;
        double up = fc_gru_trainer_gradient(&t, &b);
        t.params[i] = keep - step;
        double down = fc_gru_trainer_gradient(&t, &b);
        t.params[i] = keep;
        double got = (up - down) / (2 * (double)step);
        worst = fmax(worst, fabs(got - grads[i]));
        most = fmax(most, fabs(got));
    }
    /* the quotient itself is good to about 1e-5 in float */
    if (worst > 1e-4 || most < 1e-2)
        fail_msg("off by %g of at most %g", worst, most);
    free(grads);
    fc_gru_trainer_dispose(&t);
}

/* Would break: labels that are not known teach something. */
static void weightless_labels_teach_nothing(void **state)
{
    (void)state;
    struct fc_gru_batch b = small_batch();
    struct fc_gru_trainer t;
    size_t total = fc_gru_offsets(small).total;

    assert_int_equal(fc_gru_trainer_init(&t, small, sparams, STEPS, ROWS), 0);
    double loss = fc_gru_trainer_gradient(&t, &b);
    float *grads = malloc(total * sizeof(*grads));
    assert_non_null(grads);
    memcpy(grads, t.grads, total * sizeof(*grads));
    for (unsigned i = 0; i < STEPS * ROWS * FC_GRU_OUTPUTS; i++)
        if (sweight[i] == 0)
            slabel[i] = 1 - slabel[i];
    assert_true(fc_gru_trainer_gradient(&t, &b) == loss);
    assert_memory_equal(grads, t.grads, total * sizeof(*grads));

    memset(sweight, 0, sizeof(sweight));
    assert_true(fc_gru_trainer_gradient(&t, &b) == 0);
    fc_gru_trainer_update(&t, 0.01f, 1.0f);
    assert_memory_equal(t.params, sparams, total * sizeof(*sparams));
    free(grads);
    fc_gru_trainer_dispose(&t);
}

/* ---- learning ----------------------------------------------------------- */

/* A task that needs memory: was the input positive three steps ago? */
static double train_to_remember(float *params)
{
    static float x[8 * 32], label[8 * 32 * FC_GRU_OUTPUTS];
    static float weight[8 * 32 * FC_GRU_OUTPUTS];
    struct fc_gru_batch b = { 8, 32, x, NULL, label, weight, NULL };
    struct fc_gru_shape shape = { 1, 16 };
    struct fc_gru_trainer t;
    double loss = 0;

    rng_state = 4242;
    fc_gru_random_params(shape, 1, params);
    assert_int_equal(fc_gru_trainer_init(&t, shape, params, 8, 32), 0);
    for (unsigned round = 0; round < 600; round++) {
        fill(x, 8 * 32, 1);
        memset(weight, 0, sizeof(weight));
        for (unsigned i = 3 * 32; i < 8 * 32; i++) {
            label[i * FC_GRU_OUTPUTS] = x[i - 3 * 32] > 0 ? 1 : 0;
            weight[i * FC_GRU_OUTPUTS] = 1;
        }
        loss = fc_gru_trainer_gradient(&t, &b);
        fc_gru_trainer_update(&t, 0.01f, 1.0f);
    }
    memcpy(params, t.params, t.at.total * sizeof(*params));
    fc_gru_trainer_dispose(&t);
    return loss;
}

/* Would break: training does not train, or not the same twice. */
static void learns_to_remember(void **state)
{
    (void)state;
    struct fc_gru_shape shape = { 1, 16 };
    size_t total = fc_gru_offsets(shape).total;
    float first[2048], second[2048];

    assert_true(total <= 2048);
    double loss = train_to_remember(first);
    if (loss > 0.25) /* guessing: log 2 = .69 */
        fail_msg("loss %g", loss);
    train_to_remember(second);
    assert_memory_equal(first, second, total * sizeof(*first));
}

/* ---- the arithmetic ----------------------------------------------------- */

/* Would break: weights trained on one processor are not those of another. */
static void sums_are_in_order(void **state)
{
    (void)state;
    enum { R = 11, K = 19, N = 36 };
    static float a[R * K], b[K * N], got[R * N], want[R * N];

    for (unsigned turned = 0; turned < 2; turned++) {
        fill(a, R * K, 1), fill(b, K * N, 1), fill(got, R * N, 1);
        memcpy(want, got, sizeof(got));
        struct fc_matrix_view view = { a, turned ? 1 : K, turned ? R : 1 };
        fc_matrix_muladd(R, K, N, view, b, got);
        for (unsigned r = 0; r < R; r++)
            for (unsigned j = 0; j < N; j++)
                for (unsigned k = 0; k < K; k++) {
                    volatile float product =
                        a[r * view.row_stride + k * view.k_stride] *
                        b[k * N + j];
                    want[r * N + j] += product;
                }
        assert_memory_equal(got, want, sizeof(got));
    }
}

/* Would break: gates off by more than the kernels', or not a number. */
static void functions_are_close(void **state)
{
    (void)state;
    static const float wild[] = { 1e30f, -1e30f, INFINITY, -INFINITY };
    for (unsigned i = 0; i < 4000; i++) {
        float x = (float)i * 0.02f - 40.0f, v[8] = { x }, s[4] = { x };
        fc_matrix_sigmoid(4, s);
        assert_true(fabs(s[0] - 1 / (1 + exp(-(double)x))) < 1e-6);
        fc_matrix_tanh(8, v);
        assert_true(fabs(v[0] - tanh((double)x)) < 1e-6);
    }
    for (unsigned i = 0; i < 4; i++) {
        float s[4] = { wild[i] }, t[4] = { wild[i] };
        fc_matrix_sigmoid(4, s);
        fc_matrix_tanh(4, t);
        assert_true(fabsf(s[0] - (i % 2 ? 0.0f : 1.0f)) < 1e-6f);
        assert_true(fabsf(t[0] - (i % 2 ? -1.0f : 1.0f)) < 1e-6f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_pytorch),
        cmocka_unit_test(gradient_is_the_difference_quotient),
        cmocka_unit_test(weightless_labels_teach_nothing),
        cmocka_unit_test(learns_to_remember),
        cmocka_unit_test(sums_are_in_order),
        cmocka_unit_test(functions_are_close),
    };
    return cmocka_run_group_tests_name("gru_train", tests, NULL, NULL);
}
