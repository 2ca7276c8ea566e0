/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HASHSET_H
#define FC_HASHSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page.h"

/*
 * Set of page hashes in a memory file, docs/formats/hash-set.md. One writer,
 * then any number of readers in any process or thread.
 */
struct fc_hashset {
    int fd; /* owned; -1 when mapped from a descriptor of the caller */
    void *map;
    size_t map_bytes;
    uint64_t *slots; /* pairs lo, hi */
    uint64_t mask, held;
};

/* An empty set for up to `capacity` hashes. 0, FC_EINVAL or FC_ESYS. */
int fc_hashset_new(struct fc_hashset *set, uint64_t capacity);

/* 0 (also when already held or none) or FC_EFULL. */
int fc_hashset_add(struct fc_hashset *set, struct fc_hash hash);

/* Maps `fd` read-only after checking its size and header against each other.
 * The descriptor stays the caller's. 0, FC_EFORMAT or FC_ESYS. */
int fc_hashset_map(struct fc_hashset *set, int fd);

bool fc_hashset_has(const struct fc_hashset *set, struct fc_hash hash);

void fc_hashset_dispose(struct fc_hashset *set);

#endif
