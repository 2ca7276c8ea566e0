/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "halflife.h"

#include <string.h>

#define DECAY 0.99f
#define FIRST 2u     /* 1 s, before anything is known */
#define AHEAD 0.003f /* average precision by which another must be better */

void fc_halflife_init(struct fc_halflife *h)
{
    memset(h, 0, sizeof(*h));
    h->best = FIRST;
}

/* From the likeliest bucket down; within one, as if mixed evenly. */
static float average_precision(const float *yes, const float *no)
{
    float hits = 0, all = 0, sum = 0;
    for (unsigned b = FC_HALFLIFE_BUCKETS; b-- > 0;) {
        float before = all > 0 ? hits / all : 1.0f;
        hits += yes[b];
        all += yes[b] + no[b];
        if (all > 0)
            sum += yes[b] * (before + hits / all) / 2;
    }
    return hits > 0 ? sum / hits : 0;
}

void fc_halflife_learn(struct fc_halflife *h, uint32_t n, const float *x,
                       const uint8_t *touched)
{
    float ap[FC_REGION_RATES];
    for (unsigned k = 0; k < FC_REGION_RATES; k++)
        for (unsigned b = 0; b < FC_HALFLIFE_BUCKETS; b++) {
            h->yes[k][b] *= DECAY;
            h->no[k][b] *= DECAY;
        }
    for (uint32_t i = 0; i < n; i++, x += FC_FEATURE_STRIDE)
        for (unsigned k = 0; k < FC_REGION_RATES; k++) {
            float at = (x[FC_FEATURE_RATE_0 + k] + 1.0f) / 2 *
                       (FC_HALFLIFE_BUCKETS - 1);
            unsigned b = at > 0 ? (unsigned)at : 0;
            b = b < FC_HALFLIFE_BUCKETS ? b : FC_HALFLIFE_BUCKETS - 1;
            *(touched[i] ? &h->yes[k][b] : &h->no[k][b]) += 1.0f;
        }
    unsigned best = h->best;
    for (unsigned k = 0; k < FC_REGION_RATES; k++)
        ap[k] = average_precision(h->yes[k], h->no[k]);
    for (unsigned k = 0; k < FC_REGION_RATES; k++)
        if (ap[k] > ap[best])
            best = k;
    if (ap[best] > ap[h->best] + AHEAD)
        h->best = best;
}
