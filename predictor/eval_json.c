/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The figures as an array of objects, as every bench writes them, beside what
 * they are held against: the best simple method of the same run, and the
 * project's targets.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "eval.h"

#define NONE NAN /* no such number */

enum { SHORT, MID, LONG };

struct figure {
    const char *name, *metric, *unit;
    double ours, peer;
    const char *peer_name;
    double target;
    bool less; /* the target is an upper bound */
};

struct json {
    FILE *out;
    bool begun;
};

static void put_number(FILE *out, const char *key, double v)
{
    if (!isfinite(v))
        fprintf(out, ", \"%s\": null", key);
    else
        fprintf(out, ", \"%s\": %.6g", key, v);
}

static void put(struct json *j, const struct figure *f)
{
    bool reached = f->less ? f->ours <= f->target : f->ours >= f->target;
    bool ok = isnan(f->target) || (isfinite(f->ours) && reached);
    fprintf(j->out,
            "%s\n  {\"bench\": \"predictor\", \"case\": \"%s\", "
            "\"metric\": \"%s\", \"unit\": \"%s\"",
            j->begun ? "," : "[", f->name, f->metric, f->unit);
    j->begun = true;
    put_number(j->out, "ours", f->ours);
    put_number(j->out, "peer", f->peer);
    if (f->peer_name)
        fprintf(j->out, ", \"peer_name\": \"%s\"", f->peer_name);
    else
        fputs(", \"peer_name\": null", j->out);
    put_number(j->out, "ratio", f->peer > 0 ? f->ours / f->peer : NONE);
    put_number(j->out, "target", f->target);
    fprintf(j->out, ", \"ok\": %s}", ok ? "true" : "false");
}

/* What a trace must reach at the middle horizon beyond its peer, if it is one
 * of those that a target was set for. */
static const struct {
    const char *name;
    double precision, hit_rate;
} disks[] = {
    { "cloudphysics", 0.43, 0.55 },
    { "dtrs", 0.19, 0.50 },
    { "hplajw", 0.51, 0.78 },
};

static void put_precision(struct json *j, const struct fc_eval_result *r,
                          unsigned h)
{
    static const double below_peer[] = { 0.01, 0.01, 0.02 };
    double peer;
    enum fc_scorer_id best = fc_eval_best_simple(r, h, &peer);
    char key[16], metric[48];
    struct figure f = {
        .name = r->name,
        .metric = metric,
        .unit = "1",
        .ours = r->score[FC_SCORER_MIXTURE][h].precision,
        .peer = peer,
        .peer_name = fc_scorer_name(best),
        .target = r->info.kind == FC_TRACE_MEMORY ? peer - below_peer[h] : NONE,
    };
    snprintf(metric, sizeof(metric), "average_precision_%s",
             fc_eval_horizon_key(&r->info, h, key, sizeof(key)));
    if (r->info.kind == FC_TRACE_BLOCK && h == MID)
        for (unsigned i = 0; i < sizeof(disks) / sizeof(disks[0]); i++)
            if (!strcmp(r->name, disks[i].name))
                f.target = disks[i].precision;
    put(j, &f);
}

static void put_coverage(struct json *j, const char *name, const char *metric,
                         double ours, double peer, const char *peer_name,
                         double target)
{
    put(j, &(struct figure){ name, metric, "1", ours, peer, peer_name, target,
                             false });
}

