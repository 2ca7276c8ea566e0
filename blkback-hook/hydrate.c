/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hydrate_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache.h"
#include "err.h"
#include "log.h"

/* Without a miss for so long the guest counts as idle. */
#define IDLE_MS 50u

/* A primary that failed is asked again after so long, or when it is up. */
#define DOWN_MS 1000u

/* Blocks that were all taken by others when looked at: look again. */
#define AGAIN_MS 20u

/* The prediction's credit, and the neighbourhood that it leaves to a miss:
 * from NEAR_MIN blocks ahead with full credit up by one for each CREDIT_STEP
 * lost; a quarter of that behind. */
#define CREDIT_MAX 64u
#define CREDIT_STEP 4u
#define NEAR_MIN 4u
#define NEAR_BEHIND 4u

/* What may be sent at once by the bucket. */
#define BURST_BYTES (4u * RUN_BYTES)

/* ---- feedback ---- */

/* One more miss; blocks of neighbourhood that it gets. h->lock is held. */
static uint32_t reckon_miss(struct hydrate *h)
{
    uint64_t used = atomic_load(&h->s->prefetch_used);
    uint64_t earned = used - h->used_seen;

    h->used_seen = used;
    h->credit = earned > CREDIT_MAX - h->credit ? CREDIT_MAX
                                                : h->credit + (unsigned)earned;
    if (h->credit)
        h->credit--;
    return NEAR_MIN + (CREDIT_MAX - h->credit) / CREDIT_STEP;
}

/* The first stretch of [*from, end) that is not valid; its length. */
static uint32_t missing_run(struct fc_shadow *s, uint32_t *from, uint32_t end)
{
    pthread_mutex_lock(&s->lock);
    uint32_t at = fc_blockset_next_clear(&s->valid, *from);
    uint32_t to = at < end ? fc_blockset_next(&s->valid, at) : end;
    pthread_mutex_unlock(&s->lock);
    *from = at;
    if (at >= end)
        return 0;
    return (to < end ? to : end) - at;
}

/* Raises what is missing of [from, end). */
static void raise_run(struct hydrate *h, uint32_t from, uint32_t end)
{
    struct fc_shadow *s = h->s;
    uint32_t n;

    for (; from < end && (n = missing_run(s, &from, end)); from += n) {
        if (s->primary->want) {
            pthread_mutex_lock(&s->lock);
            fc_blockset_set_range(&s->raised, from, n, true);
            pthread_mutex_unlock(&s->lock);
            s->primary->want(s->user, from, n);
            continue;
        }
        pthread_mutex_lock(&h->lock);
        if (h->critical_count == CRITICAL_MAX) {
            h->critical_first = (h->critical_first + 1) % CRITICAL_MAX;
            h->critical_count--;
        }
        h->critical[(h->critical_first + h->critical_count++) % CRITICAL_MAX] =
            (struct job){ .first = from, .count = n, .kind = FETCH_AHEAD };
        pthread_cond_signal(&h->changed);
        pthread_mutex_unlock(&h->lock);
    }
}

void fc_hydrate_missed(struct hydrate *h, uint32_t first, uint32_t count)
{
    uint32_t end = first + count;

    pthread_mutex_lock(&h->lock);
    uint32_t ahead = reckon_miss(h), behind = ahead / NEAR_BEHIND;
    h->missed_ms = fc_now_ms();
    pthread_mutex_unlock(&h->lock);
    raise_run(h, end, h->s->blocks - end < ahead ? h->s->blocks : end + ahead);
    raise_run(h, first < behind ? 0 : first - behind, first);
}

/* ---- tiers; h->lock is held ---- */

static bool pick_critical(struct hydrate *h, struct job *job_r)
{
    if (!h->critical_count)
        return false;
    *job_r = h->critical[h->critical_first];
    h->critical_first = (h->critical_first + 1) % CRITICAL_MAX;
    h->critical_count--;
    return true;
}

