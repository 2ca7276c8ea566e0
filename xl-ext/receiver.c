/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The receiver: a decoder with its threads.
 *
 *   in --> decoder thread --pipe--> libxc's thread
 *              |  frames                     ticker thread: an ACK a second
 *              +-----------> back_fd <-------+
 *
 * Frames are made by two threads and so written under a lock, with ACK values
 * that never fall; nothing follows DONE or FAILED. The ticker says that this
 * host is alive while the decoder waits for libxc; it starts with WELCOME.
 *
 * A way back that is broken ends the talking, not the decoding: a sender that
 * still needs an answer will notice by itself, and one that has all it needs
 * may be gone already while its last bytes are on their way.
 *
 * Either side may fail. When the decoder does, it closes its end of the pipe
 * and libxc finds its stream cut short; when libxc does, fc_receiver_finish()
 * stops the decoder wherever it waits.
 *
 * A stream that has gone silent is given up after SILENCE_MS, but only once
 * the sender has shown by a record of ours that it took WELCOME up and so
 * sends PING. A plain stream may pause as long as it likes, as ever.
 */
#include "receiver.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "err.h"
#include "io.h"

#define SILENCE_MS 120000u
#define FRAME_MS 120000 /* how long a frame may take to be written */
#define TICK_MS 1000
#define DRAIN_LOOK_MS 1
#define WHY_BYTES 384

struct fc_receiver {
    struct fc_receiver_config config;
    struct fc_decoder *decoder;
    int stop_fd; /* eventfd: readable for good once threads are to end */
    pthread_t decoder_thread, ticker_thread;
    bool decoding, ticking; /* threads that run */
    int rc;                 /* the decoder thread's result */
    _Atomic uint64_t taken;
    pthread_mutex_t lock; /* of frames */
    bool talking, finished;
    uint64_t acked;
    char why[WHY_BYTES];
};

