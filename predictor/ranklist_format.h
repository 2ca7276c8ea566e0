/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RANKLIST_FORMAT_H
#define FC_RANKLIST_FORMAT_H

#include <endian.h>
#include <stdint.h>

#include "ranklist.h"

/* What the writer and the readers share: docs/formats/rank-list.md. Entries
 * are used in place, in the machine's own order. */
_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "ranked lists are in place");
_Static_assert(sizeof(struct fc_rank_entry) == 24, "docs/formats/rank-list.md");

#define FC_RANK_MAGIC "FCRANKED"
#define FC_RANK_VERSION 1u

struct fc_rank_header {
    char magic[8];
    uint32_t version, kind;
    uint32_t room[FC_RANK_LISTS];
    uint32_t zero;
    uint64_t begun, published;
    uint64_t reserved[2];
};
_Static_assert(sizeof(struct fc_rank_header) == 64, "docs/formats");

struct fc_rank_bank {
    uint64_t tick, time_ms;
    struct {
        uint32_t count, horizon_ms;
        float min_p, max_p, confidence;
        uint32_t chosen_from;
        uint32_t zero[6];
    } lists[FC_RANK_LISTS];
};
_Static_assert(sizeof(struct fc_rank_bank) == 160, "docs/formats");

/* Bytes of a bank, and of all. */
static inline uint64_t fc_rank_bank_bytes(const uint32_t *room)
{
    uint64_t entries = 0;
    for (unsigned l = 0; l < FC_RANK_LISTS; l++)
        entries += room[l];
    return sizeof(struct fc_rank_bank) + entries * sizeof(struct fc_rank_entry);
}

static inline uint64_t fc_rank_file_bytes(const uint32_t *room)
{
    return sizeof(struct fc_rank_header) + 2 * fc_rank_bank_bytes(room);
}

/* Where a bank is, and a list's entries in it. */
static inline uint64_t fc_rank_bank_at(const uint32_t *room, uint64_t bank)
{
    return sizeof(struct fc_rank_header) +
           (bank & 1) * fc_rank_bank_bytes(room);
}

static inline uint64_t fc_rank_entries_at(const uint32_t *room, uint64_t bank,
                                          enum fc_rank_list which)
{
    uint64_t at = fc_rank_bank_at(room, bank) + sizeof(struct fc_rank_bank);
    for (unsigned l = 0; l < (unsigned)which; l++)
        at += (uint64_t)room[l] * sizeof(struct fc_rank_entry);
    return at;
}

#endif
