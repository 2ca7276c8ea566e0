/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shadow_int.h"

#include <string.h>

#include "cache.h"
#include "err.h"

uint64_t shadow_block_bytes(const struct fc_shadow *s, uint32_t first,
                            uint32_t count)
{
    uint64_t from = (uint64_t)first << s->block_shift;
    uint64_t to = (uint64_t)(first + count) << s->block_shift;

    return (to < s->size ? to : s->size) - from;
}

/* ---- fetches; the stripe's lock is held ---- */

static bool fetch_has(const struct fetch *f, uint32_t block)
{
    uint32_t i = block - f->first;

    return block >= f->first && i < f->count &&
           !(f->stale[i / 64] >> i % 64 & 1);
}

/* The fetch that will bring `block`, or NULL. */
static struct fetch *fetch_of(const struct stripe *stripe, uint32_t block)
{
    struct fetch *f = stripe->fetches;

    while (f && !fetch_has(f, block))
        f = f->next;
    return f;
}

/* Whether one of those made stale was wanted. */
static bool fetch_stale(struct stripe *stripe, uint32_t block)
{
    bool wanted = false;

    for (struct fetch *f; (f = fetch_of(stripe, block));) {
        uint32_t i = block - f->first;
        f->stale[i / 64] |= 1ull << i % 64;
        wanted |= f->wanted;
    }
    return wanted;
}

static void fetch_enter(struct stripe *stripe, struct fetch *f, uint32_t first,
                        uint32_t count)
{
    f->first = first;
    f->count = count;
    memset(f->stale, 0, sizeof(f->stale));
    f->wanted = f->kind == FETCH_DEMAND;
    f->next = stripe->fetches;
    stripe->fetches = f;
}

static void fetch_leave(struct stripe *stripe, struct fetch *f)
{
    struct fetch **at = &stripe->fetches;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
}

/* ---- taking runs ---- */

/*
 * What a take would make of one block: a run_kind, or -1 when it has to wait
 * for the block to become free. The stripe's lock is held.
 */
static int kind_of(const struct fc_shadow *s, const struct stripe *stripe,
                   uint32_t block, enum run_want want)
{
    const struct block *b = &s->block[block];
    bool valid = b->flags & B_VALID, busy = b->flags & B_BUSY;
    bool closed = busy || b->flags & B_AWAITED || b->pins == UINT8_MAX;

    switch (want) {
    case TAKE_READ:
        if (closed)
            return -1;
        if (valid)
            return RUN_PINNED;
        return fetch_of(stripe, block) ? -1 : RUN_FETCH;
    case TAKE_VALID:
        if (closed)
            return -1;
        return valid ? RUN_PINNED : RUN_SKIP;
    case TAKE_WRITE:
        if (closed)
            return -1;
        return valid ? RUN_PINNED : RUN_BUSY;
    case TAKE_ALONE:
        if (busy || b->pins)
            return -1;
        return valid ? RUN_BUSY_VALID : RUN_BUSY;
    case TAKE_PUT:
        if (busy)
            return -1;
        return valid ? RUN_SKIP : RUN_BUSY;
    case TAKE_FILL:
        return busy || valid || fetch_of(stripe, block) ? RUN_SKIP : RUN_FETCH;
    case TAKE_EVICT:
    default:
        return busy || !valid || b->pins ? RUN_SKIP : RUN_BUSY_VALID;
    }
}

/*
 * Enters one block of a run; the stripe's lock is held. Whether that made a
 * wanted fetch stale.
 */
static bool take_one(struct fc_shadow *s, struct stripe *stripe, uint32_t block,
                     int kind, struct fetch *f)
{
    struct block *b = &s->block[block];

    if (kind == RUN_PINNED) {
        b->pins++;
        if (f)
            f->tier[b->flags >> B_TIER_SHIFT & 3]++;
        if (b->flags & B_PREFETCHED) {
            b->flags &= (uint8_t)~B_PREFETCHED;
            atomic_fetch_add(&s->prefetch_used, 1);
        }
    } else if (kind == RUN_BUSY || kind == RUN_BUSY_VALID) {
        b->flags = (b->flags & ~B_AWAITED) | B_BUSY;
        return fetch_stale(stripe, block);
    }
    return false;
}

