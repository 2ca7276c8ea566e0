/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLOCKTRACE_INT_H
#define FC_BLOCKTRACE_INT_H

#include <event2/event.h>
#include <sys/types.h>

#include "blockbatch.h"
#include "blocktrace.h"
#include "engine.h"

/*
 * Shared by blocktrace.c (disks, the child), blocktrace_listen.c (who wants
 * each request) and blocktrace_known.c (what the predictor makes of it).
 */
#define FC_BLOCKTRACE_GUESTS 64u /* wanted for other reasons */

struct disk {
    uint8_t uuid[FC_UUID_BYTES];
    uint32_t domid, number; /* of the virtual device */
    uint32_t major, minor;
    char vdev[FC_BLOCKTRACE_VDEV];
    struct fc_engine *engine;           /* NULL until its size is known */
    uint64_t reads, writes;             /* requests, by extent */
    uint64_t round_reads, round_writes; /* bytes since the last tick */
    uint64_t ticked_us;
    bool seen; /* in the look under way */
    struct disk *next;
};

/* A child. */
struct run {
    struct fc_blocktrace *b;
    pid_t pid; /* 0: has ended */
    int in, out;
    struct event *readable;
    struct fc_blockbatch_reader reader;
    uint8_t *buf;
    size_t used;
    bool requests; /* it was asked for each request */
    uint32_t disks;
    uint32_t domid[FC_BLOCKBATCH_DEVICES], number[FC_BLOCKBATCH_DEVICES];
    /* their disks, which may be gone by now */
    uint8_t uuid[FC_BLOCKBATCH_DEVICES][FC_UUID_BYTES];
    char vdev[FC_BLOCKBATCH_DEVICES][FC_BLOCKTRACE_VDEV];
    struct run *next;
};

struct fc_blocktrace {
    struct fc_blocktrace_args args;
    struct disk *disks;
    struct fc_block_listener *listeners;
    struct run *runs; /* the first is the current one, if `current` */
    bool current, changed;
    char means[16];
    uint64_t retry_ms, lost; /* lost: by children that have ended */
    uint8_t want[FC_BLOCKTRACE_GUESTS][FC_UUID_BYTES];
    uint32_t wants;
};

struct disk *fc_blocktrace_find(struct fc_blocktrace *b, uint32_t domid,
                                uint32_t number);
/* Which disks there are now. */
void fc_blocktrace_look(struct fc_blocktrace *b);

/* blocktrace_listen.c */
bool fc_blocktrace_is_heard(const struct fc_blocktrace *b, const uint8_t *uuid);
/* Whether a child is to report each request. */
bool fc_blocktrace_wants_requests(const struct fc_blocktrace *b);
/* A child has begun, has requests, has said all that it will. */
void fc_blocktrace_tell_begun(struct run *r);
void fc_blocktrace_tell_requests(struct run *r,
                                 const struct fc_blockbatch_frame *f);
void fc_blocktrace_tell_ended(struct run *r);
void fc_blocktrace_drop_listeners(struct fc_blocktrace *b);

#endif
