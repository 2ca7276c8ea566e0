/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLOCKTRACE_H
#define FC_BLOCKTRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"

/*
 * What guests' disks are asked for: `forecopy-block trace` as a child for all
 * disks of the guests that are looked after, and a predictor for each disk.
 * While there is no such guest there is no child. Event loop thread only.
 */
struct event_base;
struct fc_children;
struct fc_blocktrace;
struct json_object;

#define FC_BLOCKTRACE_EXTENT (1u << 20)
#define FC_BLOCKTRACE_TICK_MS 10000u

/* Strings are kept, not copied. */
struct fc_blocktrace_args {
    struct event_base *base;
    struct fc_children *children;
    const char *sys_root; /* "/sys" */
    const char *program;  /* "forecopy-block" */
    /* Whether a domain's disks are to be traced, for a reason other than
     * fc_blocktrace_want(); gives the uuid of any domain there is. */
    enum fc_blocktrace_answer {
        FC_BLOCKTRACE_NO,
        FC_BLOCKTRACE_YES,
        FC_BLOCKTRACE_GONE
    } (*ask)(void *user, uint32_t domid, uint8_t uuid_r[FC_UUID_BYTES]);
    void *user;
};

/* 0 or FC_ENOMEM. */
int fc_blocktrace_new(const struct fc_blocktrace_args *args,
                      struct fc_blocktrace **b_r);
void fc_blocktrace_free(struct fc_blocktrace *b); /* NULL is fine */

/* A guest's disks are traced, or no longer for this reason. 0, FC_ELIMIT: too
 * many guests. `b` may be NULL. */
int fc_blocktrace_want(struct fc_blocktrace *b, const uint8_t *uuid, bool want);

/* To be called each second: looks which disks there are. `means`: "auto",
 * "bpf", "tracefs", "blktrace", or "off". */
void fc_blocktrace_tick(struct fc_blocktrace *b, const char *means,
                        uint64_t now_ms);

/*
 * The blocks of a disk that are most likely to be read within the next minutes,
 * the likeliest first, all below size / block_bytes rounded up; those of
 * extents that were never asked for are left out. 0, FC_ENOENT (nothing is
 * known of such a disk; also for `b` NULL), FC_EINVAL or FC_ENOMEM. The caller
 * frees blocks_r.
 */
int fc_blocktrace_order(struct fc_blocktrace *b, const uint8_t *uuid,
                        const char *vdev, uint32_t block_bytes, uint64_t size,
                        uint32_t **blocks_r, uint32_t *count_r);

/*
 * Each request of one disk, for whoever records it. While somebody listens,
 * the guest's disks are traced as if they were wanted, and the child reports
 * requests, of all disks. Entries are valid during the call.
 */
struct fc_block_listener;
struct fc_blockbatch_frame;

struct fc_block_ears {
    /* A child traces the disk, which has so many sectors of 512 bytes, by
     * `means` ("bpf", ...). Comes again after `ended`. */
    void (*begun)(void *user, const char *means, uint64_t sectors);
    /* As docs/formats/block-trace-batch.md has them; two children's may
     * overlap in time. */
    void (*requests)(void *user, const struct fc_blockbatch_frame *f);
    /* A child has said all, or could not begin. Another follows, unless the
     * listener is to end. `last`: no other is at work. */
    void (*ended)(void *user, bool last);
};

/* 0; FC_ENOENT: the domain has no such disk (and for `b` NULL); FC_ENOMEM.
 * `vdev` "": its only disk; FC_EINVAL: it has several. */
int fc_blocktrace_listen(struct fc_blocktrace *b, const uint8_t *uuid,
                         const char *vdev, const struct fc_block_ears *ears,
                         void *user, struct fc_block_listener **l_r);
const char *fc_blocktrace_listener_vdev(const struct fc_block_listener *l);
/* Requests that were not seen since it began, of all traced disks. */
uint64_t fc_blocktrace_listener_lost(const struct fc_block_listener *l);
/* The child says what it has and ends: true when `ended` follows. */
bool fc_blocktrace_listener_end(struct fc_block_listener *l);
/* NULL is fine. Also when the tracing was freed before. */
void fc_blocktrace_listener_free(struct fc_block_listener *l);

/*
 * For each stretch of so many bytes of a disk, the chance (0 to 1) that
 * something of it is asked for within eight minutes: the highest of its
 * extents'. 0, or FC_ENOENT as above; then nothing is written.
 */
int fc_blocktrace_chances(struct fc_blocktrace *b, const uint8_t *uuid,
                          const char *vdev, uint64_t range_bytes,
                          unsigned count, float *chance_r);

/* An array with an object for each traced disk of the guest, the caller's. */
struct json_object *fc_blocktrace_json(const struct fc_blocktrace *b,
                                       const uint8_t *uuid);

/* "xvda" of 51712, as guests name their disks; "d51712" of what is no known
 * kind. */
#define FC_BLOCKTRACE_VDEV 16u
void fc_blocktrace_vdev(uint32_t number, char text[FC_BLOCKTRACE_VDEV]);

#endif
