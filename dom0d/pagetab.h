/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PAGETAB_H
#define FC_PAGETAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

/*
 * What the daemon knows of each page of an armed guest; the states are
 * explained at the head of pagetab.c. Event loop thread only.
 */
struct fc_page_chunk;

struct fc_pagetab {
    uint64_t pfns, nchunks, chunks_held;
    struct fc_page_chunk **chunks;
    uint64_t *log;    /* written since the last CLEAN, as last seen */
    uint64_t *absent; /* read, and nothing was there */
    uint64_t start_ms;

    uint64_t present; /* pages that were read */
    uint64_t zero;    /* of these: all zero, not written since */
    uint64_t staged;  /* acknowledged by the destination */
    uint64_t valid;   /* of these: not written since they were copied */
};

/* What reading a page gave. */
enum fc_page_found {
    FC_PAGE_ABSENT,
    FC_PAGE_ZERO,
    FC_PAGE_SAME, /* as it is staged */
    FC_PAGE_DATA, /* on its way to the destination */
};

/* 0 or FC_ENOMEM. */
int fc_pagetab_init(struct fc_pagetab *t, uint64_t pfns, uint64_t now_ms);
void fc_pagetab_dispose(struct fc_pagetab *t);
size_t fc_pagetab_bytes(const struct fc_pagetab *t);

/*
 * Takes in what the dirty log showed: `bits` (t->pfns of them; more are
 * ignored) are the pages written since the last CLEAN, and `cleaned` says that
 * this was one. 0, or FC_ENOMEM when something could not be noted; then no
 * page is counted as valid.
 */
int fc_pagetab_seen(struct fc_pagetab *t, const uint64_t *bits, bool cleaned,
                    uint64_t now_ms);

/* Writes went unseen: nothing is known to be as it was when copied. */
void fc_pagetab_blind(struct fc_pagetab *t);

/* Nothing is staged any more (a new store, or none). */
void fc_pagetab_unstage_all(struct fc_pagetab *t);

/*
 * Whether the page may be read now for staging: not written since the last
 * CLEAN, quiet for `quiet_ms` (longer when it was staged in vain before), not
 * under way, not known already. With `only_staged` pages that the destination
 * does not hold are left out.
 */
bool fc_pagetab_candidate(const struct fc_pagetab *t, uint64_t pfn,
                          uint64_t now_ms, uint64_t quiet_ms, bool only_staged);

/* The page is about to be read. Returns its staged hash, or none. */
struct fc_hash fc_pagetab_begin(struct fc_pagetab *t, uint64_t pfn);

/* It was read. With FC_PAGE_DATA it stays under way until one of the two
 * below. 0 or FC_ENOMEM (nothing noted). */
int fc_pagetab_read(struct fc_pagetab *t, uint64_t pfn,
                    enum fc_page_found found, uint64_t now_ms);

/* Frees the memory around `pfn` when reading found nothing there; to be called
 * after a run of absent pages. */
void fc_pagetab_trim(struct fc_pagetab *t, uint64_t pfn);

/* The destination acknowledged it under this hash. */
void fc_pagetab_staged(struct fc_pagetab *t, uint64_t pfn, struct fc_hash hash);

/* Reading, sending or storing it came to nothing. */
void fc_pagetab_failed(struct fc_pagetab *t, uint64_t pfn);

/* The destination does not hold it any more. */
void fc_pagetab_evicted(struct fc_pagetab *t, uint64_t pfn);

/* Staged, but written since: the store could use its room for others. */
bool fc_pagetab_is_stale(const struct fc_pagetab *t, uint64_t pfn);

/* Calls `each` for every staged page's hash, valid or not. */
void fc_pagetab_each_staged(const struct fc_pagetab *t,
                            void (*each)(void *user, struct fc_hash hash),
                            void *user);

#endif
