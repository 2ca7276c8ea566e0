/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A scorer that fails would drag the mixture down, or one that is right would
 * not be followed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "err.h"
#include "mixture.h"
#include "mixture_kit.h"
#include "stretch.h"

#define N 500u
enum { EWMA, MARKOV, LEARNED, SCORERS };
static const char *const names[SCORERS] = { "ewma", "markov", "learned" };

static struct fc_mixture *m;
static float says[SCORERS][N], out[N];
static uint8_t touched[N];
static const float *p[SCORERS];

static int set_up(void **state)
{
    const struct fc_mixture_config config = {
        .scorers = SCORERS,
        .horizons = 2,
        .simple = 1u << EWMA | 1u << MARKOV,
        .names = names,
    };
    (void)state;
    for (unsigned i = 0; i < SCORERS; i++)
        p[i] = says[i];
    return fc_mixture_create(&config, &m);
}

static int tear_down(void **state)
{
    (void)state;
    fc_mixture_destroy(m);
    return 0;
}

static double bits(float chance_of, bool hit)
{
    float x = hit ? chance_of : 1 - chance_of;
    return -log2(x > 1e-5f ? (double)x : 1e-5);
}

static double loss_of(const float *said)
{
    double sum = 0;
    for (unsigned j = 0; j < N; j++)
        sum += bits(said[j], touched[j]);
    return sum / N;
}

/* One tick in which scorer `good` knows the truth and the others are off by
 * `noise` octaves. */
static void make_tick(unsigned good, float noise)
{
    for (unsigned j = 0; j < N; j++) {
        float u = (chance() - 0.6f) * 10;
        touched[j] = chance() < fc_squash(u);
        for (unsigned i = 0; i < SCORERS; i++) {
            float off = i == good ? 0 : (chance() - 0.5f) * noise;
            says[i][j] = fc_squash(u + off);
        }
    }
}

static void ticks(unsigned count, unsigned good, float noise)
{
    for (unsigned t = 0; t < count; t++) {
        make_tick(good, noise);
        fc_mixture_learn(m, 0, N, p, touched);
    }
}

static void assert_shares_sum_to_one(void)
{
    const float *w = fc_mixture_weights(m, 0);
    float sum = 0;
    for (unsigned i = 0; i < SCORERS; i++) {
        assert_true(w[i] >= 0);
        sum += w[i];
    }
    assert_float_equal(sum, 1, 1e-4);
}

static void test_starts_even(void **state)
{
    (void)state;
    assert_shares_sum_to_one();
    for (unsigned i = 0; i < SCORERS; i++)
        assert_float_equal(fc_mixture_weights(m, 1)[i], 1.0f / SCORERS, 1e-5);
    for (unsigned j = 0; j < N; j++)
        for (unsigned i = 0; i < SCORERS; i++)
            says[i][j] = 0.25f;
    fc_mixture_combine(m, 1, N, p, out);
    for (unsigned j = 0; j < N; j++)
        assert_float_equal(out[j], 0.25f, 1e-5);
}

static void test_follows_the_best_and_a_new_best(void **state)
{
    (void)state;
    ticks(100, LEARNED, 8);
    assert_true(fc_mixture_weights(m, 0)[LEARNED] > 0.8f);
    assert_shares_sum_to_one();
    ticks(100, EWMA, 8);
    assert_true(fc_mixture_weights(m, 0)[EWMA] > 0.8f);
    /* the other horizon has seen nothing */
    assert_float_equal(fc_mixture_weights(m, 1)[EWMA], 1.0f / SCORERS, 1e-5);
}

static void test_never_far_from_the_best(void **state)
{
    double ours = 0, best = 0;
    (void)state;
    for (unsigned phase = 0; phase < 9; phase++)
        for (unsigned t = 0; t < 100; t++) {
            make_tick(phase % SCORERS, 10);
            fc_mixture_combine(m, 0, N, p, out);
            ours += loss_of(out);
            best += loss_of(says[phase % SCORERS]);
            fc_mixture_learn(m, 0, N, p, touched);
        }
    assert_true(ours < best * 1.05);
}

static void test_an_absent_opinion(void **state)
{
    (void)state;
    ticks(100, LEARNED, 8);
    float had = fc_mixture_weights(m, 0)[LEARNED];
    make_tick(EWMA, 8);
    p[LEARNED] = NULL;
    fc_mixture_combine(m, 0, N, p, out);
    for (unsigned j = 0; j < N; j++)
        assert_true(out[j] > 0 && out[j] < 1);
    for (unsigned t = 0; t < 10; t++)
        fc_mixture_learn(m, 0, N, p, touched);
    assert_true(fc_mixture_weights(m, 0)[LEARNED] > 0.6f * had);
    for (unsigned i = 0; i < SCORERS; i++)
        p[i] = NULL;
    fc_mixture_combine(m, 0, N, p, out);
    fc_mixture_learn(m, 0, N, p, touched);
    assert_shares_sum_to_one();
    for (unsigned j = 0; j < N; j++)
        assert_true(out[j] >= 0 && out[j] <= 1);
}

static void test_absurd_opinions(void **state)
{
    (void)state;
    make_tick(EWMA, 8);
    says[EWMA][0] = NAN;
    says[EWMA][1] = INFINITY;
    says[MARKOV][2] = -4;
    for (unsigned t = 0; t < 50; t++)
        fc_mixture_learn(m, 0, N, p, touched);
    fc_mixture_combine(m, 0, N, p, out);
    assert_shares_sum_to_one();
    for (unsigned j = 0; j < N; j++)
        assert_true(out[j] >= 0 && out[j] <= 1);
}

