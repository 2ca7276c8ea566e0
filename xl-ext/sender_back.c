/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sender's ear: frames from the receiver (docs/formats/back-channel.md).
 *
 * Before the mode is decided nothing that happens here can do harm: a refusal,
 * rubbish or a closed channel mean that the stream stays plain. Afterwards, on
 * a predictive stream, the same are errors that end it, as is silence: the
 * receiver acknowledges at least every second. On a plain stream frames are
 * read, so that nobody blocks on them, and dropped.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decoder.h"
#include "err.h"
#include "io.h"
#include "pfnset.h"
#include "sender_int.h"

#define LOOK_MS 250
/* A receiver may ask for a page again and again; an honest one does not ask
 * for the whole guest this often. */
#define PULLS_PER_PAGE 4u
#define PULLS_AT_LEAST 65536u
/* Times peer_timeout_s: how long a receiver may say no more than that it is
 * alive while it owes us an answer. */
#define STALL_FACTOR 4u

/* What cannot be understood or used ends a predictive stream only. */
static void reject_locked(struct fc_sender *s, int rc, const char *why)
{
    if (s->mode == FC_STREAM_PREDICTIVE) {
        fc_sender_fail_locked(s, rc, why);
    } else if (s->answer == FC_ANSWER_NONE) {
        s->answer = FC_ANSWER_REFUSED;
        snprintf(s->refusal, sizeof(s->refusal), "%s", why);
        pthread_cond_broadcast(&s->changed);
    }
}

static int grow_wanted(struct fc_sender *s)
{
    uint32_t cap = s->wanted_cap ? 2 * s->wanted_cap : 1024;
    uint64_t *ring = malloc((size_t)cap * sizeof(*ring));
    if (!ring)
        return FC_ENOMEM;
    for (uint32_t i = 0; i < s->wanted_held; i++)
        ring[i] = s->wanted[(s->wanted_first + i) % s->wanted_cap];
    free(s->wanted);
    s->wanted = ring;
    s->wanted_cap = cap;
    s->wanted_first = 0;
    return 0;
}

static void on_missing_locked(struct fc_sender *s,
                              const struct fc_back_frame *f)
{
    const struct fc_sender_config *c = &s->config;
    uint64_t limit = PULLS_AT_LEAST;
    if (c->guest)
        limit += PULLS_PER_PAGE * c->guest->pages(c->guest_user);
    s->pulled_total += f->missing.count;
    if (!c->guest || s->pulled_total > limit ||
        s->wanted_held + f->missing.count > FC_PFNSET_MAX) {
        reject_locked(s, FC_ELIMIT, "the destination misses too many pages");
        return;
    }
    while (s->wanted_held + f->missing.count > s->wanted_cap) {
        if (grow_wanted(s) < 0) {
            reject_locked(s, FC_ENOMEM, "out of memory");
            return;
        }
    }
    for (unsigned i = 0; i < f->missing.count; i++)
        s->wanted[(s->wanted_first + s->wanted_held++) % s->wanted_cap] =
            f->missing.pfn[i];
    s->progress_ms = fc_now_ms();
    fc_sender_wake(s);
}

unsigned fc_sender_wanted_locked(struct fc_sender *s, uint64_t *pfns,
                                 unsigned max)
{
    unsigned n = 0;
    while (n < max && s->wanted_held) {
        pfns[n++] = s->wanted[s->wanted_first];
        s->wanted_first = (s->wanted_first + 1) % s->wanted_cap;
        s->wanted_held--;
    }
    return n;
}

static void on_welcome_locked(struct fc_sender *s,
                              const struct fc_back_frame *f)
{
    if (s->answer != FC_ANSWER_NONE)
        return;
    if (f->welcome.version != FC_STREAM_VERSION) {
        reject_locked(s, FC_EVERSION,
                      "it chose a version that was not "
                      "offered");
        return;
    }
    s->answer = FC_ANSWER_WELCOME;
    s->store_found = f->welcome.flags & FC_BACK_STORE_FOUND;
    pthread_cond_broadcast(&s->changed);
}

static void on_failed_locked(struct fc_sender *s, const char *text)
{
    char why[FC_SENDER_WHY];
    snprintf(why, sizeof(why), "the destination gave up: %s", text);
    reject_locked(s, FC_EPEER, why);
}

