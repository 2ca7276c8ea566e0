/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_MIXTURE_INT_H
#define FC_MIXTURE_INT_H

#include "mixture.h"

/*
 * What the files of the mixture share. No one else includes this.
 */

/* The band of the guest-wide rate: mixture_phase.c */
struct fc_mixture_band {
    double now;         /* octaves, smoothed over about a second */
    double mean, width; /* of the band, octaves */
    double age_ms;      /* since the band began */
    double out_ms;      /* how long it has been out of it */
    bool begun;
};

void fc_mixture_band_init(struct fc_mixture_band *b);
bool fc_mixture_band_left(struct fc_mixture_band *b, float rate,
                          uint32_t elapsed_ms);

/* How well chances order what is touched: mixture_order.c */
#define FC_MIXTURE_BUCKETS 120u
struct fc_mixture_rank {
    float hit[FC_MIXTURE_BUCKETS], miss[FC_MIXTURE_BUCKETS]; /* fading */
};
void fc_mixture_rank_fade(struct fc_mixture_rank *r);
void fc_mixture_rank_add(struct fc_mixture_rank *r, uint32_t n, const float *p,
                         const uint8_t *touched);
/* Of r[scorers + 1], the last of which is the weighted mean's: who ranks best,
 * when `leader` did so far; `scorers`: the mean. */
unsigned fc_mixture_rank_leader(const struct fc_mixture_rank *r,
                                unsigned scorers, unsigned leader);

#define FC_MIXTURE_LATE 16u /* calls, at most, by which labels come late */

struct fc_mixture_horizon {
    double pool[FC_MIXTURE_MAX_SCORERS];
    float shares[FC_MIXTURE_MAX_SCORERS]; /* the same */
    /* decayed sums; [scorers]: what went out */
    double loss[FC_MIXTURE_MAX_SCORERS + 1];
    double losses[FC_MIXTURE_MAX_SCORERS + 1];
    struct fc_mixture_rank *rank; /* [scorers + 1], or NULL */
    /* the weights of the calls before, the last one in [calls - 1] */
    double pools[FC_MIXTURE_LATE][FC_MIXTURE_MAX_SCORERS];
    unsigned calls, late;
    unsigned leader; /* by rank; `scorers`: none */
    uint64_t labels;
    unsigned led_by, since_phase;
    enum fc_mixture_reason reason;
    bool changed;
};

struct fc_mixture {
    unsigned scorers, horizons;
    uint32_t simple;
    const char *const *names;
    struct fc_mixture_band band;
    struct fc_mixture_horizon of[FC_MIXTURE_MAX_HORIZONS];
};

#endif
