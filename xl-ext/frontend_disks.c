/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frontend_disks.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "frontend_report.h"
#include "frontend_run.h"
#include "transport_flip.h"

/* Two hosts make volumes and start programs; the daemon bounds that itself. */
#define BEGIN_MS 150000
#define REPLY_MS 10000
#define POLL_MS 500
#define DEFAULT_COLUMNS 80
#define PERCENT_STEP 10u

void fc_front_disks_init(struct fc_front_disks *d)
{
    *d = (struct fc_front_disks){ .sock = -1 };
}

void fc_front_disks_dispose(struct fc_front_disks *d)
{
    json_object_put(d->begun);
    json_object_put(d->status);
    fc_close(&d->sock);
    fc_front_disks_init(d);
}

static struct json_object *request(const char *cmd, const char *key,
                                   const char *value)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "cmd", json_object_new_string(cmd));
    json_object_object_add(o, key, json_object_new_string(value));
    return o;
}

static void add_bool(struct json_object *o, const char *key, bool value)
{
    json_object_object_add(o, key, json_object_new_boolean(value));
}

static int check_begun(struct fc_front_disks *d, bool dry_run, char *why)
{
    struct json_object *list;
    if (!json_object_object_get_ex(d->begun, "disks", &list) ||
        !json_object_is_type(list, json_type_array) ||
        !json_object_array_length(list)) {
        snprintf(why, FC_FRONT_WHY, "forecopyd named no disks");
        return FC_EFORMAT;
    }
    if (dry_run)
        return 0;
    const char *id = fc_json_str(d->begun, "migration", "");
    if (!fc_flip_migration_valid(id)) {
        snprintf(why, FC_FRONT_WHY,
                 "forecopyd gave the disks' migration no valid name");
        return FC_EFORMAT;
    }
    snprintf(d->migration, sizeof(d->migration), "%s", id);
    return 0;
}

int fc_front_disks_begin(struct fc_front_disks *d,
                         const struct fc_front_args *args, const char *uuid,
                         char *why)
{
    d->lazy = args->lazy_disks;
    d->begun_ms = fc_now_ms();
    d->sock = fc_ctl_connect(NULL, REPLY_MS);
    if (d->sock < 0) {
        snprintf(why, FC_FRONT_WHY, "forecopyd does not answer (%s)",
                 strerror(errno));
        return FC_EDAEMON;
    }
    struct json_object *req = request("disk-begin", "domain", uuid);
    json_object_object_add(req, "host", json_object_new_string(args->host));
    json_object_object_add(
        req, "mode", json_object_new_string(d->lazy ? "lazy" : "complete"));
    add_bool(req, "overwrite", args->overwrite_disk);
    if (args->dry_run)
        add_bool(req, "dry_run", true);
    int rc = fc_front_daemon_call(d->sock, req, &d->begun, NULL, BEGIN_MS, why);
    if (!rc)
        rc = check_begun(d, args->dry_run, why);
    if (rc || args->dry_run)
        fc_close(&d->sock);
    if (rc) {
        json_object_put(d->begun);
        d->begun = NULL;
    }
    return rc;
}

/* Of a daemon that may have been started again since: what it knows of a
 * hand-over is on its disk, so it can be asked on a new connection. */
static int call_again(struct fc_front_disks *d, struct json_object *req,
                      struct json_object **reply_r, char *why)
{
    json_object_get(req);
    int rc = fc_front_daemon_call(d->sock, req, reply_r, NULL, REPLY_MS, why);
    if (rc == FC_EDAEMON && !*reply_r) {
        fc_close(&d->sock);
        d->sock = fc_ctl_connect(NULL, REPLY_MS);
        if (d->sock >= 0) {
            json_object_get(req);
            rc = fc_front_daemon_call(d->sock, req, reply_r, NULL, REPLY_MS,
                                      why);
        }
    }
    json_object_put(req);
    return rc;
}

static int take_status(struct fc_front_disks *d, int rc,
                       struct json_object *reply)
{
    if (rc) {
        json_object_put(reply);
        return rc;
    }
    json_object_put(d->status);
    d->status = reply;
    return 0;
}

int fc_front_disks_ask(struct fc_front_disks *d, char *why)
{
    struct json_object *reply = NULL;
    int rc = call_again(d, request("disk-status", "migration", d->migration),
                        &reply, why);
    return take_status(d, rc, reply);
}

static bool state_is(const struct fc_front_disks *d, const char *state)
{
    return !strcmp(fc_json_str(d->status, "state", ""), state);
}

bool fc_front_disks_flipped(const struct fc_front_disks *d)
{
    return state_is(d, "leased") || state_is(d, "done") ||
           fc_json_bool(d->status, "passed", 0);
}

/* 1: go on waiting; 0: converged; or an error. */
static int judge(struct fc_front_disks *d, char *why)
{
    char text[FC_FRONT_WHY - 64];

    if (state_is(d, "preparing") || state_is(d, "copying"))
        return 1;
    if (state_is(d, "converged")) {
        d->converged_ms = fc_now_ms();
        return 0;
    }
    if (state_is(d, "failed")) {
        snprintf(text, sizeof(text), "%s",
                 fc_json_str(d->status, "reason", "for no given reason"));
        snprintf(why, FC_FRONT_WHY, "copying the disks failed: %s",
                 fc_front_scrub(text));
        return FC_EPEER;
    }
    snprintf(text, sizeof(text), "%s", fc_json_str(d->status, "state", "?"));
    snprintf(why, FC_FRONT_WHY,
             "forecopyd says that the disks are \"%s\" before they were to "
             "be handed over",
             fc_front_scrub(text));
    return FC_EFORMAT;
}

