/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "page.h"

#include <string.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h> /* XXH3 with the widest vectors at hand */
#else
#include <xxhash.h>
#endif

struct fc_hash fc_page_hash(const void *page)
{
    XXH128_hash_t h = XXH3_128bits(page, FC_PAGE_SIZE);
    return (struct fc_hash){ h.low64, h.high64 };
}

bool fc_page_is_zero(const void *page)
{
    const char *p = page;
    uint64_t head[4];
    memcpy(head, p, sizeof(head));
    if (head[0] | head[1] | head[2] | head[3])
        return false;
    /* The page equals itself shifted by what is known to be zero. */
    return !memcmp(p, p + sizeof(head), FC_PAGE_SIZE - sizeof(head));
}
