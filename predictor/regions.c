/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "regions.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"

/*
 * Capacity grows by half while small and by an eighth later: with the bytes
 * of a region at stake, slack is what would break the bound on memory.
 */
#define CAPACITY_FIRST 256u
#define CAPACITY_LARGE 16384u

static uint32_t grown(uint32_t capacity)
{
    if (capacity < CAPACITY_FIRST)
        return CAPACITY_FIRST;
    return capacity + (capacity < CAPACITY_LARGE ? capacity / 2 : capacity / 8);
}

int fc_regions_init(struct fc_regions *rs, uint64_t pages, uint32_t shift,
                    uint32_t max, bool weekly)
{
    uint64_t numbers = (pages >> shift) + ((pages & ((1u << shift) - 1)) != 0);
    *rs = (struct fc_regions){ .shift = shift, .pages = pages };
    if (!numbers || numbers >= FC_REGION_NONE || !max)
        return FC_EINVAL;
    rs->numbers = (uint32_t)numbers;
    rs->max = max;
    rs->weekly = weekly;
    rs->free_block = FC_REGION_NONE;
    uint32_t blocks = rs->numbers / FC_BLOCK_REGIONS + 1;
    rs->block_at = malloc(blocks * sizeof(*rs->block_at));
    if (!rs->block_at)
        return FC_ENOMEM;
    memset(rs->block_at, 0xff, blocks * sizeof(*rs->block_at));
    return 0;
}

void fc_regions_dispose(struct fc_regions *rs)
{
    free(rs->all);
    free(rs->last);
    free(rs->week);
    free(rs->block_at);
    free(rs->blocks);
    *rs = (struct fc_regions){ .n = 0 };
}

static int grow_regions(struct fc_regions *rs)
{
    uint32_t capacity = grown(rs->capacity);
    struct fc_region *all = realloc(rs->all, capacity * sizeof(*all));
    if (!all)
        return FC_ENOMEM;
    rs->all = all;
    uint32_t *last = realloc(rs->last, capacity * sizeof(*last));
    if (!last)
        return FC_ENOMEM;
    rs->last = last;
    if (rs->weekly) {
        struct fc_week *week = realloc(rs->week, capacity * sizeof(*week));
        if (!week)
            return FC_ENOMEM;
        rs->week = week;
    }
    rs->capacity = capacity;
    return 0;
}

static int grow_blocks(struct fc_regions *rs)
{
    uint32_t capacity = grown(rs->blocks_capacity);
    struct fc_block *blocks = realloc(rs->blocks, capacity * sizeof(*blocks));
    if (!blocks)
        return FC_ENOMEM;
    rs->blocks = blocks;
    rs->blocks_capacity = capacity;
    return 0;
}

static int make_block(struct fc_regions *rs, uint32_t number, uint32_t tick)
{
    uint32_t *at = &rs->block_at[number / FC_BLOCK_REGIONS];
    if (*at != FC_REGION_NONE)
        return 0;
    uint32_t index = rs->free_block;
    if (index != FC_REGION_NONE) {
        rs->free_block = rs->blocks[index].next;
    } else {
        if (rs->nblocks == rs->blocks_capacity && grow_blocks(rs))
            return FC_ENOMEM;
        index = rs->nblocks++;
    }
    struct fc_block *b = &rs->blocks[index];
    *b = (struct fc_block){ .now_tick = tick };
    memset(b->slot, 0xff, sizeof(b->slot));
    *at = index;
    return 0;
}

int fc_regions_make(struct fc_regions *rs, uint32_t number, uint32_t tick,
                    uint32_t last, uint32_t *slot_r)
{
    *slot_r = fc_regions_find(rs, number);
    if (*slot_r != FC_REGION_NONE)
        return 0;
    if (number >= rs->numbers)
        return FC_EINVAL;
    if (rs->n >= rs->max) {
        rs->cut++;
        return FC_ELIMIT;
    }
    if (rs->n == rs->capacity && grow_regions(rs))
        return FC_ENOMEM;
    if (make_block(rs, number, tick))
        return FC_ENOMEM;
    struct fc_block *b = fc_regions_block(rs, number);
    b->slot[number % FC_BLOCK_REGIONS] = rs->n;
    b->count++;
    rs->all[rs->n] = (struct fc_region){
        .number = number, .updated = tick, .onset = last, .born = tick
    };
    rs->last[rs->n] = last;
    if (rs->weekly)
        rs->week[rs->n] = (struct fc_week){ .bits = { 0 } };
    *slot_r = rs->n++;
    return 0;
}

void fc_regions_drop(struct fc_regions *rs, uint32_t slot)
{
    uint32_t number = rs->all[slot].number;
    uint32_t index = rs->block_at[number / FC_BLOCK_REGIONS];
    struct fc_block *b = &rs->blocks[index];
    b->slot[number % FC_BLOCK_REGIONS] = FC_REGION_NONE;
    if (!--b->count) {
        rs->block_at[number / FC_BLOCK_REGIONS] = FC_REGION_NONE;
        b->next = rs->free_block;
        rs->free_block = index;
    }
    if (slot != --rs->n) {
        rs->all[slot] = rs->all[rs->n];
        rs->last[slot] = rs->last[rs->n];
        if (rs->weekly)
            rs->week[slot] = rs->week[rs->n];
        number = rs->all[slot].number;
        fc_regions_block(rs, number)->slot[number % FC_BLOCK_REGIONS] = slot;
    }
}

uint64_t fc_regions_bytes(const struct fc_regions *rs)
{
    uint64_t week = rs->weekly ? sizeof(*rs->week) : 0;
    return rs->capacity * (sizeof(*rs->all) + sizeof(*rs->last) + week) +
           (uint64_t)rs->blocks_capacity * sizeof(*rs->blocks) +
           (rs->numbers / FC_BLOCK_REGIONS + 1ull) * sizeof(*rs->block_at);
}
