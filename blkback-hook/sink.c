/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread a channel takes frames in, in order, and does what they say; the
 * threads of guest requests send WANT and sleep until it has their answer.
 * Everything that comes is another host's: it is checked against the disk
 * before it is used, and a frame that breaks a rule ends the channel.
 */
#include "sink.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "link.h"
#include "log.h"

#define SILENCE_MS 60000
#define WANTS 256u /* open at once, as the format says */

struct want {
    bool used, done;
    uint64_t number;
    uint64_t offset;
    uint32_t length;
    void *to;
    int rc;
};

struct fc_sink {
    struct fc_sink_config config;
    uint32_t blocks;
    struct fc_shadow *shadow;

    pthread_mutex_t swap; /* one change of channel at a time */
    pthread_mutex_t lock; /* all below, but what is the thread's */
    pthread_cond_t changed;
    bool thread, linked, up, broken, closing;
    pthread_t reader;
    struct fc_link link;
    unsigned senders; /* threads that are sending a WANT */
    struct want wants[WANTS];
    uint64_t number;
    uint64_t old_sent, old_received, stored_bytes, nwants;
    char error[160];

    /* the thread's own */
    bool greeted;
    uint64_t seq;
    struct fc_blockset set; /* MISSING, or what is held */
    uint32_t missing_next;
    uint8_t *plain;
};

int fc_sink_open(const struct fc_sink_config *config, struct fc_sink **k_r)
{
    if (!config->size || config->size % FC_FRAME_SECTOR ||
        config->size / config->block_bytes >= FC_BLOCKSET_MAX)
        return FC_EINVAL;
    struct fc_sink *k = calloc(1, sizeof(*k));
    if (!k)
        return FC_ENOMEM;
    k->config = *config;
    k->blocks = (uint32_t)((config->size + config->block_bytes - 1) /
                           config->block_bytes);
    k->plain = malloc(FC_FRAME_MAX_PLAIN);
    if (!k->plain || fc_blockset_init(&k->set, k->blocks, false)) {
        free(k->plain);
        free(k);
        return FC_ENOMEM;
    }
    pthread_mutex_init(&k->swap, NULL);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->changed, NULL);
    *k_r = k;
    return 0;
}

void fc_sink_attach(struct fc_sink *k, struct fc_shadow *shadow)
{
    k->shadow = shadow;
}

/* The channel is over: whoever waits for an answer learns it. */
static void fail(struct fc_sink *k, int rc, const char *what)
{
    pthread_mutex_lock(&k->lock);
    if (!k->broken) {
        k->broken = true;
        k->up = false;
        for (unsigned i = 0; i < WANTS; i++)
            if (k->wants[i].used && !k->wants[i].done) {
                k->wants[i].done = true;
                k->wants[i].rc = FC_EPEER;
            }
        if (rc != FC_ECANCEL) {
            snprintf(k->error, sizeof(k->error), "%s: %s", what,
                     fc_strerror(rc));
            fc_warn("%s: block channel: %s", k->config.name, k->error);
        }
        if (k->linked)
            fc_link_stop(&k->link);
        pthread_cond_broadcast(&k->changed);
    }
    pthread_mutex_unlock(&k->lock);
}

/* ---- what comes -----------------------------------------------------------
 */

static int send_held(struct fc_sink *k)
{
    fc_shadow_valid(k->shadow, &k->set);
    return fc_link_send_set(&k->link, FC_FRAME_HELD, &k->set);
}

static int refuse(struct fc_sink *k, const char *why)
{
    fc_warn("%s: block channel refused: %s", k->config.name, why);
    fc_link_send_text(&k->link, FC_FRAME_ERROR, 0, why);
    return FC_EPERM;
}

