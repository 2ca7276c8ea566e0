/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "client_out.h"
#include "ctl.h"
#include "err.h"
#include "io.h"

/*
 * `forecopy record`: makes the file, hands it to the daemon, and waits for the
 * time to pass, a signal, or the daemon's own end of it. The daemon ends the
 * recording in good order whatever becomes of this process.
 *
 * Signals are blocked and waited for, so that none is lost between two looks.
 */
#define CONNECT_MS 5000
#define REPLY_MS 60000
#define LOOK_S 1
#define FILE_MODE 0600 /* what a guest does is nobody else's business */
#define NAME_BYTES 4096
#define CLEAR_LINE "\r\033[K"

struct task {
    struct fc_client_task *c;
    int sock;
    char file[NAME_BYTES];
    bool made; /* it was not there before */
};

static int complain(const struct task *t, const char *what, const char *why)
{
    fputs("forecopy: ", t->c->err);
    fc_out_text(t->c->err, what);
    fprintf(t->c->err, "%s", *what && *why ? ": " : "");
    fc_out_text(t->c->err, why);
    putc('\n', t->c->err);
    return 1;
}

/* One request on the recording's connection. 0 with the reply, or 1 after
 * saying what was wrong. */
static int ask(const struct task *t, struct json_object *request, const int *fd,
               struct json_object **reply_r)
{
    char why[FC_CLIENT_WHY];
    *reply_r = NULL;
    int rc = request ? fc_ctl_call(t->sock, request, fd, fd ? 1 : 0, reply_r,
                                   NULL, REPLY_MS)
                     : FC_ENOMEM;
    json_object_put(request);
    if (!rc)
        return 0;
    fc_client_why(rc, *reply_r, why);
    json_object_put(*reply_r);
    *reply_r = NULL;
    return complain(t, "", why);
}

/* What the domain is called, with nothing in it that a path gives a meaning. */
static int name_of_domain(const struct task *t, char *name, size_t cap)
{
    struct json_object *reply, *guests = NULL;
    struct json_object *request = fc_client_request("status");
    fc_client_add(request, "domain", t->c->args->operand[0]);
    if (ask(t, request, NULL, &reply))
        return 1;
    json_object_object_get_ex(reply, "guests", &guests);
    snprintf(
        name, cap, "%s",
        json_object_is_type(guests, json_type_array)
            ? fc_json_str(json_object_array_get_idx(guests, 0), "name", "guest")
            : "guest");
    json_object_put(reply);
    for (char *at = name; *at; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') ||
                     (*at >= 'A' && *at <= 'Z') || strchr("_-+", *at) ||
                     (*at == '.' && at != name);
        if (!plain)
            *at = '_';
    }
    return 0;
}

/* "xvda", "disk" for the only one, "" for the memory. */
static const char *disk_part(const struct task *t)
{
    const char *disk = t->c->args->disk;
    return !disk ? "" : *disk ? disk : "disk";
}

static int choose_file(struct task *t)
{
    char name[128], stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    if (t->c->args->output) {
        int n = snprintf(t->file, sizeof(t->file), "%s", t->c->args->output);
        return n < (int)sizeof(t->file)
                   ? 0
                   : complain(t, t->c->args->output, "the name is too long");
    }
    if (name_of_domain(t, name, sizeof(name)))
        return 1;
    if (!localtime_r(&now, &tm) ||
        !strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", &tm))
        return complain(t, "", "what time is it?");
    snprintf(t->file, sizeof(t->file), "%s%s%s-%s.fct", name,
             t->c->args->disk ? "-" : "", disk_part(t), stamp);
    return 0;
}

/* The descriptor, or -1 after saying what was wrong. */
static int open_file(struct task *t)
{
    /* never wait for a pipe's other end */
    const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    struct stat st;
    int fd = open(t->file, flags | O_EXCL, FILE_MODE);
    t->made = fd >= 0;
    if (fd < 0 && errno == EEXIST && !t->c->args->force) {
        complain(t, t->file, "there already; --force overwrites it");
        return -1;
    }
    if (fd < 0 && errno == EEXIST)
        fd = open(t->file, flags, FILE_MODE);
    if (fd < 0) {
        complain(t, t->file, strerror(errno));
    } else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        complain(t, t->file, "not a regular file");
        fc_close(&fd);
    } else if (ftruncate(fd, 0) < 0) {
        complain(t, t->file, strerror(errno));
        fc_close(&fd);
    }
    return fd;
}

static int begin(struct task *t, struct json_object **reply_r)
{
    const struct fc_client_args *a = t->c->args;
    struct json_object *request = fc_client_request("record");
    fc_client_add(request, "domain", a->operand[0]);
    fc_client_add(request, "disk", a->disk);
    if (a->seconds > 0)
        json_object_object_add(request, "seconds",
                               json_object_new_int64(a->seconds));
    if (a->interval_ms > 0)
        json_object_object_add(request, "interval_ms",
                               json_object_new_int64(a->interval_ms));
    int fd = open_file(t);
    if (fd < 0) {
        json_object_put(request);
        return 1;
    }
    int status = ask(t, request, &fd, reply_r);
    fc_close(&fd);
    if (status && t->made)
        unlink(t->file);
    return status;
}

