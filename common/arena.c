/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "arena.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "err.h"

/*
 * Slabs that were never used cost nothing, not even their record: a file may
 * be far larger than its writer's budget. Free slabs form a list through
 * `next`; slabs in use with a free cell form one list per class through `prev`
 * and `next`; full slabs are in no list. In a slab's `owner` table a free cell
 * holds the number of the next free one.
 */
#define UNITS (FC_ARENA_SLAB / FC_ARENA_UNIT)
#define MALLOC_BYTES 16u /* what the allocator adds to a block */
#define NO_CELL UINT16_MAX

struct fc_arena_slab {
    uint32_t *owner; /* NULL: the slab is free */
    uint32_t prev, next;
    uint16_t class, used, free_cell;
};

static unsigned cells_of(unsigned class)
{
    return UNITS / class;
}

unsigned fc_arena_class(size_t bytes)
{
    return (unsigned)((bytes + FC_ARENA_UNIT - 1) / FC_ARENA_UNIT);
}

static uint64_t slab_bytes(unsigned class)
{
    return FC_ARENA_SLAB + cells_of(class) * sizeof(uint32_t) + MALLOC_BYTES;
}

uint64_t fc_arena_cost(const struct fc_arena *a, unsigned class)
{
    return slab_bytes(class) +
           (a->free_head == FC_ARENA_NONE ? sizeof(struct fc_arena_slab) : 0);
}

int fc_arena_init(struct fc_arena *a, int fd, off_t offset, uint64_t bytes)
{
    *a = (struct fc_arena){ .fd = fd,
                            .offset = offset,
                            .slabs = (uint32_t)(bytes / FC_ARENA_SLAB),
                            .free_head = FC_ARENA_NONE };
    a->slab = calloc(a->slabs, sizeof(*a->slab));
    if (!a->slab)
        return FC_ENOMEM;
    a->bytes = MALLOC_BYTES;
    for (unsigned c = 0; c <= FC_ARENA_CLASSES; c++)
        a->partial[c] = FC_ARENA_NONE;
    return 0;
}

void fc_arena_dispose(struct fc_arena *a)
{
    if (a->slab)
        for (uint32_t i = 0; i < a->fresh; i++)
            free(a->slab[i].owner);
    free(a->slab);
    a->slab = NULL;
    a->slabs = a->fresh = 0;
}

static void list_add(struct fc_arena *a, uint32_t i)
{
    struct fc_arena_slab *s = &a->slab[i];
    uint32_t *head = &a->partial[s->class];
    s->prev = FC_ARENA_NONE;
    s->next = *head;
    if (*head != FC_ARENA_NONE)
        a->slab[*head].prev = i;
    *head = i;
}

static void list_remove(struct fc_arena *a, uint32_t i)
{
    struct fc_arena_slab *s = &a->slab[i];
    if (s->prev != FC_ARENA_NONE)
        a->slab[s->prev].next = s->next;
    else
        a->partial[s->class] = s->next;
    if (s->next != FC_ARENA_NONE)
        a->slab[s->next].prev = s->prev;
}

int fc_arena_grow(struct fc_arena *a, unsigned class)
{
    bool fresh = a->free_head == FC_ARENA_NONE;
    uint32_t i = fresh ? a->fresh : a->free_head;
    if (i >= a->slabs)
        return FC_EFULL;
    struct fc_arena_slab *s = &a->slab[i];
    unsigned cells = cells_of(class);
    uint32_t *owner = malloc(cells * sizeof(*owner));
    if (!owner)
        return FC_EFULL;
    /* Taken by call, so that a host without memory answers with an error
     * instead of a SIGBUS at the first write. */
    if (fallocate(a->fd, FALLOC_FL_KEEP_SIZE,
                  a->offset + (off_t)i * FC_ARENA_SLAB, FC_ARENA_SLAB) < 0) {
        free(owner);
        return FC_EFULL;
    }
    for (unsigned c = 0; c < cells; c++)
        owner[c] = c + 1 < cells ? c + 1 : NO_CELL;
    a->bytes += fc_arena_cost(a, class);
    if (fresh)
        a->fresh++;
    else
        a->free_head = s->next;
    *s = (struct fc_arena_slab){ .owner = owner, .class = (uint16_t)class };
    list_add(a, i);
    return 0;
}

uint32_t fc_arena_take(struct fc_arena *a, unsigned class, uint32_t owner)
{
    uint32_t i = a->partial[class];
    if (i == FC_ARENA_NONE)
        return FC_ARENA_NONE;
    struct fc_arena_slab *s = &a->slab[i];
    uint16_t cell = s->free_cell;
    s->free_cell = (uint16_t)s->owner[cell];
    s->owner[cell] = owner;
    s->used++;
    if (s->free_cell == NO_CELL)
        list_remove(a, i);
    return i * UNITS + cell * class;
}

static uint32_t *owner_at(const struct fc_arena *a, uint32_t cell)
{
    const struct fc_arena_slab *s = &a->slab[cell / UNITS];
    return &s->owner[cell % UNITS / s->class];
}

uint32_t fc_arena_owner(const struct fc_arena *a, uint32_t cell)
{
    return *owner_at(a, cell);
}

void fc_arena_owner_set(struct fc_arena *a, uint32_t cell, uint32_t owner)
{
    *owner_at(a, cell) = owner;
}

void fc_arena_release(struct fc_arena *a, uint32_t cell)
{
    uint32_t i = cell / UNITS;
    struct fc_arena_slab *s = &a->slab[i];
    if (s->free_cell == NO_CELL)
        list_add(a, i);
    *owner_at(a, cell) = s->free_cell;
    s->free_cell = (uint16_t)(cell % UNITS / s->class);
    if (--s->used)
        return;
    list_remove(a, i);
    a->bytes -= slab_bytes(s->class);
    free(s->owner);
    s->owner = NULL;
    s->next = a->free_head;
    a->free_head = i;
    /* Best effort: a hole that cannot be punched is written over later. */
    (void)!fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     a->offset + (off_t)i * FC_ARENA_SLAB, FC_ARENA_SLAB);
}