static bool may_cancel(const struct fc_shadow *s, enum run_want want)
{
    return (want == TAKE_READ || want == TAKE_VALID || want == TAKE_WRITE) &&
           atomic_load(&s->cancelled);
}

int shadow_run_take(struct fc_shadow *s, uint32_t first, uint32_t most,
                    enum run_want want, struct fetch *f, uint32_t *count_r)
{
    struct stripe *stripe = stripe_of(s, first);
    uint32_t room = GROUP_BLOCKS - first % GROUP_BLOCKS, n = 0;
    int kind;

    if (most > room)
        most = room;
    if (f) {
        f->met = false;
        memset(f->tier, 0, sizeof(f->tier));
    }
    pthread_mutex_lock(&stripe->lock);
    while ((kind = kind_of(s, stripe, first, want)) < 0) {
        struct fetch *other = fetch_of(stripe, first);
        if (may_cancel(s, want)) {
            pthread_mutex_unlock(&stripe->lock);
            return FC_ECANCEL;
        }
        if (other && f)
            f->met = other->wanted = true;
        if (want == TAKE_ALONE)
            s->block[first].flags |= B_AWAITED;
        pthread_cond_wait(&stripe->changed, &stripe->lock);
    }
    while (n < most && kind_of(s, stripe, first + n, want) == kind)
        if (take_one(s, stripe, first + n++, kind, f) && f)
            f->met = true;
    if (kind == RUN_FETCH)
        fetch_enter(stripe, f, first, n);
    pthread_mutex_unlock(&stripe->lock);
    *count_r = n;
    return kind;
}

/* Blocks that are valid, and now written by the guest: what a flush owes. */
static void note_dirty(struct fc_shadow *s, uint32_t first, uint32_t count)
{
    bool owes = false;
    uint32_t fresh = 0;

    for (uint32_t b = first; b < first + count; b++) {
        if (s->block[b].flags & B_DIRTY)
            continue;
        s->block[b].flags |= B_DIRTY;
        fresh++;
    }
    if (!fresh)
        return;
    atomic_fetch_add(&s->dirty_blocks, fresh);
    pthread_mutex_lock(&s->lock);
    for (uint32_t b = first; !owes && b < first + count; b++)
        owes = !fc_blockset_test(&s->durable, b);
    if (owes)
        s->promise++;
    pthread_mutex_unlock(&s->lock);
}

void shadow_run_unpin(struct fc_shadow *s, uint32_t first, uint32_t count,
                      bool dirtied)
{
    struct stripe *stripe = stripe_of(s, first);
    bool wake = false;

    pthread_mutex_lock(&stripe->lock);
    if (dirtied)
        note_dirty(s, first, count);
    for (uint32_t b = first; b < first + count; b++)
        wake |= --s->block[b].pins == 0;
    if (wake)
        pthread_cond_broadcast(&stripe->changed);
    pthread_mutex_unlock(&stripe->lock);
    if (s->cache)
        fc_cache_touch(s->cache, first, count);
}

/* The sets follow the flags; the stripe's lock is held. */
static void note_valid(struct fc_shadow *s, uint32_t first, uint32_t count,
                       bool valid)
{
    pthread_mutex_lock(&s->lock);
    fc_blockset_set_range(&s->valid, first, count, valid);
    pthread_mutex_unlock(&s->lock);
}