static void test_in_place(void **state)
{
    (void)state;
    ticks(20, LEARNED, 8);
    make_tick(LEARNED, 8);
    fc_mixture_combine(m, 0, N, p, out);
    fc_mixture_combine(m, 0, N, p, says[EWMA]);
    assert_memory_equal(out, says[EWMA], sizeof(out));
}

static void test_new_phase_trusts_the_simple(void **state)
{
    char text[200];
    (void)state;
    ticks(100, LEARNED, 8);
    assert_true(fc_mixture_changed(m, 0));
    assert_false(fc_mixture_changed(m, 0));
    for (unsigned t = 0; t < 600; t++)
        assert_false(fc_mixture_phase(m, 900 + 200 * chance(), 50));
    assert_true(fc_mixture_weights(m, 0)[LEARNED] > 0.8f);
    unsigned t = 0;
    while (t < 40 && !fc_mixture_phase(m, 20000, 50))
        t++;
    assert_true(t < 30);
    assert_true(fc_mixture_weights(m, 0)[LEARNED] < 0.4f);
    assert_shares_sum_to_one();
    assert_true(fc_mixture_changed(m, 0));
    fc_mixture_explain(m, 0, text, sizeof(text));
    assert_non_null(strstr(text, "new phase"));
    /* it is the same phase from now on */
    for (t = 0; t < 600; t++)
        assert_false(fc_mixture_phase(m, 20000, 50));
    /* and the learned one can earn its place again */
    ticks(100, LEARNED, 8);
    assert_true(fc_mixture_weights(m, 0)[LEARNED] > 0.8f);
    fc_mixture_explain(m, 0, text, sizeof(text));
    assert_non_null(strstr(text, "learned"));
    assert_non_null(strstr(text, "by what was seen"));
}

static void test_a_burst_is_no_phase(void **state)
{
    (void)state;
    for (unsigned t = 0; t < 1000; t++)
        assert_false(fc_mixture_phase(m, t % 100 == 50 ? 50000 : 1000, 50));
    assert_false(fc_mixture_phase(m, NAN, 50));
    assert_false(fc_mixture_phase(m, INFINITY, 50));
    assert_false(fc_mixture_phase(m, -5, 50));
}

static void test_what_it_says(void **state)
{
    struct fc_mixture_view v;
    char text[200], tiny[8];
    (void)state;
    fc_mixture_explain(m, 0, text, sizeof(text));
    assert_non_null(strstr(text, "nothing seen yet"));
    ticks(200, MARKOV, 8);
    fc_mixture_look(m, 0, &v);
    assert_int_equal(v.best, MARKOV);
    assert_int_equal(v.labels, 200 * N);
    assert_int_equal(v.reason, FC_MIXTURE_SEEN);
    assert_true(v.loss_bits > 0 && v.loss_bits < v.best_loss_bits * 1.1f);
    assert_string_equal(fc_mixture_explain(m, 0, tiny, sizeof(tiny)),
                        "markov ");
}

static void test_bounds(void **state)
{
    struct fc_mixture_config config = { .scorers = 0,
                                        .horizons = 1,
                                        .names = names };
    struct fc_mixture *none = NULL;
    (void)state;
    assert_int_equal(fc_mixture_create(&config, &none), FC_EINVAL);
    config.scorers = FC_MIXTURE_MAX_SCORERS + 1;
    assert_int_equal(fc_mixture_create(&config, &none), FC_EINVAL);
    config.scorers = 1;
    config.horizons = FC_MIXTURE_MAX_HORIZONS + 1;
    assert_int_equal(fc_mixture_create(&config, &none), FC_EINVAL);
    assert_null(none);
    config.horizons = 1;
    assert_int_equal(fc_mixture_create(&config, &none), 0);
    fc_mixture_combine(none, 0, N, p, out);
    fc_mixture_destroy(none);
    fc_mixture_destroy(NULL);
}

#define RARE 64u /* one item of so many is touched */

/* One tick: scorer 0 orders well, but so faintly that it says little more of
 * one than of another; 1 says more, and of the wrong ones as well. */
static void rare(float chance[2][256], uint8_t *hit)
{
    for (uint32_t i = 0; i < 256; i++) {
        hit[i] = i % RARE == 0;
        chance[0][i] = hit[i] ? 0.02f : 0.014f;
        chance[1][i] = i % RARE < 4 ? 0.25f : 0.004f;
    }
}

/* Would break: the scorer with the better order does not lead where it is
 * asked for, or it does where it is not. */
static void order_leads(void **state)
{
    (void)state;
    static const char *const two[] = { "order", "loss" };
    float chance[2][256], mean[256], lead[256];
    const float *said[] = { chance[0], chance[1] };
    uint8_t hit[256];
    rare(chance, hit);
    for (unsigned by_order = 0; by_order < 2; by_order++) {
        struct fc_mixture_config config = {
            .scorers = 2, .horizons = 1, .names = two, .by_order = by_order
        };
        struct fc_mixture *mix;
        assert_int_equal(fc_mixture_create(&config, &mix), 0);
        for (unsigned i = 0; i < 100; i++)
            fc_mixture_learn(mix, 0, 256, said, hit);
        fc_mixture_combine(mix, 0, 256, said, by_order ? lead : mean);
        fc_mixture_destroy(mix);
    }
    /* 1 is wrong of items 1 to 3: believed half as much, at most */
    assert_true(lead[1] < 0.5f * mean[1]);
    assert_true(lead[0] > lead[4]);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_leads),
        T(test_starts_even),
        T(test_follows_the_best_and_a_new_best),
        T(test_never_far_from_the_best),
        T(test_an_absent_opinion),
        T(test_absurd_opinions),
        T(test_in_place),
        T(test_new_phase_trusts_the_simple),
        T(test_a_burst_is_no_phase),
        T(test_what_it_says),
        T(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
