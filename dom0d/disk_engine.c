/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_engine.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "log.h"
#include "task.h"

/*
 * STARTING: the process was started, its control socket is tried every
 * PROBE_MS. The first connection stays open and idle: its end is the process's
 * death, also of one that is not our child because the daemon has been started
 * anew since. REATTACHING: the kernel's device is being connected to the new
 * process. UP. WAITING: it has died and is started again after a pause. ENDING:
 * it was told to end.
 *
 * A process is only started once the one before it is gone: SIGKILL, and for
 * one of our own SIGCHLD.
 */
#define PROBE_MS 50u
#define START_MS 20000u
#define END_MS 5000u /* until SIGKILL */
#define REATTACH_MS 60000u
#define BACKOFF_MIN_MS 500u
#define BACKOFF_MAX_MS 30000u
#define REPLY_CHUNK 16384u

enum state { STARTING, REATTACHING, UP, WAITING, ENDING };

struct call {
    struct fc_disk_engine *engine;
    int sock;
    struct event *readable;
    char *text;
    size_t len;
    int fds[FC_CTL_MAX_FDS], nfds;
    fc_disk_engine_answer *answer;
    void *user;
    struct call *next;
};

struct fc_disk_engine {
    const struct fc_disk_env *env;
    struct fc_disk_engine_spec spec;
    const struct fc_disk_engine_events *events;
    void *user;
    enum state state;
    char name[FC_DISK_ID_TEXT];
    char socket[FC_DISK_PATH], control[FC_DISK_PATH];
    char device[64];
    pid_t child;                 /* 0: none of ours */
    int life;                    /* the idle connection; -1 */
    int pidfd;                   /* of an adopted process */
    bool ever_up, dead, started; /* started: by us, not found */
    struct event *life_event, *timer;
    uint64_t start_ms;
    unsigned backoff_ms;
    struct call *calls;
    struct fc_task *reattach;
    void (*ended)(void *user);
    void *ended_user;
};

static void start(struct fc_disk_engine *e);

struct json_object *fc_disk_engine_request(const char *name)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "cmd", json_object_new_string(name));
    return o;
}

static void call_free(struct call *c)
{
    for (struct call **at = &c->engine->calls; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    if (c->readable)
        event_free(c->readable);
    for (int i = 0; i < c->nfds; i++)
        fc_close(&c->fds[i]);
    fc_close(&c->sock);
    free(c->text);
    free(c);
}

/* Answers the request and frees it. */
static void call_done(struct call *c, int rc, struct json_object *reply,
                      const char *why)
{
    fc_disk_engine_answer *answer = c->answer;
    void *user = c->user;
    int fd = c->nfds ? c->fds[0] : -1;
    if (c->nfds)
        c->fds[0] = -1;
    call_free(c);
    answer(user, rc, reply, &fd, why);
    fc_close(&fd);
    json_object_put(reply);
}

static void take_reply(struct call *c, size_t len)
{
    const char *why = NULL;
    struct json_object *reply = fc_ctl_parse(c->text, len, &why);
    int rc = 0;
    if (!reply) {
        call_done(c, FC_EFORMAT, NULL, "the engine's reply is no JSON object");
        return;
    }
    if (!fc_json_bool(reply, "ok", 0)) {
        rc = fc_ctl_code(fc_json_str(reply, "code", ""));
        if (!rc)
            rc = FC_EPEER;
    }
    call_done(c, rc, reply,
              rc ? fc_json_str(reply, "error", fc_strerror(rc)) : "");
}

static void on_reply(evutil_socket_t fd, short what, void *arg)
{
    struct call *c = arg;
    int n = 0;
    if (what & EV_TIMEOUT) {
        call_done(c, FC_ETIMEOUT, NULL, "the engine did not answer in time");
        return;
    }
    char *text = realloc(c->text, c->len + REPLY_CHUNK);
    if (!text) {
        call_done(c, FC_ENOMEM, NULL, "out of memory");
        return;
    }
    c->text = text;
    ssize_t got = fc_recv_fds(fd, text + c->len, REPLY_CHUNK, c->fds + c->nfds,
                              FC_CTL_MAX_FDS - c->nfds, &n);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        call_done(c, FC_EDAEMON, NULL, "the engine closed the connection");
        return;
    }
    c->nfds += n;
    char *newline = memchr(text + c->len, '\n', (size_t)got);
    c->len += (size_t)got;
    if (newline)
        take_reply(c, (size_t)(newline - text));
    else if (c->len > FC_CTL_MAX_REPLY)
        call_done(c, FC_ETOOBIG, NULL, "the engine's reply is too long");
}

