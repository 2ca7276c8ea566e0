/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One outgoing live migration.
 *
 * libxc calls the policy before each round with the number of pages that it
 * will send (the log has just been cleaned), and after each round with -1 (the
 * log is about to be cleaned). Whatever the first call answers, libxc sends
 * the round; so rounds are ended in the second.
 *
 * Before a round the guest is watched until it dirties little (hold.h).
 *
 * The second call waits until all of the round has been encoded, turns
 * skipping off, peeks at the dirty log and asks fc_policy_decide(). When that
 * says stop, the receiver is synced first (nothing queued, nothing missing)
 * and the question asked once more with what is dirty then.
 *
 * A plain stream follows libxc's own rule. So does a predictive one whose
 * dirty log cannot be peeked at.
 *
 * Abort and the suspend exclude each other by `phase`, under the lock: an
 * abort before FC_PHASE_STOP breaks the stream, so libxc fails at its next
 * write and never suspends; one after it is refused.
 */
#include "precopy.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "err.h"
#include "hold.h"
#include "io.h"
#include "log.h"
#include "status.h"

#define PROGRESS_MS 400
#define MIN_ROUND_PAGES 256u /* for a rate of the path */
#define PEEK_SHARE 20u   /* a watched guest runs at least 95 % of the time */
#define HOLD_LOOK_MS 30u /* between two looks before a round, at least */
#define WHY_BYTES 384

struct fc_precopy {
    struct fc_precopy_config config;
    struct fc_policy_limits limits;
    struct fc_policy policy;
    struct fc_sender *sender;
    pthread_t monitor;
    bool monitoring, status_closed;
    int stop_fd; /* eventfd: the monitor is to end */
    uint64_t start_ms;

    pthread_mutex_t lock; /* for what the monitor shows or sets */
    enum fc_phase phase;
    bool abort_wanted;
    char abort_why[WHY_BYTES];
    uint64_t round, round_start_ms, round_pages, round_base, total_pages;
    uint64_t dirty_pages, dirty_rate_pps, estimate_ms;
    uint64_t mode_ms; /* when the mode was decided */
    bool have_dirty;

    /* libxc's thread only */
    uint64_t pages_ps, round_ms, hold_ms, round_sent_base;
    uint64_t first_ms, first_pages, first_bytes; /* round 1 */
    uint64_t later_ms, later_pages, later_bytes; /* those after it */
    uint64_t stop_bytes; /* of the stream, when the guest was to stop */
    uint64_t sync_ms, suspend_ms, suspended_ms, finish_ms, peek_ms;
    bool peek_failed;
    const char *reason;
    char why[WHY_BYTES];
};

static uint64_t since_start(const struct fc_precopy *p)
{
    return fc_now_ms() - p->start_ms;
}

static bool abort_wanted(struct fc_precopy *p)
{
    pthread_mutex_lock(&p->lock);
    bool wanted = p->abort_wanted;
    pthread_mutex_unlock(&p->lock);
    return wanted;
}

/* The user's wish, or a decision that stands for it. */
static bool want_abort(struct fc_precopy *p, const char *why)
{
    pthread_mutex_lock(&p->lock);
    bool in_time = p->phase < FC_PHASE_STOP;
    if (in_time && !p->abort_wanted) {
        p->abort_wanted = true;
        snprintf(p->abort_why, sizeof(p->abort_why), "%s", why);
    }
    pthread_mutex_unlock(&p->lock);
    return in_time;
}

bool fc_precopy_abort(struct fc_precopy *p, const char *why)
{
    bool in_time = want_abort(p, why);
    if (in_time)
        fc_sender_break(p->sender, FC_ECANCEL, why);
    else
        fc_warn("forecopy: too late to abort, the guest is stopped");
    return in_time;
}

void fc_precopy_terminate(struct fc_precopy *p)
{
    static const char why[] = "libxl ended the migration";
    if (want_abort(p, why))
        fc_sender_break(p->sender, FC_ECANCEL, why);
    else
        fc_sender_break(p->sender, FC_ECANCEL,
                        "libxl ended the migration after the suspend");
}

/* ---- the policy ---- */

/* Not counting what the physical map has no page for. */
static uint64_t pages_sent(const struct fc_sender_stats *st)
{
    return st->data + st->zero + st->ref;
}