static void put_memory(struct json *j, const struct fc_eval_result *r)
{
    const struct fc_eval_score *s = r->score[FC_SCORER_MIXTURE];
    double peer;
    enum fc_scorer_id best = fc_eval_best_simple(r, MID, &peer);
    const struct fc_eval_score *simple = r->score[best];
    const char *peer_name = fc_scorer_name(best);
    enum fc_scorer_id later = fc_eval_best_simple(r, LONG, &peer);
    const struct fc_eval_score *far = &r->score[later][LONG];
    put(j, &(struct figure){ r->name, "ap_gain_over_ewma_1s", "1",
                             s[MID].precision - r->best_ewma[MID], NONE, NULL,
                             NONE, false });
    put(j, &(struct figure){ r->name, "calibration_error_1s", "1",
                             s[MID].calibration, simple[MID].calibration,
                             peer_name, NONE, true });
    put_coverage(j, r->name, "coverage_1pct_1s", s[MID].memory_1,
                 simple[MID].memory_1, peer_name, NONE);
    put_coverage(j, r->name, "coverage_5pct_1s", s[MID].memory_5,
                 simple[MID].memory_5, peer_name, NONE);
    put_coverage(j, r->name, "coverage_5pct_10s", s[LONG].memory_5,
                 far->memory_5, fc_scorer_name(later), NONE);
    put_coverage(j, r->name, "coverage_touched_5pct_1s", s[MID].clean_5,
                 simple[MID].clean_5, peer_name, NONE);
    put_coverage(j, r->name, "coverage_touched_5pct_10s", s[LONG].clean_5,
                 far->clean_5, fc_scorer_name(later), NONE);
    /* where there is no list, there is no risk that was held or not */
    for (unsigned k = 0; k < FC_EVAL_RISKS; k++) {
        static const char *const names[FC_EVAL_RISKS][2] = {
            { "staleness_ratio_1pct_1s", "listed_1pct_1s" },
            { "staleness_ratio", "listed_5pct_1s" },
            { "staleness_ratio_5pct_10s", "listed_5pct_10s" }
        };
        const struct fc_eval_risk *risk = &r->risk[k];
        if (!isnan(risk->seen))
            put(j, &(struct figure){ r->name, names[k][0], "1",
                                     risk->seen / risk->risk, NONE, NULL, 2,
                                     true });
        put(j, &(struct figure){ r->name, names[k][1], "1", risk->clean, NONE,
                                 NULL, NONE, false });
    }
}

static void put_disk(struct json *j, const struct fc_eval_result *r)
{
    double target = NONE;
    enum fc_scorer_id best = FC_SCORER_LRU;
    static const enum fc_scorer_id peers[] = { FC_SCORER_FREQUENCY,
                                               FC_SCORER_READAHEAD };
    for (unsigned i = 0; i < sizeof(disks) / sizeof(disks[0]); i++)
        if (!strcmp(r->name, disks[i].name))
            target = disks[i].hit_rate;
    for (unsigned i = 0; i < 2; i++)
        if (r->score[peers[i]][MID].hit_rate > r->score[best][MID].hit_rate)
            best = peers[i];
    put(j, &(struct figure){ r->name, "hit_rate", "1",
                             r->score[FC_SCORER_MIXTURE][MID].hit_rate,
                             r->score[best][MID].hit_rate, fc_scorer_name(best),
                             target, false });
}

/* The mean of one kind of trace, of `method`, beside that of EWMA. */
static void put_mean(struct json *j, const struct fc_eval_result *r,
                     unsigned count, enum fc_trace_kind kind, unsigned method,
                     const char *name, unsigned h, double target)
{
    double ours = 0, ewma = 0;
    unsigned n = 0;
    char key[16], metric[48];
    for (unsigned i = 0; i < count; i++) {
        if (r[i].info.kind != kind || !r[i].score[method][h].there)
            continue;
        snprintf(metric, sizeof(metric), "average_precision_%s",
                 fc_eval_horizon_key(&r[i].info, h, key, sizeof(key)));
        if (r[i].reads_only)
            name = "mean-disk-reads";
        ours += r[i].score[method][h].precision;
        ewma += r[i].best_ewma[h];
        n++;
    }
    if (n)
        put(j, &(struct figure){ name, metric, "1", ours / n, ewma / n, "ewma",
                                 target, false });
}

/* What a target over all memory traces is about. */
enum over_all { GAIN, CALIBRATION, CLEAN_1, CLEAN_5 };

