/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ranking.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

/* Bucket 0 holds chances up to 2^-32; the last one those near 1. */
#define STEPS_PER_OCTAVE 8
#define LOWEST_LOG2 (-32)
#define BUCKETS (STEPS_PER_OCTAVE * -LOWEST_LOG2 + 1)

static unsigned bucket_of(float p)
{
    if (!(p > 0))
        return 0;
    float at = (log2f(p) - LOWEST_LOG2) * STEPS_PER_OCTAVE;
    if (at <= 0)
        return 0;
    return at >= BUCKETS - 1 ? BUCKETS - 1 : (unsigned)at;
}

int fc_ranking_build(struct fc_ranking *ranking, const struct fc_scorer *scorer,
                     uint64_t first, uint64_t end, fc_ranking_filter *candidate,
                     void *user, uint32_t horizon_ms, float max_p,
                     uint32_t limit)
{
    uint64_t in_bucket[BUCKETS] = { 0 };
    uint32_t start[BUCKETS];

    fc_ranking_dispose(ranking);
    if (end > first && end - first > UINT32_MAX)
        return FC_EINVAL;
    ranking->first = first;
    for (uint64_t page = first; page < end; page++) {
        if (!candidate(user, page))
            continue;
        float p = scorer->ops->p_dirty(scorer->state, page, horizon_ms);
        if (p <= max_p)
            in_bucket[bucket_of(p)]++;
    }

    uint64_t total = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        start[b] = (uint32_t)total;
        if (in_bucket[b] > limit - total)
            in_bucket[b] = limit - total;
        total += in_bucket[b];
    }
    if (!total)
        return 0;
    ranking->pages = malloc(total * sizeof(*ranking->pages));
    if (!ranking->pages)
        return FC_ENOMEM;

    for (uint64_t page = first; page < end && ranking->count < total; page++) {
        if (!candidate(user, page))
            continue;
        float p = scorer->ops->p_dirty(scorer->state, page, horizon_ms);
        unsigned b = bucket_of(p);
        if (p > max_p || !in_bucket[b])
            continue;
        in_bucket[b]--;
        ranking->pages[start[b]++] = (uint32_t)(page - first);
        ranking->count++;
    }
    return 0;
}

int fc_ranking_next(struct fc_ranking *ranking, uint64_t *page_r)
{
    if (ranking->next >= ranking->count)
        return 0;
    *page_r = ranking->first + ranking->pages[ranking->next++];
    return 1;
}

void fc_ranking_dispose(struct fc_ranking *ranking)
{
    free(ranking->pages);
    memset(ranking, 0, sizeof(*ranking));
}
