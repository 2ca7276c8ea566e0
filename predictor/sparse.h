/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SPARSE_H
#define FC_SPARSE_H

#include <stddef.h>
#include <stdint.h>

/*
 * An array with one zero-initialised item a page, of which only the chunks of
 * FC_SPARSE_PAGES pages that were asked for take memory. Not shared between
 * threads.
 */
#define FC_SPARSE_PAGES 512u

struct fc_sparse {
    void **chunks;
    uint64_t pages, nchunks, held;
    size_t item_bytes;
};

/* 0 or FC_ENOMEM. */
int fc_sparse_init(struct fc_sparse *s, uint64_t pages, size_t item_bytes);
void fc_sparse_dispose(struct fc_sparse *s);

/* Chunk `index`, made when it is not there. NULL: no memory. */
void *fc_sparse_make(struct fc_sparse *s, uint64_t index);

/* Chunk `index`, or NULL when there is none. */
static inline void *fc_sparse_chunk(const struct fc_sparse *s, uint64_t index)
{
    return index < s->nchunks ? s->chunks[index] : NULL;
}

/* The item of `page`, or NULL when its chunk is not there. */
static inline void *fc_sparse_get(const struct fc_sparse *s, uint64_t page)
{
    char *chunk = fc_sparse_chunk(s, page / FC_SPARSE_PAGES);
    return chunk ? chunk + page % FC_SPARSE_PAGES * s->item_bytes : NULL;
}

size_t fc_sparse_bytes(const struct fc_sparse *s);

/*
 * Calls `each` for every set bit of `bits` (s->pages bits) with its item,
 * making chunks as needed. 0, or FC_ENOMEM when some were skipped.
 */
int fc_sparse_each_bit(struct fc_sparse *s, const uint64_t *bits,
                       void (*each)(void *user, void *item), void *user);

/* Calls `each` for every item of every chunk that is there. */
void fc_sparse_each_item(struct fc_sparse *s,
                         void (*each)(void *user, void *item), void *user);

#endif
