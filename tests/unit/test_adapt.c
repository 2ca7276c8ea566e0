/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "adapt.h"
#include "err.h"
#include "gru_train.h"

static const struct fc_gru_shape shape = { 3, 16 };
static float x[FC_ADAPT_STEPS][3];
static float said[FC_ADAPT_STEPS][FC_GRU_OUTPUTS];
static signed char touched[FC_ADAPT_STEPS][FC_GRU_OUTPUTS];
static const struct fc_adapt_window window = { x[0], said, touched };

static struct fc_gru_model *start(void)
{
    static const struct fc_gru_purpose purpose = {
        .step_ms = 1000,
        .horizon_ms = { 50, 1000, 10000, 60000 },
    };
    struct fc_gru_model *model;
    size_t total = fc_gru_offsets(shape).total;
    float *params = malloc(total * sizeof(*params));

    assert_non_null(params);
    fc_gru_random_params(shape, 3, params);
    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &model), 0);
    free(params);
    return model;
}

/* A guest of which all is touched, always. */
static void fill_window(signed char label)
{
    for (unsigned i = 0; i < FC_ADAPT_STEPS; i++)
        for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++) {
            x[i][z % 3] = 0.5f;
            said[i][z] = 0.5f;
            touched[i][z] = label;
        }
}

static float first_logit(const struct fc_gru_model *model)
{
    float h[16] = { 0 }, out[FC_GRU_OUTPUTS];
    for (unsigned i = 0; i < FC_ADAPT_STEPS; i++)
        fc_gru_step(model, 1, x[0], h, out);
    return out[0];
}

/* Offers until so many updates were made: a minute at the most. */
static struct fc_adapt_stats feed(struct fc_adapt *a, uint64_t updates)
{
    for (unsigned i = 0; i < 60000; i++) {
        if (fc_adapt_stats(a).updates >= updates)
            return fc_adapt_stats(a);
        for (unsigned j = 0; j < 20; j++)
            fc_adapt_offer(a, &window);
        usleep(1000);
    }
    fail_msg("%llu updates", (unsigned long long)fc_adapt_stats(a).updates);
    return fc_adapt_stats(a);
}

/* Would break: the weights stay as they ship whatever the guest does, or a
 * model changes under those that use it. */
static void follows_the_guest(void **state)
{
    (void)state;
    struct fc_gru_model *first = start();
    struct fc_adapt *a;
    float before;

    fill_window(1);
    before = first_logit(first);
    assert_int_equal(fc_adapt_new(first, first, 1.0f, &a), 0);
    struct fc_adapt_stats stats = feed(a, 40);
    struct fc_gru_model *now = fc_adapt_model(a);
    assert_true(first_logit(now) > before);
    assert_true(first_logit(first) == before);
    assert_true(stats.offered > stats.dropped);
    assert_true(stats.loss > 0 && isfinite(stats.loss));
    assert_true(stats.gain > 0 && isfinite(stats.gain));
    fc_adapt_free(a);
    assert_true(first_logit(now) > before);
    fc_gru_model_unref(now);
    fc_gru_model_unref(first);
}

/* Would break: what is shown as gained is against other weights than those that
 * ship, or the sign is the other way round. */
static void is_compared_with_others(void **state)
{
    (void)state;
    struct fc_gru_model *first = start(), *sure;
    struct fc_gru_offsets at = fc_gru_offsets(shape);
    struct fc_adapt *a;
    float *params = calloc(at.total, sizeof(*params));
    assert_non_null(params);
    /* says 1 - 1/1097 of all, whatever it sees */
    for (unsigned z = 0; z < FC_GRU_OUTPUTS; z++)
        params[at.bo + z] = 7;
    assert_int_equal(fc_gru_model_new(shape, &first->purpose, params, &sure),
                     0);
    for (signed char touches = 0; touches < 2; touches++) {
        fill_window(touches);
        assert_int_equal(fc_adapt_new(first, sure, 1.0f, &a), 0);
        struct fc_adapt_stats stats = feed(a, 1);
        assert_float_equal(stats.loss + stats.gain,
                           touches ? log1p(exp(-7)) : log1p(exp(7)), 1e-4);
        fc_adapt_free(a);
    }
    struct fc_gru_model *other;
    struct fc_gru_shape wide = { 4, 16 };
    float *more = calloc(fc_gru_offsets(wide).total, sizeof(*more));
    assert_non_null(more);
    assert_int_equal(fc_gru_model_new(wide, &first->purpose, more, &other), 0);
    assert_int_equal(fc_adapt_new(first, other, 1.0f, &a), FC_EINVAL);
    free(more);
    free(params);
    fc_gru_model_unref(other);
    fc_gru_model_unref(sure);
    fc_gru_model_unref(first);
}

