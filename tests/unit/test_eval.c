/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <json-c/json.h>

#include "err.h"
#include "eval.h"

/*
 * An engine of 64 pages or extents that knows nothing but one thing: of its
 * regions, number 1 is always touched (LRU says so, EWMA says the opposite).
 */
struct fc_engine {
    enum fc_engine_kind kind;
    struct fc_region_ref ref[3];
    float p[3];
    uint32_t ticks;
};

const char *fc_scorer_name(enum fc_scorer_id id)
{
    static const char *const names[] = { "lru",    "ewma",      "frequency",
                                         "markov", "readahead", "lr",
                                         "gru",    "mixture" };
    return names[id];
}

int fc_engine_create(const struct fc_engine_config *config,
                     struct fc_engine **engine_r)
{
    struct fc_engine *e = calloc(1, sizeof(*e));
    assert_non_null(e);
    e->kind = config->kind;
    for (unsigned i = 0; i < 3; i++)
        e->ref[i] = config->kind == FC_ENGINE_MEMORY
                        ? (struct fc_region_ref){ .first = 16 * i, .pages = 16 }
                        : (struct fc_region_ref){ .first = i, .pages = 1 };
    *engine_r = e;
    return 0;
}

void fc_engine_destroy(struct fc_engine *e)
{
    free(e);
}

int fc_engine_write(struct fc_engine *e, uint64_t first, uint64_t count)
{
    (void)e, (void)first, (void)count;
    return 0;
}

int fc_engine_read(struct fc_engine *e, uint64_t first, uint64_t count)
{
    (void)e, (void)first, (void)count;
    return 0;
}

int fc_engine_tick(struct fc_engine *e, uint32_t elapsed_ms,
                   const struct fc_rates *rates)
{
    (void)elapsed_ms, (void)rates;
    e->ticks++;
    return 0;
}

uint32_t fc_engine_active(const struct fc_engine *e)
{
    (void)e;
    return 3;
}

const struct fc_region_ref *fc_engine_regions(struct fc_engine *e)
{
    return e->ref;
}

const float *fc_engine_scores(struct fc_engine *e, enum fc_scorer_id id,
                              unsigned horizon)
{
    (void)horizon;
    if (id != FC_SCORER_LRU && id != FC_SCORER_EWMA && id != FC_SCORER_MIXTURE)
        return NULL;
    for (unsigned i = 0; i < 3; i++)
        e->p[i] = (i == 1) == (id != FC_SCORER_EWMA) ? 1 : 0;
    return e->p;
}

float fc_engine_p(const struct fc_engine *e, uint64_t page, unsigned horizon)
{
    (void)e, (void)page, (void)horizon;
    return 0.25f;
}

uint32_t fc_engine_find(const struct fc_engine *e, uint64_t page)
{
    uint64_t place = page / e->ref[0].pages;
    return place < 3 ? (uint32_t)place : UINT32_MAX;
}

static void assert_close(double a, double b)
{
    if (fabs(a - b) > 1e-9)
        fail_msg("%.12g is not %.12g", a, b);
}

struct pair {
    float score;
    bool touched;
};

