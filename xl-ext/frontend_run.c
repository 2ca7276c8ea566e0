/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "frontend_report.h"
#include "frontend_run.h"
#include "io.h"
#include "procscan.h"

/*
 * The supervisor.
 *
 * A ^C reaches the whole process group. Stock xl dies of it wherever it is,
 * between the suspend and the hand-over too, which leaves a suspended guest
 * behind. So xl and all it starts ignore these signals, and they are ours:
 *
 *   nothing heard of the helper yet   xl is shaking hands with the receiver,
 *                                     or asking for a password, and has not
 *                                     touched the guest: the transport is
 *                                     ended, and xl fails by itself
 *   helper heard of, guest running    `abort` on the status socket
 *   guest suspended                   too late; said so, and nothing done
 *
 * The group stays shared, for ssh must be able to read from the terminal. The
 * status socket's end says nothing: xl has copies of every descriptor.
 *
 * Progress leaves the cursor in the first column, so that a line of xl's own
 * overwrites it.
 */

#define EVENT_BYTES 4096
#define TICK_MS 250
#define DEFAULT_COLUMNS 80
#define TRANSPORT "forecopy-transport"

/* How long the transport has to end when asked; it may be waiting for a remote
 * command. */
#define TRANSPORT_GRACE_MS 5000

static const int stop_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
#define STOP_SIGNALS (sizeof(stop_signals) / sizeof(stop_signals[0]))

struct state {
    struct fc_front_run *run;
    pid_t pid;
    int signal_fd;
    bool status_open, drawn;
    uint64_t stop_ms; /* when the first interrupt came; 0: none */
    bool abort_sent;  /* since the helper was heard of */
};

static void progress_clear(struct state *st)
{
    if (st->drawn)
        fputs("\r\033[K", stderr);
    st->drawn = false;
}

static void say(struct state *st, const char *text)
{
    progress_clear(st);
    fprintf(stderr, "forecopy: %s\n", text);
}

static void progress_draw(struct state *st, struct json_object *event)
{
    struct winsize size = { 0 };
    char line[512];

    if (!st->run->tty)
        return;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || size.ws_col < 2)
        size.ws_col = DEFAULT_COLUMNS;
    fc_front_progress(event, size.ws_col - 1u, line, sizeof(line));
    fprintf(stderr, "\r%s\033[K\r", line);
    st->drawn = true;
}

static void copy_text(char *out, size_t size, struct json_object *event,
                      const char *key)
{
    snprintf(out, size, "%s", fc_json_str(event, key, ""));
    fc_front_scrub(out);
}

static void take_event(struct fc_front_run *run, struct json_object *event)
{
    const char *name = fc_json_str(event, "event", "");

    run->connected = true;
    if (!strcmp(name, "suspended")) {
        if (!run->suspended)
            run->suspended_ms = fc_now_ms();
        run->suspended = true;
    } else if (!strcmp(name, "mode")) {
        copy_text(run->mode, sizeof(run->mode), event, "mode");
        copy_text(run->reason, sizeof(run->reason), event, "reason");
    } else if (!strcmp(name, "failed")) {
        copy_text(run->fault, sizeof(run->fault), event, "fault");
        copy_text(run->reason, sizeof(run->reason), event, "reason");
    } else if (!strcmp(name, "summary")) {
        json_object_put(run->summary);
        run->summary = json_object_get(event);
    }
}

/* What the user sees of an event that was taken. */
static void show_event(struct state *st, struct json_object *event,
                       bool was_suspended)
{
    struct fc_front_run *run = st->run;
    const char *name = fc_json_str(event, "event", "");
    char line[FC_FRONT_REASON + 64];

    if (!strcmp(name, "progress")) {
        progress_draw(st, event);
    } else if (!strcmp(name, "mode") && !strcmp(run->mode, "plain")) {
        snprintf(line, sizeof(line), "going on as a plain migration: %s",
                 run->reason);
        say(st, line);
    } else if (!strcmp(name, "failed")) {
        say(st, run->reason[0] ? run->reason : "the save helper failed");
    } else if (!strcmp(name, "suspended") && !was_suspended &&
               run->interrupted) {
        run->interrupted = false;
        say(st, "too late to stop: the guest is suspended, the hand-over "
                "is being finished");
    }
}

static void read_status(struct state *st)
{
    char text[EVENT_BYTES + 1];

    while (st->status_open) {
        ssize_t r = recv(st->run->status_fd, text, sizeof(text), MSG_DONTWAIT);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (r <= 0) {
            st->status_open = false;
            return;
        }
        const char *why;
        struct json_object *event = fc_ctl_parse(text, (size_t)r, &why);
        if (!event)
            continue;
        bool was_suspended = st->run->suspended;
        take_event(st->run, event);
        show_event(st, event, was_suspended);
        json_object_put(event);
    }
}

static void send_abort(struct state *st)
{
    if (st->status_open)
        send(st->run->status_fd, "abort", 5, MSG_DONTWAIT | MSG_NOSIGNAL);
    st->abort_sent = st->run->connected;
}

