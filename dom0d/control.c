/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control.h"

#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "log.h"

/*
 * A client is in one of three states: its next line is awaited; a request is
 * with the handler (`busy`); a reply is being written (`out`). Bytes that come
 * meanwhile wait in its buffer, up to one longest line. Whatever breaks a rule
 * of the protocol costs the connection, with a line in the log.
 */
#define STALL_MS 10000u /* half a line, or a reply that is not read */
#define CHECK_S 1

struct fc_client {
    struct fc_control *control;
    int sock;
    struct event *readable, *writable;
    char *in;
    size_t in_used;
    int fds[FC_CTL_MAX_FDS], nfds; /* came with bytes not yet a request */
    char *out;
    size_t out_len, out_done;
    int out_fd;
    uint64_t stalled_ms; /* since when; 0: not */
    uint64_t tag;
    bool busy, closing, dead, inside; /* inside: in one of our callbacks */
    struct fc_client *next;
};

struct fc_control {
    struct event_base *base;
    const char *path;
    const struct fc_control_handler *handler;
    void *user;
    int sock;
    struct event *listening, *check;
    struct fc_client *first;
    unsigned count;
};

static void client_free(struct fc_client *c)
{
    struct fc_control *control = c->control;
    for (struct fc_client **at = &control->first; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            control->count--;
            break;
        }
    control->handler->gone(control->user, c);
    if (c->readable)
        event_free(c->readable);
    if (c->writable)
        event_free(c->writable);
    for (int i = 0; i < c->nfds; i++)
        fc_close(&c->fds[i]);
    fc_close(&c->out_fd);
    fc_close(&c->sock);
    free(c->in);
    free(c->out);
    free(c);
}

/* Ends the client: now, or when the callback that is under way is done. */
static void drop(struct fc_client *c, const char *why)
{
    if (why && !c->dead)
        fc_warn("dropped a control client: %s", why);
    c->dead = true;
    if (!c->inside)
        client_free(c);
}

static void try_to_write(struct fc_client *c)
{
    while (c->out && c->out_done < c->out_len) {
        int nfds = c->out_fd >= 0 ? 1 : 0;
        ssize_t r = fc_send_fds(c->sock, c->out + c->out_done,
                                c->out_len - c->out_done, &c->out_fd, nfds);
        if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!c->stalled_ms)
                c->stalled_ms = fc_now_ms();
            event_add(c->writable, NULL);
            return;
        }
        if (r < 0) {
            drop(c, NULL);
            return;
        }
        fc_close(&c->out_fd); /* it went with the first byte */
        c->out_done += (size_t)r;
        c->stalled_ms = 0;
    }
    free(c->out);
    c->out = NULL;
    if (c->closing)
        drop(c, NULL);
}

static void reply_line(struct fc_client *c, struct json_object *reply, int fd)
{
    size_t len;
    char *line = fc_ctl_line(reply, FC_CTL_MAX_REPLY, &len);
    json_object_put(reply);
    if (!line || c->dead || c->out) {
        free(line);
        fc_close(&fd);
        if (!line)
            drop(c, "the reply is too long");
        return;
    }
    c->out = line;
    c->out_len = len;
    c->out_done = 0;
    c->out_fd = fd;
    c->busy = false;
    try_to_write(c);
}

static void take_lines(struct fc_client *c);

/* After a reply that came outside of take_lines(): the next request may be
 * waiting already. */
static void go_on(struct fc_client *c)
{
    if (c->inside)
        return;
    c->inside = true;
    take_lines(c);
    c->inside = false;
    if (c->dead)
        client_free(c);
}

void fc_client_reply(struct fc_client *c, struct json_object *reply, int fd)
{
    bool inside = c->inside;
    if (!reply)
        reply = json_object_new_object();
    json_object_object_add(reply, "ok", json_object_new_boolean(1));
    c->inside = true;
    reply_line(c, reply, fd);
    c->inside = inside;
    go_on(c);
}

void fc_client_fail(struct fc_client *c, int code, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "ok", json_object_new_boolean(0));
    json_object_object_add(o, "code", json_object_new_string(fc_errname(code)));
    json_object_object_add(o, "error", json_object_new_string(text));
    bool inside = c->inside;
    c->inside = true;
    reply_line(c, o, -1);
    c->inside = inside;
    go_on(c);
}

void fc_client_close(struct fc_client *c)
{
    c->closing = true;
    if (!c->out)
        drop(c, NULL);
}

void fc_client_set_tag(struct fc_client *c, uint64_t tag)
{
    c->tag = tag;
}

uint64_t fc_client_tag(const struct fc_client *c)
{
    return c->tag;
}

struct fc_client *fc_control_by_tag(struct fc_control *control, uint64_t tag)
{
    for (struct fc_client *c = control->first; c; c = c->next)
        if (c->tag == tag && !c->dead)
            return c;
    return NULL;
}

unsigned fc_control_clients(const struct fc_control *c)
{
    return c->count;
}

static void one_request(struct fc_client *c, const char *line, size_t len)
{
    const char *why;
    int fds[FC_CTL_MAX_FDS] = { -1, -1 };
    memcpy(fds, c->fds, sizeof(int) * (size_t)c->nfds);
    c->nfds = 0;
    c->busy = true;
    struct json_object *req = fc_ctl_parse(line, len, &why);
    if (req)
        c->control->handler->request(c->control->user, c, req, fds);
    else
        fc_client_fail(c, FC_EFORMAT, "the request %s", why);
    json_object_put(req);
    for (unsigned i = 0; i < FC_CTL_MAX_FDS; i++)
        fc_close(&fds[i]);
}