static void begin_round(struct fc_precopy *p, unsigned iteration,
                        long dirty_count)
{
    struct fc_sender_stats st;
    fc_sender_stats_get(p->sender, &st);
    p->round_sent_base = pages_sent(&st);
    pthread_mutex_lock(&p->lock);
    p->round_start_ms = fc_now_ms();
    p->phase = p->phase < FC_PHASE_PRECOPY ? FC_PHASE_PRECOPY : p->phase;
    p->round = iteration + 1;
    p->round_pages = dirty_count > 0 ? (uint64_t)dirty_count : 0;
    p->round_base = st.pages_seen;
    if (iteration == 0)
        p->total_pages = p->round_pages;
    pthread_mutex_unlock(&p->lock);
}

static void end_round(struct fc_precopy *p)
{
    struct fc_sender_stats st;
    fc_sender_stats_get(p->sender, &st);
    uint64_t ms = fc_now_ms() - p->round_start_ms;
    uint64_t pages = pages_sent(&st) - p->round_sent_base;
    p->round_ms = ms;
    if (p->round == 1) {
        p->first_ms = ms;
        p->first_pages = pages_sent(&st) + st.skipped;
        p->first_bytes = st.encoded_bytes;
    } else {
        p->later_ms += ms > p->hold_ms ? ms - p->hold_ms : 0;
        p->later_pages = pages_sent(&st) + st.skipped - p->first_pages;
        p->later_bytes = st.encoded_bytes - p->first_bytes;
    }
    /* a poor rate is better than none: without any, no downtime would be long
     */
    if (pages >= MIN_ROUND_PAGES || !p->pages_ps)
        p->pages_ps = pages * 1000 / (ms > p->hold_ms ? ms - p->hold_ms : 1);
}

static void pause_ms(uint64_t ms)
{
    struct timespec ts = { .tv_sec = (time_t)(ms / 1000),
                           .tv_nsec = (long)(ms % 1000) * 1000000 };
    nanosleep(&ts, NULL);
}

static int timed_peek(struct fc_precopy *p, uint64_t *dirty_r)
{
    uint64_t start = fc_now_ms();
    int rc = fc_sender_peek(p->sender, dirty_r);
    p->peek_ms = fc_now_ms() - start;
    return rc;
}

/* So that peeking stops the guest for its share of the time only. */
static void pause_to_look(const struct fc_precopy *p, uint64_t ms)
{
    uint64_t share_ms = p->peek_ms * PEEK_SHARE;
    pause_ms(ms > share_ms ? ms : share_ms);
}

/* Pages a second that can be sent; 0: not known. */
static uint64_t send_rate(const struct fc_precopy *p)
{
    struct fc_sender_stats st;
    fc_sender_stats_get(p->sender, &st);
    uint64_t link = st.data_cost_bytes ? st.link_bps / st.data_cost_bytes : 0;
    if (!link || !p->pages_ps)
        return link ? link : p->pages_ps;
    return link < p->pages_ps ? link : p->pages_ps;
}

static void hold_round(struct fc_precopy *p)
{
    struct fc_hold hold;
    uint64_t start = fc_now_ms(), dirty;
    bool more = fc_hold_begin(&hold, send_rate(p), p->round_pages, start);
    while (more && !abort_wanted(p)) {
        pause_to_look(p, HOLD_LOOK_MS);
        more = timed_peek(p, &dirty) == 0 &&
               fc_hold_more(&hold, dirty, fc_now_ms());
    }
    p->hold_ms = fc_now_ms() - start;
}

