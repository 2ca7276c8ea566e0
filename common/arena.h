/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ARENA_H
#define FC_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Allocator of the store's arena (docs/formats/store.md): slabs of 64 KiB cut
 * into equal cells. Its records are private memory of the writer; the file
 * holds contents only. One thread.
 *
 * A cell is named by its offset in units of 128 bytes. Each cell in use
 * carries one number for its owner.
 */
#define FC_ARENA_SLAB 65536u
#define FC_ARENA_UNIT 128u
#define FC_ARENA_CLASSES 32u /* cells of 1 .. 32 units */
#define FC_ARENA_NONE UINT32_MAX
#define FC_ARENA_MAX_BYTES ((uint64_t)FC_ARENA_UNIT << 32)

struct fc_arena_slab;

struct fc_arena {
    int fd;                /* the caller's */
    off_t offset;          /* of the arena in the file */
    uint32_t slabs, fresh; /* fresh: from here on never used */
    struct fc_arena_slab *slab;
    uint32_t free_head;
    uint32_t partial[FC_ARENA_CLASSES + 1]; /* slabs with a free cell */
    uint64_t bytes;                         /* slabs in use and all records */
};

/* 0 or FC_ENOMEM. `bytes` is a multiple of FC_ARENA_SLAB. */
int fc_arena_init(struct fc_arena *a, int fd, off_t offset, uint64_t bytes);
void fc_arena_dispose(struct fc_arena *a);

/* The class, in units, of the smallest cell for `bytes` (1 .. 4096). */
unsigned fc_arena_class(size_t bytes);

/* What a new slab of that class would add to `bytes`. */
uint64_t fc_arena_cost(const struct fc_arena *a, unsigned class);

/* Takes a free cell of a slab in use; FC_ARENA_NONE when there is none. */
uint32_t fc_arena_take(struct fc_arena *a, unsigned class, uint32_t owner);

/* Makes a new slab of that class. 0; FC_EFULL: none left, or no memory. */
int fc_arena_grow(struct fc_arena *a, unsigned class);

/* Gives a cell back; a slab that it was the last of goes to the system. */
void fc_arena_release(struct fc_arena *a, uint32_t cell);

uint32_t fc_arena_owner(const struct fc_arena *a, uint32_t cell);
void fc_arena_owner_set(struct fc_arena *a, uint32_t cell, uint32_t owner);

#endif