static double value_of(const struct fc_eval_result *r, enum over_all what,
                       unsigned h)
{
    const struct fc_eval_score *s = &r->score[FC_SCORER_MIXTURE][h];
    switch (what) {
    case GAIN:
        return s->precision - r->best_ewma[h];
    case CALIBRATION:
        return s->calibration;
    case CLEAN_1:
        return s->memory_1;
    case CLEAN_5:
        return s->memory_5;
    }
    return NONE;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The mean over the memory traces; of calibration, the median. */
static void put_over_all(struct json *j, const struct fc_eval_result *r,
                         unsigned count, enum over_all what, unsigned h,
                         const char *metric, double target)
{
    double *v = calloc(count + 1, sizeof(*v)), sum = 0;
    unsigned n = 0;
    for (unsigned i = 0; v && i < count; i++)
        if (r[i].info.kind == FC_TRACE_MEMORY) {
            v[n] = value_of(&r[i], what, h);
            sum += v[n++];
        }
    if (n) {
        qsort(v, n, sizeof(*v), rising);
        double median = (v[n / 2] + v[(n - 1) / 2]) / 2;
        put(j, &(struct figure){ "mean-memory", metric, "1",
                                 what == CALIBRATION ? median : sum / n, NONE,
                                 NULL, target, what == CALIBRATION });
    }
    free(v);
}

/* The share of memory traces, of those with a list, where the risk was held to
 * twice. */
static void put_held(struct json *j, const struct fc_eval_result *r,
                     unsigned count, unsigned k, const char *metric)
{
    unsigned n = 0, held = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct fc_eval_risk *risk = &r[i].risk[k];
        if (r[i].info.kind != FC_TRACE_MEMORY || isnan(risk->seen))
            continue;
        n++;
        held += risk->seen <= 2 * risk->risk;
    }
    if (n)
        put(j, &(struct figure){ "mean-memory", metric, "1", (double)held / n,
                                 NONE, NULL, 0.9, false });
}

static void put_all_memory(struct json *j, const struct fc_eval_result *r,
                           unsigned count)
{
    static const struct {
        enum over_all what;
        unsigned h;
        const char *metric;
        double target;
    } rows[] = {
        { GAIN, SHORT, "ap_gain_over_ewma_50ms", 0.015 },
        { GAIN, MID, "ap_gain_over_ewma_1s", 0.03 },
        { GAIN, LONG, "ap_gain_over_ewma_10s", 0.015 },
        { CALIBRATION, SHORT, "calibration_error_50ms", 0.006 },
        { CALIBRATION, MID, "calibration_error_1s", 0.02 },
        { CALIBRATION, LONG, "calibration_error_10s", 0.05 },
        { CLEAN_1, MID, "coverage_1pct_1s", 0.50 },
        { CLEAN_5, MID, "coverage_5pct_1s", 0.73 },
        { CLEAN_5, LONG, "coverage_5pct_10s", 0.62 },
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        put_over_all(j, r, count, rows[i].what, rows[i].h, rows[i].metric,
                     rows[i].target);
    put_held(j, r, count, 0, "staleness_held_share_1pct_1s");
    put_held(j, r, count, 1, "staleness_held_share");
    put_held(j, r, count, 2, "staleness_held_share_5pct_10s");
}

int fc_eval_write_json(FILE *out, const struct fc_eval_result *r,
                       unsigned count)
{
    static const double memory[] = { 0.65, 0.83, 0.905 };
    static const double shipped[] = { NONE, 0.83, 0.925 };
    struct json j = { .out = out };
    for (unsigned i = 0; i < count; i++) {
        for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
            put_precision(&j, &r[i], h);
        if (r[i].info.kind == FC_TRACE_MEMORY)
            put_memory(&j, &r[i]);
        else
            put_disk(&j, &r[i]);
        put(&j, &(struct figure){ r[i].name, "tick_ms", "ms", r[i].tick_ms,
                                  NONE, NULL, NONE, true });
    }
    for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++) {
        put_mean(&j, r, count, FC_TRACE_MEMORY, FC_SCORER_MIXTURE,
                 "mean-memory", h, memory[h]);
        put_mean(&j, r, count, FC_TRACE_BLOCK, FC_SCORER_MIXTURE, "mean-disk",
                 h, NONE);
        put_mean(&j, r, count, FC_TRACE_MEMORY, FC_SCORER_GRU,
                 "shipped-weights", h, shipped[h]);
    }
    put_all_memory(&j, r, count);
    fputs(j.begun ? "\n]\n" : "[]\n", out);
    return fflush(out) || ferror(out) ? FC_EIO : 0;
}