static int look(struct fc_precopy *p, struct fc_policy_input *in)
{
    struct fc_sender_stats st;
    int rc = timed_peek(p, &in->dirty_pages);
    if (rc < 0)
        return rc;
    fc_sender_stats_get(p->sender, &st);
    uint64_t ms = fc_now_ms() - p->round_start_ms;
    in->now_ms = since_start(p);
    in->round_ms = p->round_ms;
    in->page_bytes = st.data_cost_bytes;
    in->link_bps = st.link_bps;
    in->pages_ps = p->pages_ps;
    in->abort_wanted = abort_wanted(p);
    pthread_mutex_lock(&p->lock);
    p->have_dirty = true;
    p->dirty_pages = in->dirty_pages;
    p->dirty_rate_pps = in->dirty_pages * 1000 / (ms ? ms : 1);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static int timed_sync(struct fc_precopy *p)
{
    uint64_t start = fc_now_ms();
    int rc = fc_sender_sync(p->sender);
    p->sync_ms += fc_now_ms() - start;
    return rc;
}

/* libxc's rule, within the session's deadline. */
static enum fc_policy_action decide_plain(struct fc_precopy *p,
                                          unsigned iteration, long dirty_count)
{
    if (p->limits.deadline_ms && since_start(p) >= p->limits.deadline_ms &&
        iteration > 0) {
        p->reason = "the deadline has passed";
        return p->limits.abort_at_deadline ? FC_POLICY_ABORT : FC_POLICY_STOP;
    }
    p->reason = "libxc's own rule";
    return fc_policy_stock(iteration, dirty_count);
}

/* 0 with a decision that is never WAIT, or the error that ended the stream. */
static int decide(struct fc_precopy *p, unsigned iteration,
                  enum fc_policy_action *action_r)
{
    struct fc_policy_input in = { .rounds = iteration };
    struct fc_policy_output out;
    for (;;) {
        if (look(p, &in) < 0) {
            p->peek_failed = true;
            *action_r = decide_plain(p, iteration, -1);
            return 0;
        }
        fc_policy_decide(&p->policy, &p->limits, &in, &out);
        pthread_mutex_lock(&p->lock);
        p->estimate_ms = out.estimate_ms;
        pthread_mutex_unlock(&p->lock);
        p->reason = out.reason;
        if (out.action == FC_POLICY_WAIT) {
            pause_to_look(p, out.wait_ms);
            continue;
        }
        *action_r = out.action;
        if (out.action != FC_POLICY_STOP || in.decided_stop)
            return 0;
        int rc = timed_sync(p);
        if (rc < 0)
            return rc;
        in.decided_stop = true;
    }
}

static enum fc_policy_action after_round(struct fc_precopy *p,
                                         unsigned iteration)
{
    enum fc_policy_action action;
    if (fc_sender_settle(p->sender) < 0)
        return FC_POLICY_ABORT;
    fc_sender_skip(p->sender, false);
    end_round(p);
    if (abort_wanted(p))
        return FC_POLICY_ABORT;
    if (fc_sender_mode(p->sender) != FC_STREAM_PREDICTIVE || p->peek_failed)
        action = decide_plain(p, iteration, -1);
    else if (decide(p, iteration, &action) < 0)
        return FC_POLICY_ABORT;
    fc_debug("forecopy: round %u: held back for %llu of %llu ms; %llu pages "
             "dirty, %llu ms estimated: %s",
             iteration, (unsigned long long)p->hold_ms,
             (unsigned long long)p->round_ms,
             (unsigned long long)p->dirty_pages,
             (unsigned long long)p->estimate_ms, p->reason);
    if (action == FC_POLICY_ABORT)
        want_abort(p, p->reason);
    return action;
}

enum fc_policy_action fc_precopy_policy(struct fc_precopy *p,
                                        unsigned iteration, long dirty_count)
{
    if (dirty_count < 0)
        return after_round(p, iteration);
    if (abort_wanted(p))
        return FC_POLICY_ABORT;
    begin_round(p, iteration, dirty_count);
    if (fc_sender_mode(p->sender) == FC_STREAM_PREDICTIVE && !p->peek_failed)
        hold_round(p);
    fc_sender_skip(p->sender, true);
    if (fc_sender_mode(p->sender) == FC_STREAM_IS_PLAIN || p->peek_failed)
        return decide_plain(p, iteration, dirty_count);
    return FC_POLICY_CONTINUE;
}

/* ---- the stop ---- */

int fc_precopy_before_suspend(struct fc_precopy *p)
{
    fc_sender_skip(p->sender, false);
    int rc = timed_sync(p);
    if (rc == 0)
        rc = fc_sender_final(p->sender);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&p->lock);
    if (p->abort_wanted)
        rc = FC_ECANCEL;
    else
        p->phase = FC_PHASE_STOP;
    pthread_mutex_unlock(&p->lock);
    struct fc_sender_stats st;
    fc_sender_stats_get(p->sender, &st);
    p->stop_bytes = st.encoded_bytes;
    p->suspend_ms = fc_now_ms();
    return rc;
}

void fc_precopy_suspended(struct fc_precopy *p)
{
    p->suspended_ms = fc_now_ms();
    fc_status_suspended(p->config.session->status_fd);
}

/* ---- what the front end sees ---- */

