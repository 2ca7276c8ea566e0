/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GUESTWIDE_H
#define FC_GUESTWIDE_H

#include <stdint.h>

#include "cycle.h"
#include "engine.h"

/* What is the same for all regions of a guest. One thread. */
struct fc_guestwide {
    float fast_half_life, slow_half_life; /* ticks */
    float fast, slow;                     /* regions touched a tick */
    float born;                           /* regions new a tick */
    struct fc_cycle cycle;
};

void fc_guestwide_init(struct fc_guestwide *g, float fast_half_life,
                       float slow_half_life);

/* `ticks` have passed, in which so many regions were touched and made. */
void fc_guestwide_add(struct fc_guestwide *g, uint32_t touched, uint32_t born,
                      uint32_t ticks);

/* Fills in the features that are guest-wide, leaves the others as they are.
 * `rates` may be NULL and hold anything. */
void fc_guestwide_row(const struct fc_guestwide *g,
                      const struct fc_rates *rates, uint32_t mid_ticks,
                      float row[FC_FEATURE_STRIDE]);

#endif
