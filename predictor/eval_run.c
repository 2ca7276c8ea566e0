/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One pass over a trace for all methods and horizons. Every tick is fed to the
 * engine; of the last 40 % each n-th is judged: the scores of all regions seen
 * so far go into histograms (eval_curve.c), from which the metrics come at the
 * end. The thresholds that hold a risk learn from a uniform sample of the
 * regions, as late as the labels would come in service.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "err.h"
#include "eval.h"
#include "staleness.h"

#define TRAINED_PERCENT 60u
#define SAMPLE 512u /* regions a tick that a threshold learns from */
#define MEMORY_EVERY 4u

/* What waits for its labels to be due. */
struct sample {
    uint32_t n;
    float threshold;
    float p[SAMPLE];
    uint8_t touched[SAMPLE];
};

struct held {
    struct fc_staleness staleness;
    struct fc_eval_risk *risk;
    struct sample *ring; /* [horizon in ticks] */
    uint32_t ring_ticks;
    uint64_t listed, stale, clean;
};

enum known { UNKNOWN, IDLE, SEEN };

struct run {
    const struct fc_eval_options *options;
    struct fc_eval_result *result;
    struct fc_replay *replay;
    struct fc_engine *engine;
    uint32_t unit_pages;
    uint8_t *known;  /* [units]: enum known */
    uint64_t *first; /* [seen], first page of each */
    uint32_t *place; /* [seen], of the last tick */
    float *p, *scratch;
    uint8_t *touched;
    uint8_t *now;    /* [seen]: touched in this tick */
    uint32_t *where; /* [units]: index of those seen */
    struct fc_eval_ewma ewma;
    uint32_t *requests; /* disks: in the horizon, of each seen */
    uint32_t *once;     /* the same, 1 for any */
    uint32_t seen, room;
    uint64_t *idle; /* [idles], first page of regions in use, never touched */
    uint32_t idles, idle_room;
    struct fc_curve_idle idle_sum[FC_EVAL_HORIZONS];
    struct fc_curve *curve; /* [FC_EVAL_METHODS][FC_EVAL_HORIZONS] */
    double hits[FC_EVAL_METHODS][FC_EVAL_HORIZONS];
    double served[FC_EVAL_METHODS][FC_EVAL_HORIZONS];
    double hot[FC_EVAL_HORIZONS];  /* touched, of those seen */
    double fits[FC_EVAL_HORIZONS]; /* and of these, what a tenth could hold */
    double wanted[FC_EVAL_HORIZONS], all[FC_EVAL_HORIZONS]; /* requests */
    struct held held[FC_EVAL_RISKS];
    struct fc_eval_cache *cache; /* NULL: not asked for */
    uint64_t regions;
    double cpu_s;
};

static const struct {
    double risk;
    unsigned horizon;
} risks[FC_EVAL_RISKS] = { { 0.01, 1 }, { 0.05, 1 }, { 0.05, 2 } };

static double cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int grow(struct run *r)
{
    uint32_t room = r->room ? 2 * r->room : 4096;
    uint64_t *first = realloc(r->first, room * sizeof(*first));
    r->first = first ? first : r->first;
    uint32_t *place = realloc(r->place, room * sizeof(*place));
    r->place = place ? place : r->place;
    float *p = realloc(r->p, room * sizeof(*p));
    r->p = p ? p : r->p;
    float *scratch = realloc(r->scratch, room * sizeof(*scratch));
    r->scratch = scratch ? scratch : r->scratch;
    uint8_t *touched = realloc(r->touched, room);
    r->touched = touched ? touched : r->touched;
    uint32_t *requests = realloc(r->requests, room * sizeof(*requests));
    r->requests = requests ? requests : r->requests;
    uint32_t *once = realloc(r->once, room * sizeof(*once));
    r->once = once ? once : r->once;
    uint8_t *now = realloc(r->now, room);
    r->now = now ? now : r->now;
    if (!now || !first || !place || !requests || !once || !p || !scratch ||
        !touched)
        return FC_ENOMEM;
    r->room = room;
    return 0;
}

