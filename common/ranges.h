/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RANGES_H
#define FC_RANGES_H

#include <stdint.h>

/*
 * A disk in ranges, for what is known of its parts: at most FC_RANGES_MAX, each
 * a power of two of blocks and at least 16 MiB but for the last. Engine and
 * daemon reckon alike (docs/formats/disk-meta.md).
 */
#define FC_RANGES_MAX 256u
#define FC_RANGE_LEAST (16u << 20)

/* Blocks of a range; block_bytes: a power of two, 4 KiB to 1 MiB. */
static inline uint32_t fc_range_blocks(uint64_t blocks, uint32_t block_bytes)
{
    uint64_t n = FC_RANGE_LEAST / block_bytes;
    while (n * FC_RANGES_MAX < blocks)
        n *= 2;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* How many there are. */
static inline uint32_t fc_range_count(uint64_t blocks, uint32_t block_bytes)
{
    uint32_t each = fc_range_blocks(blocks, block_bytes);
    return (uint32_t)((blocks + each - 1) / each);
}

#endif