static bool pick_order(struct hydrate *h, struct job *job_r)
{
    struct fc_shadow *s = h->s;
    uint32_t at, n = 0;

    pthread_mutex_lock(&s->lock);
    for (at = h->order_next; at < h->order_count; at++)
        if (!fc_blockset_test(&s->valid, h->order[at]))
            break;
    while (at + n < h->order_count && n < run_blocks(h) &&
           h->order[at + n] == h->order[at] + n &&
           !fc_blockset_test(&s->valid, h->order[at + n]))
        n++;
    pthread_mutex_unlock(&s->lock);
    h->order_next = at;
    if (!n || (s->cache && !fc_cache_wants(s->cache, n)))
        return false;
    *job_r = (struct job){ h->order[at], n, FETCH_ORDER, at };
    h->order_next += n;
    return true;
}

/* 0 with a job, or how long to wait for one. */
static uint64_t pick_background(struct hydrate *h, struct job *job_r)
{
    uint64_t now = fc_now_ms();
    uint32_t from = h->background_next;

    if (h->s->is_cache)
        return WAIT_FOR_KICK;
    if (now - h->missed_ms < IDLE_MS)
        return h->missed_ms + IDLE_MS - now;
    uint32_t n = missing_run(h->s, &from, h->s->blocks);
    if (!n) {
        h->background_next = 0;
        from = 0;
        return missing_run(h->s, &from, h->s->blocks) ? AGAIN_MS
                                                      : WAIT_FOR_KICK;
    }
    *job_r = (struct job){ .first = from, .kind = FETCH_IDLE };
    job_r->count = n < run_blocks(h) ? n : run_blocks(h);
    h->background_next = from + job_r->count;
    return 0;
}

uint64_t hydrate_pick(struct hydrate *h, struct job *job_r)
{
    uint64_t now = fc_now_ms(), wait = 0;

    if (atomic_load(&h->s->state) != FC_SHADOW_OWNED)
        return WAIT_FOR_KICK;
    if (now < h->down_until_ms)
        return h->down_until_ms - now;
    if (!pick_critical(h, job_r)) {
        wait = fc_bucket_wait_ms(&h->bucket, now);
        if (!wait && !pick_order(h, job_r))
            wait = pick_background(h, job_r);
    }
    if (!wait)
        fc_bucket_take(&h->bucket,
                       shadow_block_bytes(h->s, job_r->first, job_r->count),
                       now);
    return wait;
}

