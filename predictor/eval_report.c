/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "eval.h"

enum { SHORT, MID, LONG };

const char *fc_eval_horizon_text(const struct fc_replay_info *info,
                                 unsigned horizon, char *buf, size_t size)
{
    uint32_t ms = info->horizon_ms[horizon];
    if (ms < 1000 || ms % 1000)
        snprintf(buf, size, "%" PRIu32 " ms", ms);
    else if (ms < 120000 || ms % 60000)
        snprintf(buf, size, "%" PRIu32 " s", ms / 1000);
    else
        snprintf(buf, size, "%" PRIu32 " min", ms / 60000);
    return buf;
}

const char *fc_eval_horizon_key(const struct fc_replay_info *info,
                                unsigned horizon, char *buf, size_t size)
{
    static const char *const names[] = { "short", "mid", "long" };
    uint32_t ms = info->horizon_ms[horizon];
    if (info->kind == FC_TRACE_BLOCK)
        snprintf(buf, size, "%s", names[horizon]);
    else if (ms % 1000)
        snprintf(buf, size, "%" PRIu32 "ms", ms);
    else
        snprintf(buf, size, "%" PRIu32 "s", ms / 1000);
    return buf;
}

enum fc_scorer_id fc_eval_best_simple(const struct fc_eval_result *r,
                                      unsigned horizon, double *precision_r)
{
    static const enum fc_scorer_id simple[] = {
        FC_SCORER_LRU,       FC_SCORER_MARKOV, FC_SCORER_LR,
        FC_SCORER_READAHEAD, FC_SCORER_EWMA,
    };
    enum fc_scorer_id best = FC_SCORER_EWMA;
    *precision_r = r->best_ewma[horizon];
    for (unsigned i = 0; i < sizeof(simple) / sizeof(simple[0]); i++) {
        const struct fc_eval_score *s = &r->score[simple[i]][horizon];
        if (s->there && s->precision > *precision_r) {
            best = simple[i];
            *precision_r = s->precision;
        }
    }
    return best;
}

static void print_horizon(FILE *out, const struct fc_eval_result *r, unsigned h)
{
    bool disk = r->info.kind == FC_TRACE_BLOCK;
    char text[32];
    fc_eval_horizon_text(&r->info, h, text, sizeof(text));
    for (unsigned m = 0; m < FC_EVAL_METHODS; m++) {
        const struct fc_eval_score *s = &r->score[m][h];
        if (!s->there)
            continue;
        fprintf(out, "  %-8s %-10s %6.3f %6.3f %10.3f %10.3f", text,
                fc_scorer_name((enum fc_scorer_id)m), s->precision,
                s->calibration, s->clean_1, s->clean_5);
        if (disk)
            fprintf(out, " %8.3f %10.3f", s->hit_rate, s->served);
        else
            fprintf(out, " %8.3f %8.3f", s->memory_1, s->memory_5);
        fputc('\n', out);
    }
}