static int on_hello(struct fc_sink *k, size_t len)
{
    struct fc_frame_hello h;
    struct fc_shadow_status s;
    uint8_t frame[FC_FRAME_HEADER + 64];
    if (k->greeted || fc_frame_hello_parse(k->link.body, len, &h))
        return FC_EFORMAT;
    if (h.lowest > FC_FRAME_VERSION || h.highest < FC_FRAME_VERSION)
        return refuse(k, "no version in common");
    if (memcmp(h.uuid, k->config.uuid, sizeof(h.uuid)) ||
        strcmp(h.name, k->config.name))
        return refuse(k, "this is another disk's shadow");
    if (h.size != k->config.size)
        return refuse(k, "the disks differ in size");
    if (h.block_bytes != k->config.block_bytes)
        return refuse(k, "the block sizes differ");
    fc_shadow_status(k->shadow, &s);
    struct fc_frame_welcome w = { .version = FC_FRAME_VERSION,
                                  .owner = s.state == FC_SHADOW_OWNED,
                                  .fenced = s.state == FC_SHADOW_FENCED,
                                  .epoch = s.epoch,
                                  .held = s.valid_blocks };
    memcpy(w.migration, s.migration, sizeof(w.migration));
    ssize_t n = fc_frame_welcome_make(&w, frame + FC_FRAME_HEADER, 64);
    int rc = fc_link_send(&k->link, FC_FRAME_WELCOME, frame, (size_t)n);
    if (!rc)
        rc = send_held(k);
    if (rc)
        return rc;
    k->greeted = true;
    pthread_mutex_lock(&k->lock);
    k->up = !k->broken;
    k->error[0] = '\0';
    pthread_mutex_unlock(&k->lock);
    fc_shadow_primary_up(k->shadow);
    return 0;
}

