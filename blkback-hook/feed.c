/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "err.h"
#include "feed_int.h"
#include "log.h"

#define BURST_BYTES (256u << 10) /* of the rate limit */
#define FREEZE_MS 1000
#define BYE_MS 5000

int fc_feed_open(const struct fc_feed_config *config, struct fc_source *source,
                 struct fc_feed **f_r)
{
    struct fc_feed *f = calloc(1, sizeof(*f));
    pthread_condattr_t attr;
    if (!f)
        return FC_ENOMEM;
    f->config = *config;
    f->epoch = config->epoch;
    f->source = source;
    f->blocks = (uint32_t)((config->size + config->block_bytes - 1) /
                           config->block_bytes);
    int rc = fc_blockset_init(&f->held, f->blocks, false);
    if (rc) {
        free(f);
        return rc;
    }
    pthread_mutex_init(&f->control, NULL);
    pthread_mutex_init(&f->swap, NULL);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &attr);
    pthread_condattr_destroy(&attr);
    fc_bucket_init(&f->bucket, 0, BURST_BYTES, fc_now_ms());
    *f_r = f;
    return 0;
}

void fc_feed_wait(struct fc_feed *f, uint64_t ms)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)(ms / 1000);
    end.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (end.tv_nsec >= 1000000000L) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000L;
    }
    pthread_cond_timedwait(&f->changed, &f->lock, &end);
}

/* ---- the channel ----------------------------------------------------------
 */