/* Waits for `events` on fd or for the end. 1, 0 (timeout) or an error. */
static int wait_or_stop(struct fc_receiver *r, int fd, short events,
                        int timeout_ms)
{
    struct pollfd p[2] = { { .fd = fd, .events = events },
                           { .fd = r->stop_fd, .events = POLLIN } };
    int n = poll(p, 2, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : FC_EIO;
    if (p[1].revents)
        return FC_ECANCEL;
    return n > 0;
}

static int wait_for_stream(struct fc_receiver *r)
{
    uint64_t start = fc_now_ms();
    for (;;) {
        int rc = wait_or_stop(r, r->config.in_fd, POLLIN, TICK_MS);
        if (rc)
            return rc;
        if (fc_decoder_agreed(r->decoder) && fc_now_ms() - start >= SILENCE_MS)
            return FC_ETIMEOUT;
    }
}

static int read_stream(void *user, void *buf, size_t len)
{
    struct fc_receiver *r = user;
    uint8_t *p = buf;
    while (len) {
        int rc = wait_for_stream(r);
        if (rc < 0)
            return rc;
        ssize_t n = read(r->config.in_fd, p, len);
        if (n == 0)
            return FC_EEOF;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return FC_EIO;
        if (n > 0) {
            r->taken += (uint64_t)n;
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static void advance(struct iovec **iov, int *count, size_t n)
{
    while (*count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

static int write_libxc(void *user, struct iovec *iov, int count)
{
    struct fc_receiver *r = user;
    while (count > 0) {
        ssize_t n = writev(r->config.out_fd, iov, count);
        if (n >= 0) {
            advance(&iov, &count, (size_t)n);
        } else if (errno == EAGAIN) {
            int rc = wait_or_stop(r, r->config.out_fd, POLLOUT, -1);
            if (rc < 0)
                return rc;
        } else if (errno != EINTR) {
            return FC_EIO;
        }
    }
    return 0;
}

static int drained(void *user)
{
    struct fc_receiver *r = user;
    int n = 0;
    while (ioctl(r->config.out_fd, FIONREAD, &n) == 0 && n > 0) {
        int rc = wait_or_stop(r, -1, 0, DRAIN_LOOK_MS);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int write_frame_locked(struct fc_receiver *r,
                              const struct fc_back_frame *frame)
{
    uint8_t raw[FC_BACK_HEADER + FC_BACK_MAX_BODY];
    ssize_t len = fc_back_encode(frame, raw, sizeof(raw));
    if (len < 0)
        return (int)len;
    int rc = fc_wait_writable(r->config.back_fd, FRAME_MS);
    if (rc <= 0)
        return rc < 0 ? rc : FC_ETIMEOUT;
    return fc_write_all(r->config.back_fd, raw, (size_t)len);
}

static int send_frame(void *user, const struct fc_back_frame *frame)
{
    struct fc_receiver *r = user;
    struct fc_back_frame ack = { .type = FC_BACK_ACK };
    pthread_mutex_lock(&r->lock);
    if (frame->type == FC_BACK_ACK) {
        r->acked = frame->value > r->acked ? frame->value : r->acked;
        ack.value = r->acked;
        frame = &ack;
    }
    if (!r->finished && write_frame_locked(r, frame) < 0)
        r->finished = true;
    r->talking = r->talking || frame->type == FC_BACK_WELCOME;
    r->finished = r->finished || frame->type == FC_BACK_DONE ||
                  frame->type == FC_BACK_FAILED;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

static void send_failed(struct fc_receiver *r, const char *text)
{
    struct fc_back_frame f = { .type = FC_BACK_FAILED };
    pthread_mutex_lock(&r->lock);
    bool talking = r->talking;
    pthread_mutex_unlock(&r->lock);
    if (!talking)
        return;
    snprintf(f.text, sizeof(f.text), "%s", text);
    send_frame(r, &f);
}

static void on_hello(void *user, const struct fc_hello *hello,
                     struct fc_page_source *source, uint64_t *held_r)
{
    struct fc_receiver *r = user;
    if (r->config.hello)
        r->config.hello(r->config.user, hello, source, held_r);
}

static int on_checkpoint(void *user)
{
    struct fc_receiver *r = user;
    return r->config.checkpoint ? r->config.checkpoint(r->config.user) : 0;
}

static const struct fc_decoder_ops ops_with_back = {
    .read = read_stream,
    .emit = write_libxc,
    .frame = send_frame,
    .hello = on_hello,
    .drained = drained,
    .checkpoint = on_checkpoint,
};

static const struct fc_decoder_ops ops_without_back = {
    .read = read_stream,
    .emit = write_libxc,
    .checkpoint = on_checkpoint,
};

static void *decoder_main(void *user)
{
    struct fc_receiver *r = user;
    int rc;
    do
        rc = fc_decoder_step(r->decoder);
    while (rc > 0);
    r->rc = rc;
    if (rc < 0 && rc != FC_ECANCEL) {
        snprintf(r->why, sizeof(r->why), "%s", fc_decoder_why(r->decoder));
        send_failed(r, r->why);
    }
    fc_close(&r->config.out_fd);
    return NULL;
}

static void *ticker_main(void *user)
{
    struct fc_receiver *r = user;
    while (wait_or_stop(r, -1, 0, TICK_MS) == 0) {
        struct fc_back_frame ack = { .type = FC_BACK_ACK, .value = r->taken };
        pthread_mutex_lock(&r->lock);
        bool talk = r->talking && !r->finished;
        pthread_mutex_unlock(&r->lock);
        if (talk)
            send_frame(r, &ack);
    }
    return NULL;
}

static int start_threads(struct fc_receiver *r)
{
    errno = pthread_create(&r->decoder_thread, NULL, decoder_main, r);
    if (errno)
        return FC_ESYS;
    r->decoding = true;
    if (r->config.back_fd < 0)
        return 0;
    errno = pthread_create(&r->ticker_thread, NULL, ticker_main, r);
    r->ticking = !errno;
    return errno ? FC_ESYS : 0;
}

int fc_receiver_start(const struct fc_receiver_config *config,
                      struct fc_receiver **receiver_r)
{
    struct fc_receiver *r = calloc(1, sizeof(*r));
    if (!r) {
        close(config->out_fd);
        return FC_ENOMEM;
    }
    r->config = *config;
    pthread_mutex_init(&r->lock, NULL);
    r->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->decoder = fc_decoder_new(
        config->back_fd >= 0 ? &ops_with_back : &ops_without_back, r);
    int rc = r->stop_fd < 0 ? FC_ESYS : r->decoder ? 0 : FC_ENOMEM;
    if (rc == 0)
        rc = fc_set_nonblock(r->config.out_fd, 1);
    if (rc == 0)
        rc = start_threads(r);
    if (rc < 0) {
        fc_receiver_finish(r, false);
        fc_receiver_free(r);
        return rc;
    }
    *receiver_r = r;
    return 0;
}

int fc_receiver_finish(struct fc_receiver *r, bool ok)
{
    uint64_t one = 1;
    if (ok && r->decoding) {
        /* libxc has its END; the decoder says DONE and is through. */
        pthread_join(r->decoder_thread, NULL);
        r->decoding = false;
    }
    ssize_t n = r->stop_fd < 0 ? 0 : write(r->stop_fd, &one, sizeof(one));
    (void)n; /* an eventfd at zero takes it */
    if (r->decoding)
        pthread_join(r->decoder_thread, NULL);
    if (r->ticking)
        pthread_join(r->ticker_thread, NULL);
    r->decoding = r->ticking = false;
    if (!ok)
        send_failed(r, "libxc could not restore the guest");
    return r->rc;
}

void fc_receiver_free(struct fc_receiver *r)
{
    if (!r)
        return;
    fc_close(&r->config.out_fd);
    fc_close(&r->stop_fd);
    fc_decoder_free(r->decoder);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

const char *fc_receiver_why(const struct fc_receiver *r)
{
    return r->why;
}

const struct fc_decoder_counts *fc_receiver_counts(const struct fc_receiver *r)
{
    return fc_decoder_counts(r->decoder);
}

bool fc_receiver_agreed(const struct fc_receiver *r)
{
    return fc_decoder_agreed(r->decoder);
}