static int falling(const void *a, const void *b)
{
    float x = ((const struct pair *)a)->score;
    float y = ((const struct pair *)b)->score;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Average precision by its definition, equal scores as one. */
static double plain_precision(struct pair *v, unsigned n)
{
    double found = 0, sum = 0;
    qsort(v, n, sizeof(*v), falling);
    for (unsigned i = 0; i < n;) {
        unsigned end = i, hits = 0;
        for (; end < n && v[end].score == v[i].score; end++)
            hits += v[end].touched;
        found += hits;
        sum += hits * found / end;
        i = end;
    }
    return found > 0 ? sum / found : 0;
}

/* Would break: every figure of the bench is off. */
static void precision_is_that_of_the_definition(void **state)
{
    (void)state;
    enum { N = 2000 };
    struct fc_curve *c = calloc(1, sizeof(*c));
    static struct pair v[N];
    uint64_t x = 88172645463325252ull;
    assert_non_null(c);
    for (unsigned i = 0; i < N; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        /* apart enough for the slots, many equal, near 0 and near 1 */
        float p = powf(0.93f, (float)(x % 150));
        v[i].score = x >> 20 & 1 ? p : 1 - p;
        v[i].touched = (x >> 30) % 100 < 10 + 80 * v[i].score;
        fc_curve_add(c, v[i].score, v[i].touched);
    }
    double want = plain_precision(v, N);
    assert_in_range((int)(want * 1000), 500, 990);
    assert_true(fabs(fc_curve_precision(c) - want) < 1e-3);
    free(c);
}

/* Would break: what is said of calibration and of the clean share. */
static void curves_of_known_shape(void **state)
{
    (void)state;
    struct fc_curve *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    assert_close(fc_curve_precision(c), 0);
    assert_close(fc_curve_calibration(c), 0);
    assert_close(fc_curve_clean(c, NULL, 0.05), 0);
    for (unsigned i = 0; i < 100; i++) { /* 1 in 100 at 0.01: right */
        fc_curve_add(c, 0.01f, i == 0);
        fc_curve_add(c, 0.5f, i < 10); /* 1 in 10 at 0.5: off by 0.4 */
        fc_curve_add(c, NAN, false);   /* counts as 0 */
        fc_curve_add(c, 7, true);      /* as 1 */
    }
    assert_close(fc_curve_base(c), 111 / 400.0);
    assert_true(fabs(fc_curve_calibration(c) - 0.4 / 4) < 1e-6);
    /* at 0: 100 clean; with 0.01: 1 of 200 touched; with 0.5: 11 of 300 */
    assert_close(fc_curve_clean(c, NULL, 0.001), 100 / 289.0);
    assert_close(fc_curve_clean(c, NULL, 0.01), 199 / 289.0);
    assert_close(fc_curve_clean(c, NULL, 0.05), 1);
    /* 100 more that are clean but for 1, listed first */
    const struct fc_curve_idle idle = { 1, 99 };
    assert_close(fc_curve_clean(c, &idle, 0.001), 0);
    assert_close(fc_curve_clean(c, &idle, 0.005), 199 / 388.0);
    assert_close(fc_curve_clean(c, &idle, 0.01), 298 / 388.0);
    free(c);
}

/* Would break: hit rates of disks, above all where scores are equal. */
static void top_of_a_list(void **state)
{
    (void)state;
    const float score[] = { 0.5f, 0.9f, 0.5f, 0.1f, 0.5f, 0.5f };
    const uint32_t touched[] = { 1, 1, 0, 1, 0, 1 };
    float scratch[6];
    assert_close(fc_curve_top(6, score, touched, 1, scratch), 1);
    assert_close(fc_curve_top(6, score, touched, 3, scratch), 2);
    assert_close(fc_curve_top(6, score, touched, 5, scratch), 3);
    assert_close(fc_curve_top(6, score, touched, 9, scratch), 4);
    assert_close(fc_curve_top(6, score, touched, 0, scratch), 0);
    enum { N = 1000 };
    static float v[N], room[N];
    static uint32_t hit[N];
    for (unsigned i = 0; i < N; i++) {
        v[i] = (float)(i * 389 % N) / N;
        hit[i] = v[i] >= 0.9f ? 7 : 0;
    }
    assert_close(fc_curve_top(N, v, hit, 150, room), 700);
    assert_close(fc_curve_top(N, v, hit, 60, room), 420);
}

/* 200 ticks: units 0 and 3 touched once at the beginning, unit 1 always, unit
 * 2 in none. Of memory or of a disk. */
static void make_trace(char *path, enum fc_trace_kind kind)
{
    const struct fc_trace_head head = {
        .kind = kind,
        .unit_shift = kind == FC_TRACE_MEMORY ? 12 : 9,
        .tick_us = kind == FC_TRACE_MEMORY ? 50000 : 0,
    };
    struct fc_trace_writer *w;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fc_trace_writer_new(fd, &head, &w), 0);
    uint64_t unit = kind == FC_TRACE_MEMORY ? 16 : 2048;
    const struct fc_trace_run run[] = { { 0, 1 },
                                        { unit + 3, 1 },
                                        { 3 * unit, 2 } };
    const struct fc_trace_run present[] = { { 0, 1 }, { 2 * unit, 2 } };
    for (unsigned t = 0; t < 1000; t++) {
        struct fc_trace_record r = { .time_us = t * 50000ull };
        if (kind == FC_TRACE_MEMORY) {
            r.type = FC_TRACE_PRESENT; /* units 0 and 2 */
            r.run = present;
            r.run_count = 2;
            if (t == 0)
                assert_int_equal(fc_trace_put(w, &r), 0);
            r.type = FC_TRACE_TICK;
            r.run = t ? &run[1] : run;
            r.run_count = t ? 1 : 3;
            assert_int_equal(fc_trace_put(w, &r), 0);
            continue;
        }
        for (unsigned i = t ? 1 : 0; i < (t ? 2 : 3); i++) {
            r.type = FC_TRACE_READ;
            r.run = &run[i];
            r.run_count = 1;
            assert_int_equal(fc_trace_put(w, &r), 0);
        }
    }
    assert_int_equal(fc_trace_finish(w), 0);
    fc_trace_writer_free(w);
    close(fd);
}

