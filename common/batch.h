/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BATCH_H
#define FC_BATCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "page.h"

/*
 * Page batches, docs/formats/page-batch.md. No function here keeps state or
 * allocates; any thread, as long as the buffers are its own.
 */
#define FC_BATCH_PAGES 1024u       /* pages with contents in one batch */
#define FC_BATCH_RUNS 4096u        /* entries of the run table */
#define FC_BATCH_ENTRIES 1048576u  /* pages of any kind */
#define FC_BATCH_CHUNK_PAGES 16u   /* pages that are compressed together */
#define FC_BATCH_MAX_BYTES 4300000u

enum fc_batch_kind {
    FC_BATCH_NONE = 0,
    FC_BATCH_ZERO = 1,
    FC_BATCH_REF = 2,
    FC_BATCH_DATA = 3,
};

/* One page to encode. `page` (FC_PAGE_SIZE bytes) is used for DATA only,
 * `hash` for REF and DATA. */
struct fc_batch_item {
    uint64_t entry; /* pfn and type, as in page.h */
    const void *page;
    struct fc_hash hash;
    enum fc_batch_kind kind;
};

/*
 * Encodes 1 .. FC_BATCH_PAGES items into out. `cap` of FC_BATCH_MAX_BYTES
 * always suffices. Returns the length, FC_EINVAL (an item's kind and type do
 * not go together, or the count is out of range) or FC_ETOOBIG.
 */
ssize_t fc_batch_encode(const struct fc_batch_item *items, unsigned count,
                        void *out, size_t cap);

/* A parsed batch: pointers into the caller's buffer. */
struct fc_batch {
    uint32_t runs, pages, hashes, data_pages, chunks;
    const uint8_t *run_table, *hash_table, *chunk_data;
    size_t chunk_bytes;
};

/*
 * Checks everything that can be checked without unpacking. 0 or FC_EFORMAT;
 * `*why_r` then says what is wrong (a static string).
 */
int fc_batch_parse(const void *buf, size_t len, struct fc_batch *batch,
                   const char **why_r);

/*
 * Unpacks all DATA pages into `pages` (data_pages * FC_PAGE_SIZE bytes) in
 * batch order and verifies each: good[i] is 1 when page i matches its hash.
 * A chunk that does not decompress leaves its pages not good.
 * Returns the number of good pages.
 */
unsigned fc_batch_unpack(const struct fc_batch *batch, uint8_t *pages,
                         uint8_t *good);

/* Walks the batch page by page, NONE runs run by run. */
struct fc_batch_iter {
    const struct fc_batch *batch;
    uint32_t run, in_run, hash, data;
};

struct fc_batch_step {
    uint64_t entry;          /* of the (first) page */
    uint32_t count;          /* 1, or the length of a NONE run */
    enum fc_batch_kind kind;
    struct fc_hash hash;     /* REF, DATA */
    uint32_t data_index;     /* DATA: which page of fc_batch_unpack() */
};

void fc_batch_iter_init(struct fc_batch_iter *it, const struct fc_batch *batch);

/* 1 and the next step, or 0 at the end. The batch must have been parsed. */
int fc_batch_next(struct fc_batch_iter *it, struct fc_batch_step *step);

#endif
