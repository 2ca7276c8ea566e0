/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "err.h"
#include "ranklist_format.h"

static const struct fc_rank_header *header_of(const struct fc_rank_reader *r)
{
    return (const struct fc_rank_header *)(const void *)r->map;
}

static int check(struct fc_rank_reader *r)
{
    const struct fc_rank_header *h = header_of(r);
    if (memcmp(h->magic, FC_RANK_MAGIC, sizeof(h->magic)))
        return FC_EFORMAT;
    if (h->version != FC_RANK_VERSION)
        return FC_EVERSION;
    if (h->kind > FC_ENGINE_DISK || h->zero)
        return FC_EFORMAT;
    /* taken once: whoever holds the memory may change it */
    memcpy(r->room, h->room, sizeof(r->room));
    r->kind = (enum fc_engine_kind)h->kind;
    for (unsigned l = 0; l < FC_RANK_LISTS; l++)
        if (r->room[l] > FC_RANK_MOST)
            return FC_EFORMAT;
    return fc_rank_file_bytes(r->room) == r->bytes ? 0 : FC_EFORMAT;
}

int fc_rank_reader_map(struct fc_rank_reader *r, int fd)
{
    struct stat st;
    *r = (struct fc_rank_reader){ .map = NULL };
    if (fstat(fd, &st) < 0)
        return FC_ESYS;
    if (st.st_size < (off_t)sizeof(struct fc_rank_header))
        return FC_EFORMAT;
    r->bytes = (size_t)st.st_size;
    void *map = mmap(NULL, r->bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return FC_ESYS;
    r->map = map;
    int rc = check(r);
    if (rc)
        fc_rank_reader_unmap(r);
    return rc;
}

void fc_rank_reader_unmap(struct fc_rank_reader *r)
{
    if (r->map)
        munmap((void *)(uintptr_t)r->map, r->bytes);
    *r = (struct fc_rank_reader){ .map = NULL };
}

int fc_rank_reader_look(const struct fc_rank_reader *r, enum fc_rank_list which,
                        struct fc_rank_view *view_r)
{
    uint64_t at = __atomic_load_n(&header_of(r)->published, __ATOMIC_ACQUIRE);
    if (!at)
        return FC_ENOENT;
    const struct fc_rank_bank *bank =
        (const struct fc_rank_bank *)(const void *)(r->map + fc_rank_bank_at(
                                                                 r->room, at));
    *view_r = (struct fc_rank_view){
        .entries =
            (const struct fc_rank_entry *)(const void *)(r->map +
                                                         fc_rank_entries_at(
                                                             r->room, at,
                                                             which)),
        .count = __atomic_load_n(&bank->lists[which].count, __ATOMIC_RELAXED),
        .horizon_ms = bank->lists[which].horizon_ms,
        .chosen_from = bank->lists[which].chosen_from,
        .min_p = bank->lists[which].min_p,
        .max_p = bank->lists[which].max_p,
        .confidence = bank->lists[which].confidence,
        .tick = bank->tick,
        .time_ms = bank->time_ms,
        .bank = at,
    };
    return view_r->count <= r->room[which] ? 0 : FC_EFORMAT;
}

bool fc_rank_reader_whole(const struct fc_rank_reader *r,
                          const struct fc_rank_view *view)
{
    __sync_synchronize(); /* nothing read before is read after */
    return __atomic_load_n(&header_of(r)->begun, __ATOMIC_SEQ_CST) <=
           view->bank + 1;
}
