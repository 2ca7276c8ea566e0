/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sender's way out: a bounded queue of finished buffers, the window, and
 * the thread that writes.
 *
 * A buffer goes spare -> filling (encoder thread) -> queue -> written (writer
 * thread) -> spare. There are FC_SENDER_BUFFERS of them, so an encoder that is
 * faster than the link waits in fc_sender_room(), and libxc behind it in its
 * pipe: memory is bounded whatever the link does.
 *
 * The descriptor is non-blocking while the sender runs: a write that blocks
 * for good would leave nobody to notice that the stream was broken off.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decoder.h"
#include "err.h"
#include "io.h"
#include "sender_int.h"

#define WRITE_BYTES 262144u
#define LOOK_MS 200 /* how soon a writer that waits sees a broken stream */
/* A sample of the link's rate: so much busy time and so many bytes. */
#define RATE_NS 500000000u
#define RATE_MIN_BYTES 262144u

int fc_sender_out_init(struct fc_sender *s)
{
    s->queue_end = &s->queue;
    for (unsigned i = 0; i < FC_SENDER_BUFFERS; i++) {
        struct fc_sender_buffer *b = &s->buffers[i];
        b->bytes = malloc(FC_ENCODER_ROOM);
        if (!b->bytes)
            return FC_ENOMEM;
        b->next = s->spare;
        s->spare = b;
    }
    return 0;
}

void fc_sender_out_dispose(struct fc_sender *s)
{
    for (unsigned i = 0; i < FC_SENDER_BUFFERS; i++)
        free(s->buffers[i].bytes);
}

uint8_t *fc_sender_room(void *user, size_t len)
{
    struct fc_sender *s = user;
    if (len > FC_ENCODER_ROOM)
        return NULL;
    pthread_mutex_lock(&s->lock);
    while (!s->filling && !s->spare && !s->failed)
        fc_sender_wait_locked(s, 1000);
    if (!s->filling && s->spare) {
        s->filling = s->spare;
        s->spare = s->filling->next;
    }
    struct fc_sender_buffer *b = s->failed ? NULL : s->filling;
    pthread_mutex_unlock(&s->lock);
    return b ? b->bytes : NULL;
}

int fc_sender_put(void *user, size_t len)
{
    struct fc_sender *s = user;
    pthread_mutex_lock(&s->lock);
    struct fc_sender_buffer *b = s->filling;
    s->filling = NULL;
    b->used = len;
    b->next = NULL;
    *s->queue_end = b;
    s->queue_end = &b->next;
    s->put_ms = fc_now_ms();
    int rc = s->failed;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/*
 * A sample of the link's rate is complete. Where most pages went as references
 * or zeros it tells how fast the receiver writes pages and not what the link
 * carries: such a sample does not count.
 */
static void sample_rate_locked(struct fc_sender *s)
{
    const struct fc_encoder_counts *c = fc_encoder_counts(s->encoder);
    uint64_t data = c->data, cheap = c->ref + c->zero;
    double bps = (double)s->busy_bytes * 1e9 / (double)s->busy_ns;
    if (data - s->rate_data >= cheap - s->rate_cheap)
        s->link_bps = s->link_bps > 0 ? (s->link_bps + bps) / 2 : bps;
    s->rate_data = data;
    s->rate_cheap = cheap;
    s->busy_ns = s->busy_bytes = 0;
}

/* Time counts as busy while so much is under way that an ACK is due. */
static void account_locked(struct fc_sender *s)
{
    uint64_t now = fc_now_ns();
    if (s->busy_since_ns)
        s->busy_ns += now - s->busy_since_ns;
    s->busy_since_ns = s->written - s->acked >= FC_ACK_BYTES ? now : 0;
    if (s->busy_ns >= RATE_NS && s->busy_bytes >= RATE_MIN_BYTES)
        sample_rate_locked(s);
}

int fc_sender_acked_locked(struct fc_sender *s, uint64_t acked)
{
    if (acked < s->acked || acked > s->written)
        return FC_EFORMAT;
    if (acked != s->acked)
        s->progress_ms = fc_now_ms();
    if (s->busy_since_ns)
        s->busy_bytes += acked - s->acked;
    s->acked = acked;
    account_locked(s);
    return 0;
}

uint64_t fc_sender_link_bps_locked(const struct fc_sender *s)
{
    return (uint64_t)s->link_bps;
}

/* How much may be written now. */
static size_t window_locked(const struct fc_sender *s)
{
    if (s->mode != FC_STREAM_PREDICTIVE)
        return WRITE_BYTES;
    uint64_t under_way = s->written - s->acked;
    uint64_t window = s->config.session->window_bytes;
    uint64_t free_bytes = under_way < window ? window - under_way : 0;
    return free_bytes < WRITE_BYTES ? (size_t)free_bytes : WRITE_BYTES;
}

/* Bytes written now: perhaps 0, or an error with errno. */
static ssize_t write_some(struct fc_sender *s, const uint8_t *p, size_t len)
{
    ssize_t r = write(s->config.out_fd, p, len);
    if (r >= 0)
        return r;
    if (errno == EINTR)
        return 0;
    if (errno != EAGAIN && errno != EWOULDBLOCK)
        return FC_EIO;
    return fc_wait_writable(s->config.out_fd, LOOK_MS) < 0 ? FC_EIO : 0;
}

/* With the lock held on entry and exit. */
static void write_buffer_locked(struct fc_sender *s,
                                const struct fc_sender_buffer *b)
{
    size_t done = 0;
    while (done < b->used && !s->failed) {
        size_t n = window_locked(s);
        if (n > b->used - done)
            n = b->used - done;
        if (!n) {
            fc_sender_wait_locked(s, LOOK_MS);
            continue;
        }
        /* Counted first: an ACK may come before write(2) returns. */
        s->written += n;
        account_locked(s);
        pthread_mutex_unlock(&s->lock);
        ssize_t r = write_some(s, b->bytes + done, n);
        int saved = errno;
        pthread_mutex_lock(&s->lock);
        s->written -= n - (r > 0 ? (size_t)r : 0);
        if (r < 0) {
            char why[FC_SENDER_WHY];
            snprintf(why, sizeof(why), "writing the stream failed: %s",
                     strerror(saved));
            fc_sender_fail_locked(s, FC_EIO, why);
            return;
        }
        done += (size_t)r;
    }
}

void *fc_sender_writer(void *user)
{
    struct fc_sender *s = user;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->queue && !s->no_more && !s->failed)
            fc_sender_wait_locked(s, 1000);
        if (s->failed || !s->queue)
            break;
        struct fc_sender_buffer *b = s->queue;
        s->queue = b->next;
        if (!s->queue)
            s->queue_end = &s->queue;
        s->writing = true;
        write_buffer_locked(s, b);
        s->writing = false;
        b->next = s->spare;
        s->spare = b;
        pthread_cond_broadcast(&s->changed);
    }
    s->complete = s->ended && !s->failed;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
