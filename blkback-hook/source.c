/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "source.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "err.h"
#include "io.h"

#define WORD_BITS 64u
#define RATE_MS 1000u /* over which the dirty rate is taken, at least */

struct fc_source {
    struct fc_volume *volume;
    uint32_t block_bytes, blocks;
    _Atomic uint64_t *todo;
    _Atomic uint32_t remaining;
    _Atomic uint64_t dirtied; /* blocks newly marked by the guest, ever */
    _Atomic uint64_t reads, writes, read_ns;

    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    bool holding, cancelled;
    uint32_t running, held;
    uint64_t rate_ms, rate_dirtied, rate_bps;
};

int fc_source_open(struct fc_volume *volume, uint32_t block_bytes,
                   struct fc_source **s_r)
{
    uint64_t blocks = (volume->size_bytes + block_bytes - 1) / block_bytes;
    if (!blocks || blocks > FC_BLOCKSET_MAX || block_bytes & (block_bytes - 1))
        return FC_EINVAL;
    struct fc_source *s = calloc(1, sizeof(*s));
    if (!s)
        return FC_ENOMEM;
    s->volume = volume;
    s->block_bytes = block_bytes;
    s->blocks = (uint32_t)blocks;
    s->todo = calloc(blocks / WORD_BITS + 1, sizeof(*s->todo));
    if (!s->todo) {
        free(s);
        return FC_ENOMEM;
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    fc_source_mark(s, 0, s->blocks);
    s->rate_ms = fc_now_ms();
    *s_r = s;
    return 0;
}

void fc_source_close(struct fc_source *s)
{
    if (!s)
        return;
    fc_volume_sync(s->volume);
    fc_volume_close(s->volume);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s->todo);
    free(s);
}

/* ---- the marks ------------------------------------------------------------
 */

/* The bits of `first` to `first + count - 1` that are in word `w`. */
static uint64_t bits_in(uint32_t w, uint32_t first, uint32_t count)
{
    uint64_t mask = UINT64_MAX;
    uint64_t begin = (uint64_t)w * WORD_BITS, end = (uint64_t)first + count;
    if (first > begin)
        mask &= UINT64_MAX << (first - begin);
    if (end < begin + WORD_BITS)
        mask &= UINT64_MAX >> (begin + WORD_BITS - end);
    return mask;
}

/* Returns how many were not marked before. */
static uint32_t mark(struct fc_source *s, uint32_t first, uint32_t count)
{
    uint32_t fresh = 0;
    if (!count)
        return 0;
    for (uint32_t w = first / WORD_BITS; w <= (first + count - 1) / WORD_BITS;
         w++) {
        uint64_t bits = bits_in(w, first, count);
        uint64_t old = atomic_fetch_or(&s->todo[w], bits);
        fresh += (uint32_t)__builtin_popcountll(bits & ~old);
    }
    if (fresh)
        atomic_fetch_add(&s->remaining, fresh);
    return fresh;
}

void fc_source_mark(struct fc_source *s, uint32_t first, uint32_t count)
{
    mark(s, first, count);
}

void fc_source_clear(struct fc_source *s, uint32_t first, uint32_t count)
{
    uint32_t gone = 0;
    if (!count)
        return;
    for (uint32_t w = first / WORD_BITS; w <= (first + count - 1) / WORD_BITS;
         w++) {
        uint64_t bits = bits_in(w, first, count);
        uint64_t old = atomic_fetch_and(&s->todo[w], ~bits);
        gone += (uint32_t)__builtin_popcountll(bits & old);
    }
    atomic_fetch_sub(&s->remaining, gone);
}

/* A mark and its count are two steps: between them the count may be off. */
uint32_t fc_source_remaining(struct fc_source *s)
{
    uint32_t n = s->remaining;
    return n > s->blocks ? s->blocks : n;
}

bool fc_source_is_marked(struct fc_source *s, uint32_t block)
{
    return s->todo[block / WORD_BITS] >> (block % WORD_BITS) & 1;
}

uint32_t fc_source_next(struct fc_source *s, uint32_t from)
{
    while (from < s->blocks) {
        uint64_t word = s->todo[from / WORD_BITS] >> (from % WORD_BITS);
        if (word)
            return from + (uint32_t)__builtin_ctzll(word);
        from = (from / WORD_BITS + 1) * WORD_BITS;
    }
    return s->blocks;
}

void fc_source_todo(struct fc_source *s, struct fc_blockset *to)
{
    fc_blockset_fill(to, false);
    for (uint32_t b = fc_source_next(s, 0); b < s->blocks;
         b = fc_source_next(s, b + 1))
        fc_blockset_set(to, b);
}

void fc_source_mark_missing(struct fc_source *s, const struct fc_blockset *held,
                            bool only)
{
    for (uint32_t at = 0; at < s->blocks;) {
        uint32_t missing = fc_blockset_next_clear(held, at);
        if (only)
            fc_source_clear(s, at, missing - at);
        at = fc_blockset_next(held, missing);
        mark(s, missing, at - missing);
    }
}