static int add(struct run *r, uint64_t unit)
{
    int rc = r->seen == r->room ? grow(r) : 0;
    if (rc)
        return rc;
    r->known[unit] = SEEN;
    r->where[unit] = r->seen;
    r->now[r->seen] = 0;
    r->first[r->seen++] = unit * r->unit_pages;
    return 0;
}

/* Notes the units of the runs; `touch`: as touched in this tick. */
static int see(struct run *r, const struct fc_trace_run *run, uint32_t n,
               bool touch)
{
    uint32_t pages = r->unit_pages;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end = (run[i].first + run[i].count - 1) / pages;
        for (uint64_t u = run[i].first / pages; u <= end; u++) {
            int rc = r->known[u] != SEEN ? add(r, u) : 0;
            if (rc)
                return rc;
            r->now[r->where[u]] |= touch;
        }
    }
    return 0;
}

static int see_idle(struct run *r, const struct fc_trace_run *run, uint32_t n)
{
    uint32_t pages = r->unit_pages;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end = (run[i].first + run[i].count - 1) / pages;
        for (uint64_t u = run[i].first / pages; u <= end; u++) {
            if (r->known[u] != UNKNOWN)
                continue;
            if (r->idles == r->idle_room) {
                uint32_t room = r->idle_room ? 2 * r->idle_room : 4096;
                uint64_t *idle = realloc(r->idle, room * sizeof(*idle));
                if (!idle)
                    return FC_ENOMEM;
                r->idle = idle;
                r->idle_room = room;
            }
            r->known[u] = IDLE;
            r->idle[r->idles++] = u * pages;
        }
    }
    return 0;
}

/* Drops from the idle ones those that were touched since. */
static void tidy_idle(struct run *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->idles; i++)
        if (r->known[r->idle[i] / r->unit_pages] == IDLE)
            r->idle[n++] = r->idle[i];
    r->idles = n;
}

static void judge_idle(struct run *r, unsigned horizon)
{
    uint32_t touched = 0;
    for (uint32_t i = 0; i < r->idles; i++)
        touched +=
            fc_replay_touched(r->replay, horizon, r->idle[i], r->unit_pages);
    r->idle_sum[horizon].touched += touched;
    r->idle_sum[horizon].clean += r->idles - touched;
}

/* Scores of the regions seen, in their order; false: not this method. */
static bool scores(struct run *r, unsigned method, unsigned horizon)
{
    const float *score =
        fc_engine_scores(r->engine, (enum fc_scorer_id)method, horizon);
    if (!score)
        return false;
    for (uint32_t i = 0; i < r->seen; i++) {
        if (r->place[i] != UINT32_MAX)
            r->p[i] = score[r->place[i]];
        else if (method == FC_SCORER_MIXTURE)
            r->p[i] = fc_engine_p(r->engine, r->first[i], horizon);
        else
            r->p[i] = 0;
    }
    return true;
}

static void judge_risks(struct run *r, unsigned horizon, const uint8_t *touched)
{
    for (unsigned k = 0; k < FC_EVAL_RISKS; k++) {
        struct held *h = &r->held[k];
        if (h->risk->horizon != horizon)
            continue;
        float threshold = fc_staleness_threshold(&h->staleness);
        for (uint32_t i = 0; i < r->seen; i++) {
            bool listed = r->p[i] <= threshold;
            h->clean += !touched[i];
            h->listed += listed;
            h->stale += listed && touched[i];
        }
    }
}