/* All of the line in one go: the socket's buffer takes a request. */
static int send_request(int sock, struct json_object *request, const int *fds,
                        int nfds)
{
    size_t len;
    char *line = fc_ctl_line(request, FC_CTL_MAX_LINE, &len);
    if (!line)
        return FC_ENOMEM;
    ssize_t r = fc_send_fds(sock, line, len, fds, nfds);
    free(line);
    return r == (ssize_t)len ? 0 : FC_EDAEMON;
}

int fc_disk_engine_call(struct fc_disk_engine *e, struct json_object *request,
                        const int *fds, int nfds, unsigned timeout_ms,
                        fc_disk_engine_answer *answer, void *user)
{
    const struct timeval limit = { timeout_ms / 1000,
                                   timeout_ms % 1000 * 1000 };
    struct call *c = calloc(1, sizeof(*c));
    int rc = FC_ENOMEM;
    if (!request || !c) {
        json_object_put(request);
        free(c);
        return rc;
    }
    *c = (struct call){ .engine = e,
                        .sock = -1,
                        .answer = answer,
                        .user = user,
                        .next = e->calls };
    e->calls = c;
    rc = c->sock = fc_ctl_connect(e->control, 0);
    if (c->sock >= 0)
        rc = send_request(c->sock, request, fds, nfds);
    if (!rc && fc_set_nonblock(c->sock, 1))
        rc = FC_ENOMEM;
    if (!rc) {
        c->readable =
            event_new(e->env->base, c->sock, EV_READ | EV_PERSIST, on_reply, c);
        if (!c->readable || event_add(c->readable, &limit) < 0)
            rc = FC_ENOMEM;
    }
    json_object_put(request);
    if (rc)
        call_free(c);
    return rc;
}

bool fc_disk_engine_is_up(const struct fc_disk_engine *e)
{
    return e->state == UP;
}

void fc_disk_engine_set_owner(struct fc_disk_engine *e, bool owner)
{
    e->spec.owner = owner;
}

void fc_disk_engine_set_device(struct fc_disk_engine *e, const char *device)
{
    snprintf(e->device, sizeof(e->device), "%s", device);
}

const char *fc_disk_engine_socket(const struct fc_disk_engine *e)
{
    return e->socket;
}

static void set_timer(struct fc_disk_engine *e, unsigned ms)
{
    const struct timeval tv = { ms / 1000, ms % 1000 * 1000 };
    evtimer_add(e->timer, &tv);
}

static void engine_free(struct fc_disk_engine *e)
{
    while (e->calls)
        call_free(e->calls);
    fc_task_leave(e->reattach);
    if (e->child)
        fc_children_forget(e->env->children, e->child);
    if (e->life_event)
        event_free(e->life_event);
    if (e->timer)
        event_free(e->timer);
    fc_close(&e->life);
    fc_close(&e->pidfd);
    free(e);
}

/* No process is left. */
static void gone(struct fc_disk_engine *e, const char *why)
{
    char text[200];
    snprintf(text, sizeof(text), "%s", why);
    if (e->state == ENDING) {
        void (*ended)(void *) = e->ended;
        void *user = e->ended_user;
        engine_free(e);
        if (ended)
            ended(user);
        return;
    }
    bool last = !e->ever_up && !*e->device;
    e->state = WAITING;
    fc_task_leave(e->reattach);
    e->reattach = NULL;
    fc_error("engine of %s: %s%s", e->name, text,
             last ? "" : "; it is started anew");
    if (!last) {
        set_timer(e, e->backoff_ms);
        e->backoff_ms = e->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS
                                                           : e->backoff_ms * 2;
    }
    while (e->calls)
        call_done(e->calls, FC_EDAEMON, NULL, "the engine has died");
    e->events->down(e->user, text, last);
}