static void show_progress(const struct task *t, struct json_object *now)
{
    bool disk = t->c->args->disk != NULL, blind = fc_json_bool(now, "blind", 0);
    fprintf(t->c->out, CLEAR_LINE "%.0f s, ",
            (double)fc_json_int(now, "time_ms", 0) / 1000);
    if (disk)
        fprintf(t->c->out, "%lld requests, %lld lost",
                (long long)fc_json_int(now, "requests", 0),
                (long long)fc_json_int(now, "lost", 0));
    else
        fprintf(t->c->out, "%lld ticks, %lld pages",
                (long long)fc_json_int(now, "ticks", 0),
                (long long)fc_json_int(now, "pages", 0));
    fprintf(t->c->out, ", %lld kB%s",
            (long long)fc_json_int(now, "bytes", 0) / 1024,
            !blind ? ""
            : disk ? "; the disk is not traced at present"
                   : "; the dirty log is not ours at present");
    fflush(t->c->out);
}

/* Until a signal comes or the daemon says that it is over. 0, or 1 when the
 * daemon is gone. */
static int watch(const struct task *t, const sigset_t *signals)
{
    const struct timespec look = { LOOK_S, 0 };
    bool show = t->c->terminal && !t->c->args->json;
    int status = 0;
    for (bool over = false; !over && !status;) {
        struct json_object *now;
        if (sigtimedwait(signals, NULL, &look) > 0)
            break;
        status = ask(t, fc_client_request("record-status"), NULL, &now);
        if (!status && show)
            show_progress(t, now);
        over = !status && fc_json_bool(now, "ended", 0);
        json_object_put(now);
    }
    if (show)
        fputs(CLEAR_LINE, t->c->out);
    return status;
}

/* The end of a summary: `what` was not always at work. */
static void show_breaks(const struct task *t, struct json_object *o,
                        const char *what)
{
    int64_t breaks = fc_json_int(o, "interruptions", 0);
    if (breaks)
        fprintf(t->c->out, "%s was interrupted %lld time%s\n", what,
                (long long)breaks, breaks > 1 ? "s" : "");
    else
        fprintf(t->c->out, "%s was not interrupted\n", what);
}

static void show_disk_summary(const struct task *t, struct json_object *o)
{
    fc_out_text(t->c->out, t->file);
    fprintf(t->c->out, ": %lld requests of ",
            (long long)fc_json_int(o, "requests", 0));
    fc_out_text(t->c->out, fc_json_str(o, "vdev", ""));
    fprintf(t->c->out, " by %s, %.1f s, %lld bytes; %lld events lost; ",
            fc_json_str(o, "method", ""),
            (double)fc_json_int(o, "time_ms", 0) / 1000,
            (long long)fc_json_int(o, "bytes", 0),
            (long long)fc_json_int(o, "lost", 0));
    show_breaks(t, o, "tracing");
}

static void show_summary(const struct task *t, struct json_object *o)
{
    fc_out_text(t->c->out, t->file);
    fprintf(t->c->out, ": %lld ticks, %.1f s, %lld pages, %lld bytes; ",
            (long long)fc_json_int(o, "ticks", 0),
            (double)fc_json_int(o, "time_ms", 0) / 1000,
            (long long)fc_json_int(o, "pages", 0),
            (long long)fc_json_int(o, "bytes", 0));
    show_breaks(t, o, "the log");
}

/* The exit status. */
static int finish(const struct task *t)
{
    struct json_object *o;
    if (ask(t, fc_client_request("record-stop"), NULL, &o))
        return 1;
    bool failed = fc_json_bool(o, "failed", 0);
    const char *reason = fc_json_str(o, "reason", "");
    if (t->c->args->json) {
        fc_client_add(o, "file", t->file);
        fc_out_json(t->c->out, o);
    } else if (t->c->args->disk) {
        show_disk_summary(t, o);
    } else {
        show_summary(t, o);
    }
    fflush(t->c->out);
    if (failed)
        complain(t, t->file, reason);
    json_object_put(o);
    return failed || ferror(t->c->out) ? 1 : 0;
}

int fc_client_record(struct fc_client_task *c)
{
    struct task t = { .c = c, .sock = fc_ctl_connect(NULL, CONNECT_MS) };
    char why[FC_CLIENT_WHY];
    struct json_object *begun = NULL;
    sigset_t signals, before;
    if (t.sock < 0) {
        fc_client_why(t.sock, NULL, why);
        return complain(&t, "", why);
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &before);
    int status = choose_file(&t);
    if (!status)
        status = begin(&t, &begun);
    if (!status && fc_json_bool(begun, "armed", 0) && c->args->interval_ms > 0)
        complain(&t, c->args->operand[0],
                 "armed, so its log is taken at the daemon's own intervals, "
                 "not at --interval");
    json_object_put(begun);
    if (!status)
        status = watch(&t, &signals);
    if (!status)
        status = finish(&t);
    fc_close(&t.sock);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}