void fc_eval_print(FILE *out, const struct fc_eval_result *r)
{
    bool disk = r->info.kind == FC_TRACE_BLOCK;
    char text[32];
    fprintf(out,
            "%s: %" PRIu64 " %s, %" PRIu32 " ticks of %" PRIu32 " ms; %" PRIu32
            " of the last 40 %% judged, %.0f %s each; %.3f "
            "ms of processor a tick\n",
            r->name, r->info.pages, disk ? "extents" : "pages", r->info.ticks,
            r->info.tick_ms, r->tested, r->regions,
            disk ? "extents" : "regions", r->tick_ms);
    for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
        fprintf(out, "%s %.3f within %s", h ? "," : "  touched:", r->base[h],
                fc_eval_horizon_text(&r->info, h, text, sizeof(text)));
    fprintf(out, "\n  %-8s %-10s %6s %6s %10s %10s%s\n", "horizon", "method",
            "AP", "ECE", "clean@1%", "clean@5%",
            disk ? "  hit@10% served@10%" : "   mem@1%   mem@5%");
    for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
        print_horizon(out, r, h);
    for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
        fprintf(out, "%s %.3f (%u ticks, %s)%s",
                h ? "," : "  plain EWMA of the best half-life: AP",
                r->best_ewma[h], r->half_life[h],
                fc_eval_horizon_text(&r->info, h, text, sizeof(text)),
                h == LONG ? "\n" : "");
    for (unsigned h = 0; disk && h < FC_EVAL_HORIZONS; h++)
        fprintf(
            out, "%s %.3f within %s%s",
            h ? "," : "  requests of extents not seen before:", r->unseen[h],
            fc_eval_horizon_text(&r->info, h, text, sizeof(text)),
            h == LONG ? "\n" : "");
    for (unsigned h = 0; disk && h < FC_EVAL_HORIZONS; h++)
        fprintf(
            out, "%s %.3f within %s%s",
            h ? "," : "  hit@10% of one who knows what comes:", r->most_hits[h],
            fc_eval_horizon_text(&r->info, h, text, sizeof(text)),
            h == LONG ? "\n" : "");
    if (r->cached)
        fputs("  hits of a cache of 10 % of the extents:", out);
    for (unsigned k = 0; r->cached && k < FC_EVAL_POLICIES; k++)
        fprintf(out, " %s %.4f%s", fc_eval_policy_name((enum fc_eval_policy)k),
                r->cache_hits[k], k + 1 == FC_EVAL_POLICIES ? "\n" : ",");
    for (unsigned k = 0; k < FC_EVAL_RISKS; k++) {
        const struct fc_eval_risk *risk = &r->risk[k];
        fc_eval_horizon_text(&r->info, risk->horizon, text, sizeof(text));
        fprintf(out, "  risk of %.0f %% held for %s: ", 100 * risk->risk, text);
        if (isnan(risk->seen))
            fputs("no list was made\n", out);
        else
            fprintf(out,
                    "%.2f %% seen (%.2f times), %.3f of the clean listed\n",
                    100 * risk->seen, risk->seen / risk->risk, risk->clean);
    }
    fputc('\n', out);
}

/* Over the traces of a kind that have the method: false when none has. */
static bool mean(const struct fc_eval_result *r, unsigned count,
                 enum fc_trace_kind kind, unsigned method, unsigned h,
                 double *mean_r)
{
    double sum = 0;
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        if (r[i].info.kind == kind && r[i].score[method][h].there) {
            sum += r[i].score[method][h].precision;
            n++;
        }
    *mean_r = n ? sum / n : 0;
    return n > 0;
}

void fc_eval_print_means(FILE *out, const struct fc_eval_result *r,
                         unsigned count)
{
    for (int kind = FC_TRACE_MEMORY; kind <= FC_TRACE_BLOCK; kind++) {
        unsigned n = 0;
        for (unsigned i = 0; i < count; i++)
            n += r[i].info.kind == (enum fc_trace_kind)kind;
        if (n < 2)
            continue;
        fprintf(out, "mean AP of %u %s traces\n  %-10s %7s %7s %7s\n", n,
                kind == FC_TRACE_MEMORY ? "memory" : "disk", "method", "short",
                "mid", "long");
        for (unsigned m = 0; m < FC_EVAL_METHODS; m++) {
            double v[FC_EVAL_HORIZONS];
            bool there = false;
            for (unsigned h = 0; h < FC_EVAL_HORIZONS; h++)
                there |= mean(r, count, (enum fc_trace_kind)kind, m, h, &v[h]);
            if (there)
                fprintf(out, "  %-10s %7.3f %7.3f %7.3f\n",
                        fc_scorer_name((enum fc_scorer_id)m), v[SHORT], v[MID],
                        v[LONG]);
        }
        fputc('\n', out);
    }
}
