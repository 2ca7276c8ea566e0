/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "shadow_int.h"

#define NONE UINT32_MAX

/* Victims that may turn out to be in use before an admission gives up. */
#define TRIES 32u

/* The share of the budget that prefetching leaves to what is read. */
#define DEMAND_SHARE 8u

enum place {
    OUT = 0,     /* not held */
    OTHER = 1,   /* in the list by age */
    ORDERED = 2, /* named by the order */
    FRESH = 4,   /* besides: prefetched, not used, no second turn yet */
};

struct cache {
    struct fc_shadow *s;
    pthread_mutex_t lock;
    uint32_t blocks, budget, reserved, others, ordered;
    uint8_t *place;
    uint32_t *older, *newer; /* of OTHER */
    uint32_t oldest, newest;
    uint32_t *order; /* blocks, the most wanted first, each once */
    uint32_t *rank;  /* place in the order, or NONE */
    uint32_t tail;   /* nothing is held of the order from here on */
};

/* ---- the list by age; the lock is held ---- */

static void list_add(struct cache *c, uint32_t b)
{
    c->older[b] = c->newest;
    c->newer[b] = NONE;
    if (c->newest != NONE)
        c->newer[c->newest] = b;
    else
        c->oldest = b;
    c->newest = b;
    c->others++;
}

static void list_remove(struct cache *c, uint32_t b)
{
    uint32_t older = c->older[b], newer = c->newer[b];

    if (older != NONE)
        c->newer[older] = newer;
    else
        c->oldest = newer;
    if (newer != NONE)
        c->older[newer] = older;
    else
        c->newest = older;
    c->others--;
}

static void list_renew(struct cache *c, uint32_t b)
{
    list_remove(c, b);
    list_add(c, b);
}

/* ---- what is held ---- */

static void enter(struct cache *c, uint32_t b, uint8_t fresh)
{
    if (c->rank[b] == NONE) {
        c->place[b] = OTHER | fresh;
        list_add(c, b);
        return;
    }
    c->place[b] = ORDERED | fresh;
    c->ordered++;
    if (c->rank[b] >= c->tail)
        c->tail = c->rank[b] + 1;
}

static void leave(struct cache *c, uint32_t b)
{
    if (c->place[b] & OTHER)
        list_remove(c, b);
    else if (c->place[b] & ORDERED)
        c->ordered--;
    c->place[b] = OUT;
}

void fc_cache_insert(struct cache *c, uint32_t first, uint32_t count,
                     bool prefetched)
{
    pthread_mutex_lock(&c->lock);
    for (uint32_t b = first; b < first + count; b++)
        if (c->place[b] == OUT)
            enter(c, b, prefetched ? FRESH : 0);
    pthread_mutex_unlock(&c->lock);
}

void fc_cache_forget(struct cache *c, uint32_t first, uint32_t count)
{
    pthread_mutex_lock(&c->lock);
    for (uint32_t b = first; b < first + count; b++)
        leave(c, b);
    pthread_mutex_unlock(&c->lock);
}

