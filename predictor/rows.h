/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ROWS_H
#define FC_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "gaps.h"
#include "regions.h"

/*
 * Keeps what regions have seen, and makes rows of features and the simple
 * scorers' chances of it. One thread.
 */
#define FC_DECAY_TICKS 256u /* decays looked up up to here */

/* Share of a rate that is left after some ticks, by half-life. */
struct fc_decay {
    float octaves[8]; /* lost a tick; the last has none */
    float left[FC_DECAY_TICKS][8];
};

/* half_life_scale: 1 where a tick is 50 ms, or stands for it (disks). */
void fc_decay_init(struct fc_decay *d, float half_life_scale);
void fc_decay_left(const struct fc_decay *d, uint32_t ticks, float left[8]);

/* What a row is made of, beside the region: all set by the engine. */
struct fc_rows {
    const struct fc_regions *regions;
    const struct fc_decay *decay;
    const struct fc_gaps *gaps;
    uint32_t now; /* tick */
    uint32_t tick_ms;
    uint64_t wall_ms; /* wall clock at tick 0, for days and weeks */
    uint32_t horizon[FC_HORIZONS]; /* ticks */
    unsigned ewma[FC_HORIZONS];    /* half-life that the EWMA scorer uses */
    bool disk;
    float guest[FC_FEATURE_STRIDE]; /* a row with the guest-wide ones set */
};

/* Region `slot`, whose `now` is set, was touched in the `ticks` ticks that end
 * with the one of `rows`. */
void fc_rows_touch(const struct fc_rows *rows, struct fc_regions *rs,
                   uint32_t slot, uint32_t ticks);
/* The same for the other kind of access: a disk's write. */
void fc_rows_other(const struct fc_rows *rows, struct fc_regions *rs,
                   uint32_t slot, uint32_t ticks);

/* Rows of the n slots, x [n][FC_FEATURE_STRIDE], and what the simple scorers
 * (those before FC_SCORER_LR) say of them, p[scorer][horizon][n]. */
typedef float fc_rows_p[FC_HORIZONS][256];
#define FC_ROWS_MOST 256u
void fc_rows_make(const struct fc_rows *rows, uint32_t n, const uint32_t *slot,
                  float *x, fc_rows_p p[FC_SCORER_LR]);

#endif
