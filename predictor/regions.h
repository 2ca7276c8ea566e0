/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_REGIONS_H
#define FC_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The active regions of a guest's memory or disk in one dense array, and how
 * to find one by its number. Regions are grouped in blocks of FC_BLOCK_REGIONS
 * (2 MiB of memory); a block without an active region costs 4 bytes. One
 * thread.
 */
#define FC_BLOCK_REGIONS 32u
#define FC_REGION_NONE UINT32_MAX
#define FC_REGION_PAGES 16u /* at most: of memory; of a disk 1 */

/* Bit of a disk's region, written in this tick; bit 0: read. */
#define FC_REGION_OTHER 2u

#define FC_REGION_RATES 7u
#define FC_GAP_BUCKETS 16u

/* Rates are those of tick `updated`; see feature.h for what they are. */
struct fc_region {
    uint32_t number;
    uint32_t updated;
    uint32_t onset;    /* tick in which the burst of touches began */
    uint32_t born;     /* tick */
    uint32_t touches;  /* ticks with a touch */
    uint16_t now;      /* pages touched in this tick; FC_REGION_OTHER */
    uint16_t gap_last; /* ticks, at most UINT16_MAX */
    float rate[FC_REGION_RATES];
    float fill[2];
    float other[2];
    float gap_mean;                  /* log2 of ticks; 0: none yet */
    float period;                    /* the same, between onsets */
    uint16_t hazard[FC_GAP_BUCKETS]; /* gaps.h */
    uint8_t share[FC_REGION_PAGES];  /* page's part in touches, of 255 */
};

struct fc_block {
    uint32_t slot[FC_BLOCK_REGIONS];
    uint32_t count;    /* of them in use */
    uint32_t next;     /* free block: the next one */
    uint32_t now_tick; /* of `now` */
    uint32_t now;      /* bit i: region i touched in that tick */
    float heat;        /* touched regions a tick, decayed to now_tick */
};

/* When a region was touched in the last seven days, by slots of 40 minutes. */
#define FC_WEEK_SLOTS 256u
#define FC_WEEK_SLOT_MS 2400000u
/* And in the last day, by slots of five. */
#define FC_DAY_SLOTS 320u
#define FC_DAY_SLOT_MS 300000u
struct fc_week {
    uint64_t bits[FC_WEEK_SLOTS / 64];
    uint64_t day[FC_DAY_SLOTS / 64];
};

struct fc_regions {
    uint32_t shift; /* log2 of pages a region */
    uint64_t pages;
    uint32_t numbers; /* regions, active or not */
    uint32_t n, capacity, max;
    struct fc_region *all; /* [n] */
    uint32_t *last;        /* [n]: tick of the last touch */
    struct fc_week *week;  /* [n], or NULL: not asked for */
    bool weekly;
    uint32_t *block_at; /* index into blocks, or FC_REGION_NONE */
    struct fc_block *blocks;
    uint32_t nblocks, blocks_capacity, free_block;
    uint64_t cut; /* makes refused because of max */
};

/* With a week of each region, or without. 0, FC_EINVAL (more than 2^32 - 2
 * regions, or none) or FC_ENOMEM. */
int fc_regions_init(struct fc_regions *rs, uint64_t pages, uint32_t shift,
                    uint32_t max, bool weekly);
void fc_regions_dispose(struct fc_regions *rs);

/* Slot of region `number`, or FC_REGION_NONE. */
static inline uint32_t fc_regions_find(const struct fc_regions *rs,
                                       uint32_t number)
{
    if (number >= rs->numbers)
        return FC_REGION_NONE;
    uint32_t block = rs->block_at[number / FC_BLOCK_REGIONS];
    return block == FC_REGION_NONE
               ? FC_REGION_NONE
               : rs->blocks[block].slot[number % FC_BLOCK_REGIONS];
}

/* The block of a region, active or not, or NULL. */
static inline struct fc_block *fc_regions_block(const struct fc_regions *rs,
                                                uint32_t number)
{
    if (number >= rs->numbers)
        return NULL;
    uint32_t block = rs->block_at[number / FC_BLOCK_REGIONS];
    return block == FC_REGION_NONE ? NULL : &rs->blocks[block];
}

/*
 * The region's slot, made when there is none: born in `tick`, last touched in
 * `last`. FC_ENOMEM, or FC_ELIMIT at `max` (counted in `cut`). May move all.
 */
int fc_regions_make(struct fc_regions *rs, uint32_t number, uint32_t tick,
                    uint32_t last, uint32_t *slot_r);

/* Drops a slot; the last one (whose old slot is `n` afterwards) takes its
 * place, unless it was the last itself. */
void fc_regions_drop(struct fc_regions *rs, uint32_t slot);

uint64_t fc_regions_bytes(const struct fc_regions *rs);

#endif
