/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLOCKBATCH_H
#define FC_BLOCKBATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Batches of what traced block devices were asked for
 * (docs/formats/block-trace-batch.md). Nothing here allocates or waits; a
 * reader or a buffer belongs to one thread at a time.
 */
#define FC_BLOCKBATCH_HEADER 16u
#define FC_BLOCKBATCH_BODY (1u << 20) /* most */
#define FC_BLOCKBATCH_FRAME (FC_BLOCKBATCH_HEADER + FC_BLOCKBATCH_BODY)
#define FC_BLOCKBATCH_DEVICES 64u
#define FC_BLOCKBATCH_COUNTS 32767u   /* entries of a frame, most */
#define FC_BLOCKBATCH_REQUESTS 43689u /* the same */
#define FC_BLOCKBATCH_EXTENT_LEAST 65536u
#define FC_BLOCKBATCH_EXTENT_MOST (1u << 30)
#define FC_BLOCKBATCH_INTERVAL_LEAST 10u
#define FC_BLOCKBATCH_INTERVAL_MOST 3600000u
#define FC_BLOCKBATCH_SECTORS_MOST (1ull << 40) /* of a device */

enum fc_blockbatch_type {
    FC_BLOCKBATCH_START = 1,
    FC_BLOCKBATCH_COUNT = 2,
    FC_BLOCKBATCH_REQUEST = 3,
    FC_BLOCKBATCH_END = 4,
};

enum fc_blockbatch_means {
    FC_BLOCKBATCH_BPF = 1,
    FC_BLOCKBATCH_TRACEFS = 2,
    FC_BLOCKBATCH_BLKTRACE = 3,
};

/* As enum fc_trace_type has them. */
enum fc_blockbatch_op {
    FC_BLOCKBATCH_READ = 5,
    FC_BLOCKBATCH_WRITE = 6,
    FC_BLOCKBATCH_DISCARD = 7,
};

struct fc_blockbatch_device {
    uint32_t major, minor;
    uint64_t sectors; /* of 512 bytes */
};

struct fc_blockbatch_start {
    uint32_t extent_bytes, interval_ms;
    enum fc_blockbatch_means means;
    bool requests;
    uint32_t devices;
    struct fc_blockbatch_device device[FC_BLOCKBATCH_DEVICES];
};

struct fc_blockbatch_count {
    uint64_t extent;
    uint32_t reads, writes;
    uint64_t read_bytes, write_bytes;
};

struct fc_blockbatch_request {
    uint64_t time_us;
    uint64_t sector;
    uint32_t sectors;
    enum fc_blockbatch_op op;
};

/* "bpf", "tracefs", "blktrace"; NULL for anything else. */
const char *fc_blockbatch_means_name(enum fc_blockbatch_means means);

/*
 * Makes a frame in `buf`, which has FC_BLOCKBATCH_FRAME bytes. Returns its
 * length, or 0 when the arguments break the format's bounds (the order of
 * entries is the caller's to keep).
 */
size_t fc_blockbatch_put_start(uint8_t *buf,
                               const struct fc_blockbatch_start *start);
size_t fc_blockbatch_put_counts(uint8_t *buf, uint32_t device, uint64_t time_us,
                                uint64_t lost, bool more, uint32_t n,
                                const struct fc_blockbatch_count *count);
size_t fc_blockbatch_put_requests(uint8_t *buf, uint32_t device, uint64_t lost,
                                  uint32_t n,
                                  const struct fc_blockbatch_request *request);
size_t fc_blockbatch_put_end(uint8_t *buf, uint64_t lost, uint64_t requests);

/* A stream that is read; zero it to begin. */
struct fc_blockbatch_reader {
    struct fc_blockbatch_start start; /* devices 0: not yet seen */
    uint64_t lost, requests;          /* requests: known at the end */
    bool ended;
    uint64_t counted_us[FC_BLOCKBATCH_DEVICES];
    uint64_t requested_us[FC_BLOCKBATCH_DEVICES];
    char problem[120]; /* what was refused */
};

struct fc_blockbatch_frame {
    enum fc_blockbatch_type type;
    uint32_t device;
    uint64_t time_us; /* counts */
    bool more;
    uint32_t n;
    const uint8_t *entries; /* in the caller's buffer */
};

/*
 * The next frame of the `len` bytes at `buf`: the bytes that it takes, 0 when
 * it is not all there yet, or FC_EFORMAT, FC_EVERSION, FC_ECHECK, FC_ETOOBIG
 * with `problem` filled in, after which the stream is of no use.
 */
long fc_blockbatch_next(struct fc_blockbatch_reader *r, const uint8_t *buf,
                        size_t len, struct fc_blockbatch_frame *frame_r);

/* The i-th entry of a frame of that type, i < n. */
void fc_blockbatch_count_at(const struct fc_blockbatch_frame *frame, uint32_t i,
                            struct fc_blockbatch_count *count_r);
void fc_blockbatch_request_at(const struct fc_blockbatch_frame *frame,
                              uint32_t i,
                              struct fc_blockbatch_request *request_r);

/* Extents of a device of so many sectors. */
static inline uint64_t fc_blockbatch_extents(uint64_t sectors,
                                             uint32_t extent_bytes)
{
    uint64_t each = extent_bytes / 512;
    return (sectors + each - 1) / each;
}

#endif