static void on_frame_locked(struct fc_sender *s, const struct fc_back_frame *f)
{
    s->heard_ms = fc_now_ms();
    switch (f->type) {
    case FC_BACK_WELCOME:
        on_welcome_locked(s, f);
        break;
    case FC_BACK_REFUSE:
        reject_locked(s, FC_EPEER, f->text);
        break;
    case FC_BACK_ACK:
        if (fc_sender_acked_locked(s, f->value) < 0)
            reject_locked(s, FC_EFORMAT,
                          "the destination acknowledged what was not sent");
        break;
    case FC_BACK_SYNCED:
        if (f->value <= s->sync_put && f->value > s->sync_answered)
            s->sync_answered = f->value;
        s->progress_ms = s->heard_ms;
        break;
    case FC_BACK_MISSING:
        on_missing_locked(s, f);
        break;
    case FC_BACK_DONE:
        s->done = true;
        break;
    case FC_BACK_FAILED:
        on_failed_locked(s, f->text);
        break;
    }
    pthread_cond_broadcast(&s->changed);
}

/* Whether the receiver has something to do that it will report. */
static bool owes_locked(const struct fc_sender *s)
{
    return s->sync_answered < s->sync_put ||
           s->written - s->acked >= FC_ACK_BYTES;
}

/* A receiver that says nothing is gone. One that says "alive" and nothing else
 * while it owes us more hangs, or what we send does not reach it. */
static void check_silence_locked(struct fc_sender *s)
{
    char why[FC_SENDER_WHY];
    uint64_t now = fc_now_ms();
    if (s->mode != FC_STREAM_PREDICTIVE || s->done)
        return;
    uint64_t limit_s = s->config.session->peer_timeout_s;
    if (!owes_locked(s))
        s->progress_ms = now;
    if (now - s->heard_ms >= limit_s * 1000) {
        snprintf(why, sizeof(why), "destination silent for %llu s",
                 (unsigned long long)limit_s);
        fc_sender_fail_locked(s, FC_ETIMEOUT, why);
    } else if (now - s->progress_ms >= STALL_FACTOR * limit_s * 1000) {
        snprintf(why, sizeof(why), "destination does not get on for %llu s",
                 (unsigned long long)(STALL_FACTOR * limit_s));
        fc_sender_fail_locked(s, FC_ETIMEOUT, why);
    }
}

/* Frames at the start of buf. Returns the bytes they took, or FC_EFORMAT. */
static ssize_t take_frames_locked(struct fc_sender *s, const uint8_t *buf,
                                  size_t len)
{
    struct fc_back_frame frame;
    size_t used = 0;
    while (used < len) {
        ssize_t n = fc_back_decode(buf + used, len - used, &frame);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        on_frame_locked(s, &frame);
        used += (size_t)n;
    }
    return (ssize_t)used;
}

/* One read. False when there is nothing more to come. */
static bool hear(struct fc_sender *s, uint8_t *buf, size_t *held, size_t cap)
{
    ssize_t r = read(s->config.session->back_fd, buf + *held, cap - *held);
    if (r < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    bool more = r > 0;
    pthread_mutex_lock(&s->lock);
    if (more) {
        *held += (size_t)r;
        ssize_t n = take_frames_locked(s, buf, *held);
        if (n < 0) {
            reject_locked(s, FC_EFORMAT,
                          "what came on the back channel is no frame");
            more = false;
        } else {
            *held -= (size_t)n;
            memmove(buf, buf + n, *held);
        }
    } else if (!s->done) {
        reject_locked(s, FC_EEOF, "the transport's back channel was closed");
    }
    pthread_mutex_unlock(&s->lock);
    return more;
}

void *fc_sender_back(void *user)
{
    struct fc_sender *s = user;
    uint8_t buf[4 * (FC_BACK_HEADER + FC_BACK_MAX_BODY)];
    size_t held = 0;
    struct pollfd p[2] = {
        { .fd = s->config.session->back_fd, .events = POLLIN },
        { .fd = s->stop_fd, .events = POLLIN },
    };
    for (;;) {
        int r = poll(p, 2, LOOK_MS);
        if (r < 0 && errno != EINTR)
            break;
        if (r > 0 && p[1].revents)
            break;
        if (r > 0 && p[0].revents && !hear(s, buf, &held, sizeof(buf)))
            p[0].fd = -1; /* go on watching for silence */
        pthread_mutex_lock(&s->lock);
        check_silence_locked(s);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}
