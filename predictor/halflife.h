/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HALFLIFE_H
#define FC_HALFLIFE_H

#include <stdint.h>

#include "engine.h"
#include "regions.h"

/*
 * Which half-life's rate ranks regions best, horizon by horizon: the one of
 * the highest average precision over the labels of late. One thread.
 */
#define FC_HALFLIFE_BUCKETS 64u

struct fc_halflife {
    float yes[FC_REGION_RATES][FC_HALFLIFE_BUCKETS]; /* decayed */
    float no[FC_REGION_RATES][FC_HALFLIFE_BUCKETS];
    unsigned best;
};

void fc_halflife_init(struct fc_halflife *h);

/* x [n][FC_FEATURE_STRIDE] as it was, touched[n] what came of it. */
void fc_halflife_learn(struct fc_halflife *h, uint32_t n, const float *x,
                       const uint8_t *touched);

#endif
