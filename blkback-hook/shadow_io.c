/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's requests and the blocks that arrive. A request is done in steps,
 * each for one run of like blocks; a step that cannot be done yet holds the
 * request with nothing in hand, and is then begun anew.
 */
#include "shadow_int.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache.h"
#include "err.h"
#include "hydrate.h"

/* A held request looks again after so long even if nobody wakes it. */
#define HOLD_SECONDS 1

/* ---- holding ---- */

uint64_t shadow_hold_seen(struct fc_shadow *s)
{
    pthread_mutex_lock(&s->hold_lock);
    uint64_t seen = s->hold_generation;
    pthread_mutex_unlock(&s->hold_lock);
    return seen;
}

void shadow_hold_wake(struct fc_shadow *s)
{
    pthread_mutex_lock(&s->hold_lock);
    s->hold_generation++;
    pthread_cond_broadcast(&s->hold_changed);
    pthread_mutex_unlock(&s->hold_lock);
}

int shadow_hold(struct fc_shadow *s, uint64_t seen)
{
    struct timespec until;
    int r = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += HOLD_SECONDS;
    atomic_fetch_add(&s->held, 1);
    pthread_mutex_lock(&s->hold_lock);
    while (s->hold_generation == seen && !atomic_load(&s->cancelled) && !r)
        r = pthread_cond_timedwait(&s->hold_changed, &s->hold_lock, &until);
    pthread_mutex_unlock(&s->hold_lock);
    atomic_fetch_sub(&s->held, 1);
    return atomic_load(&s->cancelled) ? FC_ECANCEL : 0;
}

int shadow_answer(struct fc_shadow *s, int rc)
{
    atomic_store(&s->reachable, rc != FC_EPEER);
    return rc;
}

void fc_shadow_primary_up(struct fc_shadow *s)
{
    shadow_hold_wake(s);
    fc_hydrate_kick(s->hydrate);
}

/* ---- what a request covers ---- */

/* The rest of a request. */
struct span {
    uint64_t offset, len;
    uint8_t *to;         /* read */
    const uint8_t *from; /* write */
    uint32_t asked;      /* read: of the blocks below, those that the primary
                          * was asked for are misses, however they came */
};

static bool span_ok(const struct fc_shadow *s, uint64_t offset, uint64_t len)
{
    return offset <= s->size && len <= s->size - offset;
}

static void span_pass(struct span *span, uint64_t len)
{
    span->offset += len;
    span->len -= len;
    if (span->to)
        span->to += len;
    if (span->from)
        span->from += len;
}

static uint32_t span_first(const struct fc_shadow *s, const struct span *span)
{
    return (uint32_t)(span->offset >> s->block_shift);
}

/* Blocks touched from the span's first on, as many as one step may cover. */
static uint32_t span_blocks(const struct fc_shadow *s, const struct span *span)
{
    uint64_t last = (span->offset + span->len - 1) >> s->block_shift;
    uint64_t n = last - span_first(s, span) + 1;
    uint64_t most = FETCH_BYTES >> s->block_shift;

    return (uint32_t)(n < most ? n : most);
}

/* Bytes of the span within its first `count` blocks. */
static uint64_t span_within(const struct fc_shadow *s, const struct span *span,
                            uint32_t count)
{
    uint64_t end = (uint64_t)(span_first(s, span) + count) << s->block_shift;

    return end - span->offset < span->len ? end - span->offset : span->len;
}

/*
 * Blocks that the span covers whole from its start on, at most a step's; 0 when
 * the first is covered in part.
 */
static uint32_t span_whole(const struct fc_shadow *s, const struct span *span)
{
    uint32_t n = span_blocks(s, span);
    uint64_t end = span->offset + span->len;

    if (span->offset & (s->block_bytes - 1))
        return 0;
    if (span_within(s, span, n) < shadow_block_bytes(s, span_first(s, span), n))
        n--;
    return end <= s->size ? n : 0;
}

/* ---- reading ---- */

/* Straight from the primary; nothing is kept. */
static int read_primary(struct fc_shadow *s, struct span *span, uint64_t len)
{
    uint64_t seen = shadow_hold_seen(s);
    int rc = shadow_answer(
        s, s->primary->read(s->user, span->offset, span->to, len));

    if (rc == FC_EPEER)
        return shadow_hold(s, seen);
    if (!rc)
        span_pass(span, len);
    return rc;
}