/* The blocks of a range of bytes, marked for the guest's write. */
static void mark_bytes(struct fc_source *s, uint64_t offset, uint64_t len)
{
    if (!len)
        return;
    uint32_t first = (uint32_t)(offset / s->block_bytes);
    uint32_t last = (uint32_t)((offset + len - 1) / s->block_bytes);
    uint32_t fresh = mark(s, first, last - first + 1);
    if (fresh)
        atomic_fetch_add(&s->dirtied, fresh);
}

/* ---- the guest ------------------------------------------------------------
 */

static int enter(struct fc_source *s, uint64_t offset, uint64_t len)
{
    int rc = 0;
    if (offset > s->volume->size_bytes || len > s->volume->size_bytes - offset)
        return FC_EINVAL;
    pthread_mutex_lock(&s->lock);
    s->held++;
    while (s->holding && !s->cancelled)
        pthread_cond_wait(&s->changed, &s->lock);
    s->held--;
    if (s->cancelled)
        rc = FC_ECANCEL;
    else
        s->running++;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static void leave(struct fc_source *s)
{
    int keep = errno;
    pthread_mutex_lock(&s->lock);
    if (--s->running == 0 && s->holding)
        pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    errno = keep;
}

int fc_source_read(struct fc_source *s, uint64_t offset, void *buf, size_t len)
{
    uint64_t start = fc_now_ns();
    int rc = enter(s, offset, len);
    if (rc)
        return rc;
    rc = fc_volume_read(s->volume, buf, len, offset);
    leave(s);
    s->reads++;
    s->read_ns += fc_now_ns() - start;
    return rc;
}

/* After a change of the volume: marks again, in the order the head names. */
static int changed(struct fc_source *s, uint64_t offset, uint64_t len, int rc,
                   bool durable)
{
    int keep = errno;
    mark_bytes(s, offset, len);
    errno = keep;
    if (!rc && durable)
        rc = fc_volume_sync(s->volume);
    leave(s);
    s->writes++;
    return rc;
}

int fc_source_write(struct fc_source *s, uint64_t offset, const void *buf,
                    size_t len, bool durable)
{
    int rc = enter(s, offset, len);
    if (rc)
        return rc;
    mark_bytes(s, offset, len);
    rc = fc_volume_write(s->volume, buf, len, offset);
    return changed(s, offset, len, rc, durable);
}

int fc_source_zero(struct fc_source *s, uint64_t offset, uint64_t len,
                   bool punch, bool durable)
{
    int rc = enter(s, offset, len);
    if (rc)
        return rc;
    mark_bytes(s, offset, len);
    rc = fc_volume_zero(s->volume, offset, len, punch);
    return changed(s, offset, len, rc, durable);
}

int fc_source_trim(struct fc_source *s, uint64_t offset, uint64_t len,
                   bool durable)
{
    int rc = enter(s, offset, len);
    if (rc)
        return rc;
    mark_bytes(s, offset, len);
    rc = fc_volume_trim(s->volume, offset, len);
    return changed(s, offset, len, rc, durable);
}

int fc_source_flush(struct fc_source *s)
{
    int rc = enter(s, 0, 0);
    if (rc)
        return rc;
    rc = fc_volume_sync(s->volume);
    leave(s);
    return rc;
}

int fc_source_sync(struct fc_source *s)
{
    return fc_volume_sync(s->volume);
}

void fc_source_cancel(struct fc_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->cancelled = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

int fc_source_hold(struct fc_source *s, int timeout_ms)
{
    struct timespec end;
    int rc = 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += timeout_ms / 1000;
    end.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (end.tv_nsec >= 1000000000L) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&s->lock);
    bool before = s->holding;
    s->holding = true;
    while (s->running && !rc)
        if (pthread_cond_timedwait(&s->changed, &s->lock, &end) == ETIMEDOUT)
            rc = FC_ETIMEOUT;
    if (!s->running)
        rc = 0;
    if (rc) {
        s->holding = before;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void fc_source_release(struct fc_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->holding = false;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the copier's side ----------------------------------------------------
 */

int fc_source_peek(struct fc_source *s, void *buf, size_t len, uint64_t offset)
{
    return fc_volume_read(s->volume, buf, len, offset);
}

int fc_source_data(struct fc_source *s, uint64_t offset, uint64_t end,
                   uint64_t *from_r, uint64_t *to_r)
{
    return fc_volume_data(s->volume, offset, end, from_r, to_r);
}

void fc_source_status(struct fc_source *s, struct fc_source_status *status_r)
{
    uint64_t now = fc_now_ms(), dirtied = s->dirtied;
    struct fc_source_status v = { .size_bytes = s->volume->size_bytes,
                                  .block_bytes = s->block_bytes,
                                  .blocks = s->blocks,
                                  .remaining_blocks = fc_source_remaining(s),
                                  .reads = s->reads,
                                  .writes = s->writes,
                                  .read_ns_sum = s->read_ns };
    pthread_mutex_lock(&s->lock);
    uint64_t ms = now - s->rate_ms;
    if (ms >= RATE_MS) {
        s->rate_bps = (dirtied - s->rate_dirtied) * s->block_bytes * 1000 / ms;
        s->rate_ms = now;
        s->rate_dirtied = dirtied;
    }
    v.dirty_rate_bps = s->rate_bps;
    v.held = s->held;
    v.holding = s->holding;
    pthread_mutex_unlock(&s->lock);
    *status_r = v;
}
