/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PAGE_H
#define FC_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FC_PAGE_SHIFT 12
#define FC_PAGE_SIZE 4096u

/* Identity of a page's contents: XXH3-128, seed 0. All zero: "none". */
struct fc_hash {
    uint64_t lo, hi;
};

static inline bool fc_hash_equal(struct fc_hash a, struct fc_hash b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static inline bool fc_hash_is_none(struct fc_hash a)
{
    return !(a.lo | a.hi);
}

struct fc_hash fc_page_hash(const void *page);

/* Whether all FC_PAGE_SIZE bytes are zero. */
bool fc_page_is_zero(const void *page);

/* pfn in bits 0-51, libxc page type in bits 60-63, as PAGE_DATA has it. */
#define FC_PFN_MASK 0x000fffffffffffffull
#define FC_PFN_TYPE_SHIFT 60
#define FC_PFN_RESERVED 0x0ff0000000000000ull

static inline unsigned fc_pfn_type(uint64_t entry)
{
    return (unsigned)(entry >> FC_PFN_TYPE_SHIFT);
}

/* Types 0xd (broken), 0xe (allocate only), 0xf (invalid) carry no contents. */
static inline bool fc_pfn_has_data(uint64_t entry)
{
    return fc_pfn_type(entry) < 0xd;
}

#endif
