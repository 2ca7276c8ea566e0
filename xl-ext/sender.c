/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sender: an encoder with its threads.
 *
 *   libxc's thread --pipe--> encoder thread --queue--> writer thread --> out
 *         |  settle, sync, skip, final   ^  pages wanted, WELCOME, ACK, SYNCED
 *         +------------------------------+---------- back thread <-- back_fd
 *
 * One lock and one condition for everything that threads tell each other; what
 * takes long (encoding, reading, writing, peeking) is done without it. Only
 * the encoder thread touches the encoder.
 *
 * An error of any thread is kept once (fc_sender_fail_locked), wakes all, and
 * makes the encoder thread close its end of libxc's pipe: libxc's next write
 * fails with EPIPE and libxc puts the guest back as it would for any broken
 * stream.
 *
 * Skipping and libxc's cleaning of the dirty log. A page may be dropped when
 * its bit is set in a peek that was taken after the cleaning that began this
 * round. libxc's thread says so: fc_sender_skip(true) after the cleaning,
 * fc_sender_settle() and fc_sender_skip(false) before the next one. So every
 * page of a round has been judged before the log is cleaned again, no peek is
 * older than the round, and none runs beside a cleaning (Xen would return
 * EBUSY to one of the two).
 *
 * Pages that the receiver misses are read from the guest of now. That is right
 * at any place in the stream: if the page has changed since, the dirty log has
 * it and it comes again. libxc's older copy that may still be in the pipe does
 * no harm for the same reason. A pfn without a page is answered as one that
 * libxc found ballooned out.
 */
#include "sender.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "page.h"
#include "sender_int.h"

#define PING_MS 1000
#define PEEK_EVERY_NS 20000000u
/* A peek stops the guest while it lasts: at most this share of its time. */
#define PEEK_SHARE 50u
void fc_sender_wake(struct fc_sender *s)
{
    uint64_t one = 1;
    ssize_t r = write(s->wake_fd, &one, sizeof(one));
    (void)r; /* full only when it is readable anyway */
}

void fc_sender_fail_locked(struct fc_sender *s, int rc, const char *why)
{
    if (s->failed || s->complete)
        return;
    s->failed = rc;
    snprintf(s->why, sizeof(s->why), "%s", why);
    pthread_cond_broadcast(&s->changed);
    fc_sender_wake(s);
}

void fc_sender_wait_locked(struct fc_sender *s, unsigned ms)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_nsec -= 1000000000;
        ts.tv_sec++;
    }
    pthread_cond_timedwait(&s->changed, &s->lock, &ts);
}

void fc_sender_break(struct fc_sender *s, int rc, const char *why)
{
    pthread_mutex_lock(&s->lock);
    fc_sender_fail_locked(s, rc, why);
    pthread_mutex_unlock(&s->lock);
}

/* ---- what the encoder asks for ---- */

static bool has_failed(struct fc_sender *s)
{
    pthread_mutex_lock(&s->lock);
    bool failed = s->failed;
    pthread_mutex_unlock(&s->lock);
    return failed;
}

/*
 * Waits for input or a wake-up. 1: input; 0: look around; negative: broken.
 */
static int wait_input(struct fc_sender *s, int timeout_ms)
{
    struct pollfd p[2] = {
        { .fd = s->config.in_fd, .events = POLLIN },
        { .fd = s->wake_fd, .events = POLLIN },
    };
    if (poll(p, 2, timeout_ms) < 0)
        return errno == EINTR ? 0 : FC_EIO;
    if (p[1].revents) {
        uint64_t n;
        ssize_t r = read(s->wake_fd, &n, sizeof(n));
        (void)r; /* non-blocking; nothing there is no harm */
        return 0;
    }
    return p[0].revents != 0;
}

