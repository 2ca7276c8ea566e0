/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STALENESS_H
#define FC_STALENESS_H

#include <stdbool.h>
#include <stdint.h>

#include "stretch.h"

/*
 * Holds a risk by what was seen. A list of items "clean for the horizon at 5 %
 * risk" is made of those whose chance is at most a threshold; this finds the
 * threshold at which 5 % of the list really were touched. One struct per guest,
 * horizon and risk; plain data, no allocation. One thread at a time.
 */
#define FC_STALENESS_NODES (4 * FC_STRETCH_OCTAVES * 2 + 1)

struct fc_staleness {
    float risk;      /* wanted: share of the list that may be touched */
    float threshold; /* for lists made now */
    float memory;    /* share of old sums kept a call */
    double gain;     /* what the risk is multiplied by to hold it */
    double step;     /* of the gain */
    uint32_t delay;  /* calls until labels come */
    double seen[FC_STALENESS_NODES];  /* decayed weight by chance, */
    double stale[FC_STALENESS_NODES]; /* and that of what was touched */
    double lists, mean, square; /* decayed: lists judged, what they showed */
    uint64_t labels;
};

struct fc_staleness_view {
    float threshold;
    float seen;       /* share of the lists of late that was touched */
    float confidence; /* 0 to 1: share of a list that stays clean, at the low
                       * end of what was seen; 0 when nothing was */
    bool held;        /* `seen` is at most twice the risk */
    bool reachable;   /* some chance is low enough to hold the risk at all */
    uint64_t labels;
};

/* `risk` within 0.0001 .. 0.5 is taken as it is, else its nearest end;
 * `horizon_ticks`: calls of learn from a list to its labels. */
void fc_staleness_init(struct fc_staleness *s, float risk,
                       uint32_t horizon_ticks);

/* Largest chance to take into a list now. */
static inline float fc_staleness_threshold(const struct fc_staleness *s)
{
    return s->threshold;
}

/*
 * Once a tick when labels are there: p_then[n] is what was said (the mixture's
 * chances) of a uniform sample of the items, touched[n] what came of each,
 * pages[n] their size (NULL: all alike), `threshold_then` what
 * fc_staleness_threshold() was for the lists of that time.
 */
void fc_staleness_learn(struct fc_staleness *s, uint32_t n, const float *p_then,
                        const uint8_t *touched, const uint32_t *pages,
                        float threshold_then);

void fc_staleness_look(const struct fc_staleness *s,
                       struct fc_staleness_view *view_r);

#endif
