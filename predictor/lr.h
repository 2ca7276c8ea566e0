/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LR_H
#define FC_LR_H

#include <stdint.h>

#include "engine.h"

/*
 * Logistic regression on all features, one for each horizon, learned online.
 * One per guest memory or disk; one thread.
 */
#define FC_LR_DIM (FC_FEATURE_STRIDE + 1) /* the last is the bias */

struct fc_lr {
    float w[FC_LR_DIM][FC_HORIZONS]; /* as the scoring loop wants it */
    double h[FC_HORIZONS][FC_LR_DIM][FC_LR_DIM]; /* decayed curvature */
    uint64_t steps[FC_HORIZONS];
};

/* Begins with what the regions' own gaps say (feature.h, "hazard"). */
void fc_lr_init(struct fc_lr *lr);

/* p[horizon][n] of x [n][FC_FEATURE_STRIDE] by the weights `w`. `base`: what
 * somebody else says already, as a logit, to which the regression adds; NULL:
 * nothing. */
void fc_lr_p(const float w[FC_LR_DIM][FC_HORIZONS], uint32_t n, const float *x,
             const float (*base)[FC_HORIZONS], float *const p[FC_HORIZONS]);

/* touched[n] (0 or 1) is what came of x [n][FC_FEATURE_STRIDE] beside base[n],
 * or NULL. */
void fc_lr_learn(struct fc_lr *lr, unsigned horizon, uint32_t n, const float *x,
                 const float *base, const uint8_t *touched);

#endif