void shadow_run_done(struct fc_shadow *s, uint32_t first, uint32_t count,
                     bool valid, uint8_t set)
{
    struct stripe *stripe = stripe_of(s, first);
    uint8_t keep = valid ? B_VALID | B_DIRTY | B_PREFETCHED : 0;

    pthread_mutex_lock(&stripe->lock);
    for (uint32_t b = first; b < first + count; b++) {
        uint8_t *flags = &s->block[b].flags;
        *flags &= keep;
        if (valid)
            *flags |= B_VALID | (set & (B_PREFETCHED | B_TIER));
    }
    note_valid(s, first, count, valid);
    if (s->cache && valid)
        fc_cache_insert(s->cache, first, count, set & B_PREFETCHED);
    else if (s->cache)
        fc_cache_forget(s->cache, first, count);
    if (valid && set & B_DIRTY)
        note_dirty(s, first, count);
    pthread_cond_broadcast(&stripe->changed);
    pthread_mutex_unlock(&stripe->lock);
    if (valid)
        shadow_hold_wake(s);
}

/* ---- the end of a fetch ---- */

/* Takes the blocks alone that still want the data; the rest stay stale. */
static bool fetch_claim(struct fc_shadow *s, struct fetch *f, bool store)
{
    struct stripe *stripe = stripe_of(s, f->first);
    bool fresh = true;

    pthread_mutex_lock(&stripe->lock);
    fetch_leave(stripe, f);
    for (uint32_t i = 0; i < f->count; i++) {
        if (!fetch_has(f, f->first + i))
            fresh = false;
        else if (store)
            s->block[f->first + i].flags |= B_BUSY;
    }
    pthread_cond_broadcast(&stripe->changed);
    pthread_mutex_unlock(&stripe->lock);
    return fresh;
}

/* Who brings the blocks of a fetch, as flags. */
static uint8_t tier_of(const struct fetch *f)
{
    static const enum fc_tier tier[] = { [FETCH_DEMAND] = FC_TIER_OTHER,
                                         [FETCH_ORDER] = FC_TIER_PREDICTIVE,
                                         [FETCH_AHEAD] = FC_TIER_CRITICAL,
                                         [FETCH_IDLE] = FC_TIER_BACKGROUND };
    return f->wanted ? 0 : (uint8_t)(tier[f->kind] << B_TIER_SHIFT);
}

/* Blocks first .. first+n-1 of the fetch are held alone: store them. */
static int fetch_store(struct fc_shadow *s, const struct fetch *f,
                       uint32_t first, uint32_t n, const uint8_t *data)
{
    uint64_t at = (uint64_t)first << s->block_shift;
    uint64_t len = shadow_block_bytes(s, first, n);
    uint64_t skip = (uint64_t)(first - f->first) << s->block_shift;
    bool ordered = f->kind == FETCH_ORDER && !f->wanted;

    if (s->cache && !fc_cache_admit(s->cache, n, f->kind != FETCH_DEMAND)) {
        shadow_run_done(s, first, n, false, 0);
        return 0;
    }
    int rc = fc_volume_write(s->volume, data + skip, len, at);
    if (rc)
        rc = shadow_volume_failed("keeping a block", at);
    shadow_run_done(s, first, n, !rc,
                    (ordered ? B_PREFETCHED : 0) | tier_of(f));
    if (s->cache)
        fc_cache_settle(s->cache, n);
    if (!rc && f->kind != FETCH_DEMAND)
        atomic_fetch_add(&s->received_bytes, len);
    if (!rc && ordered)
        atomic_fetch_add(&s->prefetched, n);
    return rc;
}

int shadow_fetch_end(struct fc_shadow *s, struct fetch *f, const void *data,
                     bool *fresh_r)
{
    int rc = 0;

    pthread_rwlock_rdlock(&s->gate);
    bool store = data && atomic_load(&s->state) == FC_SHADOW_OWNED;
    *fresh_r = fetch_claim(s, f, store);
    for (uint32_t i = 0; store && i < f->count;) {
        uint32_t n = 0;
        while (i + n < f->count && fetch_has(f, f->first + i + n))
            n++;
        if (n) {
            int one = fetch_store(s, f, f->first + i, n, data);
            rc = rc ? rc : one;
        }
        i += n ? n : 1;
    }
    pthread_rwlock_unlock(&s->gate);
    return rc;
}
