/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PFNSET_H
#define FC_PFNSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A bounded set of page frame numbers: the pages that a receiver waits for.
 * Numbers come from another host, so it is a hash table and not a bitmap.
 * Not thread-safe.
 */
#define FC_PFNSET_MAX 1048576u

struct fc_pfnset {
    uint64_t *slots; /* pfn + 1; 0: empty */
    size_t mask;
    size_t held;
};

/* 0 (also when already held), FC_ELIMIT at FC_PFNSET_MAX, or FC_ENOMEM. */
int fc_pfnset_add(struct fc_pfnset *set, uint64_t pfn);
void fc_pfnset_remove(struct fc_pfnset *set, uint64_t pfn);
bool fc_pfnset_has(const struct fc_pfnset *set, uint64_t pfn);
void fc_pfnset_dispose(struct fc_pfnset *set);

#endif
