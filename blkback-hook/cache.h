/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CACHE_H
#define FC_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a shadow that is a cache may hold, and what it gives up for more.
 *
 * Blocks that the order names are kept before others; among the others the one
 * that was used longest ago goes first, but a prefetched block that was not
 * used yet gets a second turn. Only when no others are left does an ordered
 * block go, the last in the order first. Prefetching takes room from others
 * only, and leaves an eighth of the budget to them.
 *
 * 13 bytes of memory for each block of the disk. Any thread; its lock is the
 * innermost, and eviction takes blocks without waiting.
 */
struct fc_shadow;
struct cache;

/*
 * A cache of `budget_bytes` (0, or more than the disk: all of it; at least a
 * block), with the blocks that are valid in `s` now. FC_ENOMEM.
 */
int fc_cache_new(struct fc_shadow *s, uint64_t budget_bytes,
                 struct cache **c_r);
void fc_cache_free(struct cache *c); /* NULL is fine */

/*
 * Makes and reserves room for `count` blocks more. False: there is none to be
 * had, and they are not to be kept. After true, fc_cache_settle when they are
 * valid (or failed).
 */
bool fc_cache_admit(struct cache *c, uint32_t count, bool prefetch);
void fc_cache_settle(struct cache *c, uint32_t count);

/* Whether fc_cache_admit would find room for a prefetch without much ado. */
bool fc_cache_wants(struct cache *c, uint32_t count);

/* Blocks became valid; are valid no more; were used. */
void fc_cache_insert(struct cache *c, uint32_t first, uint32_t count,
                     bool prefetched);
void fc_cache_forget(struct cache *c, uint32_t first, uint32_t count);
void fc_cache_touch(struct cache *c, uint32_t first, uint32_t count);

/* The most wanted first. FC_ENOMEM, and the one before stays. */
int fc_cache_set_order(struct cache *c, const uint32_t *blocks, size_t count);

#endif