/* `seen_ms` and `seen_bytes`: when this was last told, and the bytes then. */
static void tell_progress(struct fc_precopy *p, uint64_t *seen_ms,
                          uint64_t *seen_bytes)
{
    struct fc_sender_stats st;
    fc_sender_stats_get(p->sender, &st);
    uint64_t now = fc_now_ms(), ms = now - *seen_ms;
    pthread_mutex_lock(&p->lock);
    uint64_t done = st.pages_seen - p->round_base;
    struct fc_progress e = {
        .phase = p->phase,
        .round = p->round,
        .pages_left = done < p->round_pages ? p->round_pages - done : 0,
        .pages_total = p->total_pages,
        .bytes_sent = st.written,
        .rate_bps = (st.written - *seen_bytes) * 1000 / (ms ? ms : 1),
        .dirty_pages = p->dirty_pages,
        .dirty_rate_pps = p->dirty_rate_pps,
        .have_downtime = p->have_dirty,
        .downtime_estimate_ms = p->estimate_ms,
    };
    uint64_t round_ms = now - p->round_start_ms;
    pthread_mutex_unlock(&p->lock);
    if (done && e.phase == FC_PHASE_PRECOPY) {
        e.have_eta = true;
        e.eta_ms = e.pages_left * round_ms / done;
    }
    *seen_ms = now;
    *seen_bytes = st.written;
    fc_status_progress(p->config.session->status_fd, &e);
}

static void *monitor_main(void *user)
{
    struct fc_precopy *p = user;
    uint64_t seen_ms = fc_now_ms(), seen_bytes = 0;
    struct pollfd fds[3] = {
        { .fd = p->stop_fd, .events = POLLIN },
        { .fd = p->config.session->status_fd, .events = POLLIN },
        { .fd = p->config.term_fd, .events = POLLIN },
    };
    for (;;) {
        int n = poll(fds, 3, PROGRESS_MS);
        if (n > 0 && fds[0].revents)
            return NULL;
        if (n > 0 && fds[2].revents) {
            fc_precopy_terminate(p);
            fds[2].fd = -1;
        }
        if (n > 0 && fds[1].revents) {
            bool closed = false;
            if (fc_status_abort_wanted(fds[1].fd, &closed))
                fc_precopy_abort(p, "aborted by the user");
            if (closed)
                fds[1].fd = -1;
        }
        if (fc_now_ms() - seen_ms >= PROGRESS_MS)
            tell_progress(p, &seen_ms, &seen_bytes);
    }
}

static void on_mode(void *user, enum fc_stream_mode mode, const char *why)
{
    struct fc_precopy *p = user;
    bool predictive = mode == FC_STREAM_PREDICTIVE;
    pthread_mutex_lock(&p->lock);
    p->mode_ms = fc_now_ms();
    pthread_mutex_unlock(&p->lock);
    if (!predictive)
        fc_warn("forecopy: %s; migrating plainly", why);
    fc_status_mode(p->config.session->status_fd, predictive, why);
}

static enum fc_fault fault_of(const struct fc_precopy *p, int rc)
{
    if (p->abort_wanted)
        return FC_FAULT_USER;
    switch (rc) {
    case FC_ECANCEL:
        return FC_FAULT_GUEST;
    case FC_EPEER:
    case FC_ETIMEOUT:
    case FC_EFORMAT:
    case FC_ELIMIT:
    case FC_EVERSION:
        return FC_FAULT_PEER;
    case FC_EIO:
    case FC_EEOF:
        return FC_FAULT_STREAM;
    default:
        return FC_FAULT_OURS;
    }
}

