/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection of a source's engine to the shadow: a command's input and
 * output, which the engine gets. When the command ends it is run again after 1,
 * 2, 4 ... 30 s; the engine sends what was not acknowledged once more.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client_remote.h"
#include "disk_job_int.h"
#include "err.h"
#include "log.h"

#define BACKOFF_MIN_MS 1000u
#define BACKOFF_MAX_MS 30000u
#define HAND_OVER_MS 10000u
#define ERROR_BYTES 4096u

static void later(struct disk *d)
{
    const struct timeval tv = { d->backoff_ms / 1000,
                                d->backoff_ms % 1000 * 1000 };
    evtimer_add(d->reconnect, &tv);
    d->backoff_ms =
        d->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : d->backoff_ms * 2;
}

static void on_ended(void *user, pid_t pid, int status)
{
    struct disk *d = user;
    char text[ERROR_BYTES], line[200], name[FC_DISK_ID_TEXT];
    (void)pid;
    ssize_t n = pread(d->channel_err, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    fc_close(&d->channel_err);
    d->channel = 0;
    fc_task_last_line(text, line, sizeof(line));
    fc_disk_id_format(&d->id, name);
    fc_warn("%s: the channel's command has ended (status %#x)%s%s", name,
            (unsigned)status, *line ? ": " : "", line);
    if (d->channel_wanted)
        later(d);
}

static void on_handed(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct disk *d = user;
    char name[FC_DISK_ID_TEXT];
    (void)reply;
    (void)fd;
    fc_disk_id_format(&d->id, name);
    if (rc) {
        fc_warn("%s: the engine takes no channel: %s", name, why);
        if (d->channel)
            fc_children_end(d->job->args.env->children, d->channel);
        return;
    }
    fc_info("%s: the engine has a channel", name);
}

static int command_of(struct disk *d, char command[FC_REMOTE_COMMAND])
{
    char words[96], uuid[FC_UUID_TEXT];
    struct fc_remote remote;
    fc_uuid_format(d->id.uuid, uuid);
    snprintf(words, sizeof(words), "forecopy disk-receive %s %s", uuid,
             d->id.vdev);
    fc_remote_init(&remote);
    int rc = fc_remote_use(&remote, d->job->args.command);
    return rc ? rc
              : fc_remote_command(&remote, d->job->args.host, words, command);
}

static int run(struct disk *d)
{
    const struct fc_disk_env *env = d->job->args.env;
    char command[FC_REMOTE_COMMAND];
    const char *argv[] = { "sh", "-c", command, NULL };
    int pair[2] = { -1, -1 };
    int rc = command_of(d, command);
    if (rc)
        return rc;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return FC_ESYS;
    d->channel_err = fc_memfd_new("forecopy-channel", ERROR_BYTES);
    rc = d->channel_err < 0 ? FC_ESYS : 0;
    if (!rc) {
        pid_t pid = fc_children_run(env->children, argv, pair[1], pair[1],
                                    d->channel_err, on_ended, d);
        rc = pid < 0 ? FC_ESYS : 0;
        d->channel = rc ? 0 : pid;
    }
    if (!rc) {
        const int fds[2] = { pair[0], pair[0] };
        rc = fc_disk_engine_call(d->engine, fc_disk_engine_request("channel"),
                                 fds, 2, HAND_OVER_MS, on_handed, d);
        if (rc) /* it ends when its input does */
            rc = 0;
    } else {
        fc_close(&d->channel_err);
    }
    fc_close(&pair[0]);
    fc_close(&pair[1]);
    return rc;
}

static void on_reconnect(evutil_socket_t fd, short what, void *arg)
{
    struct disk *d = arg;
    (void)fd;
    (void)what;
    if (!d->channel_wanted || d->channel)
        return;
    if (!d->engine || !fc_disk_engine_is_up(d->engine)) {
        later(d);
        return;
    }
    int rc = run(d);
    if (rc) {
        fc_error("%s: the channel's command cannot be run: %s", d->id.vdev,
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
        later(d);
    }
}

void fc_disk_channel_open(struct disk *d)
{
    const struct timeval now = { 0, 0 };
    if (!d->reconnect)
        d->reconnect = evtimer_new(d->job->args.env->base, on_reconnect, d);
    if (!d->reconnect)
        return;
    d->channel_wanted = true;
    d->backoff_ms = BACKOFF_MIN_MS;
    if (!d->silent_ms)
        d->silent_ms = fc_now_ms();
    if (d->channel) /* to a process that is no more: it is run again */
        fc_children_end(d->job->args.env->children, d->channel);
    else
        evtimer_add(d->reconnect, &now);
}

void fc_disk_channel_close(struct disk *d)
{
    d->channel_wanted = false;
    if (d->reconnect)
        evtimer_del(d->reconnect);
    if (d->channel)
        fc_children_end(d->job->args.env->children, d->channel);
}
