/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A shadow's life: opening, states, commits, closing. shadow_int.h says how the
 * parts hang together and in which order locks are taken.
 */
#include "shadow_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "err.h"
#include "hydrate.h"
#include "log.h"

int shadow_volume_failed(const char *doing, uint64_t offset)
{
    int err = errno;

    fc_error("shadow volume: %s at byte %llu: %s", doing,
             (unsigned long long)offset, strerror(err));
    errno = err;
    return FC_EIO;
}

/* ---- commits ---- */

static void stats_read(struct fc_shadow *s, struct fc_readstats *to)
{
    *to = (struct fc_readstats){
        .reads = atomic_load(&s->reads),
        .read_ns = atomic_load(&s->read_ns),
        .miss_ns = atomic_load(&s->miss_ns),
        .misses = atomic_load(&s->misses),
        .prefetched = atomic_load(&s->prefetched),
        .prefetch_used = atomic_load(&s->prefetch_used),
    };
    for (unsigned i = 0; i < FC_TIERS; i++)
        to->hits[i] = atomic_load(&s->hits[i]);
    for (unsigned i = 0; i < FC_LATENCY_BUCKETS; i++)
        to->latency[i] = atomic_load(&s->latency[i]);
}

static void stats_adopt(struct fc_shadow *s, const struct fc_readstats *from)
{
    atomic_store(&s->reads, from->reads);
    atomic_store(&s->read_ns, from->read_ns);
    atomic_store(&s->miss_ns, from->miss_ns);
    atomic_store(&s->misses, from->misses);
    atomic_store(&s->prefetched, from->prefetched);
    atomic_store(&s->prefetch_used, from->prefetch_used);
    for (unsigned i = 0; i < FC_TIERS; i++)
        atomic_store(&s->hits[i], from->hits[i]);
    for (unsigned i = 0; i < FC_LATENCY_BUCKETS; i++)
        atomic_store(&s->latency[i], from->latency[i]);
}

