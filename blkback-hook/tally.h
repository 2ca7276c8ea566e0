/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TALLY_H
#define FC_TALLY_H

#include <stdint.h>

#include "blockbatch.h"

/*
 * Counts by device and extent, of an interval. One thread. At most
 * FC_TALLY_MOST extents of all devices; memory follows the largest interval.
 */
#define FC_TALLY_MOST (1u << 20)

struct fc_tally_entry {
    uint32_t device, used;
    struct fc_blockbatch_count count;
};

struct fc_tally {
    struct fc_tally_entry *slot; /* [mask + 1], open addressing */
    uint32_t mask, n;
    struct fc_blockbatch_count *sorted; /* [n], by device, then extent */
    uint32_t first[FC_BLOCKBATCH_DEVICES + 1];
};

int fc_tally_init(struct fc_tally *t); /* 0 or FC_ENOMEM */
void fc_tally_dispose(struct fc_tally *t);

/* Adds to an extent's counts, which stop at their largest value. 0, FC_ELIMIT
 * or FC_ENOMEM: it was not added. */
int fc_tally_add(struct fc_tally *t, uint32_t device,
                 const struct fc_blockbatch_count *count);

/* Puts all in order, for fc_tally_of(). 0 or FC_ENOMEM. */
int fc_tally_sort(struct fc_tally *t);

/* A device's counts in order; valid until the next add or clear. */
const struct fc_blockbatch_count *fc_tally_of(const struct fc_tally *t,
                                              uint32_t device, uint32_t *n_r);

void fc_tally_clear(struct fc_tally *t);

#endif