/*
 * Blocks of an entered fetch: asks the primary, keeps them, and gives the span
 * its part. `span` NULL: they are only kept.
 */
static int fetch_blocks(struct fc_shadow *s, struct fetch *f, struct span *span)
{
    uint64_t at = (uint64_t)f->first << s->block_shift;
    uint64_t len = shadow_block_bytes(s, f->first, f->count);
    uint8_t *data = malloc(len);
    uint64_t seen = shadow_hold_seen(s);
    bool fresh;

    fc_hydrate_missed(s->hydrate, f->first, f->count);
    int rc = data ? shadow_answer(s, s->primary->read(s->user, at, data, len))
                  : FC_ENOMEM;
    /* a volume that cannot keep them was logged; the guest has its data */
    shadow_fetch_end(s, f, rc ? NULL : data, &fresh);
    if (!rc && fresh && span) {
        uint64_t part = span_within(s, span, f->count);
        memcpy(span->to, data + (span->offset - at), part);
        atomic_fetch_add(&s->misses, f->count);
        span_pass(span, part);
    }
    free(data);
    return rc == FC_EPEER ? shadow_hold(s, seen) : rc;
}

/* Pinned blocks: the span's part of them. */
static int read_pinned(struct fc_shadow *s, struct span *span, uint32_t first,
                       uint32_t count, const struct fetch *f)
{
    uint64_t part = span_within(s, span, count);
    uint32_t missed = f->met ? count : 0, left;

    if (span->asked > first)
        missed = span->asked - first < count ? span->asked - first : count;
    int rc = fc_volume_read(s->volume, span->to, part, span->offset);

    if (rc)
        rc = shadow_volume_failed("reading", span->offset);
    shadow_run_unpin(s, first, count, false);
    left = missed; /* they were asked for, so they count by no tier */
    for (unsigned i = 0; i < FC_TIERS; i++) {
        uint32_t less = f->tier[i] < left ? f->tier[i] : left;
        left -= less;
        if (f->tier[i] > less)
            atomic_fetch_add(&s->hits[i], f->tier[i] - less);
    }
    atomic_fetch_add(&s->misses, missed);
    span_pass(span, part);
    return rc;
}

static int read_step(struct fc_shadow *s, struct span *span, bool *missed)
{
    uint32_t first = span_first(s, span), count = span_blocks(s, span);
    int state = atomic_load(&s->state);
    struct fetch f = { .kind = FETCH_DEMAND };

    if (atomic_load(&s->cancelled))
        return FC_ECANCEL;
    if (state == FC_SHADOW_COPYING) {
        *missed = true;
        return read_primary(s, span, span_within(s, span, count));
    }
    int kind = shadow_run_take(
        s, first, count, state == FC_SHADOW_OWNED ? TAKE_READ : TAKE_VALID, &f,
        &count);
    if (kind < 0)
        return kind;
    if (kind == RUN_PINNED) {
        *missed |= f.met;
        return read_pinned(s, span, first, count, &f);
    }
    *missed = true;
    if (kind == RUN_FETCH) {
        int rc = fetch_blocks(s, &f, span);
        span->asked = first + count;
        return rc;
    }
    return read_primary(s, span, span_within(s, span, count));
}

int fc_shadow_read(struct fc_shadow *s, uint64_t offset, void *buf, size_t len)
{
    struct span span = { .offset = offset, .len = len, .to = buf };
    uint64_t start = fc_now_ns();
    bool missed = false;
    int rc = 0;

    if (!span_ok(s, offset, len))
        return FC_EINVAL;
    while (!rc && span.len)
        rc = read_step(s, &span, &missed);
    if (atomic_load(&s->state) != FC_SHADOW_OWNED)
        return rc;
    uint64_t took = fc_now_ns() - start;
    atomic_fetch_add(&s->reads, 1);
    atomic_fetch_add(&s->read_ns, took);
    atomic_fetch_add(&s->latency[fc_latency_bucket(took)], 1);
    if (missed)
        atomic_fetch_add(&s->miss_ns, took);
    return rc;
}

/* ---- changing ---- */

enum change { CHANGE_WRITE, CHANGE_ZERO, CHANGE_PUNCH, CHANGE_TRIM };

