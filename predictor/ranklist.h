/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RANKLIST_H
#define FC_RANKLIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

/*
 * Ranked lists in shared memory, made anew each tick (docs/formats/
 * rank-list.md). One writer thread; any number of readers in any process, who
 * read in place.
 */
enum fc_rank_list {
    FC_RANK_STAGING, /* least likely to be written first */
    FC_RANK_DELTA,   /* most likely to be written first */
    FC_RANK_SHADOW,  /* most likely to be read first */
    FC_RANK_LISTS
};
const char *fc_rank_list_name(enum fc_rank_list list);

#define FC_RANK_NEVER UINT32_MAX
#define FC_RANK_MOST (1u << 24) /* entries of a list */

struct fc_rank_entry {
    uint64_t first; /* page or extent */
    uint32_t pages;
    float p;
    uint32_t next_ms; /* expected; FC_RANK_NEVER: not within sight */
    uint32_t zero;
};

/* The writer. */
struct fc_ranklist;

struct fc_ranklist_config {
    enum fc_engine_kind kind;
    uint32_t room[FC_RANK_LISTS]; /* entries; 0: no such list */
};

/* 0, FC_EINVAL (room), FC_ENOMEM or FC_ESYS. */
int fc_ranklist_create(const struct fc_ranklist_config *config,
                       struct fc_ranklist **list_r);
void fc_ranklist_destroy(struct fc_ranklist *list);

/* A read-only descriptor of the memory for a reader; the caller closes it.
 * FC_ESYS. */
int fc_ranklist_fd(const struct fc_ranklist *list);

/* What a list is made of. */
struct fc_rank_source {
    uint32_t n;
    const struct fc_region_ref *regions; /* [n] */
    /* [horizons][n] chances, horizons in ascending order; for next_ms. */
    const float *const *p;
    const uint32_t *horizon_ms;
    unsigned horizons, horizon; /* how many; the list's own */
    float min_p, max_p;         /* chances to take in, both inclusive */
    float confidence;
};

/* A tick: begin, fill once for each list that is wanted (others are empty),
 * publish. fill returns the entries put in: the best that there is room for. */
void fc_ranklist_begin(struct fc_ranklist *list, uint64_t tick,
                       uint64_t now_ms);
uint32_t fc_ranklist_fill(struct fc_ranklist *list, enum fc_rank_list which,
                          const struct fc_rank_source *source);
void fc_ranklist_publish(struct fc_ranklist *list);

/*
 * When the next touch is to be expected: the median by chances p[] within
 * horizon_ms[], at an even risk between two horizons and after the last.
 */
uint32_t fc_rank_next_ms(const float *p, const uint32_t *horizon_ms,
                         unsigned horizons);

/* A reader. */
struct fc_rank_reader {
    const uint8_t *map;
    size_t bytes;
    enum fc_engine_kind kind;
    uint32_t room[FC_RANK_LISTS];
};

/* 0, FC_EFORMAT, FC_EVERSION or FC_ESYS. `fd` stays the caller's. */
int fc_rank_reader_map(struct fc_rank_reader *r, int fd);
void fc_rank_reader_unmap(struct fc_rank_reader *r);

struct fc_rank_view {
    const struct fc_rank_entry *entries; /* in place */
    uint32_t count, horizon_ms, chosen_from;
    float min_p, max_p, confidence;
    uint64_t tick, time_ms;
    uint64_t bank; /* inner */
};

/* The list as it was published last. 0, FC_ENOENT (none yet) or FC_EFORMAT. */
int fc_rank_reader_look(const struct fc_rank_reader *r, enum fc_rank_list which,
                        struct fc_rank_view *view_r);

/* Whether what was read from the view up to now was whole. */
bool fc_rank_reader_whole(const struct fc_rank_reader *r,
                          const struct fc_rank_view *view);

#endif
