/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gaps.h"

#include <math.h>

/*
 * A chance is learned with a step of one over the times seen, at least one in
 * CAP, so that it follows a region that changes. Quiet regions end no gaps;
 * the prior is therefore learned from samples of all regions, those that stay
 * quiet included.
 */
#define CAP 24u /* times seen that count */
#define PRIOR_DECAY 0.998f

/* A gap of 1 is in the first; the last has no end. */
const float fc_gaps_begin[FC_GAP_BUCKETS + 1] = {
    0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 63, 127, 255, 511, 1023, 2047, 4095
};

#define OVER(width) 1.0f / (width)
const float fc_gaps_slope[FC_GAP_BUCKETS] = {
    OVER(1),   OVER(1),   OVER(1),    OVER(2),   OVER(2),  OVER(4),
    OVER(4),   OVER(8),   OVER(8),    OVER(32),  OVER(64), OVER(128),
    OVER(256), OVER(512), OVER(1024), OVER(2048)
};

const float fc_gaps_most[FC_GAP_BUCKETS] = { 1, 1, 1, 1, 1, 1, 1, 1,
                                             1, 1, 1, 1, 1, 1, 1, 1e9f };

static unsigned bucket_of(uint32_t quiet)
{
    if (quiet < 3)
        return quiet;
    if (quiet >= 2047)
        return FC_GAP_BUCKETS - 1;
    unsigned log = 31u - (unsigned)__builtin_clz(quiet + 1);
    if (log >= 5)
        return log + 4;
    return 2 * log - 1 + ((quiet + 1) >> (log - 1) & 1);
}

void fc_gaps_init(struct fc_gaps *g)
{
    *g = (struct fc_gaps){ .prior = { 0 } };
    for (unsigned b = 0; b < FC_GAP_BUCKETS; b++) {
        /* as if the chance of a tick fell with the time quiet */
        g->seen[b] = 50.0f;
        g->hit[b] = 50.0f * 0.3f / (1.0f + fc_gaps_begin[b]);
        g->prior[b] = 0.3f;
    }
}

void fc_gaps_ended(struct fc_region *r, uint32_t ticks)
{
    unsigned last = bucket_of(ticks - 1);
    for (unsigned b = 0; b <= last; b++) {
        unsigned count = r->hazard[b] & 31u;
        float p = (float)(r->hazard[b] >> 5) / FC_GAPS_SCALE;
        p += ((b == last ? 1.0f : 0.0f) - p) / (float)(count + 1);
        count += count + 1 < CAP;
        r->hazard[b] =
            (uint16_t)((unsigned)(p * FC_GAPS_SCALE + 0.5f) << 5 | count);
    }
}

void fc_gaps_learn(struct fc_gaps *g, uint32_t n, const uint32_t *quiet,
                   const uint8_t *touched)
{
    for (unsigned b = 0; b < FC_GAP_BUCKETS; b++) {
        g->seen[b] *= PRIOR_DECAY;
        g->hit[b] *= PRIOR_DECAY;
    }
    for (uint32_t i = 0; i < n; i++) {
        unsigned b = bucket_of(quiet[i]);
        g->seen[b] += 1.0f;
        g->hit[b] += touched[i] ? 1.0f : 0.0f;
    }
    for (unsigned b = 0; b < FC_GAP_BUCKETS; b++) {
        float p = (g->hit[b] + 0.02f) / (g->seen[b] + 20.0f);
        g->prior[b] =
            fc_approx_within(p, fc_gaps_begin[b + 1] - fc_gaps_begin[b]);
    }
}