static void judge(struct run *r, unsigned horizon)
{
    bool disk = r->result->info.kind == FC_TRACE_BLOCK;
    uint8_t *touched = r->touched;
    double wanted = 0, hot = 0;
    uint32_t keep = (r->seen + 9) / 10;
    for (uint32_t i = 0; i < r->seen; i++) {
        touched[i] =
            fc_replay_touched(r->replay, horizon, r->first[i], r->unit_pages);
        r->requests[i] = fc_replay_requests(r->replay, horizon, r->first[i]);
        r->once[i] = touched[i];
        wanted += r->requests[i];
        hot += touched[i];
    }
    r->wanted[horizon] += wanted;
    r->hot[horizon] += hot;
    r->fits[horizon] += hot < keep ? hot : keep;
    r->all[horizon] += (double)fc_replay_requests_of_all(r->replay, horizon);
    r->result->judged[horizon]++;
    fc_eval_ewma_judge(&r->ewma, horizon, r->seen, touched);
    for (unsigned m = 0; m < FC_EVAL_METHODS; m++) {
        struct fc_curve *c = &r->curve[m * FC_EVAL_HORIZONS + horizon];
        if (!scores(r, m, horizon))
            continue;
        r->result->score[m][horizon].there = true;
        for (uint32_t i = 0; i < r->seen; i++)
            fc_curve_add(c, r->p[i], touched[i]);
        if (disk) {
            r->hits[m][horizon] +=
                fc_curve_top(r->seen, r->p, r->once, keep, r->scratch);
            r->served[m][horizon] +=
                fc_curve_top(r->seen, r->p, r->requests, keep, r->scratch);
        }
        if (m == FC_SCORER_MIXTURE)
            judge_risks(r, horizon, touched);
    }
}

/* The threshold learns what is due now, and a sample of now is put aside. */
static void learn_risk(struct run *r, struct held *h)
{
    uint32_t tick = fc_replay_tick(r->replay) - 1;
    struct sample *s = &h->ring[tick % h->ring_ticks];
    unsigned horizon = h->risk->horizon;
    const float *score =
        fc_engine_scores(r->engine, FC_SCORER_MIXTURE, horizon);
    const struct fc_region_ref *ref = fc_engine_regions(r->engine);
    uint32_t n = fc_engine_active(r->engine);
    if (s->n)
        fc_staleness_learn(&h->staleness, s->n, s->p, s->touched, NULL,
                           s->threshold);
    s->n = 0;
    if (!score || !ref || !n)
        return;
    uint32_t stride = n / SAMPLE + 1;
    for (uint32_t i = tick % stride; i < n && s->n < SAMPLE; i += stride) {
        s->p[s->n] = score[i];
        s->touched[s->n++] =
            fc_replay_touched(r->replay, horizon, ref[i].first, ref[i].pages);
    }
    s->threshold = fc_staleness_threshold(&h->staleness);
}

static void judge_tick(struct run *r)
{
    for (uint32_t i = 0; i < r->seen; i++)
        r->place[i] = fc_engine_find(r->engine, r->first[i]);
    tidy_idle(r);
    for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
        if (fc_replay_labelled(r->replay, h)) {
            judge(r, h);
            judge_idle(r, h);
        }
    r->regions += r->seen;
    r->result->idle += r->idles;
    r->result->tested++;
}

#define CACHE_PART 10u /* a cache holds one of so many extents */

/* The accesses of the tick, in their order, then what is known after it: the
 * chances of all horizons together. */
static int play_cache(struct run *r, const struct fc_replay_fed *fed,
                      bool count)
{
    int rc = 0;
    for (uint32_t i = 0; i < fed->reads && !rc; i++)
        for (uint64_t k = 0; k < fed->read[i].count && !rc; k++)
            rc = fc_eval_cache_access(r->cache,
                                      r->where[fed->read[i].first + k], count);
    for (uint32_t i = 0; i < r->seen && !rc; i++) {
        r->p[i] = 0;
        for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
            r->p[i] += fc_engine_p(r->engine, r->first[i], h);
    }
    return rc ? rc : fc_eval_cache_tick(r->cache, r->seen, r->p, r->first);
}

