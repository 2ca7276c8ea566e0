/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CYCLE_H
#define FC_CYCLE_H

#include <stdint.h>

/*
 * The guest's cycle, from the autocorrelation of its rate of touches over the
 * last FC_CYCLE_BINS bins: its length, where in it the guest is, and what the
 * rate will be by it (as ALMA times migrations, arXiv 1607.07846). One thread.
 */
#define FC_CYCLE_BINS 512u
#define FC_CYCLE_TICKS 5u    /* a bin */
#define FC_CYCLE_SHORTEST 4u /* bins */

struct fc_cycle {
    float rate[FC_CYCLE_BINS]; /* log2(1 + touches a tick), a ring */
    uint32_t bins;             /* taken in so far */
    float sum;                 /* of the bin that is filling */
    uint32_t ticks;
    uint32_t length; /* in bins; 0: no cycle is seen */
    uint32_t crest;  /* a bin at which the rate is highest */
    float clear;     /* autocorrelation at that length, 0 to 1 */
};

void fc_cycle_init(struct fc_cycle *c);
void fc_cycle_add(struct fc_cycle *c, float touches, uint32_t ticks);

/* 0 to 1, 0 at the crest. 0 when no cycle is seen. */
float fc_cycle_phase(const struct fc_cycle *c);

/* Octaves by which the rate `ticks` ahead will lie above that of now, by what
 * it was a cycle ago. 0 when no cycle is seen. */
float fc_cycle_ahead(const struct fc_cycle *c, uint32_t ticks);

#endif
