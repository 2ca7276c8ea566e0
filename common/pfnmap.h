/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PFNMAP_H
#define FC_PFNMAP_H

#include <stdint.h>

/*
 * Map of pfn to a number (the store's cell), with all mapped pfns in a list by
 * age. Not thread-safe; no pointer of it outlives the next removal.
 */
#define FC_PFNMAP_NONE UINT32_MAX /* no pfn, and no number */

struct fc_pfnmap_entry {
    uint32_t cell; /* FC_PFNMAP_NONE: not mapped */
    uint32_t older, newer;
};

struct fc_pfnmap {
    void *root;
    uint32_t oldest, newest;
    uint64_t linked; /* pfns in the list */
    uint64_t bytes;  /* heap memory in use, the allocator's share included */
};

void fc_pfnmap_init(struct fc_pfnmap *map);
void fc_pfnmap_dispose(struct fc_pfnmap *map);

/* The pfn's entry, or NULL when neither mapped nor reserved. */
struct fc_pfnmap_entry *fc_pfnmap_find(const struct fc_pfnmap *map,
                                       uint32_t pfn);

/* Bytes that fc_pfnmap_reserve() of this pfn would add to `bytes`. */
uint64_t fc_pfnmap_cost(const struct fc_pfnmap *map, uint32_t pfn);

/*
 * An entry for a pfn that has none: cell FC_PFNMAP_NONE, in no list. It stays
 * in place until fc_pfnmap_remove(). NULL: out of memory.
 */
struct fc_pfnmap_entry *fc_pfnmap_reserve(struct fc_pfnmap *map, uint32_t pfn);

/* Puts the entry at the list's young end, or takes it out of the list. */
void fc_pfnmap_link(struct fc_pfnmap *map, uint32_t pfn,
                    struct fc_pfnmap_entry *entry);
void fc_pfnmap_unlink(struct fc_pfnmap *map, struct fc_pfnmap_entry *entry);

/* Forgets an entry that is in no list, and memory that only it needed. */
void fc_pfnmap_remove(struct fc_pfnmap *map, uint32_t pfn);

#endif
