/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ADAPT_H
#define FC_ADAPT_H

#include "gru.h"

/*
 * Slow adaptation of a GRU to one guest, in a thread of its own with a budget
 * of processor time. It learns from windows of regions whose labels have come
 * true; what was foretold wrongly weighs more. The weights are drawn back to
 * those it started from, so that a guest's strange day fades.
 *
 * new, free: one thread, not at the same time as the others. offer, model,
 * stats: any thread; none of them waits for the learning.
 */
#define FC_ADAPT_STEPS 32u
#define FC_ADAPT_SHARE 0.05f /* of a core, by default */

struct fc_adapt;

/* One region's steps, the oldest first. */
struct fc_adapt_window {
    const float *x; /* [FC_ADAPT_STEPS][inputs] */
    /* what was said, and whether it came true: 0, 1, or below 0 when that is
     * not known; chances in 0 to 1 */
    const float (*said)[FC_GRU_OUTPUTS];          /* [FC_ADAPT_STEPS] */
    const signed char (*touched)[FC_GRU_OUTPUTS]; /* [FC_ADAPT_STEPS] */
};

struct fc_adapt_stats {
    uint64_t offered, dropped; /* windows; dropped: the thread was behind */
    uint64_t updates;          /* of the weights */
    double loss;               /* of late, nats a label */
    double gain;               /* how much less that is than the loss of the
                                * weights compared with, of labels that neither
                                * has learned from */
    double cpu_s, wall_s;      /* the thread's, since the beginning */
};

/* Starts the thread; takes references to `start` and to `against`, with which
 * what is learned is compared and which takes as many inputs. `share` of a
 * core, above 0, at most 1. 0, FC_EINVAL, FC_ENOMEM or FC_ESYS. */
int fc_adapt_new(struct fc_gru_model *start, struct fc_gru_model *against,
                 float share, struct fc_adapt **adapt_r);

/* Another share, from the next update on; 0: none is made, and no window
 * taken. Any thread. */
void fc_adapt_set_share(struct fc_adapt *adapt, float share);

/* Stops the thread, within one update's time. NULL is fine. */
void fc_adapt_free(struct fc_adapt *adapt);

/* Copies a window for the thread; false: there was no room, it is dropped. */
bool fc_adapt_offer(struct fc_adapt *adapt,
                    const struct fc_adapt_window *window);

/* The newest weights, a reference of the caller's. */
struct fc_gru_model *fc_adapt_model(struct fc_adapt *adapt);

struct fc_adapt_stats fc_adapt_stats(struct fc_adapt *adapt);

/* Memory that it takes at most. */
size_t fc_adapt_bytes(const struct fc_adapt *adapt);

#endif