static int change_volume(struct fc_shadow *s, enum change change,
                         const struct span *span, uint64_t len)
{
    int rc;

    if (change == CHANGE_WRITE)
        rc = fc_volume_write(s->volume, span->from, len, span->offset);
    else if (change == CHANGE_TRIM)
        rc = fc_volume_trim(s->volume, span->offset, len);
    else
        rc = fc_volume_zero(s->volume, span->offset, len,
                            change == CHANGE_PUNCH);
    return rc ? shadow_volume_failed("writing", span->offset) : 0;
}

static int change_primary(struct fc_shadow *s, enum change change,
                          const struct span *span, uint64_t len)
{
    const struct fc_primary_ops *p = s->primary;
    int rc;

    if (change == CHANGE_WRITE)
        rc = p->write(s->user, span->offset, span->from, len);
    else if (change == CHANGE_TRIM)
        rc = p->trim(s->user, span->offset, len);
    else
        rc = p->zero(s->user, span->offset, len);
    return shadow_answer(s, rc);
}

/* Waits until the disk is ours, and has that written down. */
static int change_begin(struct fc_shadow *s)
{
    while (!atomic_load(&s->written) ||
           atomic_load(&s->state) != FC_SHADOW_OWNED) {
        uint64_t seen = shadow_hold_seen(s);
        int rc = 0;

        pthread_rwlock_rdlock(&s->gate);
        bool ours = atomic_load(&s->state) == FC_SHADOW_OWNED;
        if (ours)
            rc = shadow_note_written(s);
        pthread_rwlock_unlock(&s->gate);
        if (!ours)
            rc = shadow_hold(s, seen);
        if (rc)
            return rc;
    }
    return 0;
}

/* Blocks covered whole need nothing of the primary. */
static int change_whole(struct fc_shadow *s, enum change change,
                        struct span *span, uint32_t most)
{
    uint32_t first = span_first(s, span), count;
    int kind = shadow_run_take(s, first, most, TAKE_WRITE, NULL, &count);

    if (kind < 0)
        return kind;
    uint64_t len = span_within(s, span, count);
    if (kind == RUN_PINNED) {
        int rc = change_volume(s, change, span, len);
        shadow_run_unpin(s, first, count, true);
        span_pass(span, len);
        return rc;
    }
    /* what is trimmed must read alike from now on, so it becomes zeros */
    int rc = change_volume(s, change == CHANGE_TRIM ? CHANGE_PUNCH : change,
                           span, len);
    shadow_run_done(s, first, count, !rc, B_DIRTY);
    span_pass(span, len);
    return rc;
}

/* A block covered in part is filled first; trimming leaves it alone. */
static int change_part(struct fc_shadow *s, enum change change,
                       struct span *span)
{
    uint32_t first = span_first(s, span), count;
    struct fetch f = { .kind = FETCH_DEMAND };
    int kind = shadow_run_take(s, first, 1,
                               change == CHANGE_TRIM ? TAKE_VALID : TAKE_READ,
                               &f, &count);

    if (kind < 0)
        return kind;
    if (kind == RUN_FETCH) {
        atomic_fetch_add(&s->fills, 1);
        return fetch_blocks(s, &f, NULL);
    }
    int rc = 0;
    uint64_t len = span_within(s, span, 1);
    if (kind == RUN_PINNED) {
        rc = change_volume(s, change, span, len);
        shadow_run_unpin(s, first, 1, true);
    }
    span_pass(span, len);
    return rc;
}

/* A cache: the primary first, then what the shadow has of it. */
static int change_through(struct fc_shadow *s, enum change change,
                          struct span *span)
{
    uint32_t first = span_first(s, span), count;
    uint64_t seen = shadow_hold_seen(s);
    int kind = shadow_run_take(s, first, span_blocks(s, span), TAKE_ALONE, NULL,
                               &count);
    uint64_t len = span_within(s, span, count);
    int rc = change_primary(s, change, span, len);
    bool valid = kind == RUN_BUSY_VALID;

    if (rc != FC_EPEER && valid)
        valid = !rc && change != CHANGE_TRIM &&
                !change_volume(s, change, span, len);
    shadow_run_done(s, first, count, valid, rc ? 0 : B_DIRTY);
    if (rc == FC_EPEER)
        return shadow_hold(s, seen);
    span_pass(span, len);
    return rc;
}