static int pass(struct run *r, struct fc_trace_problem *problem)
{
    const struct fc_replay_info *info = &r->result->info;
    uint32_t trained =
        (uint32_t)((uint64_t)info->ticks * TRAINED_PERCENT / 100);
    uint32_t every = r->options->every;
    if (!every)
        every = info->kind == FC_TRACE_MEMORY ? MEMORY_EVERY : 1;
    for (;;) {
        double before = cpu_s();
        int rc = fc_replay_step(r->replay, r->engine, problem);
        r->cpu_s += cpu_s() - before;
        if (rc <= 0)
            return rc;
        struct fc_replay_fed fed = fc_replay_fed(r->replay);
        memset(r->now, 0, r->seen);
        rc = see(r, fed.write, fed.writes, info->kind == FC_TRACE_MEMORY);
        rc = rc ? rc : see(r, fed.read, fed.reads, true);
        rc = rc ? rc : fc_eval_ewma_tick(&r->ewma, r->seen, r->now);
        rc = rc ? rc : see_idle(r, fed.present, fed.presents);
        if (!rc && r->cache)
            rc = play_cache(r, &fed, fc_replay_tick(r->replay) > trained);
        if (rc) {
            snprintf(problem->text, sizeof(problem->text), "%s",
                     fc_strerror(rc));
            return rc;
        }
        for (unsigned k = 0; k < FC_EVAL_RISKS; k++)
            learn_risk(r, &r->held[k]);
        uint32_t tick = fc_replay_tick(r->replay);
        if (tick > trained && tick % every == 0)
            judge_tick(r);
    }
}

static void conclude(struct run *r)
{
    struct fc_eval_result *to = r->result;
    for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++) {
        to->base[h] =
            fc_curve_base(&r->curve[FC_SCORER_MIXTURE * FC_EVAL_HORIZONS + h]);
        to->best_ewma[h] = fc_eval_ewma_best(&r->ewma, h, &to->half_life[h]);
        to->most_hits[h] = r->hot[h] > 0 ? r->fits[h] / r->hot[h] : 0;
        to->unseen[h] = r->all[h] > 0 ? 1 - r->wanted[h] / r->all[h] : 0;
        for (unsigned m = 0; m < FC_EVAL_METHODS; m++) {
            const struct fc_curve *c = &r->curve[m * FC_EVAL_HORIZONS + h];
            struct fc_eval_score *s = &to->score[m][h];
            s->precision = fc_curve_precision(c);
            s->calibration = fc_curve_calibration(c);
            s->clean_1 = fc_curve_clean(c, NULL, 0.01);
            s->clean_5 = fc_curve_clean(c, NULL, 0.05);
            s->memory_1 = fc_curve_clean(c, &r->idle_sum[h], 0.01);
            s->memory_5 = fc_curve_clean(c, &r->idle_sum[h], 0.05);
            s->hit_rate = r->hot[h] > 0 ? r->hits[m][h] / r->hot[h] : 0;
            s->served = r->wanted[h] > 0 ? r->served[m][h] / r->wanted[h] : 0;
        }
    }
    for (unsigned k = 0; k < FC_EVAL_RISKS; k++) {
        struct held *h = &r->held[k];
        h->risk->seen = h->listed ? (double)h->stale / (double)h->listed : NAN;
        h->risk->clean =
            h->clean ? (double)(h->listed - h->stale) / (double)h->clean : 0;
    }
    to->cached = r->cache != NULL;
    for (unsigned k = 0; k < FC_EVAL_POLICIES && r->cache; k++)
        to->cache_hits[k] =
            fc_eval_cache_hits(r->cache, (enum fc_eval_policy)k);
    to->regions = to->tested ? (double)r->regions / to->tested : 0;
    to->idle = to->tested ? to->idle / to->tested : 0;
    to->tick_ms = 1000 * r->cpu_s / to->info.ticks;
}