static int read_input(void *user, void *buf, size_t len)
{
    struct fc_sender *s = user;
    uint8_t *p = buf;
    while (len) {
        ssize_t r = read(s->config.in_fd, p, len);
        if (r > 0) {
            p += r;
            len -= (size_t)r;
        } else if (r == 0) {
            return FC_EEOF;
        } else if (errno == EAGAIN) {
            if (wait_input(s, -1) < 0)
                return FC_EIO;
            if (has_failed(s))
                return FC_ECANCEL;
        } else if (errno != EINTR) {
            return FC_EIO;
        }
    }
    return 0;
}

static void tell_mode(struct fc_sender *s, enum fc_stream_mode mode,
                      const char *why)
{
    if (s->config.mode)
        s->config.mode(s->config.user, mode, why);
}

static int await_welcome(void *user, enum fc_stream_mode *mode_r, bool *refs_r)
{
    struct fc_sender *s = user;
    const struct fc_session *session = s->config.session;
    uint64_t until = fc_now_ms() + session->hello_ms, now;
    char why[FC_SENDER_WHY] = "";
    pthread_mutex_lock(&s->lock);
    while (s->answer == FC_ANSWER_NONE && !s->failed &&
           (now = fc_now_ms()) < until)
        fc_sender_wait_locked(s, (unsigned)(until - now));
    int rc = s->failed;
    if (s->answer == FC_ANSWER_WELCOME) {
        s->mode = FC_STREAM_PREDICTIVE;
        s->heard_ms = s->progress_ms = fc_now_ms();
    } else if (s->answer == FC_ANSWER_REFUSED) {
        s->mode = FC_STREAM_IS_PLAIN;
        snprintf(why, sizeof(why), "destination refused: %.300s", s->refusal);
    } else {
        s->mode = FC_STREAM_IS_PLAIN;
        s->answer = FC_ANSWER_REFUSED; /* too late for it now */
        snprintf(why, sizeof(why), "destination did not answer");
    }
    if (rc == 0 && s->mode == FC_STREAM_IS_PLAIN && session->fail_when_plain) {
        fc_sender_fail_locked(s, FC_EPEER, why);
        rc = FC_EPEER;
    }
    *mode_r = s->mode;
    *refs_r = s->store_found;
    pthread_mutex_unlock(&s->lock);
    if (rc == 0)
        tell_mode(s, *mode_r, why);
    return rc;
}

static int peek(struct fc_sender *s, uint64_t *dirty_r)
{
    const struct fc_sender_config *c = &s->config;
    uint64_t start = fc_now_ns();
    int rc = c->guest->peek(c->guest_user, &s->dirty, &s->dirty_bits, dirty_r);
    uint64_t end = fc_now_ns();
    if (rc < 0) {
        if (!s->peek_broken)
            fc_warn("forecopy: the dirty log cannot be read (%s); nothing is "
                    "left out",
                    fc_strerror(rc));
        s->peek_broken = true;
        s->dirty_bits = 0;
        return rc;
    }
    s->peeked_ns = end;
    s->peek_every_ns = (end - start) * PEEK_SHARE;
    if (s->peek_every_ns < PEEK_EVERY_NS)
        s->peek_every_ns = PEEK_EVERY_NS;
    return 0;
}

static uint64_t dirty_again(void *user, const uint64_t **bitmap_r)
{
    struct fc_sender *s = user;
    uint64_t bits = 0, dirty;
    pthread_mutex_lock(&s->peek_lock);
    if (s->skip_allowed && !s->peek_broken) {
        if (!s->peeked_ns || fc_now_ns() - s->peeked_ns >= s->peek_every_ns)
            peek(s, &dirty);
        bits = s->dirty_bits;
        *bitmap_r = s->dirty;
    }
    pthread_mutex_unlock(&s->peek_lock);
    return bits;
}

static const struct fc_encoder_ops encoder_ops = {
    .read = read_input,
    .room = fc_sender_room,
    .put = fc_sender_put,
    .welcome = await_welcome,
    .dirty_again = dirty_again,
};