/* At the deadline: 0 to go on with what there is, or FC_ETIMEOUT. A lazy
 * migration can always; a complete one when the rest takes no longer than half
 * of what a hand-over may. */
static int at_deadline(struct fc_front_disks *d, bool give_up, char *why)
{
    char left[64];
    int64_t bytes = fc_json_int(d->status, "remaining_bytes", 0);
    int64_t rate = fc_json_int(d->status, "rate_bps", 0);

    fc_front_bytes(bytes > 0 ? (uint64_t)bytes : 0, left, sizeof(left));
    if (state_is(d, "copying") && !give_up &&
        (d->lazy || (rate > 0 && bytes / rate <= FC_FLIP_MS / 2000))) {
        fprintf(stderr,
                "forecopy: deadline: going on with %s of the disks still to "
                "copy\n",
                left);
        d->converged_ms = fc_now_ms();
        return 0;
    }
    snprintf(why, FC_FRONT_WHY,
             "deadline: %s of the disks are still to be copied", left);
    return FC_ETIMEOUT;
}

struct shown {
    bool drawn;
    char state[16], reason[64];
    unsigned percent;
};

static void clear(struct shown *s)
{
    if (s->drawn)
        fputs("\r\033[K", stderr);
    s->drawn = false;
}

static void show(const struct fc_front_disks *d, bool tty, struct shown *s)
{
    struct winsize size = { 0 };
    char line[512];
    const char *state = fc_json_str(d->status, "state", "?");
    const char *reason = fc_json_str(d->status, "reason", "");
    unsigned percent = fc_front_disks_percent(d->status);

    if (tty) {
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || size.ws_col < 2)
            size.ws_col = DEFAULT_COLUMNS;
        fc_front_disks_progress(d->status, size.ws_col - 1u, line,
                                sizeof(line));
        fprintf(stderr, "\r%s\033[K\r", line);
        s->drawn = true;
        return;
    }
    if (!strncmp(state, s->state, sizeof(s->state) - 1) &&
        !strncmp(reason, s->reason, sizeof(s->reason) - 1) &&
        percent < s->percent + PERCENT_STEP)
        return;
    snprintf(s->state, sizeof(s->state), "%s", state);
    snprintf(s->reason, sizeof(s->reason), "%s", reason);
    s->percent = percent - percent % PERCENT_STEP;
    fc_front_disks_progress(d->status, sizeof(line) - 1, line, sizeof(line));
    fprintf(stderr, "%s\n", line);
}

/* Whether a signal came in time. */
static bool interrupted(int signal_fd)
{
    struct signalfd_siginfo info;
    struct pollfd p = { .fd = signal_fd, .events = POLLIN };
    bool any = false;

    poll(&p, 1, POLL_MS);
    while (read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        any = true;
    return any;
}

static int wait_loop(struct fc_front_disks *d,
                     const struct fc_front_disks_wait *w, int signal_fd,
                     struct shown *shown, char *why)
{
    for (;;) {
        /* a connection that breaks has let the disks go */
        struct json_object *reply = NULL;
        int rc = fc_front_daemon_call(
            d->sock, request("disk-status", "migration", d->migration), &reply,
            NULL, REPLY_MS, why);
        rc = take_status(d, rc, reply);
        if (rc)
            return rc;
        rc = judge(d, why);
        if (rc >= 0)
            show(d, w->tty, shown);
        if (rc <= 0)
            return rc;
        if (w->deadline_ms && fc_now_ms() >= w->deadline_ms) {
            clear(shown);
            return at_deadline(d, w->abort_at_deadline, why);
        }
        if (interrupted(signal_fd)) {
            snprintf(why, FC_FRONT_WHY, "asked to stop");
            return FC_ECANCEL;
        }
    }
}

int fc_front_disks_wait(struct fc_front_disks *d,
                        const struct fc_front_disks_wait *w, char *why)
{
    struct shown shown = { .drawn = false };
    sigset_t stop;

    fc_front_stop_signals(&stop);
    int signal_fd = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0) {
        snprintf(why, FC_FRONT_WHY, "signalfd: %s", strerror(errno));
        return FC_ESYS;
    }
    int rc = wait_loop(d, w, signal_fd, &shown, why);
    clear(&shown);
    fc_close(&signal_fd);
    return rc;
}

int fc_front_disks_finish(struct fc_front_disks *d, enum fc_front_disks_end end,
                          char *why)
{
    struct json_object *reply = NULL;
    if (!d->migration[0])
        return 0;
    struct json_object *req = request("disk-end", "migration", d->migration);
    add_bool(req, "success", end == FC_FRONT_DISKS_MOVED);
    if (end == FC_FRONT_DISKS_UNKNOWN)
        add_bool(req, "unknown", true);
    int rc = call_again(d, req, &reply, why);
    json_object_put(reply);
    return rc;
}

struct json_object *fc_front_disks_facts(const struct fc_front_disks *d,
                                         enum fc_front_disks_end end)
{
    static const char *const names[] = { "moved", "kept", "unknown" };
    if (!d->migration[0])
        return NULL;
    struct fc_front_disk_facts f = {
        .begun = d->begun,
        .status = d->status,
        .lazy = d->lazy,
        .copy_ms = d->converged_ms ? d->converged_ms - d->begun_ms : 0,
        .outcome = names[end],
    };
    return fc_front_disks_json(&f);
}