int shadow_commit(struct fc_shadow *s, bool clean)
{
    struct fc_map_state state = {
        .state = (enum fc_shadow_state)atomic_load(&s->state),
        .epoch = s->epoch,
        .clean = clean,
        .written = atomic_load(&s->written),
    };
    memcpy(state.migration, s->migration, FC_MIGRATION_BYTES);
    stats_read(s, &state.reads);

    pthread_mutex_lock(&s->lock);
    uint64_t promise = s->promise;
    fc_blockset_copy(&s->snapshot, &s->valid);
    pthread_mutex_unlock(&s->lock);
    if (fc_volume_sync(s->volume))
        return shadow_volume_failed("making it durable", 0);
    if (fc_map_commit(s->map, &s->snapshot, &state)) {
        fc_error("shadow map: writing it: %s", strerror(errno));
        return FC_EIO;
    }
    atomic_fetch_add(&s->commits, 1);
    s->kept_reads = state.reads.reads;
    s->kept_ms = fc_now_ms();
    pthread_mutex_lock(&s->lock);
    s->committed_promise = promise;
    fc_blockset_copy(&s->durable, &s->snapshot);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int fc_shadow_sync(struct fc_shadow *s)
{
    pthread_mutex_lock(&s->commit_lock);
    int rc = shadow_commit(s, false);
    pthread_mutex_unlock(&s->commit_lock);
    return rc;
}

int fc_shadow_keep_stats(struct fc_shadow *s, uint64_t now_ms)
{
    int rc = 0;

    pthread_mutex_lock(&s->commit_lock);
    if (atomic_load(&s->reads) != s->kept_reads && now_ms > s->kept_ms &&
        now_ms - s->kept_ms >= FC_SHADOW_KEEP_MS)
        rc = shadow_commit(s, false);
    pthread_mutex_unlock(&s->commit_lock);
    return rc;
}

int shadow_note_written(struct fc_shadow *s)
{
    int rc = 0;

    pthread_mutex_lock(&s->commit_lock);
    if (!atomic_load(&s->written)) {
        atomic_store(&s->written, true);
        /* a cache's map means nothing after a crash, and is never returned */
        rc = s->is_cache ? 0 : shadow_commit(s, false);
        if (rc)
            atomic_store(&s->written, false);
    }
    pthread_mutex_unlock(&s->commit_lock);
    return rc;
}

static bool flush_owes(struct fc_shadow *s, uint64_t owed)
{
    pthread_mutex_lock(&s->lock);
    bool owes = s->committed_promise < owed;
    pthread_mutex_unlock(&s->lock);
    return owes;
}

static int flush_primary(struct fc_shadow *s)
{
    for (;;) {
        uint64_t seen = shadow_hold_seen(s);
        int rc = shadow_answer(s, s->primary->flush(s->user));
        if (rc != FC_EPEER)
            return rc;
        rc = shadow_hold(s, seen);
        if (rc)
            return rc;
    }
}

int fc_shadow_flush(struct fc_shadow *s)
{
    int rc = 0;

    if (s->is_cache)
        return flush_primary(s);
    pthread_mutex_lock(&s->lock);
    uint64_t owed = s->promise;
    pthread_mutex_unlock(&s->lock);
    if (flush_owes(s, owed)) {
        pthread_mutex_lock(&s->commit_lock);
        /* another flush's commit may have paid; its sync of the volume may
         * have begun before our data were there, though */
        bool owes = flush_owes(s, owed);
        if (owes)
            rc = shadow_commit(s, false);
        pthread_mutex_unlock(&s->commit_lock);
        if (owes)
            return rc;
    }
    return fc_volume_sync(s->volume)
               ? shadow_volume_failed("making it durable", 0)
               : 0;
}

/* ---- states ---- */

static bool same_lease(const struct fc_shadow *s, const uint8_t *migration,
                       uint64_t epoch)
{
    return s->epoch == epoch &&
           !memcmp(s->migration, migration, FC_MIGRATION_BYTES);
}

static void state_set(struct fc_shadow *s, int state, const uint8_t *migration,
                      uint64_t epoch)
{
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->state, state);
    s->epoch = epoch;
    memcpy(s->migration, migration, FC_MIGRATION_BYTES);
    pthread_mutex_unlock(&s->lock);
}

/*
 * Moves on and makes it durable, or stays. Gate (alone) and commit_lock are
 * held.
 */
static int state_change(struct fc_shadow *s, enum fc_shadow_state state,
                        const uint8_t *migration, uint64_t epoch)
{
    int was = atomic_load(&s->state);
    uint64_t was_epoch = s->epoch;
    uint8_t was_migration[FC_MIGRATION_BYTES];

    memcpy(was_migration, s->migration, FC_MIGRATION_BYTES);
    state_set(s, state, migration, epoch);
    int rc = shadow_commit(s, false);
    if (rc)
        state_set(s, was, was_migration, was_epoch);
    return rc;
}

static void state_lock(struct fc_shadow *s)
{
    pthread_rwlock_wrlock(&s->gate);
    pthread_mutex_lock(&s->commit_lock);
}

static void state_unlock(struct fc_shadow *s)
{
    pthread_mutex_unlock(&s->commit_lock);
    pthread_rwlock_unlock(&s->gate);
}

/* Takes the validity of blocks away, each when it is free. */
static void invalidate(struct fc_shadow *s, const struct fc_blockset *blocks)
{
    uint32_t b = fc_blockset_next(blocks, 0);

    while (b < s->blocks) {
        uint32_t end = fc_blockset_next_clear(blocks, b), n;
        while (b < end) {
            shadow_run_take(s, b, end - b, TAKE_ALONE, NULL, &n);
            shadow_run_done(s, b, n, false, 0);
            b += n;
        }
        b = fc_blockset_next(blocks, end);
    }
}