/* ---- the encoder thread ---- */

static int answer_wanted(struct fc_sender *s, const uint64_t *pfns, unsigned n,
                         uint8_t *pages)
{
    bool has[FC_BACK_MAX_MISSING];
    const struct fc_sender_config *c = &s->config;
    int rc = c->guest->read(c->guest_user, pfns, n, pages, has);
    if (rc < 0) {
        fc_sender_break(s, rc,
                        "a page that the destination misses cannot be "
                        "read");
        return rc;
    }
    return fc_encoder_pulled(s->encoder, pfns, n, pages, has);
}

/*
 * Does one thing that was asked for. 1: done, look again; 0: nothing to do;
 * negative: over.
 */
static int serve(struct fc_sender *s, uint8_t *pages)
{
    uint64_t pfns[FC_BACK_MAX_MISSING], sync = 0;
    unsigned wanted = 0;
    bool final = false, ping = false;
    pthread_mutex_lock(&s->lock);
    int rc = s->failed;
    bool talks = s->mode == FC_STREAM_PREDICTIVE;
    if (rc == 0 && talks)
        wanted = fc_sender_wanted_locked(s, pfns, FC_BACK_MAX_MISSING);
    if (rc == 0 && !wanted) {
        final = s->make_final;
        if (talks && s->sync_wanted > s->sync_put)
            sync = s->sync_put = s->sync_wanted;
        else
            ping = talks && fc_now_ms() - s->put_ms >= PING_MS;
    }
    pthread_mutex_unlock(&s->lock);
    if (rc < 0)
        return rc;
    if (wanted)
        rc = answer_wanted(s, pfns, wanted, pages);
    else if (sync)
        rc = fc_encoder_sync(s->encoder, sync);
    else if (ping)
        rc = fc_encoder_ping(s->encoder);
    if (rc < 0)
        return rc;
    if (final) {
        fc_encoder_final(s->encoder);
        pthread_mutex_lock(&s->lock);
        s->make_final = false;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
    }
    return wanted || sync || ping || final;
}

/* 1: input is there. */
static int idle_until_input(struct fc_sender *s)
{
    pthread_mutex_lock(&s->lock);
    s->idle = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    int r = wait_input(s, PING_MS);
    pthread_mutex_lock(&s->lock);
    s->idle = false;
    pthread_mutex_unlock(&s->lock);
    return r;
}

/*
 * A stream for which nothing could be proposed is plain without a question.
 */
static int note_plain(struct fc_sender *s)
{
    static const char why[] = "the guest is no PVH or HVM guest";
    if (!s->config.session || s->config.session->back_fd < 0 ||
        fc_encoder_mode(s->encoder) != FC_STREAM_IS_PLAIN)
        return 0;
    pthread_mutex_lock(&s->lock);
    bool news = s->mode == FC_STREAM_UNDECIDED;
    if (news)
        s->mode = FC_STREAM_IS_PLAIN;
    if (news && s->config.session->fail_when_plain)
        fc_sender_fail_locked(s, FC_EPEER, why);
    int rc = s->failed;
    pthread_mutex_unlock(&s->lock);
    if (news && rc == 0)
        tell_mode(s, FC_STREAM_IS_PLAIN, why);
    return rc;
}

/* As fc_encoder_step(); 1 also when there was no input. */
static int step_on_input(struct fc_sender *s)
{
    int rc = idle_until_input(s);
    if (rc <= 0)
        return rc < 0 ? rc : 1;
    rc = fc_encoder_step(s->encoder);
    if (rc > 0 && note_plain(s) < 0)
        return FC_ECANCEL;
    return rc;
}