static int prepare(struct run *r)
{
    const struct fc_replay_info *info = &r->result->info;
    struct fc_engine_config config = {
        .kind =
            info->kind == FC_TRACE_MEMORY ? FC_ENGINE_MEMORY : FC_ENGINE_DISK,
        .pages = info->pages,
        .tick_ms = info->tick_ms,
        .gru = info->kind == FC_TRACE_MEMORY ? r->options->gru
                                             : r->options->disk_gru,
    };
    memcpy(config.horizon_ms, info->horizon_ms, sizeof(config.horizon_ms));
    r->unit_pages = info->kind == FC_TRACE_MEMORY ? FC_REPLAY_UNIT_PAGES : 1;
    r->known = calloc(info->pages / r->unit_pages + 1, 1);
    r->curve =
        calloc((size_t)FC_EVAL_METHODS * FC_EVAL_HORIZONS, sizeof(*r->curve));
    r->where = calloc(info->pages / r->unit_pages + 1, sizeof(*r->where));
    if (!r->known || !r->where || !r->curve || grow(r) ||
        fc_eval_ewma_init(&r->ewma))
        return FC_ENOMEM;
    for (unsigned k = 0; k < FC_EVAL_RISKS; k++) {
        struct held *h = &r->held[k];
        h->risk = &r->result->risk[k];
        *h->risk = (struct fc_eval_risk){ .risk = risks[k].risk,
                                          .horizon = risks[k].horizon };
        h->ring_ticks = info->horizon_ticks[risks[k].horizon];
        h->ring = calloc(h->ring_ticks, sizeof(*h->ring));
        if (!h->ring)
            return FC_ENOMEM;
        fc_staleness_init(&h->staleness, (float)risks[k].risk, h->ring_ticks);
    }
    if (r->options->cache && info->kind == FC_TRACE_BLOCK &&
        fc_eval_cache_new(CACHE_PART, &r->cache))
        return FC_ENOMEM;
    return fc_engine_create(&config, &r->engine);
}

static void name_of(const char *path, char *name, size_t size)
{
    const char *slash = strrchr(path, '/');
    const char *from = slash ? slash + 1 : path;
    size_t n = strcspn(from, ".");
    snprintf(name, size, "%.*s", (int)(n < size ? n : size - 1), from);
    for (char *p = name; *p; p++)
        if (*p <= ' ' || *p > '~' || *p == '"' || *p == '\\')
            *p = '_';
}

int fc_eval_trace(const char *path, const struct fc_eval_options *options,
                  struct fc_eval_result *result_r,
                  struct fc_trace_problem *problem)
{
    struct run r = { .options = options, .result = result_r };
    memset(result_r, 0, sizeof(*result_r));
    name_of(path, result_r->name, sizeof(result_r->name));
    int rc = fc_replay_open(path, &options->replay, &r.replay, problem);
    if (rc)
        return rc;
    result_r->info = *fc_replay_info(r.replay);
    result_r->reads_only =
        result_r->info.kind == FC_TRACE_BLOCK && !options->replay.any_access;
    if (result_r->reads_only)
        strncat(result_r->name, "-reads",
                sizeof(result_r->name) - strlen(result_r->name) - 1);
    rc = prepare(&r);
    if (rc)
        snprintf(problem->text, sizeof(problem->text), "%s", fc_strerror(rc));
    else
        rc = pass(&r, problem);
    if (rc == 0)
        conclude(&r);
    fc_engine_destroy(r.engine);
    fc_replay_close(r.replay);
    for (unsigned k = 0; k < FC_EVAL_RISKS; k++)
        free(r.held[k].ring);
    fc_eval_cache_free(r.cache);
    free(r.known);
    free(r.first);
    free(r.idle);
    free(r.now);
    free(r.where);
    fc_eval_ewma_dispose(&r.ewma);
    free(r.place);
    free(r.p);
    free(r.scratch);
    free(r.touched);
    free(r.requests);
    free(r.once);
    free(r.curve);
    return rc;
}