void fc_cache_touch(struct cache *c, uint32_t first, uint32_t count)
{
    pthread_mutex_lock(&c->lock);
    for (uint32_t b = first; b < first + count; b++) {
        c->place[b] &= (uint8_t)~FRESH;
        if (c->place[b] & OTHER)
            list_renew(c, b);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- giving up ---- */

/* The next to go, or NONE; the lock is held. */
static uint32_t victim(struct cache *c, bool prefetch)
{
    if (prefetch && c->others <= c->budget / DEMAND_SHARE)
        return NONE;
    /* each pass takes one block's second turn away, so this ends */
    while (c->oldest != NONE && c->place[c->oldest] & FRESH) {
        c->place[c->oldest] &= (uint8_t)~FRESH;
        list_renew(c, c->oldest);
    }
    if (c->oldest != NONE || prefetch)
        return c->oldest;
    while (c->tail && !(c->place[c->order[c->tail - 1]] & ORDERED))
        c->tail--;
    return c->tail ? c->order[c->tail - 1] : NONE;
}

/* Takes a block out of the shadow; false: it is in use. */
static bool evict(struct cache *c, uint32_t b)
{
    struct fc_shadow *s = c->s;
    uint32_t n;

    if (shadow_run_take(s, b, 1, TAKE_EVICT, NULL, &n) == RUN_SKIP)
        return false;
    uint64_t at = (uint64_t)b << s->block_shift;
    /* space that cannot be given back is only logged: what counts is that the
     * block is valid no more */
    if (fc_volume_zero(s->volume, at, shadow_block_bytes(s, b, 1), true))
        shadow_volume_failed("giving a block back", at);
    shadow_run_done(s, b, 1, false, 0);
    atomic_fetch_add(&s->evicted, 1);
    return true;
}

/* One that is in use is not the oldest any more. */
static void pass_over(struct cache *c, uint32_t b)
{
    pthread_mutex_lock(&c->lock);
    if (c->place[b] & OTHER)
        list_renew(c, b);
    pthread_mutex_unlock(&c->lock);
}

bool fc_cache_admit(struct cache *c, uint32_t count, bool prefetch)
{
    for (unsigned tries = 0; tries < TRIES;) {
        pthread_mutex_lock(&c->lock);
        uint64_t held = (uint64_t)c->others + c->ordered + c->reserved;
        bool room = held + count <= c->budget;
        uint32_t b = NONE;
        if (room)
            c->reserved += count;
        else if (count <= c->budget)
            b = victim(c, prefetch);
        pthread_mutex_unlock(&c->lock);
        if (room || b == NONE)
            return room;
        if (!evict(c, b)) {
            pass_over(c, b);
            tries++;
        }
    }
    return false;
}

void fc_cache_settle(struct cache *c, uint32_t count)
{
    pthread_mutex_lock(&c->lock);
    c->reserved -= count;
    pthread_mutex_unlock(&c->lock);
}

bool fc_cache_wants(struct cache *c, uint32_t count)
{
    pthread_mutex_lock(&c->lock);
    uint64_t held = (uint64_t)c->others + c->ordered + c->reserved;
    bool wants = held + count <= c->budget ||
                 c->others > c->budget / DEMAND_SHARE + count;
    pthread_mutex_unlock(&c->lock);
    return wants;
}

/* ---- the order ---- */

/* Each block of `blocks` that the disk has, once. */
static uint32_t order_take(const struct cache *c, const uint32_t *blocks,
                           size_t count, uint32_t *order, uint32_t *rank)
{
    uint32_t n = 0;

    memset(rank, 0xff, c->blocks * sizeof(*rank));
    for (size_t i = 0; i < count; i++) {
        uint32_t b = blocks[i];
        if (b >= c->blocks || rank[b] != NONE)
            continue;
        rank[b] = n;
        order[n++] = b;
    }
    return n;
}

int fc_cache_set_order(struct cache *c, const uint32_t *blocks, size_t count)
{
    size_t most = count < c->blocks ? count : c->blocks;
    uint32_t *order = malloc((most + 1) * sizeof(*order));
    uint32_t *rank = malloc(c->blocks * sizeof(*rank));

    if (!order || !rank) {
        free(order);
        free(rank);
        return FC_ENOMEM;
    }
    uint32_t n = order_take(c, blocks, count, order, rank);
    pthread_mutex_lock(&c->lock);
    uint32_t *old_order = c->order, *old_rank = c->rank;
    c->order = order;
    c->rank = rank;
    c->tail = n;
    for (uint32_t b = 0; b < c->blocks; b++) {
        uint8_t place = c->place[b];
        uint8_t want = rank[b] == NONE ? OTHER : ORDERED;
        if (place == OUT || place & want)
            continue;
        leave(c, b);
        enter(c, b, place & FRESH);
    }
    pthread_mutex_unlock(&c->lock);
    free(old_order);
    free(old_rank);
    return 0;
}

/* ---- life ---- */

int fc_cache_new(struct fc_shadow *s, uint64_t budget_bytes, struct cache **c_r)
{
    struct cache *c = calloc(1, sizeof(*c));
    uint64_t budget = budget_bytes >> s->block_shift;

    if (!c)
        return FC_ENOMEM;
    pthread_mutex_init(&c->lock, NULL);
    c->s = s;
    c->blocks = s->blocks;
    c->budget = s->blocks;
    if (budget_bytes && budget < s->blocks)
        c->budget = budget ? (uint32_t)budget : 1;
    c->oldest = c->newest = NONE;
    c->place = calloc(c->blocks, 1);
    c->older = malloc(c->blocks * sizeof(*c->older));
    c->newer = malloc(c->blocks * sizeof(*c->newer));
    if (!c->place || !c->older || !c->newer || fc_cache_set_order(c, NULL, 0)) {
        fc_cache_free(c);
        return FC_ENOMEM;
    }
    for (uint32_t b = fc_blockset_next(&s->valid, 0); b < s->blocks;
         b = fc_blockset_next(&s->valid, b + 1))
        fc_cache_insert(c, b, 1, false);
    *c_r = c;
    return 0;
}

void fc_cache_free(struct cache *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c->place);
    free(c->older);
    free(c->newer);
    free(c->order);
    free(c->rank);
    free(c);
}