static int change(struct fc_shadow *s, enum change change, struct span span)
{
    if (!span_ok(s, span.offset, span.len))
        return FC_EINVAL;
    int rc = change_begin(s);

    while (!rc && span.len) {
        uint32_t whole = span_whole(s, &span);
        if (atomic_load(&s->cancelled))
            rc = FC_ECANCEL;
        else if (s->is_cache)
            rc = change_through(s, change, &span);
        else if (whole)
            rc = change_whole(s, change, &span, whole);
        else
            rc = change_part(s, change, &span);
    }
    atomic_fetch_add(&s->writes, 1);
    return rc;
}

int fc_shadow_write(struct fc_shadow *s, uint64_t offset, const void *buf,
                    size_t len)
{
    return change(s, CHANGE_WRITE,
                  (struct span){ .offset = offset, .len = len, .from = buf });
}

int fc_shadow_zero(struct fc_shadow *s, uint64_t offset, uint64_t len,
                   bool punch)
{
    return change(s, punch ? CHANGE_PUNCH : CHANGE_ZERO,
                  (struct span){ .offset = offset, .len = len });
}

int fc_shadow_trim(struct fc_shadow *s, uint64_t offset, uint64_t len)
{
    return change(s, CHANGE_TRIM,
                  (struct span){ .offset = offset, .len = len });
}

/* ---- arriving ---- */

/* Blocks from `first` on that are all in the set, or all not. */
static bool like_run(const struct fc_blockset *set, uint32_t first,
                     uint32_t *count)
{
    bool in = fc_blockset_test(set, first);
    uint32_t end =
        in ? fc_blockset_next_clear(set, first) : fc_blockset_next(set, first);

    if (*count > end - first)
        *count = end - first;
    return in;
}

/* Blocks from `first` on that the order names all, or all not, and of which
 * the same holds for what was raised beside a miss. Those are that no more. */
static bool arriving_run(struct fc_shadow *s, uint32_t first, uint32_t *count,
                         enum fc_tier *tier_r)
{
    pthread_mutex_lock(&s->lock);
    bool ordered = like_run(&s->ordered, first, count);
    bool raised = like_run(&s->raised, first, count);
    if (raised)
        fc_blockset_set_range(&s->raised, first, *count, false);
    pthread_mutex_unlock(&s->lock);
    *tier_r = ordered  ? FC_TIER_PREDICTIVE
              : raised ? FC_TIER_CRITICAL
                       : FC_TIER_BACKGROUND;
    return ordered;
}

/* One run of what arrived, with the gate held; *count: asked for, then done. */
static int put_run(struct fc_shadow *s, uint32_t first, uint32_t *count,
                   const uint8_t *data)
{
    bool copying = atomic_load(&s->state) == FC_SHADOW_COPYING;
    enum fc_tier tier;
    bool ordered = arriving_run(s, first, count, &tier);
    struct fetch met;
    int kind = shadow_run_take(s, first, *count,
                               copying ? TAKE_ALONE : TAKE_PUT, &met, count);

    if (kind == RUN_SKIP)
        return 0;
    uint64_t at = (uint64_t)first << s->block_shift;
    uint64_t len = shadow_block_bytes(s, first, *count);
    int rc = data ? fc_volume_write(s->volume, data, len, at)
                  : fc_volume_zero(s->volume, at, len, true);
    bool early = !rc && kind == RUN_BUSY && ordered && !met.met;
    if (rc)
        rc = shadow_volume_failed("storing a block that arrived", at);
    uint8_t brought = met.met ? 0 : (uint8_t)(tier << B_TIER_SHIFT);
    shadow_run_done(s, first, *count, !rc,
                    (early ? B_PREFETCHED : 0) | brought);
    if (!rc)
        atomic_fetch_add(&s->received_bytes, len);
    if (early)
        atomic_fetch_add(&s->prefetched, *count);
    return rc;
}

int fc_shadow_put(struct fc_shadow *s, uint32_t block, uint32_t count,
                  const void *data)
{
    const uint8_t *p = data;
    int rc = 0;

    if (!count || block >= s->blocks || count > s->blocks - block)
        return FC_EINVAL;
    pthread_rwlock_rdlock(&s->gate);
    while (!rc && count) {
        uint32_t n = count;
        rc = put_run(s, block, &n, p);
        if (p)
            p += (uint64_t)n << s->block_shift;
        block += n;
        count -= n;
    }
    pthread_rwlock_unlock(&s->gate);
    return rc;
}