void fc_feed_fail(struct fc_feed *f, int rc, const char *what)
{
    pthread_mutex_lock(&f->lock);
    if (!f->broken) {
        f->broken = true;
        f->up = false;
        for (uint64_t seq = f->acked + 1; seq <= f->seq; seq++) {
            const struct fc_flying *d = &f->flying[seq % FC_FEED_FLYING];
            fc_source_mark(f->source, d->first, d->count);
        }
        f->acked = f->seq;
        f->flying_bytes = 0;
        f->nwants = f->nhints = 0;
        f->checking = f->healing = false; /* WELCOME will tell anew */
        f->heal.stage = FC_ASK_NONE;
        if (f->ask.stage == FC_ASK_SENT)
            f->ask.stage = FC_ASK_QUEUED;
        if (rc != FC_ECANCEL) {
            snprintf(f->error, sizeof(f->error), "%s: %s", what,
                     fc_strerror(rc));
            fc_warn("%s: block channel: %s", f->config.name, f->error);
        }
        if (f->linked)
            fc_link_stop(&f->link);
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
}

/* With `swap` held. */
static void stop_channel(struct fc_feed *f)
{
    if (!f->thread)
        return;
    fc_feed_fail(f, FC_ECANCEL, "");
    pthread_join(f->writer, NULL);
    f->thread = false;
}

int fc_feed_channel(struct fc_feed *f, int in, int out)
{
    pthread_mutex_lock(&f->swap);
    stop_channel(f);
    int rc = fc_link_init(&f->link, in, out);
    if (rc)
        goto out;
    pthread_mutex_lock(&f->lock);
    f->linked = true;
    f->broken = f->bye = f->welcomed = f->pong = false;
    f->ever = true;
    f->seq = f->acked = 0;
    f->window = f->best_ns = 0;
    f->held_next = 0;
    bool closing = f->closing;
    pthread_mutex_unlock(&f->lock);
    if (closing || pthread_create(&f->writer, NULL, fc_feed_writer, f)) {
        rc = closing ? FC_ECANCEL : FC_ESYS;
        f->linked = false;
        fc_link_dispose(&f->link);
        goto out;
    }
    f->thread = true;
out:
    pthread_mutex_unlock(&f->swap);
    return rc;
}

void fc_feed_finish(struct fc_feed *f)
{
    uint64_t end = fc_now_ms() + BYE_MS;
    pthread_mutex_lock(&f->lock);
    f->bye = true;
    pthread_cond_broadcast(&f->changed);
    while (f->up && !f->closing && fc_now_ms() < end)
        fc_feed_wait(f, end - fc_now_ms() + 1);
    pthread_mutex_unlock(&f->lock);
}

void fc_feed_cancel(struct fc_feed *f)
{
    pthread_mutex_lock(&f->lock);
    f->closing = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void fc_feed_close(struct fc_feed *f)
{
    if (!f)
        return;
    fc_feed_cancel(f);
    pthread_mutex_lock(&f->swap);
    stop_channel(f);
    pthread_mutex_unlock(&f->swap);
    /* whoever waited has `closing` to see, and gives this back */
    pthread_mutex_lock(&f->control);
    pthread_mutex_unlock(&f->control);
    fc_blockset_dispose(&f->held);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    pthread_mutex_destroy(&f->swap);
    pthread_mutex_destroy(&f->control);
    free(f->order);
    free(f);
}

int fc_feed_order(struct fc_feed *f, const uint32_t *blocks, size_t count)
{
    uint32_t *copy = malloc((count ? count : 1) * sizeof(*copy));
    if (!copy)
        return FC_ENOMEM;
    if (count)
        memcpy(copy, blocks, count * sizeof(*copy));
    pthread_mutex_lock(&f->lock);
    uint32_t *old = f->order;
    f->order = copy;
    f->order_len = count;
    f->order_at = 0;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    free(old);
    return 0;
}

void fc_feed_rate(struct fc_feed *f, uint64_t bytes_ps)
{
    pthread_mutex_lock(&f->lock);
    fc_bucket_set_rate(&f->bucket, bytes_ps, fc_now_ms());
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* ---- handing over ---------------------------------------------------------
 */

static bool is_now(const struct fc_feed *f, const uint8_t *migration,
                   uint64_t epoch)
{
    return f->epoch == epoch &&
           !memcmp(f->migration, migration, FC_MIGRATION_BYTES);
}

/* With the lock held; until the answer, which is in f->ask.answer. */
static int ask(struct fc_feed *f, enum fc_frame_type type,
               const uint8_t *migration, uint64_t epoch, uint64_t end_ms)
{
    f->ask = (struct fc_ask){ .stage = FC_ASK_QUEUED, .type = type };
    memcpy(f->ask.flip.migration, migration, FC_MIGRATION_BYTES);
    f->ask.flip.epoch = epoch;
    pthread_cond_broadcast(&f->changed);
    while (f->ask.stage != FC_ASK_ANSWERED) {
        uint64_t now = fc_now_ms();
        if (f->closing)
            return FC_ECANCEL;
        if (now >= end_ms)
            return FC_ETIMEOUT;
        fc_feed_wait(f, end_ms - now);
    }
    return f->ask.answer.status == FC_FRAME_DONE ? 0 : FC_EPEER;
}

void fc_feed_heal(struct fc_feed *f,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch)
{
    f->healing = true;
    f->heal =
        (struct fc_ask){ .stage = FC_ASK_QUEUED, .type = FC_FRAME_RETURN };
    memcpy(f->heal.flip.migration, migration, FC_MIGRATION_BYTES);
    f->heal.flip.epoch = epoch;
    pthread_cond_broadcast(&f->changed);
}

/* With the lock held: until nothing is marked or under way. */
static int wait_sent(struct fc_feed *f, uint64_t end_ms)
{
    f->urgent = true;
    pthread_cond_broadcast(&f->changed);
    int rc = 0;
    while (!rc && (!f->up || f->healing || f->acked != f->seq ||
                   fc_source_remaining(f->source))) {
        uint64_t now = fc_now_ms();
        if (f->closing)
            rc = FC_ECANCEL;
        else if (now >= end_ms)
            rc = FC_ETIMEOUT;
        else
            fc_feed_wait(f, end_ms - now);
    }
    f->urgent = false;
    return rc;
}

/* With the lock held and the source standing still. */
static int fence(struct fc_feed *f, const uint8_t *migration, uint64_t epoch,
                 bool complete, uint64_t end_ms)
{
    int rc = complete ? wait_sent(f, end_ms) : 0;
    if (rc)
        return rc;
    rc = ask(f, FC_FRAME_FENCE, migration, epoch, end_ms);
    if (!rc && complete && f->ask.answer.invalid) {
        fc_warn("%s: the shadow lacks %llu blocks of a complete copy",
                f->config.name, (unsigned long long)f->ask.answer.invalid);
        rc = FC_EPEER;
    } else if (rc == FC_EPEER) {
        fc_warn("%s: the shadow refused the fence", f->config.name);
        f->ask.stage = FC_ASK_NONE;
        f->epoch = epoch; /* not to be used twice */
        return rc;
    }
    if (!rc) {
        f->state = FC_FEED_FENCED;
        f->epoch = epoch;
        memcpy(f->migration, migration, FC_MIGRATION_BYTES);
    } else {
        /* it may be fenced: nothing may be copied until it is not */
        f->epoch = epoch + 1;
        if (f->up && f->ask.stage >= FC_ASK_SENT)
            fc_feed_heal(f, migration, epoch + 1);
    }
    f->ask.stage = FC_ASK_NONE;
    return rc;
}

int fc_feed_fence(struct fc_feed *f,
                  const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch,
                  bool complete, int timeout_ms)
{
    static const uint8_t none[FC_MIGRATION_BYTES];
    uint64_t end = fc_now_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    bool held = false;
    int rc = 0;
    pthread_mutex_lock(&f->control);
    pthread_mutex_lock(&f->lock);
    bool done = f->state != FC_FEED_RUNNING;
    if (done)
        rc = is_now(f, migration, epoch) ? 0 : FC_EPERM;
    else if (epoch <= f->epoch || epoch == UINT64_MAX ||
             !memcmp(migration, none, sizeof(none)))
        rc = FC_EINVAL;
    pthread_mutex_unlock(&f->lock);
    if (!rc && !done) {
        rc = fc_source_hold(f->source, timeout_ms);
        held = !rc;
    }
    if (held) {
        pthread_mutex_lock(&f->lock);
        rc = fence(f, migration, epoch, complete, end);
        pthread_mutex_unlock(&f->lock);
    }
    if (held && rc)
        fc_source_release(f->source);
    pthread_mutex_unlock(&f->control);
    return rc;
}

int fc_feed_lease(struct fc_feed *f, int timeout_ms)
{
    uint64_t end = fc_now_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    int rc = 0;
    pthread_mutex_lock(&f->control);
    pthread_mutex_lock(&f->lock);
    if (f->state == FC_FEED_RUNNING) {
        rc = FC_EPERM;
    } else if (f->state != FC_FEED_LEASED) {
        f->state = FC_FEED_LEASING;
        rc = ask(f, FC_FRAME_LEASE, f->migration, f->epoch, end);
        if (!rc)
            f->state = FC_FEED_LEASED;
        else if (rc == FC_EPEER && f->ask.answer.status == FC_FRAME_REFUSED)
            f->state = FC_FEED_FENCED;
        f->ask.stage = FC_ASK_NONE;
    }
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&f->control);
    return rc;
}

int fc_feed_unfence(struct fc_feed *f, int timeout_ms)
{
    uint64_t end = fc_now_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    int rc = 0;
    pthread_mutex_lock(&f->control);
    pthread_mutex_lock(&f->lock);
    if (f->state == FC_FEED_FENCED) {
        if (f->up)
            fc_feed_heal(f, f->migration, f->epoch + 1);
    } else if (f->state != FC_FEED_RUNNING) {
        rc = ask(f, FC_FRAME_RETURN, f->migration, f->epoch + 1, end);
        f->ask.stage = FC_ASK_NONE;
    }
    if (!rc) {
        f->epoch += f->state != FC_FEED_RUNNING;
        f->state = FC_FEED_RUNNING;
        f->complete = f->frozen = f->returned = false;
        fc_source_release(f->source);
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&f->control);
    return rc;
}

int fc_feed_freeze(struct fc_feed *f,
                   const uint8_t migration[FC_MIGRATION_BYTES], uint64_t epoch)
{
    int rc = 0;
    pthread_mutex_lock(&f->control);
    pthread_mutex_lock(&f->lock);
    if (f->state == FC_FEED_LEASED && is_now(f, migration, epoch))
        goto out;
    if (f->state != FC_FEED_RUNNING || f->ever)
        rc = FC_EPERM;
    else
        rc = fc_source_hold(f->source, FREEZE_MS);
    if (rc)
        goto out;
    f->state = FC_FEED_LEASED;
    f->frozen = true;
    f->epoch = epoch;
    memcpy(f->migration, migration, FC_MIGRATION_BYTES);
out:
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&f->control);
    return rc;
}

void fc_feed_status(struct fc_feed *f, struct fc_feed_status *status_r)
{
    pthread_mutex_lock(&f->lock);
    struct fc_feed_status v = { .state = f->state,
                                .channel = f->up,
                                .complete = f->complete,
                                .epoch = f->epoch,
                                .sent_bytes = f->old_sent,
                                .received_bytes = f->old_received,
                                .data_bytes = f->data_bytes,
                                .zero_bytes = f->zero_bytes,
                                .answered = f->answered };
    memcpy(v.migration, f->migration, sizeof(v.migration));
    memcpy(v.error, f->error, sizeof(v.error));
    for (uint64_t seq = f->acked + 1; seq <= f->seq; seq++)
        v.unacked_blocks += f->flying[seq % FC_FEED_FLYING].count;
    if (f->linked) {
        v.sent_bytes += f->link.sent_bytes;
        v.received_bytes += f->link.received_bytes;
    }
    pthread_mutex_unlock(&f->lock);
    *status_r = v;
}
