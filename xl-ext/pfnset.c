/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pfnset.h"

#include <stdlib.h>

#include "err.h"

#define FIRST_SLOTS 1024u

/* Fibonacci hashing: neighbouring pfns spread over the table. */
static size_t home(const struct fc_pfnset *set, uint64_t key)
{
    return (size_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & set->mask;
}

static size_t find(const struct fc_pfnset *set, uint64_t key)
{
    size_t i = home(set, key);
    while (set->slots[i] && set->slots[i] != key)
        i = (i + 1) & set->mask;
    return i;
}

static int grow(struct fc_pfnset *set)
{
    size_t slots = set->slots ? 2 * (set->mask + 1) : FIRST_SLOTS;
    struct fc_pfnset bigger = { .slots = calloc(slots, sizeof(uint64_t)),
                                .mask = slots - 1,
                                .held = set->held };
    if (!bigger.slots)
        return FC_ENOMEM;
    for (size_t i = 0; set->slots && i <= set->mask; i++)
        if (set->slots[i])
            bigger.slots[find(&bigger, set->slots[i])] = set->slots[i];
    free(set->slots);
    *set = bigger;
    return 0;
}

int fc_pfnset_add(struct fc_pfnset *set, uint64_t pfn)
{
    if (fc_pfnset_has(set, pfn))
        return 0;
    if (set->held >= FC_PFNSET_MAX)
        return FC_ELIMIT;
    if (!set->slots || 2 * (set->held + 1) > set->mask + 1) {
        int rc = grow(set);
        if (rc < 0)
            return rc;
    }
    set->slots[find(set, pfn + 1)] = pfn + 1;
    set->held++;
    return 0;
}

bool fc_pfnset_has(const struct fc_pfnset *set, uint64_t pfn)
{
    return set->held && set->slots[find(set, pfn + 1)];
}

void fc_pfnset_remove(struct fc_pfnset *set, uint64_t pfn)
{
    if (!set->held)
        return;
    size_t hole = find(set, pfn + 1);
    if (!set->slots[hole])
        return;
    set->slots[hole] = 0;
    set->held--;
    /* Entries after the hole that would no longer be found move into it. */
    for (size_t i = (hole + 1) & set->mask; set->slots[i];
         i = (i + 1) & set->mask) {
        size_t h = home(set, set->slots[i]);
        if (((i - h) & set->mask) < ((i - hole) & set->mask))
            continue;
        set->slots[hole] = set->slots[i];
        set->slots[i] = 0;
        hole = i;
    }
}

void fc_pfnset_dispose(struct fc_pfnset *set)
{
    free(set->slots);
    *set = (struct fc_pfnset){ 0 };
}
