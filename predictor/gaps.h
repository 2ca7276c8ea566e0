/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GAPS_H
#define FC_GAPS_H

#include <stdint.h>

#include "approx.h"
#include "regions.h"

/*
 * Per-region Markov model over how long a region has been quiet: a state is a
 * bucket of quiet time, half an octave wide up to 32 ticks and an octave
 * beyond, and in each the region is touched or moves on to the next. Two
 * states of it are the usual touched/untouched chain; the others make it a
 * renewal process, which knows periods. A region that has not been in a state
 * is taken for one like all others of the guest.
 *
 * fc_region.hazard[b]: chance that a gap which has reached bucket b ends in
 * it, in bits 5-15 (of 2047), and how often that was seen in bits 0-4.
 */
struct fc_gaps {
    float seen[FC_GAP_BUCKETS], hit[FC_GAP_BUCKETS]; /* of all, decayed */
    float prior[FC_GAP_BUCKETS]; /* hazard of a bucket, as region's */
};

void fc_gaps_init(struct fc_gaps *g);

/* A gap of `ticks` (1: touched in two ticks running) has ended. */
void fc_gaps_ended(struct fc_region *r, uint32_t ticks);

/* Of n regions, quiet[i] ticks then, touched[i] in the tick after. */
void fc_gaps_learn(struct fc_gaps *g, uint32_t n, const uint32_t *quiet,
                   const uint8_t *touched);

/* A bucket's beginning in ticks of quiet, and one over its width. */
extern const float fc_gaps_begin[FC_GAP_BUCKETS + 1];
extern const float fc_gaps_slope[FC_GAP_BUCKETS];
/* What a horizon may at most have of each bucket: the last has no end. */
extern const float fc_gaps_most[FC_GAP_BUCKETS];
#define FC_GAPS_SCALE 2047.0f
#define FC_GAPS_PRIOR_COUNTS 1.5f /* that the guest's mean counts */

/*
 * p[z]: chance of a touch within horizon[z] ticks of a region that has been
 * quiet for `quiet` ticks (0: touched just now). Inlined into the loop over
 * regions, so that it is compiled as that is.
 *
 * Octaves of survival lost in a bucket are spread evenly over it; a horizon
 * loses of each its part.
 */
FC_APPROX_INLINE void fc_gaps_p(const struct fc_gaps *g,
                                const struct fc_region *r, uint32_t quiet,
                                const float horizon[4], float p[4])
{
    float lost[FC_GAP_BUCKETS], from[FC_GAP_BUCKETS], all[8] = { 0 };
    for (unsigned b = 0; b < FC_GAP_BUCKETS; b += 8) {
        fc_short8 half;
        memcpy(&half, &r->hazard[b], sizeof(half));
        fc_int8 packed = __builtin_convertvector(half, fc_int8);
        fc_float8 count = __builtin_convertvector(packed & 31, fc_float8);
        fc_float8 h = __builtin_convertvector(packed >> 5, fc_float8);
        fc_float8 prior = *(const fc_float8 *)&g->prior[b];
        h = (h * (count * (1.0f / FC_GAPS_SCALE)) +
             prior * FC_GAPS_PRIOR_COUNTS) /
            (count + FC_GAPS_PRIOR_COUNTS);
        fc_float8 miss = 1.0f - 0.9999f * h;
        fc_approx_log2_8(&miss);
        *(fc_float8 *)&lost[b] = miss;
        fc_float8 at = ((float)quiet - *(const fc_float8 *)&fc_gaps_begin[b]) *
                       *(const fc_float8 *)&fc_gaps_slope[b];
        fc_approx_clip_8(&at, (const fc_float8 *)&fc_gaps_most[b]);
        *(fc_float8 *)&from[b] = at;
    }
    for (unsigned z = 0; z < 4; z++) {
        fc_float8 sum = { 0 };
        for (unsigned b = 0; b < FC_GAP_BUCKETS; b += 8) {
            fc_float8 at = ((float)quiet + horizon[z] -
                            *(const fc_float8 *)&fc_gaps_begin[b]) *
                           *(const fc_float8 *)&fc_gaps_slope[b];
            fc_approx_clip_8(&at, (const fc_float8 *)&fc_gaps_most[b]);
            sum += (at - *(fc_float8 *)&from[b]) * *(fc_float8 *)&lost[b];
        }
        all[z] = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] +
                 sum[7];
    }
    fc_approx_exp2_8((fc_float8 *)all);
    for (unsigned z = 0; z < 4; z++)
        p[z] = 1.0f - all[z];
}

#endif