static void on_child_ended(void *user, pid_t pid, int status)
{
    struct fc_disk_engine *e = user;
    char why[80];
    (void)pid;
    e->child = 0;
    if (e->life_event)
        event_free(e->life_event);
    e->life_event = NULL;
    fc_close(&e->life);
    snprintf(why, sizeof(why), "it has ended (status %#x)", (unsigned)status);
    gone(e, why);
}

static void on_life(evutil_socket_t fd, short what, void *arg)
{
    struct fc_disk_engine *e = arg;
    char byte[16];
    (void)what;
    ssize_t r = read(fd, byte, sizeof(byte));
    if (r > 0 || (r < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    event_free(e->life_event);
    e->life_event = NULL;
    fc_close(&e->life);
    if (e->child) {
        /* SIGCHLD will tell */
        fc_children_end(e->env->children, e->child);
        return;
    }
    if (e->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
    fc_close(&e->pidfd);
    gone(e, "it has died");
}

/* Keeps an idle connection, if the control socket is served. */
static bool watch_life(struct fc_disk_engine *e)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    int sock = fc_ctl_connect(e->control, 0);
    if (sock < 0)
        return false;
    fc_set_nonblock(sock, 1);
    e->life_event =
        event_new(e->env->base, sock, EV_READ | EV_PERSIST, on_life, e);
    if (!e->life_event || event_add(e->life_event, NULL) < 0) {
        if (e->life_event)
            event_free(e->life_event);
        e->life_event = NULL;
        fc_close(&sock);
        return false;
    }
    e->life = sock;
    if (!e->child && !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len))
        e->pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
    return true;
}

static void is_up(struct fc_disk_engine *e)
{
    bool again = e->ever_up;
    e->state = UP;
    e->ever_up = true;
    e->backoff_ms = BACKOFF_MIN_MS;
    fc_info("engine of %s: %s%s", e->name, e->spec.role,
            again ? ", started anew" : "");
    e->events->up(e->user, again);
}

static void kill_process(struct fc_disk_engine *e)
{
    if (e->child)
        fc_children_end(e->env->children, e->child);
    else if (e->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, e->pidfd, SIGTERM, NULL, 0);
}

static void on_reattached(void *user, int rc, int status, const char *out,
                          const char *err)
{
    struct fc_disk_engine *e = user;
    char line[200];
    (void)out;
    (void)status;
    e->reattach = NULL;
    if (e->state != REATTACHING)
        return;
    if (!rc) {
        is_up(e);
        return;
    }
    fc_task_last_line(err, line, sizeof(line));
    fc_error("engine of %s: %s cannot be connected to it again: %s", e->name,
             e->device, *line ? line : fc_strerror(rc));
    kill_process(e); /* and so another try */
}

/* The process answers. */
static void answers(struct fc_disk_engine *e)
{
    const char *argv[] = { e->env->tool, "nbd-reattach", e->device, e->socket,
                           NULL };
    if (!e->started || !*e->device) {
        is_up(e);
        return;
    }
    e->state = REATTACHING;
    int rc = fc_task_run(e->env->base, e->env->children, argv, NULL,
                         REATTACH_MS, on_reattached, e, &e->reattach);
    if (rc) {
        fc_error("cannot run %s: %s", e->env->tool, strerror(errno));
        kill_process(e);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct fc_disk_engine *e = arg;
    (void)fd;
    (void)what;
    if (e->state == WAITING) {
        start(e);
        return;
    }
    if (e->state == ENDING && e->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
    if (e->state != STARTING)
        return;
    if (e->dead) {
        e->dead = false;
        gone(e, "it cannot be started");
    } else if (e->life >= 0 || watch_life(e)) {
        answers(e);
    } else if (fc_now_ms() - e->start_ms > START_MS && e->child) {
        fc_error("engine of %s: it does not open its control socket", e->name);
        fc_children_end(e->env->children, e->child);
    } else {
        set_timer(e, PROBE_MS);
    }
}

bool fc_disk_engine_was_started(const struct fc_disk_engine *e)
{
    return e->started;
}

void fc_disk_engine_restart(struct fc_disk_engine *e)
{
    /* SIGTERM would wait for requests that are held back */
    if (e->child)
        kill(e->child, SIGKILL);
    else if (e->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, e->pidfd, SIGKILL, NULL, 0);
}

#define ARGS 20

struct words {
    const char *argv[ARGS];
    char text[ARGS][FC_DISK_PATH + 16];
    unsigned count;
};

static void word(struct words *w, const char *key, const char *value)
{
    snprintf(w->text[w->count], sizeof(w->text[0]), "%s%s", key, value);
    w->argv[w->count] = w->text[w->count];
    w->count++;
}

static void word_number(struct words *w, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    word(w, key, text);
}

static void make_words(const struct fc_disk_engine *e, struct words *w)
{
    char uuid[FC_UUID_TEXT];
    const struct fc_disk_engine_spec *s = &e->spec;
    fc_uuid_format(s->id.uuid, uuid);
    memset(w, 0, sizeof(*w));
    word(w, "", e->env->nbdkit);
    word(w, "", "-f");
    word(w, "", "-U");
    word(w, "", e->socket);
    if (e->env->uid) {
        word(w, "", "-u");
        word_number(w, "", e->env->uid);
        word(w, "", "-g");
        word_number(w, "", e->env->gid);
    }
    word(w, "", e->env->plugin);
    word(w, "role=", s->role);
    word(w, "volume=", s->volume);
    if (*s->map)
        word(w, "map=", s->map);
    word(w, "control=", e->control);
    word(w, "uuid=", uuid);
    word(w, "vdev=", s->id.vdev);
    word_number(w, "block-size=", s->block_bytes);
    if (s->size)
        word_number(w, "size=", s->size);
    word(w, "owner=", s->owner ? "1" : "0");
}

static void start(struct fc_disk_engine *e)
{
    struct words *w = malloc(sizeof(*w));
    char log[FC_DISK_PATH];
    e->state = STARTING;
    e->started = true;
    e->start_ms = fc_now_ms();
    unlink(e->socket);
    unlink(e->control);
    fc_disk_run_path(e->env, &e->spec.id, "engine.log", log);
    int err = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    pid_t pid = FC_ESYS;
    if (w) {
        make_words(e, w);
        pid = fc_children_run(e->env->children, w->argv, -1, -1, err,
                              on_child_ended, e);
    }
    if (pid < 0)
        fc_error("cannot run %s: %s", e->env->nbdkit, strerror(errno));
    e->child = pid > 0 ? pid : 0;
    e->dead = pid < 0;
    fc_close(&err);
    free(w);
    set_timer(e, PROBE_MS);
}

int fc_disk_engine_new(const struct fc_disk_env *env,
                       const struct fc_disk_engine_spec *spec,
                       const struct fc_disk_engine_events *events, void *user,
                       struct fc_disk_engine **engine_r)
{
    struct fc_disk_engine *e = calloc(1, sizeof(*e));
    if (!e)
        return FC_ENOMEM;
    e->env = env;
    e->spec = *spec;
    e->events = events;
    e->user = user;
    e->life = e->pidfd = -1;
    e->backoff_ms = BACKOFF_MIN_MS;
    fc_disk_id_format(&spec->id, e->name);
    fc_disk_run_path(env, &spec->id, "nbd.sock", e->socket);
    fc_disk_run_path(env, &spec->id, "engine.sock", e->control);
    e->timer = evtimer_new(env->base, on_timer, e);
    if (!e->timer || fc_disk_run_make(env, &spec->id)) {
        int rc = e->timer ? FC_ESYS : FC_ENOMEM;
        engine_free(e);
        return rc;
    }
    if (watch_life(e))
        set_timer(e, 0);
    else
        start(e);
    *engine_r = e;
    return 0;
}

void fc_disk_engine_end(struct fc_disk_engine *e, void (*ended)(void *user),
                        void *user)
{
    if (!e) {
        if (ended)
            ended(user);
        return;
    }
    while (e->calls)
        call_free(e->calls);
    evtimer_del(e->timer);
    e->ended = ended;
    e->ended_user = user;
    e->state = ENDING;
    if (!e->child && e->life < 0) {
        gone(e, "");
        return;
    }
    kill_process(e);
    if (!e->child) /* children.c sees to one of our own */
        set_timer(e, END_MS);
}

void fc_disk_engine_leave(struct fc_disk_engine *e)
{
    if (e)
        engine_free(e);
}