static void *encoder_main(void *user)
{
    struct fc_sender *s = user;
    uint8_t *pages = malloc((size_t)FC_BACK_MAX_MISSING * FC_PAGE_SIZE);
    int rc = pages ? 1 : FC_ENOMEM;
    while (rc > 0) {
        rc = serve(s, pages);
        if (rc == 0)
            rc = step_on_input(s);
    }
    pthread_mutex_lock(&s->lock);
    s->ended = rc == 0;
    s->no_more = true;
    s->idle = true;
    if (rc < 0)
        fc_sender_fail_locked(s, rc, fc_encoder_why(s->encoder));
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    /* libxc must not write to nobody. */
    fc_close(&s->config.in_fd);
    free(pages);
    return NULL;
}

/* ---- for libxc's thread ---- */

static bool pipe_empty(const struct fc_sender *s)
{
    int n = 0;
    return ioctl(s->config.in_fd, FIONREAD, &n) < 0 || n == 0;
}

/* Everything that libxc wrote is encoded, everything asked for is done. */
static bool settled_locked(const struct fc_sender *s)
{
    if (s->no_more)
        return true;
    return s->idle && !s->make_final && s->sync_put == s->sync_wanted &&
           !(s->wanted_held && s->mode == FC_STREAM_PREDICTIVE) &&
           pipe_empty(s);
}

int fc_sender_settle(struct fc_sender *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->failed && !settled_locked(s))
        fc_sender_wait_locked(s, 100);
    int rc = s->failed;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int fc_sender_sync(struct fc_sender *s)
{
    int rc = fc_sender_settle(s);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&s->lock);
    if (s->mode == FC_STREAM_PREDICTIVE) {
        uint64_t id = ++s->sync_wanted;
        fc_sender_wake(s);
        while (!s->failed && s->sync_answered < id)
            fc_sender_wait_locked(s, 100);
    }
    rc = s->failed;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void fc_sender_skip(struct fc_sender *s, bool allowed)
{
    pthread_mutex_lock(&s->peek_lock);
    s->skip_allowed = allowed && s->config.guest;
    s->peeked_ns = 0;
    s->dirty_bits = 0;
    pthread_mutex_unlock(&s->peek_lock);
}

int fc_sender_peek(struct fc_sender *s, uint64_t *dirty_r)
{
    if (!s->config.guest)
        return FC_ENOLOG;
    pthread_mutex_lock(&s->peek_lock);
    int rc = s->peek_broken ? FC_ENOLOG : peek(s, dirty_r);
    s->dirty_bits = 0;
    pthread_mutex_unlock(&s->peek_lock);
    return rc;
}

int fc_sender_final(struct fc_sender *s)
{
    fc_sender_skip(s, false);
    int rc = fc_sender_settle(s);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&s->lock);
    s->make_final = !s->no_more;
    fc_sender_wake(s);
    while (!s->failed && s->make_final)
        fc_sender_wait_locked(s, 100);
    rc = s->failed;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* ---- life ---- */

static int start_thread(struct fc_sender *s, pthread_t *thread,
                        void *(*run)(void *))
{
    errno = pthread_create(thread, NULL, run, s);
    if (errno)
        return FC_ESYS;
    s->threads++;
    return 0;
}

static int init_locks(struct fc_sender *s)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->peek_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return s->wake_fd < 0 || s->stop_fd < 0 ? FC_ESYS : 0;
}

static int init_encoder(struct fc_sender *s)
{
    const struct fc_session *session = s->config.session;
    struct fc_hello hello = { .highest = FC_STREAM_VERSION,
                              .lowest = FC_STREAM_VERSION };
    struct fc_encoder_config ec = { .staged = s->config.staged };
    if (session && session->back_fd >= 0) {
        memcpy(hello.uuid, session->uuid, sizeof(hello.uuid));
        memcpy(hello.token, session->token, sizeof(hello.token));
        hello.epoch = session->epoch;
        s->link_bps = (double)session->link_bps;
        ec.hello = &hello;
    }
    s->encoder = fc_encoder_new(&encoder_ops, s, &ec);
    return s->encoder ? 0 : FC_ENOMEM;
}

