/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_FLIP_LOAD_H
#define FC_BENCH_FLIP_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLIP_BLOCK 65536u
#define FLIP_REQUEST_MAX (1u << 20)
#define FLIP_EXTENT (1u << 20)
#define FLIP_PAST_US                                                           \
    (7200ull * 1000000) /* what forecopyd is taken to have seen */

struct flip_request {
    uint64_t time_us, offset;
    uint32_t length; /* at most FLIP_REQUEST_MAX */
    bool write;
};

/* What a guest asks of its disk, and where in it the hand-over is. */
struct flip_load {
    char name[64];
    uint64_t size; /* of the disk */
    struct flip_request *request;
    size_t count, flip; /* `flip`: the first one after the hand-over */
    uint64_t flip_us;
    uint32_t *order; /* blocks as the predictor would have them copied */
    uint32_t ordered;
};

/*
 * Made up: a guest that goes over the same parts of its disk each minute, some
 * more often than others, in an order of its own, and writes a little.
 */
void flip_load_repeating(struct flip_load *l, uint64_t window_us);

/*
 * A recorded disk. Extents of 1 MiB that the trace never touches are left out
 * (which helps those who copy by address). The hand-over comes after `percent`
 * of its time, before the first window with `least` to `most` reads. Whether
 * there is one; `count` is 0 when it is no disk's trace.
 */
bool flip_load_trace(struct flip_load *l, const char *path, unsigned percent,
                     uint64_t window_us, unsigned least, unsigned most);

/* Fills the order in, from what was asked in at most `past_us` before the
 * hand-over alone, by extents of `extent` bytes (whole blocks, at most
 * FLIP_EXTENT); with FLIP_PAST_US and FLIP_EXTENT the way forecopyd makes it.
 */
void flip_load_predict(struct flip_load *l, uint64_t past_us, uint32_t extent);

void flip_load_dispose(struct flip_load *l);

#endif
