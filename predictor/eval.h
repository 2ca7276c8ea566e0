/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_EVAL_H
#define FC_EVAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine.h"
#include "eval_cache.h"
#include "replay.h"

/*
 * Evaluation of every scorer on traces; what forecopy-eval prints. One thread.
 *
 * Protocol: the engine runs over the trace from its beginning and learns as it
 * does in service; what it says is judged on the last 40 % of the ticks, by
 * what comes afterwards. Judged are all regions that have been touched so far
 * (64 KiB of memory; extents of a disk), those that the engine has given up
 * included: it says 0 of them, and the mixture what fc_engine_p() says. For the
 * share of all memory in use, regions that are in use but were never touched
 * count as listed before all others.
 */
#define FC_EVAL_HORIZONS 3u /* short, mid, long */
#define FC_EVAL_METHODS (FC_SCORERS + 1u)
#define FC_EVAL_BINS 20u

/* Counts of what was said and came true, by score. Large: allocate it. */
#define FC_CURVE_OCTAVE 256u
#define FC_CURVE_HALF (32u * FC_CURVE_OCTAVE)
#define FC_CURVE_SLOTS (2u * FC_CURVE_HALF)

struct fc_curve {
    /* by score, in steps of less than 0.4 % of it, or above one half of its
     * distance to 1 */
    uint32_t touched[FC_CURVE_SLOTS], clean[FC_CURVE_SLOTS];
    struct {
        double said;
        uint64_t touched, all;
    } bin[FC_EVAL_BINS];
};

/* Notes a score (out of 0..1 is clipped, what is not a number is 0). */
void fc_curve_add(struct fc_curve *c, float score, bool touched);

/* Average precision: mean over the touched of the precision at their score;
 * equal scores count as one. 0 when nothing was touched. */
double fc_curve_precision(const struct fc_curve *c);

/* Expected calibration error over 20 bins of equal width. */
double fc_curve_calibration(const struct fc_curve *c);

/* What is listed before everything else. */
struct fc_curve_idle {
    double touched, clean;
};

/* Of all that stayed clean, the share in the largest list of lowest scores of
 * which at most `risk` was touched: of what an oracle would list. `idle` may
 * be NULL. */
double fc_curve_clean(const struct fc_curve *c,
                      const struct fc_curve_idle *idle, double risk);

/* Share of all that was touched. */
double fc_curve_base(const struct fc_curve *c);

/*
 * Sum of the weights of the `keep` highest of n scores; of those equal to the
 * lowest one that is kept, their share. Reorders `scratch` [n].
 */
double fc_curve_top(uint32_t n, const float *score, const uint32_t *weight,
                    uint32_t keep, float *scratch);

/*
 * Moving averages with half-lives of 1, 2, 4 .. 512 ticks, of n regions that
 * only become more. One thread.
 */
#define FC_EVAL_HALF_LIVES 10u
struct fc_eval_ewma {
    float *value; /* [room][FC_EVAL_HALF_LIVES] */
    uint32_t room;
    struct fc_curve *curve; /* [FC_EVAL_HALF_LIVES][FC_EVAL_HORIZONS] */
};

int fc_eval_ewma_init(struct fc_eval_ewma *e); /* 0 or FC_ENOMEM */
void fc_eval_ewma_dispose(struct fc_eval_ewma *e);

/* A tick in which now[n] were touched. 0 or FC_ENOMEM. */
int fc_eval_ewma_tick(struct fc_eval_ewma *e, uint32_t n, const uint8_t *now);
void fc_eval_ewma_judge(struct fc_eval_ewma *e, unsigned horizon, uint32_t n,
                        const uint8_t *touched);

/* The best average precision, and whose it is, in ticks. */
double fc_eval_ewma_best(const struct fc_eval_ewma *e, unsigned horizon,
                         uint32_t *half_life_r);

struct fc_eval_score {
    bool there; /* the engine has this method for this trace */
    double precision, calibration;
    /* of the regions touched before; of all memory in use */
    double clean_1, clean_5, memory_1, memory_5;
    /* disks, by 10 % of the extents seen: of the extents touched, and of the
     * requests */
    double hit_rate, served;
};

/* A risk held by feedback (staleness.h), as the daemon does. */
#define FC_EVAL_RISKS 3u
struct fc_eval_risk {
    double risk;
    unsigned horizon;
    double seen;  /* share of the lists that was touched; NAN: all empty */
    double clean; /* share of all clean regions that was listed */
};

struct fc_eval_result {
    char name[64];
    struct fc_replay_info info;
    bool reads_only; /* disks: writes did not count */
    uint32_t tested; /* ticks judged */
    double regions;  /* judged a tick, on average */
    double idle;     /* and further ones in use, never touched yet */
    double tick_ms;  /* processor time of a tick of the engine */
    double base[FC_EVAL_HORIZONS];
    uint64_t judged[FC_EVAL_HORIZONS];
    /* disks: share of the requests that are of extents not seen before */
    double unseen[FC_EVAL_HORIZONS];
    /* disks: the hit rate of one who knows what comes */
    double most_hits[FC_EVAL_HORIZONS];
    struct fc_eval_score score[FC_EVAL_METHODS][FC_EVAL_HORIZONS];
    /* of plain moving averages the one with the best half-life, in ticks */
    double best_ewma[FC_EVAL_HORIZONS];
    uint32_t half_life[FC_EVAL_HORIZONS];
    struct fc_eval_risk risk[FC_EVAL_RISKS];
    /* disks, when asked for: share of the accesses that a cache of 10 % of the
     * extents seen served, by policy */
    bool cached;
    double cache_hits[FC_EVAL_POLICIES];
};

struct fc_eval_options {
    struct fc_replay_options replay;
    /* of memory, of disks; may be NULL */
    const struct fc_gru_model *gru, *disk_gru;
    uint32_t every; /* judge each so many-th tick; 0: 4 of memory, 1 of disks */
    bool cache;     /* disks: play them against a cache too */
};

/* 0, or an error as fc_replay_open()'s with the problem. */
int fc_eval_trace(const char *path, const struct fc_eval_options *options,
                  struct fc_eval_result *result_r,
                  struct fc_trace_problem *problem);

/* The name of a horizon in tables ("50 ms") and in JSON ("50ms", "mid"). */
const char *fc_eval_horizon_text(const struct fc_replay_info *info,
                                 unsigned horizon, char *buf, size_t size);
const char *fc_eval_horizon_key(const struct fc_replay_info *info,
                                unsigned horizon, char *buf, size_t size);

/* The simple method that is best at a horizon, and its average precision: of
 * LRU, EWMA (of the best half-life), Markov and LR, for disks readahead too. */
enum fc_scorer_id fc_eval_best_simple(const struct fc_eval_result *r,
                                      unsigned horizon, double *precision_r);

void fc_eval_print(FILE *out, const struct fc_eval_result *r);
void fc_eval_print_means(FILE *out, const struct fc_eval_result *r,
                         unsigned count);

/* The array of docs/ benches: one object a figure. 0 or FC_EIO with errno. */
int fc_eval_write_json(FILE *out, const struct fc_eval_result *r,
                       unsigned count);

#endif