/* Bytes for whoever asked. Nobody may have: the answer is then wrong. */
static int answer(struct fc_sink *k, const struct fc_frame_data *d,
                  const uint8_t *plain)
{
    int rc = FC_EFORMAT;
    pthread_mutex_lock(&k->lock);
    for (unsigned i = 0; i < WANTS; i++) {
        struct want *w = &k->wants[i];
        if (!w->used || w->done || w->number != d->answer)
            continue;
        if (w->offset != d->offset || w->length != d->length)
            break;
        if (d->encoding == FC_FRAME_UNREADABLE)
            w->rc = FC_EIO;
        else if (plain)
            memcpy(w->to, plain, d->length);
        else
            memset(w->to, 0, d->length);
        w->done = true;
        pthread_cond_broadcast(&k->changed);
        rc = 0;
        break;
    }
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static int on_data(struct fc_sink *k, size_t len)
{
    struct fc_frame_data d;
    const uint8_t *plain = NULL;
    uint32_t block = k->config.block_bytes;
    if (!k->greeted || fc_frame_data_parse(k->link.body, len, &d) ||
        d.seq != k->seq + 1 || d.offset > k->config.size ||
        d.length > k->config.size - d.offset)
        return FC_EFORMAT;
    uint64_t end = d.offset + d.length;
    if (d.keep ? d.offset % block || (end % block && end != k->config.size)
               : !d.answer)
        return FC_EFORMAT;
    int rc = d.encoding == FC_FRAME_UNREADABLE
                 ? 0
                 : fc_frame_data_plain(&d, k->plain, &plain);
    if (!rc && d.keep)
        rc = fc_shadow_put(k->shadow, (uint32_t)(d.offset / block),
                           (uint32_t)((d.length + block - 1) / block), plain);
    if (!rc && d.answer)
        rc = answer(k, &d, plain);
    if (rc)
        return rc;
    k->seq = d.seq;
    pthread_mutex_lock(&k->lock);
    k->stored_bytes += d.keep ? d.length : 0;
    pthread_mutex_unlock(&k->lock);
    return fc_link_send_value(&k->link, FC_FRAME_STORED, d.seq);
}

static int on_missing(struct fc_sink *k, size_t len)
{
    if (!k->greeted || k->missing_next == k->blocks)
        return FC_EFORMAT;
    return fc_blockset_decode(&k->set, k->missing_next, k->link.body, len,
                              &k->missing_next);
}

static int on_flip(struct fc_sink *k, enum fc_frame_type type, size_t len)
{
    struct fc_frame_flip flip;
    struct fc_shadow_status s;
    int rc;
    if (!k->greeted || fc_frame_flip_parse(type, k->link.body, len, &flip))
        return FC_EFORMAT;
    if (type == FC_FRAME_FENCE && k->missing_next != k->blocks)
        return FC_EFORMAT;
    k->missing_next = 0;
    if (type == FC_FRAME_FENCE)
        rc = fc_shadow_fence(k->shadow, &k->set, flip.migration, flip.epoch);
    else if (type == FC_FRAME_LEASE)
        rc = fc_shadow_own(k->shadow, flip.migration, flip.epoch);
    else
        rc = fc_shadow_return(k->shadow, flip.migration, flip.epoch);
    flip.status = !rc            ? FC_FRAME_DONE
                  : rc == FC_EIO ? FC_FRAME_FAILED
                                 : FC_FRAME_REFUSED;
    fc_shadow_status(k->shadow, &s);
    flip.invalid = s.remaining_blocks;
    if (rc)
        fc_warn("%s: %s of epoch %llu: %s", k->config.name, fc_frame_name(type),
                (unsigned long long)flip.epoch, fc_strerror(rc));
    /* each answer's type follows its question's */
    return fc_link_send_flip(&k->link, type + 1, &flip);
}

static int on_check(struct fc_sink *k, size_t len)
{
    uint8_t frame[FC_FRAME_HEADER];
    if (!k->greeted || len || k->missing_next)
        return FC_EFORMAT;
    if (!fc_shadow_complete(k->shadow))
        return send_held(k);
    int rc = fc_shadow_sync(k->shadow);
    return rc ? rc : fc_link_send(&k->link, FC_FRAME_COMPLETE, frame, 0);
}

static int on_text(struct fc_sink *k, enum fc_frame_type type, size_t len)
{
    char text[FC_FRAME_MAX_TEXT + 1];
    if (fc_frame_text_parse(type, k->link.body, len, NULL, text))
        return FC_EFORMAT;
    if (type == FC_FRAME_BYE)
        return FC_EEOF;
    fc_warn("%s: the source says: %s", k->config.name, text);
    return FC_EPEER;
}

static int take(struct fc_sink *k, const struct fc_frame_head *head)
{
    uint64_t value;
    switch (head->type) {
    case FC_FRAME_HELLO:
        return on_hello(k, head->length);
    case FC_FRAME_DATA:
        return on_data(k, head->length);
    case FC_FRAME_MISSING:
        return on_missing(k, head->length);
    case FC_FRAME_FENCE:
    case FC_FRAME_LEASE:
    case FC_FRAME_RETURN:
        return on_flip(k, head->type, head->length);
    case FC_FRAME_CHECK:
        return on_check(k, head->length);
    case FC_FRAME_PING:
        if (fc_frame_value_parse(k->link.body, head->length, &value))
            return FC_EFORMAT;
        return fc_link_send_value(&k->link, FC_FRAME_PONG, value);
    case FC_FRAME_PONG:
        return fc_frame_value_parse(k->link.body, head->length, &value);
    case FC_FRAME_BYE:
    case FC_FRAME_ERROR:
        return on_text(k, head->type, head->length);
    default:
        return FC_EFORMAT;
    }
}

static void *reader(void *sink)
{
    struct fc_sink *k = sink;
    char what[64] = "receiving";
    int rc = 0;
    k->greeted = false;
    k->seq = k->missing_next = 0;
    while (!rc) {
        struct fc_frame_head head;
        rc = fc_link_recv(&k->link, SILENCE_MS, &head);
        if (rc)
            break;
        rc = take(k, &head);
        if (rc)
            snprintf(what, sizeof(what), "%s from the source",
                     fc_frame_name(head.type));
    }
    if (rc == FC_EFORMAT || rc == FC_ECHECK || rc == FC_EVERSION ||
        rc == FC_ETOOBIG || rc == FC_EIO)
        fc_link_send_text(&k->link, FC_FRAME_ERROR, 0, fc_strerror(rc));
    fail(k, rc, what);
    pthread_mutex_lock(&k->lock);
    while (k->senders)
        pthread_cond_wait(&k->changed, &k->lock);
    k->linked = false;
    k->old_sent += k->link.sent_bytes;
    k->old_received += k->link.received_bytes;
    pthread_mutex_unlock(&k->lock);
    fc_link_dispose(&k->link);
    return NULL;
}

/* ---- the channel ----------------------------------------------------------
 */

/* With `swap` held. */
static void stop_channel(struct fc_sink *k)
{
    if (!k->thread)
        return;
    fail(k, FC_ECANCEL, "");
    pthread_join(k->reader, NULL);
    k->thread = false;
}

int fc_sink_channel(struct fc_sink *k, int in, int out)
{
    pthread_mutex_lock(&k->swap);
    stop_channel(k);
    int rc = fc_link_init(&k->link, in, out);
    if (rc)
        goto out;
    pthread_mutex_lock(&k->lock);
    bool closing = k->closing;
    k->linked = true;
    k->broken = false;
    pthread_mutex_unlock(&k->lock);
    if (closing || pthread_create(&k->reader, NULL, reader, k)) {
        rc = closing ? FC_ECANCEL : FC_ESYS;
        k->linked = false;
        fc_link_dispose(&k->link);
        goto out;
    }
    k->thread = true;
out:
    pthread_mutex_unlock(&k->swap);
    return rc;
}

/* Reads of the shadow fail from now on. */
static void cancel(void *user)
{
    struct fc_sink *k = user;
    pthread_mutex_lock(&k->lock);
    k->closing = true;
    pthread_mutex_unlock(&k->lock);
    fail(k, FC_ECANCEL, "");
}

void fc_sink_stop(struct fc_sink *k)
{
    cancel(k);
    pthread_mutex_lock(&k->swap);
    stop_channel(k);
    pthread_mutex_unlock(&k->swap);
}

void fc_sink_close(struct fc_sink *k)
{
    if (!k)
        return;
    fc_sink_stop(k);
    fc_blockset_dispose(&k->set);
    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->lock);
    pthread_mutex_destroy(&k->swap);
    free(k->plain);
    free(k);
}

