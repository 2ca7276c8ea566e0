/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The feed's reader: what the shadow says. All of it is another host's. */
#include <stdio.h>
#include <string.h>

#include "err.h"
#include "feed_int.h"
#include "log.h"

#define SILENCE_MS 60000
#define SILENCE_ASKED_MS 600000 /* it may be making much durable */
#define WINDOW_MIN (128u << 10)
#define WINDOW_MAX (8u << 20)
#define QUEUE_NS                                                               \
    60000000ull /* longest that acknowledgements may lag behind                \
                 */

static bool same_migration(const uint8_t *a, const uint8_t *b)
{
    return !memcmp(a, b, FC_MIGRATION_BYTES);
}

/* With the lock held. The shadow owns a disk only if it was asked to by us. */
static int check_owner(struct fc_feed *f, const struct fc_frame_welcome *w)
{
    bool may = f->state == FC_FEED_LEASING || f->state == FC_FEED_LEASED;
    f->returned = false;
    if (w->owner && may && same_migration(w->migration, f->migration))
        return 0;
    if (w->owner) {
        snprintf(f->error, sizeof(f->error),
                 "the shadow owns the disk, in epoch %llu",
                 (unsigned long long)w->epoch);
        return FC_EPERM;
    }
    /* given back, with the answer lost: the RETURN is to be asked again */
    f->returned = f->state == FC_FEED_LEASED && w->epoch == f->epoch + 1;
    if (f->state == FC_FEED_LEASED && !f->returned) {
        snprintf(f->error, sizeof(f->error),
                 "the shadow does not know that it owns the disk");
        return FC_EPERM;
    }
    return 0;
}

static int on_welcome(struct fc_feed *f, size_t len)
{
    struct fc_frame_welcome w;
    if (f->welcomed || fc_frame_welcome_parse(f->link.body, len, &w))
        return FC_EFORMAT;
    if (w.version != FC_FRAME_VERSION)
        return FC_EVERSION;
    int rc = check_owner(f, &w);
    if (rc)
        return rc;
    f->welcomed = true;
    bool ours = f->state != FC_FEED_RUNNING &&
                same_migration(w.migration, f->migration);
    bool asked = f->ask.stage != FC_ASK_NONE &&
                 same_migration(w.migration, f->ask.flip.migration);
    if (f->state == FC_FEED_LEASING && !w.owner && f->ask.stage == FC_ASK_NONE)
        f->state = FC_FEED_FENCED;
    if (f->state == FC_FEED_RUNNING && w.epoch > f->epoch &&
        w.epoch < UINT64_MAX / 2)
        f->epoch = w.epoch;
    if (w.fenced && !ours && !asked) {
        /* left over from a migration that was given up */
        f->epoch = (w.epoch > f->epoch ? w.epoch : f->epoch) + 1;
        fc_feed_heal(f, w.migration, f->epoch);
    }
    return 0;
}

static int on_held(struct fc_feed *f, size_t len)
{
    if (!f->welcomed || (f->up && !f->checking))
        return FC_EFORMAT;
    int rc = fc_blockset_decode(&f->held, f->held_next, f->link.body, len,
                                &f->held_next);
    if (rc || f->held_next < f->blocks)
        return rc;
    fc_source_mark_missing(f->source, &f->held, f->frozen);
    f->frozen = f->checking = false;
    f->held_next = 0;
    f->up = true;
    f->error[0] = '\0';
    return 0;
}

/* More or less may be under way, by how late the last acknowledgement came. */
static void adapt(struct fc_feed *f, uint64_t took_ns, uint64_t bytes)
{
    if (!f->best_ns || took_ns < f->best_ns)
        f->best_ns = took_ns;
    uint64_t late = took_ns - f->best_ns;
    if (late < QUEUE_NS)
        f->window += bytes;
    else if (late > 2 * QUEUE_NS)
        f->window -= bytes / 2 < f->window ? bytes / 2 : f->window;
    if (f->window < WINDOW_MIN)
        f->window = WINDOW_MIN;
    if (f->window > WINDOW_MAX)
        f->window = WINDOW_MAX;
}

static int on_stored(struct fc_feed *f, size_t len)
{
    uint64_t seq, bytes = 0, sent = 0;
    if (fc_frame_value_parse(f->link.body, len, &seq) || seq <= f->acked ||
        seq > f->seq)
        return FC_EFORMAT;
    while (f->acked < seq) {
        const struct fc_flying *d = &f->flying[++f->acked % FC_FEED_FLYING];
        bytes += d->bytes;
        sent = d->sent_ns;
    }
    f->flying_bytes -= bytes;
    adapt(f, fc_now_ns() - sent, bytes);
    return 0;
}

