/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scorer_engine.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapt.h"
#include "err.h"
#include "learned.h"
#include "log.h"
#include "model.h"
#include "windows.h"

/*
 * The dirty log shows that a page was written since the last CLEAN, not when,
 * nor how often. In an update that continues the one before, the pages that
 * were not set yet were written in this tick; of the others nothing can be
 * seen, and they are taken for written again when the engine itself holds that
 * for the likelier. A hot page thus stays hot through a long window, and one
 * written once does not become hot by it.
 */
#define IMPUTED_P 0.5f
#define LEAST_MIGRATION_MS 10000u
#define MOST_MIGRATION_MS 3600000u
#define MIGRATION_CHANGE 2.0 /* times as long, or short */

struct state {
    struct fc_engine *engine;
    struct fc_rates rates;
    uint64_t *before; /* the bits of the update before */
    bool continues;   /* they are among those of the next */
    uint64_t pages;
    uint32_t horizon_ms[FC_HORIZONS];
    /* The GRU as it is now; .gru NULL: there is none. */
    struct fc_model model;
    struct fc_adapt *adapt; /* NULL: it is not adapted */
    struct fc_windows *windows;
    uint64_t adapted; /* updates that the engine has */
};

static void destroy(void *arg)
{
    struct state *s = arg;
    if (!s)
        return;
    fc_adapt_free(s->adapt);
    fc_windows_free(s->windows);
    fc_model_dispose(&s->model);
    fc_engine_destroy(s->engine);
    free(s->before);
    free(s);
}

/* A guest goes on without the GRU when there is none. */
static void take_shipped(struct state *s)
{
    struct fc_model_problem problem = { "" };
    struct fc_model model;
    int rc = fc_model_shipped(FC_SCORER_TICK_MS, &model, &problem);
    if (!rc) {
        rc = fc_engine_set_gru(s->engine, model.gru);
        if (rc)
            fc_model_dispose(&model);
        else
            s->model = model;
    }
    if (rc)
        fc_warn("the GRU's weights that ship cannot be used: %s",
                problem.text[0] ? problem.text : fc_strerror(rc));
}

static int create(uint64_t pages, void **state_r)
{
    struct state *s = calloc(1, sizeof(*s));
    if (!s)
        return FC_ENOMEM;
    s->pages = pages;
    s->before = calloc(pages / 64 + 1, sizeof(*s->before));
    struct fc_engine_config config = {
        .kind = FC_ENGINE_MEMORY,
        .pages = pages,
        .tick_ms = FC_SCORER_TICK_MS,
        .horizon_ms = FC_SCORER_HORIZONS_MS,
    };
    memcpy(s->horizon_ms, config.horizon_ms, sizeof(s->horizon_ms));
    int rc = s->before ? fc_engine_create(&config, &s->engine) : FC_ENOMEM;
    if (rc) {
        destroy(s);
        return rc;
    }
    take_shipped(s);
    *state_r = s;
    return 0;
}

static uint64_t words_of(const struct state *s)
{
    return (s->pages + 63) / 64;
}

/* The word without what lies beyond the last page. */
static uint64_t word_of(const struct state *s, const uint64_t *bits, uint64_t w)
{
    uint64_t tail = s->pages - w * 64;
    return tail < 64 ? bits[w] & ((1ull << tail) - 1) : bits[w];
}

/* The bits that are taken for written in this tick. */
static uint64_t written(const struct state *s, uint64_t now, uint64_t before,
                        uint64_t first)
{
    uint64_t hidden = now & before, w = now & ~before;
    for (; hidden; hidden &= hidden - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(hidden);
        if (fc_engine_p(s->engine, first + bit, FC_SCORER_SHORT) >= IMPUTED_P)
            w |= 1ull << bit;
    }
    return w;
}

static int write_runs(struct fc_engine *engine, uint64_t bits, uint64_t first)
{
    int rc = 0;
    while (bits && !rc) {
        unsigned from = (unsigned)__builtin_ctzll(bits);
        uint64_t rest = ~(bits >> from);
        unsigned len = rest ? (unsigned)__builtin_ctzll(rest) : 64;
        rc = fc_engine_write(engine, first + from, len);
        if (from + len >= 64)
            break;
        bits &= ~0ull << (from + len);
    }
    return rc;
}

/*
 * Writes are collected before the first is entered: entering one begins a
 * round of the engine, in which its chances must not be asked for.
 */
static int update(void *arg, const uint64_t *dirty, uint32_t elapsed_ms)
{
    struct state *s = arg;
    bool same = s->continues;
    int rc = 0;
    s->continues = false;
    for (uint64_t w = 0; w < words_of(s); w++) {
        uint64_t now = word_of(s, dirty, w);
        uint64_t before = same ? s->before[w] : 0;
        s->before[w] = now & before ? written(s, now, before, w * 64) : now;
    }
    for (uint64_t w = 0; w < words_of(s); w++) {
        if (s->before[w]) {
            int r = write_runs(s->engine, s->before[w], w * 64);
            rc = rc ? rc : r;
        }
        s->before[w] = word_of(s, dirty, w);
    }
    int r = fc_engine_tick(s->engine, elapsed_ms, &s->rates);
    if (s->adapt && !r)
        fc_windows_tick(s->windows, s->engine, s->adapt);
    return rc ? rc : r;
}

static void continues(void *arg)
{
    struct state *s = arg;
    s->continues = true;
}

/* Between the horizons that the engine has at an even risk, as -ln(1-p), and
 * never less than at a shorter one. */
