/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hashset.h"

#include <endian.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "err.h"
#include "io.h"
#include "wire.h"

#define HEADER_BYTES 32u
#define SLOT_BYTES 16u
#define MIN_LOG2 4u
#define MAX_LOG2 28u

static const char magic[8] = "FCHASHES";

static void set_geometry(struct fc_hashset *set, unsigned log2)
{
    set->slots = (uint64_t *)((uint8_t *)set->map + HEADER_BYTES);
    set->mask = ((uint64_t)1 << log2) - 1;
}

int fc_hashset_new(struct fc_hashset *set, uint64_t capacity)
{
    unsigned log2 = MIN_LOG2;
    while (log2 < MAX_LOG2 && ((uint64_t)1 << log2) < 2 * capacity)
        log2++;
    if (((uint64_t)1 << log2) < 2 * capacity)
        return FC_EINVAL;
    size_t bytes = HEADER_BYTES + ((size_t)SLOT_BYTES << log2);
    *set = (struct fc_hashset){ .fd = fc_memfd_new("forecopy-hashes", bytes),
                                .map_bytes = bytes };
    if (set->fd < 0)
        return FC_ESYS;
    set->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, set->fd,
                    0);
    if (set->map == MAP_FAILED) {
        set->map = NULL;
        fc_hashset_dispose(set);
        return FC_ESYS;
    }
    uint8_t head[HEADER_BYTES] = { 0 };
    memcpy(head, magic, sizeof(magic));
    fc_le_store(head + 8, 1, 4);
    fc_le_store(head + 12, log2, 4);
    memcpy(set->map, head, sizeof(head));
    set_geometry(set, log2);
    return 0;
}

static uint64_t find(const struct fc_hashset *set, uint64_t lo, uint64_t hi)
{
    uint64_t i = le64toh(lo) & set->mask;
    while ((set->slots[2 * i] || set->slots[2 * i + 1]) &&
           (set->slots[2 * i] != lo || set->slots[2 * i + 1] != hi))
        i = (i + 1) & set->mask;
    return i;
}

int fc_hashset_add(struct fc_hashset *set, struct fc_hash hash)
{
    uint64_t lo = htole64(hash.lo), hi = htole64(hash.hi);
    if (fc_hash_is_none(hash))
        return 0;
    uint64_t i = find(set, lo, hi);
    if (set->slots[2 * i] || set->slots[2 * i + 1])
        return 0;
    if (2 * (set->held + 1) > set->mask + 1)
        return FC_EFULL;
    set->slots[2 * i] = lo;
    set->slots[2 * i + 1] = hi;
    set->held++;
    fc_le_store((uint8_t *)set->map + 16, set->held, 8);
    return 0;
}

/*
 * `held` at most half the slots is checked here, but only the slots
 * themselves bound a search: a file with no empty slot would make find() run
 * for ever, so that is looked for.
 */
static int check(struct fc_hashset *set)
{
    struct fc_reader r = fc_reader_of(set->map, set->map_bytes);
    const uint8_t *m = fc_get_bytes(&r, sizeof(magic));
    uint32_t version = fc_get_u32(&r), log2 = fc_get_u32(&r);
    set->held = fc_get_u64(&r);
    uint64_t reserved = fc_get_u64(&r);
    if (r.bad || memcmp(m, magic, sizeof(magic)) || version != 1 ||
        reserved || log2 < MIN_LOG2 || log2 > MAX_LOG2 ||
        set->map_bytes != HEADER_BYTES + ((size_t)SLOT_BYTES << log2) ||
        2 * set->held > (uint64_t)1 << log2)
        return FC_EFORMAT;
    set_geometry(set, log2);
    uint64_t used = 0;
    for (uint64_t i = 0; i <= set->mask; i++)
        used += (set->slots[2 * i] | set->slots[2 * i + 1]) != 0;
    return used == set->held ? 0 : FC_EFORMAT;
}

int fc_hashset_map(struct fc_hashset *set, int fd)
{
    struct stat st;
    *set = (struct fc_hashset){ .fd = -1 };
    if (fstat(fd, &st) < 0)
        return FC_ESYS;
    if (st.st_size < (off_t)HEADER_BYTES)
        return FC_EFORMAT;
    set->map_bytes = (size_t)st.st_size;
    set->map = mmap(NULL, set->map_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (set->map == MAP_FAILED) {
        set->map = NULL;
        return FC_ESYS;
    }
    int rc = check(set);
    if (rc < 0)
        fc_hashset_dispose(set);
    return rc;
}

bool fc_hashset_has(const struct fc_hashset *set, struct fc_hash hash)
{
    if (!set->map || fc_hash_is_none(hash))
        return false;
    uint64_t i = find(set, htole64(hash.lo), htole64(hash.hi));
    return set->slots[2 * i] || set->slots[2 * i + 1];
}

void fc_hashset_dispose(struct fc_hashset *set)
{
    if (set->map)
        munmap(set->map, set->map_bytes);
    fc_close(&set->fd);
    *set = (struct fc_hashset){ .fd = -1 };
}