static void tell_summary(struct fc_precopy *p, bool success)
{
    struct fc_sender_stats st;
    fc_sender_stats_get(p->sender, &st);
    bool predictive = st.mode == FC_STREAM_PREDICTIVE;
    uint64_t stop_ms = p->suspend_ms ? p->suspend_ms : p->finish_ms;
    struct fc_summary s = {
        .success = success,
        .mode = predictive ? "predictive" : "plain",
        .reason = p->reason,
        .rounds = p->round,
        .total_ms = p->finish_ms - p->start_ms,
        .precopy_ms = stop_ms - p->start_ms,
        .sync_ms = p->sync_ms,
        .downtime_ms = p->finish_ms - stop_ms,
        .downtime_estimate_ms = p->estimate_ms,
        .dirty_at_stop = p->dirty_pages,
        .dirty_rate_pps = p->dirty_rate_pps,
        .bytes_sent = st.written,
        .bytes_plain = st.raw_bytes,
        .suspend_ms = p->suspended_ms ? p->suspended_ms - p->suspend_ms : 0,
        .final_bytes = p->suspend_ms ? st.encoded_bytes - p->stop_bytes : 0,
        .first_round_ms = p->first_ms,
        .first_round_pages = p->first_pages,
        .first_round_bytes = p->first_bytes,
        .later_rounds_ms = p->later_ms,
        .later_rounds_pages = p->later_pages,
        .later_rounds_bytes = p->later_bytes,
        .encoded_bytes = st.encoded_bytes,
        .link_bps = st.link_bps,
        .memory_bytes = st.memory_bytes,
        .data_pages = st.data,
        .zero_pages = st.zero,
        .reference_pages = st.ref,
        .skipped_pages = st.skipped,
        .pulled_pages = st.pulled,
    };
    /*
     * The end is not waited for, because libxl would wait with us: what is
     * under way arrives at the link's rate.
     */
    if (predictive && st.link_bps)
        s.downtime_ms += (st.written - st.acked) * 1000 / st.link_bps;
    fc_status_summary(p->config.session->status_fd, &s);
}

static void stop_monitor(struct fc_precopy *p)
{
    uint64_t one = 1;
    if (!p->monitoring)
        return;
    ssize_t n = write(p->stop_fd, &one, sizeof(one));
    (void)n; /* an eventfd at zero takes it */
    pthread_join(p->monitor, NULL);
    p->monitoring = false;
}

int fc_precopy_finish(struct fc_precopy *p, bool saved, int *pipe_fd)
{
    int status_fd = p->config.session->status_fd;
    if (!saved)
        fc_sender_break(p->sender, FC_ECANCEL,
                        "libxc could not save the guest");
    fc_close(pipe_fd);
    int rc = fc_sender_finish(p->sender, saved);
    p->finish_ms = fc_now_ms();
    stop_monitor(p);
    bool success = saved && rc == 0;
    p->phase = success ? FC_PHASE_DONE : FC_PHASE_FAILED;
    if (!success) {
        const char *why =
            p->abort_wanted ? p->abort_why : fc_sender_why(p->sender);
        snprintf(p->why, sizeof(p->why), "%s", why);
        fc_status_failed(status_fd, fault_of(p, rc), p->why);
    }
    tell_summary(p, success);
    return success ? 0 : rc < 0 ? rc : FC_ECANCEL;
}

/* ---- life ---- */

int fc_precopy_start(const struct fc_precopy_config *config,
                     struct fc_precopy **precopy_r)
{
    struct fc_precopy *p = calloc(1, sizeof(*p));
    if (!p) {
        close(config->in_fd);
        return FC_ENOMEM;
    }
    const struct fc_session *session = config->session;
    p->config = *config;
    p->start_ms = p->round_start_ms = fc_now_ms();
    p->reason = "";
    p->limits = (struct fc_policy_limits){
        .max_downtime_ms = session->max_downtime_ms,
        .fixed_ms = session->fixed_ms,
        .max_rounds = session->max_rounds,
        .deadline_ms = (uint64_t)session->deadline_s * 1000,
        .abort_at_deadline = session->abort_at_deadline,
        .floor_pages = session->floor_pages,
    };
    struct fc_sender_config sc = {
        .in_fd = config->in_fd,
        .out_fd = config->out_fd,
        .session = session,
        .staged = config->staged,
        .guest = config->guest,
        .guest_user = config->guest_user,
        .mode = on_mode,
        .user = p,
    };
    pthread_mutex_init(&p->lock, NULL);
    p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = fc_sender_start(&sc, &p->sender);
    if (rc == 0 && p->stop_fd < 0)
        rc = FC_ESYS;
    if (rc == 0) {
        errno = pthread_create(&p->monitor, NULL, monitor_main, p);
        p->monitoring = !errno;
        rc = errno ? FC_ESYS : 0;
    }
    if (rc < 0) {
        if (p->sender)
            fc_sender_finish(p->sender, false);
        fc_precopy_free(p);
        return rc;
    }
    *precopy_r = p;
    return 0;
}

void fc_precopy_free(struct fc_precopy *p)
{
    if (!p)
        return;
    stop_monitor(p);
    fc_sender_free(p->sender);
    fc_close(&p->stop_fd);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

const char *fc_precopy_why(const struct fc_precopy *p)
{
    return p->why;
}
