/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <stdlib.h>

#include "err.h"
#include "scorer.h"
#include "sparse.h"

/*
 * Share of windows in which a page was written: n of N. With windows of w
 * seconds on average, P(h) = 1 - (1 - n/N)^(h/w). All counts are halved when N
 * reaches 1024, so that old habits fade. Two bytes a page.
 */
#define AGE_WINDOWS 1024u

struct frequency {
    struct fc_sparse counts;
    uint32_t windows;
    double seconds; /* that they took */
};

static int frequency_create(uint64_t pages, void **state_r)
{
    struct frequency *f = calloc(1, sizeof(*f));
    if (!f)
        return FC_ENOMEM;
    int rc = fc_sparse_init(&f->counts, pages, sizeof(uint16_t));
    if (rc) {
        free(f);
        return rc;
    }
    *state_r = f;
    return 0;
}

static void count_up(void *user, void *item)
{
    (void)user;
    ++*(uint16_t *)item; /* at most AGE_WINDOWS: cannot wrap */
}

static void halve(void *user, void *item)
{
    (void)user;
    *(uint16_t *)item /= 2;
}

static int frequency_update(void *state, const uint64_t *dirty,
                            uint32_t elapsed_ms)
{
    struct frequency *f = state;
    f->windows++;
    f->seconds += elapsed_ms / 1000.0;
    int rc = fc_sparse_each_bit(&f->counts, dirty, count_up, NULL);
    if (f->windows >= AGE_WINDOWS) {
        fc_sparse_each_item(&f->counts, halve, NULL);
        f->windows /= 2;
        f->seconds /= 2;
    }
    return rc;
}

static float frequency_p_dirty(const void *state, uint64_t page,
                               uint32_t horizon_ms)
{
    const struct frequency *f = state;
    const uint16_t *count = fc_sparse_get(&f->counts, page);
    float n = count ? *count : 0.0f, all = (float)f->windows;
    /* Laplace's rule with a prior of one write in 50 windows */
    float share = (n + 0.02f) / (all + 1.0f);
    if (share > 0.9999f)
        share = 0.9999f;
    float window_s = all > 0 ? (float)f->seconds / all : 1.0f;
    return 1.0f - powf(1.0f - share, (float)horizon_ms / 1000.0f / window_s);
}

static size_t frequency_bytes(const void *state)
{
    const struct frequency *f = state;
    return sizeof(*f) + fc_sparse_bytes(&f->counts);
}

static void frequency_destroy(void *state)
{
    struct frequency *f = state;
    fc_sparse_dispose(&f->counts);
    free(f);
}

const struct fc_scorer_ops fc_scorer_frequency = {
    .name = "frequency",
    .create = frequency_create,
    .update = frequency_update,
    .p_dirty = frequency_p_dirty,
    .bytes = frequency_bytes,
    .destroy = frequency_destroy,
};
