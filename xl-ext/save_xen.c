/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The saving helper.
 *
 * Without a session, for a save that is not live, and for checkpointed streams
 * (remus, colo) libxc gets libxl's own file descriptor: nothing of ours is in
 * the way, and a SIGTERM is handled as Xen's helper does, by putting an
 * unwritable descriptor in its place so that libxc fails and tidies up. A
 * session that cannot be used has the same effect and one line that says why.
 *
 * With a session, libxc writes into a pipe and struct fc_precopy does the rest.
 * SIGTERM then makes an eventfd readable that fc_precopy watches.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenguest.h>

#include "err.h"
#include "guest_xen.h"
#include "hashset.h"
#include "helper_xen.h"
#include "io.h"
#include "log.h"
#include "precopy.h"

struct save {
    struct fc_helper helper; /* first */
    struct fc_session session;
    struct fc_hashset staged;
    bool have_staged;
    struct fc_guest_xen *guest;
    struct fc_precopy *precopy; /* NULL: libxc writes to io_fd */
    int pipe_fd;                /* what libxc writes to then */
    int term_fd;
};

/* What the signal handler may use; set before the handler is. */
static volatile sig_atomic_t term_target_fd = -1, term_source_fd = -1;
static volatile sig_atomic_t term_event_fd = -1;

static void on_sigterm_direct(int sig)
{
    int saved = errno;
    (void)sig;
    if (dup2(term_source_fd, term_target_fd) < 0)
        abort();
    errno = saved;
}

static void on_sigterm_event(int sig)
{
    int saved = errno;
    uint64_t one = 1;
    (void)sig;
    ssize_t n = write(term_event_fd, &one, sizeof(one));
    (void)n;
    errno = saved;
}

static void set_handler(int sig, void (*handler)(int))
{
    struct sigaction sa = { .sa_handler = handler };
    sigset_t set;
    sigemptyset(&sa.sa_mask);
    sigaction(sig, &sa, NULL);
    sigemptyset(&set);
    sigaddset(&set, sig);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- libxc's callbacks ---- */

static int on_suspend(void *data)
{
    struct save *s = data;
    if (s->precopy && fc_precopy_before_suspend(s->precopy) < 0)
        return 0;
    int reply = fc_libxl_call(s->helper.libxl, FC_LIBXL_SUSPEND);
    if (s->precopy && reply)
        fc_precopy_suspended(s->precopy);
    return reply;
}

static int on_switch_qemu_logdirty(uint32_t domid, unsigned enable, void *data)
{
    struct save *s = data;
    return fc_libxl_switch_qemu_logdirty(s->helper.libxl, domid, enable);
}

static int on_policy(struct precopy_stats stats, void *data)
{
    struct save *s = data;
    switch (fc_precopy_policy(s->precopy, stats.iteration, stats.dirty_count)) {
    case FC_POLICY_STOP:
        return XGS_POLICY_STOP_AND_COPY;
    case FC_POLICY_ABORT:
        return XGS_POLICY_ABORT;
    default:
        return XGS_POLICY_CONTINUE_PRECOPY;
    }
}

static void set_callbacks(struct save *s, struct save_callbacks *cb)
{
    const struct fc_helper *h = &s->helper;
    unsigned flags = h->args->cbflags;
    *cb = (struct save_callbacks){
        .data = s,
        .postcopy = fc_helper_callback(h, FC_LIBXL_POSTCOPY),
        .checkpoint = fc_helper_callback(h, FC_LIBXL_CHECKPOINT),
        .wait_checkpoint = fc_helper_callback(h, FC_LIBXL_WAIT_CHECKPOINT),
    };
    if (fc_libxl_wants(flags, FC_LIBXL_SUSPEND))
        cb->suspend = on_suspend;
    if (fc_libxl_wants(flags, FC_LIBXL_SWITCH_QEMU_LOGDIRTY))
        cb->switch_qemu_logdirty = on_switch_qemu_logdirty;
    if (s->precopy)
        cb->precopy_policy = on_policy;
}

/* ---- the session ---- */

static void check_fd(int *fd, const char *name)
{
    if (*fd < 0 || fcntl(*fd, F_GETFD) >= 0)
        return;
    fc_warn("forecopy: %s %d is not open", name, *fd);
    *fd = -1;
}

/* 1: there is one; 0: none that is for us. */
static int read_session(struct save *s)
{
    char why[160];
    const char *text = getenv(FC_SESSION_ENV);
    if (!text || !(s->helper.args->flags & XCFLAGS_LIVE) ||
        s->helper.args->stream_type)
        return 0;
    if (fc_session_parse(text, &s->session, why, sizeof(why)) < 0) {
        fc_warn("forecopy: " FC_SESSION_ENV ": %s; migrating plainly", why);
        return 0;
    }
    check_fd(&s->session.back_fd, "back_fd");
    check_fd(&s->session.status_fd, "status_fd");
    check_fd(&s->session.staged_fd, "staged_fd");
    return 1;
}

static void map_staged(struct save *s)
{
    if (s->session.staged_fd < 0)
        return;
    int rc = fc_hashset_map(&s->staged, s->session.staged_fd);
    s->have_staged = rc == 0;
    if (rc < 0)
        fc_warn("forecopy: the set of staged pages cannot be used: %s",
                fc_strerror(rc));
}

static int start_precopy(struct save *s)
{
    int fds[2];
    int rc = fc_guest_xen_open(s->helper.args->domid, &s->guest);
    if (rc < 0)
        return rc;
    s->term_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->term_fd < 0)
        return FC_ESYS;
    rc = fc_helper_pipe(fds);
    if (rc < 0)
        return rc;
    map_staged(s);
    struct fc_precopy_config c = {
        .in_fd = fds[0],
        .out_fd = s->helper.args->io_fd,
        .term_fd = s->term_fd,
        .session = &s->session,
        .staged = s->have_staged ? &s->staged : NULL,
        .guest = &fc_guest_xen_ops,
        .guest_user = s->guest,
    };
    rc = fc_precopy_start(&c, &s->precopy);
    if (rc < 0) {
        s->precopy = NULL;
        close(fds[1]);
        return rc;
    }
    s->pipe_fd = fds[1];
    return 0;
}

