/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BTRACE_H
#define FC_BTRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blockbatch.h"

/*
 * What block devices are asked for, as the kernel queues it: one interface
 * over three means of looking. A tracer belongs to one thread.
 *
 *     fc_btrace_open(&config, &tracer, why);
 *     each 100 ms or so: fc_btrace_collect(tracer);
 *     each interval: fc_btrace_write(tracer, fd);
 *     fc_btrace_close(tracer);
 */
#define FC_BTRACE_WHY 200u
#define FC_BTRACE_METHODS 3u

struct fc_btrace;
struct fc_btrace_means_ops;

struct fc_btrace_target {
    char path[256];
    uint32_t major, minor;
    uint32_t disk_major, disk_minor; /* a partition's disk; else the same */
    uint64_t sectors;
    uint64_t first; /* a partition's first sector on its disk; 0 else */
};

struct fc_btrace_config {
    uint32_t extent_bytes, interval_ms; /* as in the batches */
    bool requests; /* each request is reported too, at more cost */
    uint32_t targets;
    const struct fc_btrace_target *target;
    /* 0: the first that can be had of BPF, tracefs, blktrace */
    enum fc_blockbatch_means only;
    const struct fc_btrace_means_ops *own; /* a test's, instead of all others */
};

/* What is to be known of a device, given its path or "MAJOR:MINOR". 0,
 * FC_EINVAL (not a block device, too large) or FC_ESYS, with a sentence. */
int fc_btrace_target_find(const char *name, struct fc_btrace_target *target_r,
                          char why[FC_BTRACE_WHY]);

/*
 * Begins to look. `config` and its targets are copied. 0, or FC_ESYS,
 * FC_ENOMEM, FC_EINVAL with a sentence for each means that was tried.
 */
int fc_btrace_open(const struct fc_btrace_config *config,
                   struct fc_btrace **tracer_r,
                   char why[FC_BTRACE_METHODS * FC_BTRACE_WHY]);
void fc_btrace_close(struct fc_btrace *t); /* NULL is fine */

enum fc_blockbatch_means fc_btrace_means(const struct fc_btrace *t);

/* Takes over what waits in the kernel's buffers. 0, FC_ESYS or FC_ENOMEM. */
int fc_btrace_collect(struct fc_btrace *t);

/* Requests lost and seen so far. */
uint64_t fc_btrace_lost(struct fc_btrace *t);
uint64_t fc_btrace_seen(struct fc_btrace *t);

/* Collects, and writes what came since the last time as batches; waits for a
 * reader that is slow. 0, or as fc_write_all() and fc_btrace_collect(). */
int fc_btrace_write_start(struct fc_btrace *t, int fd);
int fc_btrace_write(struct fc_btrace *t, int fd, uint64_t now_us);
/* Only requests, of the devices where many wait; between two intervals. */
int fc_btrace_write_full(struct fc_btrace *t, int fd);
int fc_btrace_write_end(struct fc_btrace *t, int fd);

/* ---- between btrace.c and the means ---- */

/* A request that was seen: `sector` on the device (a partition's own). What
 * does not lie on the device is left out. */
void fc_btrace_seen_one(struct fc_btrace *t, uint32_t index, uint64_t time_ns,
                        enum fc_blockbatch_op op, uint64_t sector,
                        uint32_t sectors);
/* The same without counting it (counts come by themselves). */
void fc_btrace_request(struct fc_btrace *t, uint32_t index, uint64_t time_ns,
                       enum fc_blockbatch_op op, uint64_t sector,
                       uint32_t sectors);
/* Counts of an extent. */
void fc_btrace_count(struct fc_btrace *t, uint32_t index,
                     const struct fc_blockbatch_count *count);

/* Index of the target that has that sector of that disk, a partition before the
 * disk itself; -1: none has. */
int fc_btrace_find(const struct fc_btrace_config *c, uint32_t disk_major,
                   uint32_t disk_minor, uint64_t sector);

struct fc_btrace_means_ops {
    enum fc_blockbatch_means means;
    /* 0 with the means' own state, or FC_ESYS, FC_ENOMEM with a sentence. */
    int (*open)(struct fc_btrace *t, const struct fc_btrace_config *c,
                void **state_r, char why[FC_BTRACE_WHY]);
    /* Hands all that waits to fc_btrace_seen_one() and the like. When `counts`
     * is false an interval is not over: counts may wait. */
    int (*collect)(void *state, bool counts);
    uint64_t (*lost)(void *state);
    /* Requests seen; NULL: as many as fc_btrace_seen_one() was told. */
    uint64_t (*seen)(void *state);
    void (*close)(void *state);
};

extern const struct fc_btrace_means_ops fc_btrace_bpf;
extern const struct fc_btrace_means_ops fc_btrace_tracefs;
extern const struct fc_btrace_means_ops fc_btrace_blktrace;

/*
 * The parsers of what the kernel's buffers hold; bytes of any kind are safe.
 *
 * tracefs: one page of trace_pipe_raw, `layout` from the two format files.
 * Returns how many events the kernel says it lost before this page (0 when it
 * does not know how many: the buffer's own count tells).
 */
struct fc_btrace_layout {
    uint16_t id;                           /* of block_bio_queue */
    uint16_t dev, sector, nr_sector, rwbs; /* offsets in the event */
    uint16_t commit, commit_size, data;    /* in a page */
};

/* 0 or FC_EFORMAT; texts end with a NUL. */
int fc_btrace_layout_parse(const char *event_format, const char *page_format,
                           struct fc_btrace_layout *layout_r);
void fc_btrace_page_parse(struct fc_btrace *t, const struct fc_btrace_config *c,
                          const struct fc_btrace_layout *layout,
                          const uint8_t *page, size_t len);

/* blktrace: events back to back. Returns the bytes that are whole ones, or
 * FC_EFORMAT. */
long fc_btrace_events_parse(struct fc_btrace *t, uint32_t index, uint64_t first,
                            const uint8_t *buf, size_t len);

#endif
