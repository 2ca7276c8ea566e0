/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RANKING_H
#define FC_RANKING_H

#include <stdbool.h>
#include <stdint.h>

#include "scorer.h"

/*
 * The candidates least likely to be written, coldest first. Scores are sorted
 * into buckets an eighth of an octave wide, so that ranking costs two passes
 * over the candidates and the memory of those kept. One thread.
 */
struct fc_ranking {
    uint64_t first;
    uint32_t *pages; /* from `first` on */
    uint32_t count, next;
};

/* Whether a page may be ranked at all. */
typedef bool fc_ranking_filter(void *user, uint64_t page);

/*
 * Ranks the pages from `first` up to, not including, `end` for which
 * `candidate` says yes and whose chance of being written within `horizon_ms`
 * is at most `max_p`; keeps the coldest `limit`, within one bucket. What was
 * ranked before is dropped. 0, FC_EINVAL (more than 2^32 pages) or FC_ENOMEM.
 */
int fc_ranking_build(struct fc_ranking *ranking, const struct fc_scorer *scorer,
                     uint64_t first, uint64_t end, fc_ranking_filter *candidate,
                     void *user, uint32_t horizon_ms, float max_p,
                     uint32_t limit);

/* 1 and the next page, or 0 when there is none left. */
int fc_ranking_next(struct fc_ranking *ranking, uint64_t *page_r);

void fc_ranking_dispose(struct fc_ranking *ranking);

#endif