int fc_sender_start(const struct fc_sender_config *config,
                    struct fc_sender **sender_r)
{
    struct fc_sender *s = calloc(1, sizeof(*s));
    if (!s) {
        close(config->in_fd);
        return FC_ENOMEM;
    }
    s->config = *config;
    s->put_ms = fc_now_ms();
    int flags = fcntl(config->out_fd, F_GETFL);
    s->out_was_blocking = flags >= 0 && !(flags & O_NONBLOCK);
    int rc = init_locks(s);
    if (rc == 0)
        rc = fc_sender_out_init(s);
    if (rc == 0)
        rc = init_encoder(s);
    if (rc == 0)
        rc = fc_set_nonblock(s->config.in_fd, 1);
    if (rc == 0)
        rc = fc_set_nonblock(s->config.out_fd, 1);
    if (rc == 0)
        rc = start_thread(s, &s->encoder_thread, encoder_main);
    if (rc == 0)
        rc = start_thread(s, &s->writer_thread, fc_sender_writer);
    if (rc == 0 && s->config.session && s->config.session->back_fd >= 0)
        rc = start_thread(s, &s->back_thread, fc_sender_back);
    if (rc < 0) {
        fc_sender_break(s, rc, "threads cannot be started");
        fc_sender_finish(s, false);
        fc_sender_free(s);
        return rc;
    }
    *sender_r = s;
    return 0;
}

int fc_sender_finish(struct fc_sender *s, bool ok)
{
    uint64_t one = 1;
    if (!ok)
        fc_sender_break(s, FC_ECANCEL, "libxc gave up");
    if (s->threads > 0)
        pthread_join(s->encoder_thread, NULL);
    if (s->threads > 1)
        pthread_join(s->writer_thread, NULL);
    if (s->threads > 2) {
        ssize_t r = write(s->stop_fd, &one, sizeof(one));
        (void)r; /* an eventfd at zero takes it */
        pthread_join(s->back_thread, NULL);
    }
    s->threads = 0;
    if (s->out_was_blocking)
        fc_set_nonblock(s->config.out_fd, 0);
    return s->complete ? 0 : s->failed ? s->failed : FC_EEOF;
}

void fc_sender_free(struct fc_sender *s)
{
    if (!s)
        return;
    fc_close(&s->config.in_fd);
    fc_close(&s->wake_fd);
    fc_close(&s->stop_fd);
    fc_encoder_free(s->encoder);
    fc_sender_out_dispose(s);
    free(s->wanted);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->peek_lock);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

enum fc_stream_mode fc_sender_mode(struct fc_sender *s)
{
    pthread_mutex_lock(&s->lock);
    enum fc_stream_mode mode = s->mode;
    pthread_mutex_unlock(&s->lock);
    return mode;
}

void fc_sender_stats_get(struct fc_sender *s, struct fc_sender_stats *out)
{
    const struct fc_encoder_counts *c = fc_encoder_counts(s->encoder);
    *out = (struct fc_sender_stats){
        .raw_bytes = c->raw_bytes,
        .encoded_bytes = c->encoded_bytes,
        .pages_seen = c->pages_seen,
        .zero = c->zero,
        .ref = c->ref,
        .data = c->data,
        .none = c->none,
        .skipped = c->skipped,
        .pulled = c->pulled,
        .data_cost_bytes = c->data_cost_bytes,
        .memory_bytes =
            FC_SENDER_BUFFERS * (uint64_t)FC_ENCODER_ROOM + FC_PAGE_DATA_MAX,
    };
    pthread_mutex_lock(&s->lock);
    out->mode = s->mode;
    out->written = s->written;
    out->acked = s->acked;
    out->link_bps = fc_sender_link_bps_locked(s);
    out->memory_bytes += (uint64_t)s->wanted_cap * sizeof(*s->wanted);
    pthread_mutex_unlock(&s->lock);
}

const char *fc_sender_why(const struct fc_sender *s)
{
    return s->why;
}