/* Ends the transport; only while no helper is there that could have suspended
 * the guest. It ignores the usual signals, see there. */
static void end_transport(struct state *st)
{
    if (fc_procscan_saver("/proc", st->run->domid) != 0)
        return;
    pid_t pid = fc_procscan_child("/proc", st->pid, TRANSPORT);
    if (pid > 0)
        kill(pid, fc_now_ms() - st->stop_ms < TRANSPORT_GRACE_MS ? SIGALRM
                                                                 : SIGKILL);
}

static void on_stop_signal(struct state *st)
{
    struct fc_front_run *run = st->run;

    if (run->suspended) {
        say(st, "too late to stop: the guest is suspended, the hand-over "
                "is being finished");
        return;
    }
    run->interrupted = true;
    if (!st->stop_ms)
        st->stop_ms = fc_now_ms();
    say(st, "stopping; the guest goes on here");
    send_abort(st);
}

/* An interrupt may come before there is a transport or a helper to tell. */
static void pursue_stop(struct state *st)
{
    if (!st->stop_ms || st->run->suspended)
        return;
    if (!st->run->connected)
        end_transport(st);
    else if (!st->abort_sent)
        send_abort(st);
}

static void read_signals(struct state *st)
{
    struct signalfd_siginfo info;
    while (read(st->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGCHLD)
            on_stop_signal(st);
    }
}

/* A ^C that came when all was over must not end us before the report. */
static void forget_signals(struct state *st)
{
    struct signalfd_siginfo info;
    while (read(st->signal_fd, &info, sizeof(info)) > 0)
        ;
}

static void become_xl(const struct fc_front_run *run, const sigset_t *mask)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };

    for (unsigned i = 0; i < STOP_SIGNALS; i++)
        sigaction(stop_signals[i], &ignore, NULL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    for (unsigned i = 0; i < run->ninherit; i++)
        fc_set_cloexec(run->inherit[i], 0);
    if (setenv("FORECOPY_SESSION", run->session, 1) ||
        setenv("LIBXL_SAVE_HELPER", run->helper, 1) ||
        (run->disks ? setenv("FORECOPY_DISK_MIGRATION", run->disks, 1)
                    : unsetenv("FORECOPY_DISK_MIGRATION")))
        _exit(126);
    execv(run->xl, (char *const *)run->argv);

    int status = errno == ENOENT ? 127 : 126;
    fprintf(stderr, "forecopy: cannot run Xen's xl (%s): %s\n", run->xl,
            strerror(errno));
    _exit(status);
}

static void loop(struct state *st)
{
    struct pollfd fds[2] = {
        { .fd = st->signal_fd, .events = POLLIN },
        { .fd = st->run->status_fd, .events = POLLIN },
    };

    for (;;) {
        fds[1].fd = st->status_open ? st->run->status_fd : -1;
        if (poll(fds, 2, TICK_MS) < 0 && errno != EINTR)
            usleep(TICK_MS * 1000);
        read_status(st);
        read_signals(st);
        pursue_stop(st);
        pid_t got = waitpid(st->pid, &st->run->wait_status, WNOHANG);
        if (got == st->pid)
            break;
    }
    read_status(st);
    progress_clear(st);
    st->run->ended_ms = fc_now_ms();
}

void fc_front_stop_signals(sigset_t *set)
{
    sigemptyset(set);
    for (unsigned i = 0; i < STOP_SIGNALS; i++) {
        struct sigaction now;
        if (!sigaction(stop_signals[i], NULL, &now) &&
            now.sa_handler != SIG_IGN)
            sigaddset(set, stop_signals[i]);
    }
}

int fc_front_run(struct fc_front_run *run)
{
    struct state st = { .run = run, .signal_fd = -1, .status_open = true };
    struct sigaction child = { .sa_handler = SIG_DFL }, child_before;
    sigset_t wanted, before;
    int rc = FC_ESYS;

    fc_front_stop_signals(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaction(SIGCHLD, &child, &child_before);
    sigprocmask(SIG_BLOCK, &wanted, &before);
    st.signal_fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    if (st.signal_fd < 0)
        goto out;

    fflush(stdout);
    fflush(stderr);
    run->started_ms = fc_now_ms();
    st.pid = fork();
    if (st.pid < 0)
        goto out;
    if (!st.pid)
        become_xl(run, run->mask ? run->mask : &before);
    rc = 0;
out:
    for (unsigned i = 0; i < run->ninherit; i++)
        fc_close(&run->inherit[i]);
    if (!rc)
        loop(&st);
    if (st.signal_fd >= 0)
        forget_signals(&st);
    fc_close(&st.signal_fd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGCHLD, &child_before, NULL);
    return rc;
}

void fc_front_run_dispose(struct fc_front_run *run)
{
    json_object_put(run->summary);
    run->summary = NULL;
}

bool fc_front_run_ours(const struct fc_front_run *run)
{
    bool failed =
        !WIFEXITED(run->wait_status) || WEXITSTATUS(run->wait_status) != 0;

    if (!failed || run->suspended || run->interrupted)
        return false;
    return !strcmp(run->fault, "ours");
}