int fc_shadow_fence(struct fc_shadow *s, const struct fc_blockset *not_valid,
                    const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch)
{
    int rc = 0;

    if (not_valid->blocks != s->blocks)
        return FC_EINVAL;
    state_lock(s);
    int state = atomic_load(&s->state);
    if (state == FC_SHADOW_COPYING && epoch >= s->epoch) {
        invalidate(s, not_valid);
        rc = state_change(s, FC_SHADOW_FENCED, migration, epoch);
    } else if (state == FC_SHADOW_COPYING || !same_lease(s, migration, epoch)) {
        rc = FC_EPERM;
    }
    state_unlock(s);
    shadow_hold_wake(s);
    return rc;
}

int fc_shadow_own(struct fc_shadow *s,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch)
{
    int rc = 0;

    state_lock(s);
    int state = atomic_load(&s->state);
    if (state == FC_SHADOW_COPYING || !same_lease(s, migration, epoch))
        rc = FC_EPERM;
    else if (state == FC_SHADOW_FENCED)
        rc = state_change(s, FC_SHADOW_OWNED, migration, epoch);
    state_unlock(s);
    if (!rc) {
        shadow_hold_wake(s);
        fc_hydrate_kick(s->hydrate);
    }
    return rc;
}

int fc_shadow_return(struct fc_shadow *s,
                     const uint8_t migration[FC_MIGRATION_BYTES],
                     uint64_t epoch)
{
    int rc = 0;

    state_lock(s);
    int state = atomic_load(&s->state);
    if (state == FC_SHADOW_COPYING && same_lease(s, migration, epoch))
        rc = 0;
    else if (s->is_cache || atomic_load(&s->written) || epoch <= s->epoch)
        rc = FC_EPERM;
    else
        rc = state_change(s, FC_SHADOW_COPYING, migration, epoch);
    state_unlock(s);
    shadow_hold_wake(s);
    return rc;
}

/* ---- life ---- */

static int locks_init(struct fc_shadow *s)
{
    pthread_rwlockattr_t attr;
    pthread_condattr_t clock;

    pthread_rwlockattr_init(&attr);
    /* a state change must not wait for ever behind a stream of blocks */
    pthread_rwlockattr_setkind_np(&attr,
                                  PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_rwlock_init(&s->gate, &attr);
    pthread_mutex_init(&s->commit_lock, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->hold_lock, NULL);
    pthread_cond_init(&s->hold_changed, &clock);
    for (unsigned i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&s->stripe[i].lock, NULL);
        pthread_cond_init(&s->stripe[i].changed, NULL);
    }
    pthread_rwlockattr_destroy(&attr);
    pthread_condattr_destroy(&clock);
    return 0;
}

static void locks_dispose(struct fc_shadow *s)
{
    pthread_rwlock_destroy(&s->gate);
    pthread_mutex_destroy(&s->commit_lock);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->hold_lock);
    pthread_cond_destroy(&s->hold_changed);
    for (unsigned i = 0; i < STRIPES; i++) {
        pthread_mutex_destroy(&s->stripe[i].lock);
        pthread_cond_destroy(&s->stripe[i].changed);
    }
}

static void shadow_free(struct fc_shadow *s)
{
    fc_hydrate_free(s->hydrate);
    fc_cache_free(s->cache);
    fc_blockset_dispose(&s->snapshot);
    fc_blockset_dispose(&s->valid);
    fc_blockset_dispose(&s->durable);
    fc_blockset_dispose(&s->ordered);
    fc_blockset_dispose(&s->raised);
    free(s->block);
    locks_dispose(s);
    free(s);
}