static float p_dirty(const void *arg, uint64_t page, uint32_t horizon_ms)
{
    const struct state *s = arg;
    double risk_before = 0, ms_before = 0, risk = 0, ms = 1;
    for (unsigned h = FC_SCORER_SHORT; h < FC_HORIZONS; h++) {
        float p = fc_engine_p(s->engine, page, h);
        risk = fmax(-log1p(-fmin((double)p, 0.99999)), risk_before);
        if (s->horizon_ms[h] == horizon_ms)
            return (float)-expm1(-risk);
        ms = s->horizon_ms[h];
        if (ms > horizon_ms)
            break;
        if (h + 1 < FC_HORIZONS) {
            risk_before = risk;
            ms_before = ms;
        }
    }
    double slope = ms > ms_before ? (risk - risk_before) / (ms - ms_before) : 0;
    return (float)-expm1(-(risk_before + slope * (horizon_ms - ms_before)));
}

static size_t bytes(const void *arg)
{
    const struct state *s = arg;
    struct fc_engine_stats stats;
    fc_engine_stats(s->engine, &stats);
    return sizeof(*s) + (s->pages / 64 + 1) * sizeof(*s->before) +
           (size_t)stats.bytes +
           (s->adapt ? (size_t)fc_windows_bytes() + fc_adapt_bytes(s->adapt)
                     : 0);
}

const struct fc_scorer_ops fc_scorer_mixture = {
    .name = "mixture",
    .create = create,
    .update = update,
    .continues = continues,
    .p_dirty = p_dirty,
    .bytes = bytes,
    .destroy = destroy,
};

struct fc_engine *fc_scorer_engine(const struct fc_scorer *scorer)
{
    struct state *s = scorer->state;
    return scorer->ops == &fc_scorer_mixture ? s->engine : NULL;
}

void fc_scorer_engine_rates(struct fc_scorer *scorer,
                            const struct fc_rates *rates)
{
    struct state *s = scorer->state;
    if (scorer->ops == &fc_scorer_mixture)
        s->rates = *rates;
}

uint32_t fc_scorer_engine_migration(struct fc_scorer *scorer, uint64_t total_ms)
{
    struct state *s = scorer->state;
    if (scorer->ops != &fc_scorer_mixture)
        return 0;
    total_ms = total_ms > LEAST_MIGRATION_MS ? total_ms : LEAST_MIGRATION_MS;
    total_ms = total_ms < MOST_MIGRATION_MS ? total_ms : MOST_MIGRATION_MS;
    double times =
        (double)total_ms / (double)s->horizon_ms[FC_SCORER_MIGRATION];
    bool much = times >= MIGRATION_CHANGE || times <= 1 / MIGRATION_CHANGE;
    if (much && !fc_engine_set_horizon(s->engine, FC_SCORER_MIGRATION,
                                       (uint32_t)total_ms))
        s->horizon_ms[FC_SCORER_MIGRATION] = (uint32_t)total_ms;
    return s->horizon_ms[FC_SCORER_MIGRATION];
}

/* When there is no memory for it, it is tried again. What is learned is shown
 * against the weights that ship, also when it began with others. */
static void begin_adapting(struct state *s, float share)
{
    struct fc_model_problem problem;
    struct fc_model shipped = { .gru = NULL };
    if (!s->windows && fc_windows_new(&s->windows))
        return;
    if (!fc_model_shipped(FC_SCORER_TICK_MS, &shipped, &problem))
        (void)fc_adapt_new(s->model.gru, shipped.gru, share, &s->adapt);
    fc_model_dispose(&shipped);
}

void fc_scorer_engine_adapt(struct fc_scorer *scorer, float share)
{
    struct state *s = scorer->state;
    if (scorer->ops != &fc_scorer_mixture || !s->model.gru)
        return;
    if (!s->adapt && share > 0)
        begin_adapting(s, share);
    if (!s->adapt)
        return;
    fc_adapt_set_share(s->adapt, share);
    uint64_t updates = fc_adapt_stats(s->adapt).updates;
    if (updates == s->adapted)
        return;
    s->adapted = updates;
    struct fc_gru_model *model = fc_adapt_model(s->adapt);
    if (fc_engine_set_gru(s->engine, model)) {
        fc_gru_model_unref(model);
        return;
    }
    fc_gru_model_unref(s->model.gru);
    s->model.gru = model;
    s->model.updates++;
}

bool fc_scorer_engine_adapted(const struct fc_scorer *scorer,
                              struct fc_adapt_stats *stats_r)
{
    const struct state *s = scorer->state;
    if (scorer->ops != &fc_scorer_mixture || !s->adapt)
        return false;
    *stats_r = fc_adapt_stats(s->adapt);
    return true;
}

int fc_scorer_engine_keep(const struct fc_scorer *scorer, uint64_t written_s,
                          uint8_t **bytes_r, size_t *len_r)
{
    const struct state *s = scorer->state;
    if (scorer->ops != &fc_scorer_mixture)
        return FC_EINVAL;
    return fc_learned_format(s->engine, s->model.gru ? &s->model : NULL,
                             written_s, bytes_r, len_r);
}

int fc_scorer_engine_recall(struct fc_scorer *scorer, const void *bytes,
                            size_t len, char *why, size_t why_len)
{
    struct state *s = scorer->state;
    struct fc_model_problem problem = { "" };
    if (scorer->ops != &fc_scorer_mixture || s->adapt)
        return FC_EINVAL;
    struct fc_learned *l = malloc(sizeof(*l));
    int rc = l ? fc_learned_parse(bytes, len, l, &problem) : FC_ENOMEM;
    if (!rc) {
        rc = fc_learned_apply(l, s->engine);
        if (!rc && l->model.gru) {
            struct fc_model before = s->model;
            s->model = l->model;
            l->model = before;
        }
        fc_learned_dispose(l);
    }
    free(l);
    if (rc)
        snprintf(why, why_len, "%s",
                 problem.text[0] ? problem.text : fc_strerror(rc));
    return rc;
}