/* Would break: labels that have not come true yet are learned. */
static void unknown_labels_change_nothing(void **state)
{
    (void)state;
    struct fc_gru_model *first = start();
    struct fc_adapt *a;

    fill_window(-1);
    assert_int_equal(fc_adapt_new(first, first, 1.0f, &a), 0);
    struct fc_adapt_stats stats = feed(a, 3);
    assert_true(stats.loss == 0 && stats.gain == 0);
    struct fc_gru_model *now = fc_adapt_model(a);
    assert_memory_equal(now->params, first->params,
                        fc_gru_offsets(shape).total * sizeof(float));
    fc_gru_model_unref(now);
    fc_adapt_free(a);
    fc_gru_model_unref(first);
}

/* Would break: an engine that offers faster than is learned fills the memory
 * or waits; a thread that rests cannot be stopped. */
static void offers_are_bounded(void **state)
{
    (void)state;
    struct fc_gru_model *first = start();
    struct fc_adapt *a;

    fill_window(1);
    assert_int_equal(fc_adapt_new(first, first, 0.0f, &a), FC_EINVAL);
    assert_int_equal(fc_adapt_new(first, first, 1.5f, &a), FC_EINVAL);
    assert_int_equal(fc_adapt_new(first, first, NAN, &a), FC_EINVAL);
    assert_int_equal(fc_adapt_new(first, first, 1e-7f, &a), 0);
    feed(a, 1); /* and now it rests for hours */
    for (unsigned i = 0; i < 1000; i++)
        fc_adapt_offer(a, &window);
    struct fc_adapt_stats stats = fc_adapt_stats(a);
    assert_true(stats.dropped >= 1000 - 2 * 16);
    assert_int_equal(stats.updates, 1);
    fc_adapt_free(a);
    fc_adapt_free(NULL);
    assert_int_equal(first->refs, 1);
    fc_gru_model_unref(first);
}

/* Would break: the adaptation takes more of the processor than it may. Between
 * two updates the thread rests in proportion to the work, however long it is
 * kept from it besides. */
static void keeps_to_its_share(void **state)
{
    const double share = 0.2;
    (void)state;
    struct fc_gru_model *first = start();
    struct fc_adapt *a;

    fill_window(1);
    assert_int_equal(fc_adapt_new(first, first, (float)share, &a), 0);
    struct fc_adapt_stats then = feed(a, 8);
    struct fc_adapt_stats later = feed(a, then.updates + 1);
    assert_true(later.wall_s >= then.cpu_s / share * 0.9);
    fc_adapt_free(a);
    fc_gru_model_unref(first);
}

/* Would break: a share of nothing, or one that is taken away, still costs. */
static void no_share_no_work(void **state)
{
    (void)state;
    struct fc_gru_model *first = start();
    struct fc_adapt *a;

    fill_window(1);
    assert_int_equal(fc_adapt_new(first, first, 1.0f, &a), 0);
    fc_adapt_set_share(a, 0);
    for (unsigned i = 0; i < 100; i++)
        assert_false(fc_adapt_offer(a, &window));
    struct fc_adapt_stats stats = fc_adapt_stats(a);
    assert_int_equal(stats.offered, 100);
    assert_int_equal(stats.dropped, 100);
    assert_int_equal(stats.updates, 0);
    fc_adapt_set_share(a, -1);
    assert_false(fc_adapt_offer(a, &window));
    fc_adapt_set_share(a, 7); /* as much as there is */
    assert_true(fc_adapt_offer(a, &window));
    feed(a, 2);
    fc_adapt_free(a);
    fc_gru_model_unref(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_guest),
        cmocka_unit_test(is_compared_with_others),
        cmocka_unit_test(unknown_labels_change_nothing),
        cmocka_unit_test(offers_are_bounded),
        cmocka_unit_test(keeps_to_its_share),
        cmocka_unit_test(no_share_no_work),
    };
    return cmocka_run_group_tests_name("adapt", tests, NULL, NULL);
}
