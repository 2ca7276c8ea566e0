/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STORE_H
#define FC_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

/*
 * Page store in a memory file, docs/formats/store.md. One writing process,
 * one thread in it; any number of readers through views.
 */
struct fc_store;

struct fc_store_stats {
    uint64_t pfns;         /* mapped */
    uint64_t pages;        /* distinct contents held */
    uint64_t stored_bytes; /* of these, as stored */
    uint64_t used_bytes;   /* against the budget: index, slabs, bookkeeping */
    uint64_t budget_bytes;
    uint64_t puts;       /* that succeeded */
    uint64_t duplicates; /* of these, whose contents were held already */
    uint64_t evicted;    /* pfns dropped for want of room */
    uint64_t refused;    /* puts that failed */
};

/*
 * A memory file for a store that may grow to `budget_bytes` (at least
 * FC_STORE_MIN_BYTES); memory is taken only as pages come. Header written,
 * epoch random. Returns a close-on-exec descriptor, FC_EINVAL or FC_ESYS.
 */
#define FC_STORE_MIN_BYTES (1u << 20)
int fc_store_file_new(const char *name, uint64_t budget_bytes);

/* The same file opened once more, for reading only (close-on-exec): what may
 * be handed to others. Returns the descriptor or FC_ESYS. */
int fc_store_readonly_fd(int fd);

/*
 * Opens the writing side on such a file, once in the file's life; `fd` stays
 * the caller's and must stay open. A budget above the file's is cut to it.
 * 0, FC_ENOMEM, FC_EINVAL (budget too small), FC_EFORMAT (no store, or one
 * that had a writer before) or FC_ESYS.
 */
int fc_store_open(int fd, uint64_t budget_bytes, struct fc_store **store_r);
void fc_store_free(struct fc_store *store);
uint64_t fc_store_epoch(const struct fc_store *store);

/*
 * Maps pfn to the contents. `page` must match `hash` (the caller has verified
 * it). What the pfn mapped before is let go. When the budget is reached, the
 * pfns least recently put are dropped and reported to `evicted` (may be NULL).
 * 0; FC_EFULL when even that does not make room, or FC_EINVAL for a pfn from
 * 2^32 - 1 up or the hash "none": then the pfn maps nothing.
 */
typedef void fc_store_evicted(void *user, uint64_t pfn);
int fc_store_put(struct fc_store *store, uint64_t pfn, struct fc_hash hash,
                 const void *page, fc_store_evicted *evicted, void *user);

/* Lets a pfn go; nothing happens when it is not mapped. */
void fc_store_drop(struct fc_store *store, uint64_t pfn);

/* Whether the pfn is mapped. */
bool fc_store_has(const struct fc_store *store, uint64_t pfn);

/*
 * Changes the budget, between what the empty store needs and the file's size;
 * a value outside is taken as the nearest bound. Drops pfns as
 * fc_store_put() does until it is kept. Returns the budget in force.
 */
uint64_t fc_store_budget_set(struct fc_store *store, uint64_t budget_bytes,
                             fc_store_evicted *evicted, void *user);
void fc_store_stats_get(const struct fc_store *store,
                        struct fc_store_stats *stats_r);

/* Reading side. Trusts nothing in the file. */
struct fc_store_view {
    const uint8_t *map;
    size_t map_bytes;
    const uint8_t *index;
    uint64_t mask; /* of all slots; fewer may be in use */
    uint64_t arena_offset, arena_bytes, epoch;
};

/* Maps `fd` read-only; it stays the caller's. 0, FC_EFORMAT or FC_ESYS. */
int fc_store_view_open(int fd, struct fc_store_view *view);
void fc_store_view_dispose(struct fc_store_view *view);

/*
 * The contents of `hash` into `page`, verified against it. 0, FC_ENOENT, or
 * FC_ECHECK when something is there that is not it. Any thread.
 */
int fc_store_view_get(const struct fc_store_view *view, struct fc_hash hash,
                      void *page);

#endif
