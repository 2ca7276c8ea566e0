/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_STREAM_INPUT_H
#define FC_BENCH_STREAM_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "hashset.h"
#include "store.h"

/*
 * What bench_stream works on: a libxc v2 stream in memory, and what of it is
 * staged. Faults end the program with a line that says what and where.
 */
struct stream_input {
    const char *name; /* the caller's */
    uint8_t *bytes;   /* from libxc's image header to its END record */
    size_t len;
    size_t start;   /* where in its file it begins */
    uint64_t pages; /* with contents, zero ones included */
    uint64_t zero_pages;
};

/* Prints errno's text too, when it is set. Never returns. */
void __attribute__((noreturn)) stream_die(const char *what);

/* Zeroed memory that is never given back. */
uint8_t *stream_map(size_t len);

/* A guest of 256 MiB: 25 % zero pages, 35 % words, 25 % structures, 15 % noise,
 * in stretches. */
void stream_input_make(struct stream_input *in);

/*
 * A file: a libxc v2 stream, or what `xl save` writes, of which the libxc part
 * is taken. It must be of a PVH or HVM guest, whole, and without checkpoints.
 */
void stream_input_load(struct stream_input *in, const char *path);

/* The destination's store, and what the source knows of it. */
struct stream_staged {
    struct fc_hashset set;
    int store_fd;
    struct fc_store *store;
    uint64_t n;
};

#define STREAM_STAGED_PERCENT 95

/* Stages STREAM_STAGED_PERCENT of the pages that are not zero. */
void stream_stage(struct stream_staged *s, const struct stream_input *in);

/* A fc_page_source's get: `user` is a struct fc_store_view. */
int stream_staged_get(void *user, struct fc_hash hash, void *page);

#endif
