/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CALIBRATE_H
#define FC_CALIBRATE_H

#include <stdint.h>

#include "stretch.h"

/*
 * Online recalibration: turns what a scorer says into what has come true when
 * it said so. One struct per guest, scorer and horizon; plain data, no
 * allocation. One thread at a time. The map is strictly increasing, so the
 * order of a list never changes, only its chances.
 */
#define FC_CALIBRATE_BINS 20 /* of the error, equally wide */

struct fc_calibrate {
    float slope, shift; /* on the scale of fc_stretch() */
    double curve[3];    /* decayed curvature: shift, both, slope */
    double calls;       /* decayed */
    struct {
        float said, hit, seen; /* decayed sums of what left fc_calibrate */
    } bins[FC_CALIBRATE_BINS];
    uint64_t labels;
};

/* The identity. */
void fc_calibrate_init(struct fc_calibrate *c);

/* out[n] = calibrated p[n]; in place is fine. What is negative or not a number
 * counts as certainty. */
void fc_calibrate_apply(const struct fc_calibrate *c, uint32_t n,
                        const float *p, float *out);

/*
 * A horizon has passed: raw_then[n] is what the scorer itself said then (not
 * the calibrated value), touched[n] (0 or 1) what came of each. A uniform
 * sample of the items, some hundreds to a few thousand a call, is enough. One
 * call a tick: what was learned fades by calls.
 */
void fc_calibrate_learn(struct fc_calibrate *c, uint32_t n,
                        const float *raw_then, const uint8_t *touched);

/* Expected calibration error of late, 0 to 1: mean over the items of
 * |calibrated chance - share that came true| by bins. 0 before any label. */
float fc_calibrate_error(const struct fc_calibrate *c);

#endif