void hydrate_wait(struct hydrate *h, uint64_t ms)
{
    struct timespec until;

    if (ms == WAIT_FOR_KICK) {
        pthread_cond_wait(&h->changed, &h->lock);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_cond_timedwait(&h->changed, &h->lock, &until);
}

void hydrate_failed(struct hydrate *h, const struct job *job)
{
    pthread_mutex_lock(&h->lock);
    h->down_until_ms = fc_now_ms() + DOWN_MS;
    if (job->kind == FETCH_ORDER && job->order_at < h->order_next)
        h->order_next = job->order_at;
    pthread_mutex_unlock(&h->lock);
}

/* ---- threads that read ---- */

int hydrate_read(struct fc_shadow *s, struct fetch *f, uint8_t *buf)
{
    uint64_t at = (uint64_t)f->first << s->block_shift;
    bool fresh;
    int rc = shadow_answer(
        s, s->primary->read(s->user, at, buf,
                            shadow_block_bytes(s, f->first, f->count)));

    /* a volume that cannot keep them was logged; the guest will ask itself */
    shadow_fetch_end(s, f, rc ? NULL : buf, &fresh);
    return rc;
}

static int job_run(struct hydrate *h, const struct job *job, uint8_t *buf)
{
    uint32_t at = job->first, end = at + job->count, n;
    int rc = 0;

    for (; !rc && at < end && !atomic_load(&h->s->cancelled); at += n) {
        struct fetch f = { .kind = job->kind };
        uint32_t most = end - at < run_blocks(h) ? end - at : run_blocks(h);
        if (shadow_run_take(h->s, at, most, TAKE_FILL, &f, &n) == RUN_FETCH)
            rc = hydrate_read(h->s, &f, buf);
    }
    return rc;
}

static void *reader_main(void *user)
{
    struct hydrate *h = user;
    uint8_t *buf = malloc((size_t)run_blocks(h) << h->s->block_shift);
    struct job job;

    if (!buf) {
        fc_error("hydration: no memory for a request");
        return NULL;
    }
    pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        uint64_t wait = hydrate_pick(h, &job);
        if (wait) {
            hydrate_wait(h, wait);
            continue;
        }
        pthread_mutex_unlock(&h->lock);
        if (job_run(h, &job, buf))
            hydrate_failed(h, &job);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    free(buf);
    return NULL;
}

/* ---- life ---- */

int fc_hydrate_new(struct fc_shadow *s, unsigned depth, struct hydrate **h_r)
{
    struct hydrate *h = calloc(1, sizeof(*h));
    pthread_condattr_t clock;

    if (!h)
        return FC_ENOMEM;
    h->s = s;
    h->depth = depth ? depth : FC_HYDRATE_DEPTH;
    if (h->depth > FC_HYDRATE_DEPTH_MAX)
        h->depth = FC_HYDRATE_DEPTH_MAX;
    h->aio_fd = s->primary->aio_fd ? s->primary->aio_fd(s->user) : -1;
    h->credit = CREDIT_MAX / 2;
    h->used_seen = atomic_load(&s->prefetch_used);
    fc_bucket_init(&h->bucket, 0, BURST_BYTES, fc_now_ms());
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&h->changed, &clock);
    pthread_condattr_destroy(&clock);
    *h_r = h;
    return 0;
}

void fc_hydrate_free(struct hydrate *h)
{
    if (!h)
        return;
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    free(h->order);
    free(h);
}

int fc_hydrate_start(struct hydrate *h)
{
    bool aio = h->aio_fd >= 0;
    unsigned threads = aio ? 1 : h->depth;

    if (h->s->primary->want)
        return 0;
    while (h->threads < threads) {
        int r = pthread_create(&h->thread[h->threads], NULL,
                               aio ? hydrate_aio_main : reader_main, h);
        if (r) {
            fc_error("hydration: starting a thread: %s", strerror(r));
            errno = r;
            return FC_ESYS;
        }
        h->threads++;
    }
    return 0;
}

void fc_hydrate_stop(struct hydrate *h)
{
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    while (h->threads)
        pthread_join(h->thread[--h->threads], NULL);
}

void fc_hydrate_kick(struct hydrate *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->down_until_ms = 0;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

int fc_hydrate_set_order(struct hydrate *h, const uint32_t *blocks,
                         size_t count)
{
    uint32_t *order = malloc((count + 1) * sizeof(*order)), n = 0;
    struct fc_blockset seen;
    int rc = fc_blockset_init(&seen, h->s->blocks, false);

    if (!order)
        rc = FC_ENOMEM;
    for (size_t i = 0; !rc && i < count; i++)
        if (blocks[i] < h->s->blocks && fc_blockset_set(&seen, blocks[i]))
            order[n++] = blocks[i];
    fc_blockset_dispose(&seen);
    if (rc) {
        free(order);
        return rc;
    }
    pthread_mutex_lock(&h->lock);
    uint32_t *old = h->order;
    h->order = order;
    h->order_count = n;
    h->order_next = 0;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    free(old);
    return 0;
}

void fc_hydrate_set_rate(struct hydrate *h, uint64_t bytes_ps)
{
    pthread_mutex_lock(&h->lock);
    fc_bucket_set_rate(&h->bucket, bytes_ps, fc_now_ms());
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}
