/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RECORDER_H
#define FC_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "trace.h"

/*
 * Writes a guest's dirty log, or a disk's requests, to a trace
 * (docs/formats/trace.md) in a thread of its own, so that a disk that is slow,
 * full or gone holds up nobody else. All functions are the event loop's, and
 * none of them waits but _free().
 */
struct fc_recorder;

/* What may wait to be written. */
#define FC_RECORDER_QUEUE (16u << 20)

struct fc_recorder_state {
    bool done;      /* the thread is through, for better or worse */
    int rc, error;  /* 0, or what went wrong, and errno with FC_EIO */
    uint64_t bytes; /* of the file */
};

/*
 * Takes over `fd` (also when it fails): an empty regular file. 0, FC_EINVAL
 * (it is none, or cannot be written), FC_ENOMEM or FC_ESYS.
 */
int fc_recorder_new(int fd, const struct fc_trace_head *head,
                    struct fc_recorder **recorder_r);

/*
 * The pages whose bits are set, `skip` excepted, were written in the tick that
 * ends at time_us. 0 with their number; FC_EFULL: too much waits to be written;
 * FC_ENOMEM; or what the thread failed with.
 */
int fc_recorder_tick(struct fc_recorder *r, uint64_t time_us,
                     const uint64_t *bits, uint64_t pfns, uint64_t skip,
                     uint64_t *pages_r);

/* Holds for the ticks that follow; likewise. */
int fc_recorder_rates(struct fc_recorder *r, uint64_t time_us,
                      const struct fc_trace_rates *rates);

/* A disk's requests, in order of time; likewise. */
struct fc_recorder_request {
    uint64_t time_us, first; /* first: sector */
    uint32_t count;          /* sectors */
    enum fc_trace_type type; /* FC_TRACE_READ, _WRITE, _DISCARD */
};
int fc_recorder_requests(struct fc_recorder *r, uint32_t count,
                         const struct fc_recorder_request *request);

/* Nothing more comes: what waits is written, and the mark of the end. */
void fc_recorder_end(struct fc_recorder *r);

void fc_recorder_state(struct fc_recorder *r, struct fc_recorder_state *state);

/*
 * Ends it and waits for the thread, at most FC_RECORDER_WAIT_MS when it is not
 * done; one that hangs in a write is left to itself. NULL is fine.
 */
#define FC_RECORDER_WAIT_MS 2000u
void fc_recorder_free(struct fc_recorder *r);

#endif