/* What the map says, as far as it can be trusted. */
static void adopt_map(struct fc_shadow *s)
{
    const struct fc_map_state *state = fc_map_state(s->map);
    bool exact = state->state != FC_SHADOW_COPYING && !s->is_cache;

    atomic_store(&s->state, state->state);
    atomic_store(&s->written, state->written && !s->is_cache);
    s->epoch = state->epoch;
    stats_adopt(s, &state->reads);
    memcpy(s->migration, state->migration, FC_MIGRATION_BYTES);
    if (!state->clean && !exact) {
        if (fc_map_valid(s->map)->count)
            fc_warn("shadow map: not closed cleanly while blocks changed under "
                    "it, so none of its %u blocks is used",
                    fc_map_valid(s->map)->count);
        return;
    }
    fc_blockset_copy(&s->valid, fc_map_valid(s->map));
    for (uint32_t b = fc_blockset_next(&s->valid, 0); b < s->blocks;
         b = fc_blockset_next(&s->valid, b + 1))
        s->block[b].flags = B_VALID;
}

static int parts_new(struct fc_shadow *s, const struct fc_shadow_config *config)
{
    int rc = fc_blockset_init(&s->valid, s->blocks, false);

    if (!rc)
        rc = fc_blockset_init(&s->snapshot, s->blocks, false);
    if (!rc)
        rc = fc_blockset_init(&s->durable, s->blocks, false);
    if (!rc)
        rc = fc_blockset_init(&s->ordered, s->blocks, false);
    if (!rc)
        rc = fc_blockset_init(&s->raised, s->blocks, false);
    s->block = calloc(s->blocks, sizeof(struct block));
    if (!s->block)
        rc = FC_ENOMEM;
    if (!rc)
        adopt_map(s);
    if (!rc && s->is_cache)
        rc = fc_cache_new(s, config->budget_bytes, &s->cache);
    if (!rc)
        rc = fc_hydrate_new(s, config->depth, &s->hydrate);
    return rc;
}

static bool config_ok(const struct fc_shadow_config *config)
{
    const struct fc_map_id *id = fc_map_id(config->map);
    const struct fc_primary_ops *p = config->primary;

    if (config->volume->size_bytes < id->size_bytes) {
        fc_error("shadow volume: %llu bytes, the disk has %llu",
                 (unsigned long long)config->volume->size_bytes,
                 (unsigned long long)id->size_bytes);
        return false;
    }
    return config->cache == id->cache && p && p->read &&
           (!config->cache || (p->write && p->zero && p->trim && p->flush));
}

int fc_shadow_open(const struct fc_shadow_config *config,
                   struct fc_shadow **s_r)
{
    const struct fc_map_id *id = fc_map_id(config->map);

    if (!config_ok(config))
        return FC_EINVAL;
    struct fc_shadow *s = aligned_alloc(64, sizeof(*s));
    if (!s)
        return FC_ENOMEM;
    memset(s, 0, sizeof(*s));
    s->volume = config->volume;
    s->map = config->map;
    s->primary = config->primary;
    s->user = config->primary_user;
    s->size = id->size_bytes;
    s->block_bytes = id->block_bytes;
    s->block_shift = (unsigned)__builtin_ctz(id->block_bytes);
    s->blocks = fc_map_blocks(id->size_bytes, id->block_bytes);
    s->is_cache = config->cache;
    atomic_store(&s->reachable, true);
    locks_init(s);
    int rc = parts_new(s, config);
    if (!rc)
        rc = fc_shadow_sync(s);
    if (rc) {
        shadow_free(s);
        return rc;
    }
    *s_r = s;
    return 0;
}

int fc_shadow_start(struct fc_shadow *s)
{
    return fc_hydrate_start(s->hydrate);
}

void fc_shadow_cancel(struct fc_shadow *s)
{
    atomic_store(&s->cancelled, true);
    if (s->primary->cancel)
        s->primary->cancel(s->user);
    shadow_hold_wake(s);
    for (unsigned i = 0; i < STRIPES; i++) {
        pthread_mutex_lock(&s->stripe[i].lock);
        pthread_cond_broadcast(&s->stripe[i].changed);
        pthread_mutex_unlock(&s->stripe[i].lock);
    }
    fc_hydrate_kick(s->hydrate);
}