static int on_want(struct fc_feed *f, size_t len)
{
    struct fc_frame_want w;
    if (!f->up || fc_frame_want_parse(f->link.body, len, &w) ||
        w.offset > f->config.size || w.length > f->config.size - w.offset)
        return FC_EFORMAT;
    if (w.number) {
        if (f->nwants == FC_FEED_WANTS)
            return FC_ELIMIT;
        f->wants[f->nwants++] = w;
        f->wanted_ms = fc_now_ms();
        return 0;
    }
    if (f->nhints == FC_FEED_HINTS)
        memmove(f->hints, f->hints + 1, --f->nhints * sizeof(w));
    f->hints[f->nhints++] = w;
    return 0;
}

static bool answers(const struct fc_ask *a, enum fc_frame_type type,
                    const struct fc_frame_flip *flip)
{
    return a->stage == FC_ASK_SENT && type == a->type + 1 &&
           flip->epoch == a->flip.epoch &&
           same_migration(flip->migration, a->flip.migration);
}

static int on_flip(struct fc_feed *f, enum fc_frame_type type, size_t len)
{
    struct fc_frame_flip flip;
    if (!f->up || fc_frame_flip_parse(type, f->link.body, len, &flip))
        return FC_EFORMAT;
    if (answers(&f->heal, type, &flip)) {
        f->heal.stage = FC_ASK_NONE;
        f->healing = false;
        return flip.status == FC_FRAME_DONE ? 0 : FC_EPEER;
    }
    if (answers(&f->ask, type, &flip)) {
        f->ask.answer = flip;
        f->ask.stage = FC_ASK_ANSWERED;
    }
    return 0; /* else to a question that nobody waits for any more */
}

static int on_text(struct fc_feed *f, enum fc_frame_type type, size_t len)
{
    char text[FC_FRAME_MAX_TEXT + 1];
    if (fc_frame_text_parse(type, f->link.body, len, NULL, text))
        return FC_EFORMAT;
    if (type == FC_FRAME_BYE)
        return FC_EEOF;
    fc_warn("%s: the shadow says: %s", f->config.name, text);
    return FC_EPEER;
}

/* With the lock held. */
static int take(struct fc_feed *f, const struct fc_frame_head *head)
{
    switch (head->type) {
    case FC_FRAME_WELCOME:
        return on_welcome(f, head->length);
    case FC_FRAME_HELD:
        return on_held(f, head->length);
    case FC_FRAME_STORED:
        return on_stored(f, head->length);
    case FC_FRAME_WANT:
        return on_want(f, head->length);
    case FC_FRAME_FENCED:
    case FC_FRAME_OWNED:
    case FC_FRAME_RETURNED:
        return on_flip(f, head->type, head->length);
    case FC_FRAME_COMPLETE:
        if (!f->up || head->length || f->state == FC_FEED_RUNNING)
            return FC_EFORMAT;
        f->complete = f->state == FC_FEED_LEASED;
        f->checking = false;
        return 0;
    case FC_FRAME_PING:
        f->pong = true;
        return fc_frame_value_parse(f->link.body, head->length, &f->pong_value);
    case FC_FRAME_PONG:
        return fc_frame_value_parse(f->link.body, head->length,
                                    &(uint64_t){ 0 });
    case FC_FRAME_BYE:
    case FC_FRAME_ERROR:
        return on_text(f, head->type, head->length);
    default:
        return FC_EFORMAT;
    }
}

void *fc_feed_reader(void *feed)
{
    struct fc_feed *f = feed;
    char what[64];
    for (;;) {
        struct fc_frame_head head;
        pthread_mutex_lock(&f->lock);
        bool asked = f->ask.stage == FC_ASK_SENT ||
                     f->heal.stage == FC_ASK_SENT || f->checking;
        pthread_mutex_unlock(&f->lock);
        int rc = fc_link_recv(&f->link, asked ? SILENCE_ASKED_MS : SILENCE_MS,
                              &head);
        if (rc) {
            fc_feed_fail(f, rc, "receiving");
            return NULL;
        }
        pthread_mutex_lock(&f->lock);
        rc = f->broken ? FC_ECANCEL : take(f, &head);
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        if (rc) {
            snprintf(what, sizeof(what), "%s from the shadow",
                     fc_frame_name(head.type));
            fc_feed_fail(f, rc, what);
            return NULL;
        }
    }
}
