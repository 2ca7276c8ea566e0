/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_ctl.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl.h"
#include "engine.h"
#include "engine_cmd.h"
#include "err.h"
#include "log.h"

#define CONNECTIONS 8
#define BACKLOG 16
#define HALF_LINE_MS 10000 /* for the rest of a line that has begun */

struct connection {
    struct fc_engine_ctl *ctl;
    pthread_t thread;
    int fd;
    enum { FREE, SERVED, OVER } stage; /* OVER: to be joined */
};

struct fc_engine_ctl {
    struct fc_engine *engine;
    struct sockaddr_un addr;
    int listener, stop; /* stop: an eventfd, readable at the end */
    bool started;
    pthread_t thread;
    pthread_mutex_t lock;
    struct connection connections[CONNECTIONS];
};

int fc_engine_ctl_open(const char *path, struct fc_engine *e,
                       struct fc_engine_ctl **c_r)
{
    struct fc_engine_ctl *c = calloc(1, sizeof(*c));
    if (!c)
        return FC_ENOMEM;
    c->engine = e;
    c->listener = c->stop = -1;
    pthread_mutex_init(&c->lock, NULL);
    c->addr.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(c->addr.sun_path)) {
        errno = ENAMETOOLONG;
        goto fail;
    }
    strcpy(c->addr.sun_path, path);
    c->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->stop < 0 || c->listener < 0)
        goto fail;
    unlink(path);
    mode_t mask = umask(0177);
    int r = bind(c->listener, (struct sockaddr *)&c->addr, sizeof(c->addr));
    umask(mask);
    if (r || listen(c->listener, BACKLOG))
        goto fail;
    *c_r = c;
    return 0;
fail:
    fc_error("control socket %s: %m", path);
    c->addr.sun_path[0] = '\0'; /* another's, maybe */
    fc_engine_ctl_close(c);
    return FC_ESYS;
}

/* 0, FC_ECANCEL at the end, FC_ETIMEOUT, FC_EIO. */
static int wait_readable(struct fc_engine_ctl *c, int fd, int timeout_ms)
{
    for (;;) {
        struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
                               { .fd = c->stop, .events = POLLIN } };
        int r = poll(p, 2, timeout_ms);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return FC_EIO;
        if (p[1].revents)
            return FC_ECANCEL;
        return r ? 0 : FC_ETIMEOUT;
    }
}

struct incoming {
    char text[FC_CTL_MAX_LINE];
    size_t len;
    int fds[FC_CTL_MAX_FDS], nfds;
};

static void drop_fds(struct incoming *in)
{
    for (int i = 0; i < in->nfds; i++)
        fc_close(&in->fds[i]);
    in->nfds = 0;
}

/* The first whole line's length, without the newline, or an error. */
static ssize_t read_line(struct fc_engine_ctl *c, int fd, struct incoming *in)
{
    for (;;) {
        char *newline = memchr(in->text, '\n', in->len);
        if (newline)
            return newline - in->text;
        if (in->len == sizeof(in->text))
            return FC_ETOOBIG;
        int rc = wait_readable(c, fd, in->len ? HALF_LINE_MS : -1), n = 0;
        if (rc)
            return rc;
        ssize_t got =
            fc_recv_fds(fd, in->text + in->len, sizeof(in->text) - in->len,
                        in->fds + in->nfds, FC_CTL_MAX_FDS - in->nfds, &n);
        in->nfds += n;
        if (got <= 0)
            return got ? FC_EIO : FC_EEOF;
        in->len += (size_t)got;
    }
}

static int reply_to(struct connection *k, const char *line, size_t len,
                    struct incoming *in)
{
    const char *why = NULL;
    size_t out_len;
    struct json_object *reply = json_object_new_object();
    struct json_object *request = fc_ctl_parse(line, len, &why);
    if (!request) {
        fc_warn("control socket: a request that is no JSON: %s", why);
        json_object_object_add(reply, "ok", json_object_new_boolean(0));
        json_object_object_add(reply, "code",
                               json_object_new_string(fc_errname(FC_EFORMAT)));
        json_object_object_add(reply, "error", json_object_new_string(why));
    } else {
        fc_engine_cmd(k->ctl->engine, request, in->fds, &in->nfds, reply);
    }
    json_object_put(request);
    char *out = fc_ctl_line(reply, FC_CTL_MAX_REPLY, &out_len);
    json_object_put(reply);
    int rc = out ? fc_write_all(k->fd, out, out_len) : FC_ENOMEM;
    free(out);
    return rc;
}

static void *serve(void *arg)
{
    struct connection *k = arg;
    struct incoming *in = calloc(1, sizeof(*in));
    int rc = in ? 0 : FC_ENOMEM;
    while (!rc) {
        ssize_t len = read_line(k->ctl, k->fd, in);
        if (len < 0)
            break;
        rc = reply_to(k, in->text, (size_t)len, in);
        drop_fds(in);
        in->len -= (size_t)len + 1;
        memmove(in->text, in->text + len + 1, in->len);
    }
    if (in)
        drop_fds(in);
    free(in);
    pthread_mutex_lock(&k->ctl->lock);
    fc_close(&k->fd);
    k->stage = OVER;
    pthread_mutex_unlock(&k->ctl->lock);
    return NULL;
}

static bool may_connect(int sock)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void add_connection(struct fc_engine_ctl *c, int fd)
{
    struct connection *k = NULL;
    if (!may_connect(fd)) {
        fc_warn("control socket: a peer that is not root was refused");
        close(fd);
        return;
    }
    for (unsigned i = 0; i < CONNECTIONS && !k; i++) {
        struct connection *at = &c->connections[i];
        pthread_mutex_lock(&c->lock);
        bool over = at->stage == OVER;
        pthread_mutex_unlock(&c->lock);
        if (over) {
            pthread_join(at->thread, NULL);
            at->stage = FREE;
        }
        if (at->stage == FREE)
            k = at;
    }
    if (k) {
        *k = (struct connection){ .ctl = c, .fd = fd, .stage = SERVED };
        if (!pthread_create(&k->thread, NULL, serve, k))
            return;
        k->stage = FREE;
    }
    fc_warn("control socket: too many connections");
    close(fd);
}

static void *accept_all(void *arg)
{
    struct fc_engine_ctl *c = arg;
    while (!wait_readable(c, c->listener, -1)) {
        int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            add_connection(c, fd);
    }
    return NULL;
}

int fc_engine_ctl_start(struct fc_engine_ctl *c)
{
    if (pthread_create(&c->thread, NULL, accept_all, c))
        return FC_ESYS;
    c->started = true;
    return 0;
}

void fc_engine_ctl_close(struct fc_engine_ctl *c)
{
    if (!c)
        return;
    uint64_t one = 1;
    if (c->stop >= 0 && write(c->stop, &one, sizeof(one)) < 0)
        fc_error("control socket: %m");
    if (c->started)
        pthread_join(c->thread, NULL);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        if (c->connections[i].stage != FREE)
            pthread_join(c->connections[i].thread, NULL);
    fc_close(&c->listener);
    fc_close(&c->stop);
    if (c->addr.sun_path[0])
        unlink(c->addr.sun_path);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