void fc_sink_status(struct fc_sink *k, struct fc_sink_status *status_r)
{
    pthread_mutex_lock(&k->lock);
    struct fc_sink_status v = { .channel = k->up,
                                .sent_bytes = k->old_sent,
                                .received_bytes = k->old_received,
                                .stored_bytes = k->stored_bytes,
                                .wants = k->nwants };
    for (unsigned i = 0; i < WANTS; i++)
        v.waiting += k->wants[i].used && !k->wants[i].done;
    if (k->linked) {
        v.sent_bytes += k->link.sent_bytes;
        v.received_bytes += k->link.received_bytes;
    }
    memcpy(v.error, k->error, sizeof(v.error));
    pthread_mutex_unlock(&k->lock);
    *status_r = v;
}

/* ---- the shadow's primary -------------------------------------------------
 */

/* With the lock held, which is given up while sending. */
static int send_want(struct fc_sink *k, const struct fc_frame_want *want)
{
    uint8_t frame[FC_FRAME_HEADER + 64];
    if (!k->up)
        return FC_EPEER;
    k->senders++; /* keeps the link open */
    pthread_mutex_unlock(&k->lock);
    ssize_t n = fc_frame_want_make(want, frame + FC_FRAME_HEADER, 64);
    int rc = fc_link_send(&k->link, FC_FRAME_WANT, frame, (size_t)n);
    if (rc)
        fail(k, rc, "asking the source");
    pthread_mutex_lock(&k->lock);
    k->senders--;
    pthread_cond_broadcast(&k->changed);
    return rc ? FC_EPEER : 0;
}

static struct want *free_want(struct fc_sink *k)
{
    for (unsigned i = 0; i < WANTS; i++)
        if (!k->wants[i].used)
            return &k->wants[i];
    return NULL;
}

static int primary_read(void *user, uint64_t offset, void *buf, size_t len)
{
    struct fc_sink *k = user;
    struct want *w = NULL;
    int rc = 0;
    pthread_mutex_lock(&k->lock);
    while (k->up && !(w = free_want(k)))
        pthread_cond_wait(&k->changed, &k->lock);
    if (!w || !k->up) {
        pthread_mutex_unlock(&k->lock);
        return FC_EPEER;
    }
    *w = (struct want){ .used = true,
                        .number = ++k->number,
                        .offset = offset,
                        .length = (uint32_t)len,
                        .to = buf };
    k->nwants++;
    rc = send_want(k,
                   &(struct fc_frame_want){ w->number, offset, (uint32_t)len });
    while (!rc && !w->done)
        pthread_cond_wait(&k->changed, &k->lock);
    if (!rc)
        rc = w->rc;
    w->used = false;
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static void primary_want(void *user, uint32_t block, uint32_t count)
{
    struct fc_sink *k = user;
    uint64_t offset = (uint64_t)block * k->config.block_bytes;
    uint64_t end = offset + (uint64_t)count * k->config.block_bytes;
    if (end > k->config.size)
        end = k->config.size;
    pthread_mutex_lock(&k->lock);
    for (int rc = 0; !rc && offset < end; offset += FC_FRAME_MAX_PLAIN) {
        uint64_t left = end - offset;
        uint32_t n =
            left < FC_FRAME_MAX_PLAIN ? (uint32_t)left : FC_FRAME_MAX_PLAIN;
        rc = send_want(k, &(struct fc_frame_want){ 0, offset, n });
    }
    pthread_mutex_unlock(&k->lock);
}

const struct fc_primary_ops fc_sink_primary = {
    .read = primary_read,
    .want = primary_want,
    .cancel = cancel,
};