int fc_shadow_close(struct fc_shadow *s)
{
    if (!s)
        return 0;
    fc_shadow_cancel(s);
    fc_hydrate_stop(s->hydrate);
    pthread_mutex_lock(&s->commit_lock);
    int rc = shadow_commit(s, true);
    pthread_mutex_unlock(&s->commit_lock);
    fc_volume_close(s->volume);
    fc_map_close(s->map);
    shadow_free(s);
    return rc;
}

/* ---- what is asked about it ---- */

int fc_shadow_set_order(struct fc_shadow *s, const uint32_t *blocks,
                        size_t count)
{
    struct fc_blockset ordered;
    int rc = fc_blockset_init(&ordered, s->blocks, false);

    if (rc)
        return rc;
    for (size_t i = 0; i < count; i++)
        if (blocks[i] < s->blocks)
            fc_blockset_set(&ordered, blocks[i]);
    rc = fc_hydrate_set_order(s->hydrate, blocks, count);
    if (!rc && s->cache)
        rc = fc_cache_set_order(s->cache, blocks, count);
    if (!rc) {
        pthread_mutex_lock(&s->lock);
        fc_blockset_copy(&s->ordered, &ordered);
        pthread_mutex_unlock(&s->lock);
    }
    fc_blockset_dispose(&ordered);
    return rc;
}

void fc_shadow_set_rate(struct fc_shadow *s, uint64_t bytes_ps)
{
    fc_hydrate_set_rate(s->hydrate, bytes_ps);
}

void fc_shadow_valid(struct fc_shadow *s, struct fc_blockset *to)
{
    pthread_mutex_lock(&s->lock);
    fc_blockset_copy(to, &s->valid);
    pthread_mutex_unlock(&s->lock);
}

bool fc_shadow_complete(struct fc_shadow *s)
{
    pthread_mutex_lock(&s->lock);
    bool all = s->valid.count == s->blocks;
    pthread_mutex_unlock(&s->lock);
    return all;
}

void fc_shadow_status(struct fc_shadow *s, struct fc_shadow_status *status_r)
{
    memset(status_r, 0, sizeof(*status_r));
    pthread_mutex_lock(&s->lock);
    status_r->epoch = s->epoch;
    memcpy(status_r->migration, s->migration, FC_MIGRATION_BYTES);
    status_r->valid_blocks = s->valid.count;
    pthread_mutex_unlock(&s->lock);
    status_r->state = (enum fc_shadow_state)atomic_load(&s->state);
    status_r->cache = s->is_cache;
    status_r->written = atomic_load(&s->written);
    status_r->size_bytes = s->size;
    status_r->block_bytes = s->block_bytes;
    status_r->blocks = s->blocks;
    status_r->remaining_blocks = s->blocks - status_r->valid_blocks;
    status_r->dirty_blocks = atomic_load(&s->dirty_blocks);
    status_r->received_bytes = atomic_load(&s->received_bytes);
    stats_read(s, &status_r->stats);
    status_r->reads = status_r->stats.reads;
    status_r->read_hits = fc_readstats_hits(&status_r->stats);
    status_r->read_misses = status_r->stats.misses;
    status_r->read_ms_sum = status_r->stats.read_ns / 1000000;
    status_r->miss_ms_sum = status_r->stats.miss_ns / 1000000;
    status_r->writes = atomic_load(&s->writes);
    status_r->fills = atomic_load(&s->fills);
    status_r->prefetched = status_r->stats.prefetched;
    status_r->prefetch_used = status_r->stats.prefetch_used;
    status_r->evicted = atomic_load(&s->evicted);
    status_r->commits = atomic_load(&s->commits);
    status_r->held = atomic_load(&s->held);
    status_r->primary_reachable = atomic_load(&s->reachable);
}
