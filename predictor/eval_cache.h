/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_EVAL_CACHE_H
#define FC_EVAL_CACHE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A cache of extents, such as a shadow volume with a budget, managed in five
 * ways at once on the same accesses: by least recent use, by least frequent use
 * (over the whole past), by least recent use with extents fetched ahead in
 * order of address, by prediction, and by prediction under a guard: as least
 * recent use would, for as long as that has served more of late. The last three
 * may fetch the same number ahead each tick. One thread.
 */
enum fc_eval_policy {
    FC_EVAL_LRU,
    FC_EVAL_LFU,
    FC_EVAL_SEQUENTIAL,
    FC_EVAL_PREDICTED,
    FC_EVAL_GUARDED,
    FC_EVAL_POLICIES
};

/* "lru", "lfu", "sequential", "predicted", "guarded". */
const char *fc_eval_policy_name(enum fc_eval_policy policy);

struct fc_eval_cache;

/* Holds one of `part` of the extents seen so far. 0 or FC_ENOMEM. */
int fc_eval_cache_new(uint32_t part, struct fc_eval_cache **cache_r);
void fc_eval_cache_free(struct fc_eval_cache *c); /* NULL is fine */

/* Extent `index` is accessed: numbers from 0 in order of first access; `count`
 * says whether hits count. 0 or FC_ENOMEM. */
int fc_eval_cache_access(struct fc_eval_cache *c, uint32_t index, bool count);

/* A tick is over: chances p[n] of the n extents seen so far, and where they are
 * on the disk (address[n]). 0 or FC_ENOMEM. */
int fc_eval_cache_tick(struct fc_eval_cache *c, uint32_t n, const float *p,
                       const uint64_t *address);

/* Share of the counted accesses that were hits. */
double fc_eval_cache_hits(const struct fc_eval_cache *c,
                          enum fc_eval_policy policy);

#endif