/* Would break: the wrong ticks or regions are judged, or by the wrong score. */
static void judges_a_trace(void **state)
{
    (void)state;
    for (int kind = FC_TRACE_MEMORY; kind <= FC_TRACE_BLOCK; kind++) {
        char path[] = "/tmp/fc-eval-XXXXXX";
        const struct fc_eval_options options = {
            .replay = { .tick_ms = 50 },
            .every = 1,
        };
        struct fc_eval_result r;
        struct fc_trace_problem problem;
        make_trace(path, (enum fc_trace_kind)kind);
        assert_int_equal(fc_eval_trace(path, &options, &r, &problem), 0);
        unlink(path);
        assert_int_equal(r.info.ticks, 1000);
        assert_int_equal(r.tested, 400);
        assert_int_equal(r.judged[0], 399); /* the last has no later tick */
        assert_close(r.regions, 3);
        assert_close(r.idle, kind == FC_TRACE_MEMORY ? 1 : 0);
        for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++) {
            assert_close(r.base[h], 1 / 3.0);
            assert_close(r.score[FC_SCORER_LRU][h].precision, 1);
            assert_close(r.score[FC_SCORER_EWMA][h].precision, 1 / 3.0);
            assert_close(r.score[FC_SCORER_MIXTURE][h].precision, 1);
            /* the region that the engine gave up: 0.25 by the mixture */
            assert_close(r.score[FC_SCORER_MIXTURE][h].calibration, 0.25 / 3);
            assert_close(r.best_ewma[h], 1);
            assert_close(r.score[FC_SCORER_LRU][h].clean_1, 1);
            assert_close(r.score[FC_SCORER_EWMA][h].clean_5, 0);
            assert_close(r.score[FC_SCORER_EWMA][h].memory_5,
                         kind == FC_TRACE_MEMORY ? 1 / 3.0 : 0);
            assert_false(r.score[FC_SCORER_LR][h].there);
            if (kind == FC_TRACE_BLOCK) {
                assert_close(r.score[FC_SCORER_LRU][h].hit_rate, 1);
                assert_close(r.score[FC_SCORER_LRU][h].served, 1);
                assert_true(r.score[FC_SCORER_EWMA][h].hit_rate < 1);
                assert_true(r.score[FC_SCORER_EWMA][h].served < 1);
                assert_close(r.unseen[h], 0);
            }
        }
        double precision;
        assert_int_equal(fc_eval_best_simple(&r, 1, &precision),
                         FC_SCORER_EWMA);
        assert_close(precision, 1);
    }
}

/* The value of `key` of the object with that case and metric. */
static struct json_object *find(struct json_object *array, const char *name,
                                const char *metric, const char *key)
{
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *o = json_object_array_get_idx(array, i);
        struct json_object *c = json_object_object_get(o, "case");
        struct json_object *m = json_object_object_get(o, "metric");
        if (!strcmp(json_object_get_string(c), name) &&
            !strcmp(json_object_get_string(m), metric))
            return json_object_object_get(o, key);
    }
    fail_msg("no %s of %s", metric, name);
    return NULL;
}

/* Would break: what reads the figures finds them wrong, or not at all. */
static void writes_json(void **state)
{
    (void)state;
    struct fc_eval_result r[2] = { { .name = "a" }, { .name = "dtrs" } };
    char text[32768];
    FILE *out = tmpfile();
    assert_non_null(out);
    r[0].info = (struct fc_replay_info){ .kind = FC_TRACE_MEMORY,
                                         .horizon_ms = { 50, 1000, 10000 } };
    r[1].info = (struct fc_replay_info){ .kind = FC_TRACE_BLOCK };
    for (unsigned i = 0; i < 2; i++)
        for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++) {
            r[i].score[FC_SCORER_LRU][h] =
                (struct fc_eval_score){ .there = true, .precision = 0.5 };
            r[i].score[FC_SCORER_MIXTURE][h] = (struct fc_eval_score){
                .there = true, .precision = 0.485, .hit_rate = 0.51
            };
        }
    assert_int_equal(fc_eval_write_json(out, r, 2), 0);
    rewind(out);
    size_t n = fread(text, 1, sizeof(text) - 1, out);
    fclose(out);
    text[n] = '\0';
    struct json_object *array = json_tokener_parse(text);
    assert_non_null(array);
    const char *ap = "average_precision_1s";
    assert_close(json_object_get_double(find(array, "a", ap, "ours")), 0.485);
    assert_close(json_object_get_double(find(array, "a", ap, "ratio")), 0.97);
    assert_string_equal(
        json_object_get_string(find(array, "a", ap, "peer_name")), "lru");
    assert_false(json_object_get_boolean(find(array, "a", ap, "ok")));
    assert_true(json_object_get_boolean(
        find(array, "a", "average_precision_10s", "ok")));
    assert_true(json_object_get_boolean(
        find(array, "dtrs", "average_precision_mid", "ok")));
    assert_true(json_object_get_boolean(find(array, "dtrs", "hit_rate", "ok")));
    assert_close(json_object_get_double(find(array, "mean-memory", ap, "ours")),
                 0.485);
    assert_null(find(array, "a", "tick_ms", "target"));
    assert_close(json_object_get_double(find(array, "mean-memory",
                                             "ap_gain_over_ewma_1s", "ours")),
                 0.485);
    assert_true(json_object_get_boolean(
        find(array, "mean-memory", "calibration_error_1s", "ok")));
    assert_false(json_object_get_boolean(
        find(array, "mean-memory", "coverage_5pct_1s", "ok")));
    json_object_put(array);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precision_is_that_of_the_definition),
        cmocka_unit_test(curves_of_known_shape),
        cmocka_unit_test(top_of_a_list),
        cmocka_unit_test(judges_a_trace),
        cmocka_unit_test(writes_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
