/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "mixture_int.h"
#include "stretch.h"

/*
 * Where one region in a hundred is touched, the log loss of a tick hardly
 * tells scorers apart: all of them are right about the ninety-nine. What the
 * lists need is the order. So the average precision of each scorer, and of
 * the weighted mean, is kept over the labels of late, from counts by chance
 * that fade; a scorer that ranks clearly better than the mean leads.
 */
#define BUCKETS_OCTAVE 4
#define DECAY 0.997f
#define LEAST_HITS 20.0f /* before it says anything */
/* The mean is as good as a scorer when it is better by this. */
#define EVEN 0.98f
#define AHEAD 1.02f /* how much better another is than the leader */

static unsigned bucket_of(float p)
{
    float at = (fc_stretch(p) + FC_STRETCH_OCTAVES + 1) * BUCKETS_OCTAVE;
    unsigned b = at > 0 ? (unsigned)at : 0;
    return b < FC_MIXTURE_BUCKETS ? b : FC_MIXTURE_BUCKETS - 1;
}

/* From the likeliest bucket down; within one, as if mixed evenly. */
static float average_precision(const struct fc_mixture_rank *r)
{
    float hits = 0, all = 0, sum = 0;
    for (unsigned b = FC_MIXTURE_BUCKETS; b-- > 0;) {
        float before = all > 0 ? hits / all : 1.0f;
        hits += r->hit[b];
        all += r->hit[b] + r->miss[b];
        if (all > 0)
            sum += r->hit[b] * (before + hits / all) / 2;
    }
    return hits >= LEAST_HITS ? sum / hits : 0;
}

void fc_mixture_rank_fade(struct fc_mixture_rank *r)
{
    for (unsigned b = 0; b < FC_MIXTURE_BUCKETS; b++) {
        r->hit[b] *= DECAY;
        r->miss[b] *= DECAY;
    }
}

void fc_mixture_rank_add(struct fc_mixture_rank *r, uint32_t n, const float *p,
                         const uint8_t *touched)
{
    for (uint32_t i = 0; i < n; i++)
        *(touched[i] ? &r->hit[bucket_of(p[i])] : &r->miss[bucket_of(p[i])]) +=
            1.0f;
}

unsigned fc_mixture_rank_leader(const struct fc_mixture_rank *r,
                                unsigned scorers, unsigned leader)
{
    float mean = average_precision(&r[scorers]);
    float had = leader < scorers ? average_precision(&r[leader]) : 0;
    unsigned best = scorers;
    float most = mean * EVEN;
    if (mean <= 0)
        return scorers;
    /* who leads goes on until the mean is as good, or another is better */
    if (had > mean * EVEN / AHEAD) {
        best = leader;
        most = had * AHEAD;
    }
    for (unsigned i = 0; i < scorers; i++) {
        float a = average_precision(&r[i]);
        if (a > most) {
            best = i;
            most = a;
        }
    }
    return best;
}