/* Handles what lines there are, until one is not answered at once. */
static void take_lines(struct fc_client *c)
{
    while (!c->dead && !c->busy && !c->out && c->in_used) {
        char *end = memchr(c->in, '\n', c->in_used);
        if (!end)
            break;
        size_t len = (size_t)(end - c->in);
        one_request(c, c->in, len);
        c->in_used -= len + 1;
        memmove(c->in, end + 1, c->in_used);
    }
    if (!c->dead && c->in_used < FC_CTL_MAX_LINE)
        event_add(c->readable, NULL);
    if (c->dead || c->busy || c->out)
        return;
    if (c->in_used >= FC_CTL_MAX_LINE)
        drop(c, "its request is longer than 64 KiB");
    else if (!c->in_used)
        c->stalled_ms = 0;
    else if (!c->stalled_ms)
        c->stalled_ms = fc_now_ms();
}

/* Reads once. False when there is nothing (more) to do. */
static bool read_some(struct fc_client *c)
{
    int nfds;
    if (c->in_used >= FC_CTL_MAX_LINE) {
        event_del(c->readable);
        return false;
    }
    ssize_t r =
        fc_recv_fds(c->sock, c->in + c->in_used, FC_CTL_MAX_LINE - c->in_used,
                    c->fds + c->nfds, FC_CTL_MAX_FDS - c->nfds, &nfds);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    if (r <= 0) {
        drop(c, NULL);
        return false;
    }
    c->nfds += nfds;
    c->in_used += (size_t)r;
    return true;
}

static void on_client_readable(evutil_socket_t fd, short what, void *arg)
{
    struct fc_client *c = arg;
    (void)fd;
    (void)what;
    c->inside = true;
    if (read_some(c))
        take_lines(c);
    c->inside = false;
    if (c->dead)
        client_free(c);
}

static void on_client_writable(evutil_socket_t fd, short what, void *arg)
{
    struct fc_client *c = arg;
    (void)fd;
    (void)what;
    c->inside = true;
    try_to_write(c);
    if (!c->dead && !c->out) {
        take_lines(c);
    }
    c->inside = false;
    if (c->dead)
        client_free(c);
}

static void on_check(evutil_socket_t fd, short what, void *arg)
{
    struct fc_control *control = arg;
    uint64_t now = fc_now_ms();
    (void)fd;
    (void)what;
    for (struct fc_client *c = control->first, *next; c; c = next) {
        next = c->next;
        if (c->stalled_ms && now - c->stalled_ms >= STALL_MS)
            drop(c, c->out ? "it does not read its reply"
                           : "it sent half a request");
    }
}

/* Root may; and whoever the daemon runs as, which is root but in tests. */
static bool may_connect(int sock)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void add_client(struct fc_control *control, int sock)
{
    struct fc_client *c = calloc(1, sizeof(*c));
    if (!c) {
        close(sock);
        return;
    }
    c->control = control;
    c->sock = sock;
    c->out_fd = -1;
    c->next = control->first;
    control->first = c;
    control->count++;
    c->in = malloc(FC_CTL_MAX_LINE);
    c->readable = event_new(control->base, sock, EV_READ | EV_PERSIST,
                            on_client_readable, c);
    c->writable =
        event_new(control->base, sock, EV_WRITE, on_client_writable, c);
    if (!c->in || !c->readable || !c->writable ||
        event_add(c->readable, NULL) < 0)
        drop(c, "out of memory");
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
    struct fc_control *control = arg;
    (void)what;
    int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (sock < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            fc_warn("cannot accept a control client: %s", strerror(errno));
        return;
    }
    if (!may_connect(sock)) {
        fc_warn("refused a control client that is not root");
        close(sock);
    } else if (control->count >= FC_CONTROL_CLIENTS) {
        fc_warn("refused a control client: %u are connected", control->count);
        close(sock);
    } else {
        add_client(control, sock);
    }
}

static int bind_to(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        return FC_ESYS;
    }
    strcpy(addr.sun_path, path);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (sock < 0)
        return FC_ESYS;
    if (!connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
        fc_close(&sock);
        return FC_EBUSY;
    }
    unlink(path);
    mode_t old = umask(0177);
    int r = bind(sock, (struct sockaddr *)&addr, sizeof(addr));
    umask(old);
    if (r < 0 || listen(sock, 16) < 0) {
        fc_close(&sock);
        return FC_ESYS;
    }
    return sock;
}

int fc_control_new(struct event_base *base, const char *path,
                   const struct fc_control_handler *handler, void *user,
                   struct fc_control **control_r)
{
    const struct timeval check = { CHECK_S, 0 };
    int sock = bind_to(path);
    if (sock < 0)
        return sock;
    struct fc_control *c = calloc(1, sizeof(*c));
    if (!c) {
        fc_close(&sock);
        return FC_ENOMEM;
    }
    c->base = base;
    c->path = path;
    c->handler = handler;
    c->user = user;
    c->sock = sock;
    c->listening = event_new(base, sock, EV_READ | EV_PERSIST, on_connect, c);
    c->check = event_new(base, -1, EV_PERSIST, on_check, c);
    if (!c->listening || !c->check || event_add(c->listening, NULL) < 0 ||
        event_add(c->check, &check) < 0) {
        fc_control_free(c);
        return FC_ENOMEM;
    }
    *control_r = c;
    return 0;
}

void fc_control_free(struct fc_control *c)
{
    if (!c)
        return;
    while (c->first)
        client_free(c->first);
    if (c->listening)
        event_free(c->listening);
    if (c->check)
        event_free(c->check);
    unlink(c->path);
    fc_close(&c->sock);
    free(c);
}
