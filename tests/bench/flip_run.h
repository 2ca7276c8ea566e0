/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_FLIP_RUN_H
#define FC_BENCH_FLIP_RUN_H

#include "flip_load.h"

enum flip_method {
    FLIP_PREDICTED,  /* the order is the predictor's */
    FLIP_SEQUENTIAL, /* by address, as dm-clone does it */
    FLIP_ON_DEMAND,  /* nothing is copied unless it is read */
    FLIP_METHODS
};

struct flip_terms {
    const char *plugin, *dir;    /* dir: for disks and sockets; absolute */
    uint64_t rate_bps, delay_us; /* the link; bytes a second, one way */
    uint64_t window_us;          /* how much of the load is played */
    uint64_t ahead_bytes;        /* at most so much is copied before the flip */
};

struct flip_result {
    double ahead_bytes,
        ahead_seconds;                /* copied before the flip, and how long */
    double due_blocks;                /* of all reads of the window */
    double done_blocks, local_blocks; /* read in the window; from the shadow */
    double reads, p50_seconds, p99_seconds;
    double prefetched, used; /* blocks that the order brought; of these, read */
};

/* Makes DIR/disk: contents where this bench can come to, holes elsewhere. */
void flip_disk_make(const struct flip_load *l, const struct flip_terms *t);

/*
 * One hand-over: engines of their own under DIR/METHOD, copying ahead of it
 * (`enough_bytes`: that is all), fence, lease, then the load's window against
 * the shadow. Ends the program when anything fails.
 */
void flip_run(const struct flip_load *l, const struct flip_terms *t,
              enum flip_method method, uint64_t enough_bytes,
              struct flip_result *result_r);

#endif
