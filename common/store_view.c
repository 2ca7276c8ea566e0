/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <lz4.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "err.h"
#include "store.h"
#include "store_format.h"
#include "wire.h"

/*
 * The file may be written to, by an honest keeper or a taken-over one, at any
 * moment while it is read. So: the geometry is checked once and kept here;
 * a slot is copied before it is checked; stored bytes are copied before they
 * are decompressed; and nothing counts but that the result has the hash asked
 * for. The seal against shrinking keeps reads inside the mapping from faulting.
 */
#define ATTEMPTS 3 /* an entry may be moved under a reader; rarely twice */

int fc_store_view_open(int fd, struct fc_store_view *view)
{
    struct stat st;
    *view = (struct fc_store_view){ 0 };
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return FC_EFORMAT;
    if (fstat(fd, &st) < 0)
        return FC_ESYS;
    if (st.st_size < FC_STORE_HEADER)
        return FC_EFORMAT;
    uint64_t size = (uint64_t)st.st_size;
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return FC_ESYS;
    view->map = map;
    view->map_bytes = size;

    uint8_t raw[FC_STORE_HEADER];
    memcpy(raw, map, sizeof(raw));
    struct fc_reader r = fc_reader_of(raw, sizeof(raw));
    const uint8_t *magic = fc_get_bytes(&r, 8);
    uint32_t log2 = fc_get_u32(&r), zero = fc_get_u32(&r);
    view->arena_offset = fc_get_u64(&r);
    view->arena_bytes = fc_get_u64(&r);
    view->epoch = fc_get_u64(&r);
    uint32_t writers = fc_get_u32(&r);
    uint32_t in_use = fc_get_u32(&r);
    const uint8_t *rest = fc_get_bytes(&r, 16);
    bool clean =
        !zero && writers <= 1 && in_use >= FC_STORE_LOG2_MIN && in_use <= log2;
    for (unsigned i = 0; i < 16; i++)
        clean = clean && !rest[i];
    if (memcmp(magic, FC_STORE_MAGIC, 8) || !clean || !view->epoch ||
        log2 < FC_STORE_LOG2_MIN || log2 > FC_STORE_LOG2_MAX ||
        view->arena_offset % FC_STORE_ALIGN ||
        view->arena_offset <
            FC_STORE_HEADER + ((uint64_t)FC_STORE_SLOT << log2) ||
        view->arena_offset > size ||
        view->arena_bytes != size - view->arena_offset) {
        fc_store_view_dispose(view);
        return FC_EFORMAT;
    }
    view->index = view->map + FC_STORE_HEADER;
    view->mask = (1ull << log2) - 1;
    return 0;
}

void fc_store_view_dispose(struct fc_store_view *view)
{
    if (view->map)
        munmap((void *)(uintptr_t)view->map, view->map_bytes);
    *view = (struct fc_store_view){ 0 };
}

static int get_once(const struct fc_store_view *view, struct fc_hash hash,
                    void *page)
{
    uint32_t in_use = fc_store_in_use_get(view->map);
    if (in_use < FC_STORE_LOG2_MIN || in_use > FC_STORE_LOG2_MAX ||
        (1ull << in_use) - 1 > view->mask)
        return FC_ECHECK;
    uint64_t mask = (1ull << in_use) - 1, at = hash.lo & mask;
    for (unsigned i = 0; i < FC_STORE_PROBES; i++) {
        const uint64_t *slot =
            (const uint64_t *)(const void *)(view->index + at * FC_STORE_SLOT);
        uint64_t lo = fc_store_word_get(slot, FC_STORE_LO);
        uint64_t hi = fc_store_word_get(slot, FC_STORE_HI);
        if (!(lo | hi))
            return FC_ENOENT;
        at = (at + 1) & mask;
        if (lo != hash.lo || hi != hash.hi)
            continue;
        uint64_t offset = fc_store_word_get(slot, FC_STORE_OFFSET);
        uint64_t stored = fc_store_word_get(slot, FC_STORE_REST) & 0xffff;
        if (stored < 1 || stored > FC_PAGE_SIZE || stored > view->arena_bytes ||
            offset > view->arena_bytes - stored)
            return FC_ECHECK;
        const uint8_t *from = view->map + view->arena_offset + offset;
        if (stored == FC_PAGE_SIZE) {
            memcpy(page, from, FC_PAGE_SIZE);
        } else {
            char packed[FC_PAGE_SIZE];
            memcpy(packed, from, stored);
            if (LZ4_decompress_safe(packed, page, (int)stored, FC_PAGE_SIZE) !=
                (int)FC_PAGE_SIZE)
                return FC_ECHECK;
        }
        return fc_hash_equal(fc_page_hash(page), hash) ? 0 : FC_ECHECK;
    }
    return FC_ENOENT;
}

int fc_store_view_get(const struct fc_store_view *view, struct fc_hash hash,
                      void *page)
{
    int rc = FC_ENOENT;
    if (fc_hash_is_none(hash))
        return FC_ENOENT;
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        rc = get_once(view, hash, page);
        if (!rc)
            break;
    }
    return rc;
}