/* 0, also when the save goes on as Xen's own; an error when it may not. */
static int prepare(struct save *s)
{
    int rc = read_session(s) ? start_precopy(s) : 0;
    if (rc < 0) {
        fc_warn("forecopy: cannot set up: %s (%s); %s", fc_strerror(rc),
                strerror(errno),
                s->session.fail_when_plain ? "giving up" : "migrating plainly");
        if (s->session.fail_when_plain)
            return rc;
    }
    if (s->precopy) {
        signal(SIGINT, SIG_IGN); /* the front end says what it means */
        signal(SIGPIPE, SIG_IGN);
        term_event_fd = s->term_fd;
        set_handler(SIGTERM, on_sigterm_event);
        return 0;
    }
    term_source_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    term_target_fd = s->helper.args->io_fd;
    set_handler(SIGTERM, on_sigterm_direct);
    return 0;
}

static int save_domain(struct save *s)
{
    const struct fc_helper_args *a = s->helper.args;
    struct save_callbacks cb;
    set_callbacks(s, &cb);
    int r = xc_domain_save(s->helper.xch, s->precopy ? s->pipe_fd : a->io_fd,
                           a->domid, a->flags, &cb,
                           (xc_stream_type_t)a->stream_type, a->back_fd);
    int saved = errno;
    if (s->precopy && fc_precopy_finish(s->precopy, r == 0, &s->pipe_fd) < 0) {
        fc_error("forecopy: %s", fc_precopy_why(s->precopy));
        fc_guest_xen_log_off(s->guest);
        if (r == 0)
            saved = EIO;
        r = -1;
    }
    errno = saved;
    return r;
}

static void dispose(struct save *s)
{
    set_handler(SIGTERM, SIG_IGN);
    fc_precopy_free(s->precopy);
    if (s->have_staged)
        fc_hashset_dispose(&s->staged);
    fc_guest_xen_free(s->guest);
    fc_close(&s->pipe_fd);
    fc_close(&s->term_fd);
}

int fc_helper_save(const struct fc_helper_args *args, struct fc_libxl *libxl)
{
    struct save s = { .staged = { .fd = -1 }, .pipe_fd = -1, .term_fd = -1 };
    if (fc_helper_open(&s.helper, args, libxl) < 0)
        return 255;
    int r = -1;
    if (prepare(&s) == 0)
        r = save_domain(&s);
    int errnoval = errno;
    dispose(&s);
    return fc_helper_finish(&s.helper, r, errnoval);
}
