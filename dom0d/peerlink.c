/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "peerlink.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "log.h"

/*
 * The command gets one end of a socket pair as input and output and another as
 * standard error, whose lines go to the log. The channel is over when the
 * socket or the command ends, when nothing was heard for timeout_s although a
 * PING goes out each BEAT_S, or when a frame is not as it must be; the command
 * is then told to end and the owner to try again.
 */
#define BEAT_S 5
/* Of what a destination sends, STORED and EVICTED with all their pfns are
 * longest: 16 + 8 * FC_CHANNEL_MAX_PFNS. */
#define MAX_INPUT_BODY (16u + 8u * FC_CHANNEL_MAX_PFNS)
#define MAX_ERROR_LINE 1024u

void fc_peerlink_init(struct fc_peerlink *l,
                      const struct fc_peerlink_config *config, uint16_t number,
                      const struct fc_peerlink_events *events, void *user)
{
    memset(l, 0, sizeof(*l));
    l->config = config;
    l->number = number;
    l->events = events;
    l->user = user;
}

void fc_peerlink_stop(struct fc_peerlink *l)
{
    if (l->frames)
        bufferevent_free(l->frames);
    if (l->errors)
        bufferevent_free(l->errors);
    if (l->beat)
        event_free(l->beat);
    l->frames = l->errors = NULL;
    l->beat = NULL;
    if (l->pid > 0) {
        fc_children_forget(l->config->children, l->pid);
        fc_children_end(l->config->children, l->pid);
    }
    l->pid = 0;
    l->state = FC_PEERLINK_DOWN;
}

static void go_down(struct fc_peerlink *l, const char *why)
{
    char text[600];
    const char *said = *l->farewell ? l->farewell : l->last_error;
    if (*said)
        snprintf(text, sizeof(text), "%s: %s", why, said);
    else
        snprintf(text, sizeof(text), "%s", why);
    fc_peerlink_stop(l);
    l->events->down(l->user, l, text);
}

static void free_frame(const void *data, size_t len, void *extra)
{
    (void)data;
    (void)len;
    free(extra);
}

int fc_peerlink_send_owned(struct fc_peerlink *l, uint8_t *memory,
                           const uint8_t *frame, size_t len)
{
    if (!l->frames) {
        free(memory);
        return FC_EPEER;
    }
    if (evbuffer_add_reference(bufferevent_get_output(l->frames), frame, len,
                               free_frame, memory) < 0) {
        free(memory);
        return FC_ENOMEM;
    }
    return 0;
}

int fc_peerlink_send(struct fc_peerlink *l, enum fc_channel_type type,
                     const void *body, size_t len)
{
    uint8_t head[FC_CHANNEL_HEADER];
    if (!l->frames)
        return FC_EPEER;
    fc_channel_head_make(head, type, body, (uint32_t)len);
    struct evbuffer *out = bufferevent_get_output(l->frames);
    if (evbuffer_expand(out, sizeof(head) + len) < 0 ||
        evbuffer_add(out, head, sizeof(head)) < 0 ||
        evbuffer_add(out, body, len) < 0)
        return FC_ENOMEM;
    return 0;
}

/* Frames. Each handler returns 0, or what is wrong. */

static const char *on_welcome(struct fc_peerlink *l, const uint8_t *body,
                              size_t len)
{
    struct fc_channel_welcome welcome;
    if (l->state == FC_PEERLINK_UP)
        return "a second WELCOME";
    if (fc_channel_welcome_parse(body, len, &welcome))
        return "a malformed WELCOME";
    l->state = FC_PEERLINK_UP;
    l->events->up(l->user, l, &welcome);
    return NULL;
}

static const char *on_stored(struct fc_peerlink *l, const uint8_t *body,
                             size_t len)
{
    uint64_t seq, refused[FC_CHANNEL_MAX_PFNS];
    uint32_t pages, count;
    if (fc_channel_stored_parse(body, len, &seq, &pages, refused, &count))
        return "a malformed STORED";
    l->events->stored(l->user, l, seq, refused, count);
    return NULL;
}

static const char *on_evicted(struct fc_peerlink *l, const uint8_t *body,
                              size_t len)
{
    uint64_t pfns[FC_CHANNEL_MAX_PFNS];
    uint32_t count;
    if (fc_channel_pfns_parse(body, len, pfns, &count))
        return "a malformed EVICTED";
    l->events->evicted(l->user, l, pfns, count);
    return NULL;
}

static const char *on_text(struct fc_peerlink *l, enum fc_channel_type type,
                           const uint8_t *body, size_t len)
{
    uint16_t reason;
    if (fc_channel_text_parse(type, body, len, &reason, l->farewell))
        return "a malformed farewell";
    return type == FC_CHANNEL_BYE ? "the destination ended it"
                                  : "the destination reports an error";
}

static const char *on_frame(struct fc_peerlink *l, enum fc_channel_type type,
                            const uint8_t *body, size_t len)
{
    switch (type) {
    case FC_CHANNEL_WELCOME:
        return on_welcome(l, body, len);
    case FC_CHANNEL_STORED:
        return l->state == FC_PEERLINK_UP ? on_stored(l, body, len)
                                          : "STORED ahead of WELCOME";
    case FC_CHANNEL_EVICTED:
        return l->state == FC_PEERLINK_UP ? on_evicted(l, body, len)
                                          : "EVICTED ahead of WELCOME";
    case FC_CHANNEL_PING:
        if (len != 8)
            return "a malformed PING";
        fc_peerlink_send(l, FC_CHANNEL_PONG, body, len);
        return NULL;
    case FC_CHANNEL_PONG:
        return NULL;
    case FC_CHANNEL_BYE:
    case FC_CHANNEL_ERROR:
        return on_text(l, type, body, len);
    case FC_CHANNEL_HELLO:
    case FC_CHANNEL_PUT:
    case FC_CHANNEL_DROP:
    case FC_CHANNEL_MODEL:
        break;
    }
    return "a frame that only a source sends";
}

/* Takes one frame from the input. 1, 0 (more bytes needed) or what is wrong in
 * *wrong_r. The channel may be down afterwards when it returns 1. */
static int take_frame(struct fc_peerlink *l, const char **wrong_r)
{
    struct evbuffer *in = bufferevent_get_input(l->frames);
    struct fc_channel_head head;
    uint8_t raw[FC_CHANNEL_HEADER];

    *wrong_r = NULL;
    if (evbuffer_copyout(in, raw, sizeof(raw)) < (ssize_t)sizeof(raw))
        return 0;
    int rc = fc_channel_head_parse(raw, &head);
    if (rc || head.length > MAX_INPUT_BODY) {
        *wrong_r = rc == FC_EVERSION ? "another version of the protocol"
                                     : "bytes that are no frame";
        return 1;
    }
    if (evbuffer_get_length(in) < sizeof(raw) + head.length)
        return 0;
    uint8_t *frame = evbuffer_pullup(in, (ssize_t)(sizeof(raw) + head.length));
    if (!frame) {
        *wrong_r = "out of memory";
        return 1;
    }
    const uint8_t *body = frame + sizeof(raw);
    *wrong_r = fc_channel_check(&head, body)
                   ? "a frame with a wrong checksum"
                   : on_frame(l, head.type, body, head.length);
    if (!*wrong_r && l->frames)
        evbuffer_drain(in, sizeof(raw) + head.length);
    return 1;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct fc_peerlink *l = arg;
    const char *wrong;
    l->heard_ms = fc_now_ms();
    while (l->frames == bev && take_frame(l, &wrong))
        if (wrong) {
            go_down(l, wrong);
            return;
        }
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct fc_peerlink *l = arg;
    (void)bev;
    l->events->drained(l->user, l);
}

/* Lines of the command's standard error. */
static void note_line(struct fc_peerlink *l, const char *line)
{
    if (!*line)
        return;
    snprintf(l->last_error, sizeof(l->last_error), "%s", line);
    fc_debug("channel %u for %s: %s", l->number, l->config->hello.name, line);
}

static void on_error_text(struct bufferevent *bev, void *arg)
{
    struct fc_peerlink *l = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    char *line;
    while ((line = evbuffer_readln(in, NULL, EVBUFFER_EOL_ANY))) {
        note_line(l, line);
        free(line);
    }
    if (evbuffer_get_length(in) > MAX_ERROR_LINE)
        evbuffer_drain(in, evbuffer_get_length(in));
}

/* What it said last, which the event loop may not have come to yet. */
static void read_last_words(struct fc_peerlink *l)
{
    char text[MAX_ERROR_LINE + 1], *save = NULL;
    if (!l->errors)
        return;
    on_error_text(l->errors, l);
    ssize_t n =
        recv(bufferevent_getfd(l->errors), text, MAX_ERROR_LINE, MSG_DONTWAIT);
    if (n <= 0)
        return;
    text[n] = '\0';
    for (char *line = strtok_r(text, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save))
        note_line(l, line);
}

static void on_closed(struct bufferevent *bev, short what, void *arg)
{
    struct fc_peerlink *l = arg;
    int err = errno;
    (void)bev;
    read_last_words(l);
    if (what & BEV_EVENT_ERROR)
        go_down(l, strerror(err));
    else
        go_down(l, "the connection ended");
}

static void on_error_end(struct bufferevent *bev, short what, void *arg)
{
    struct fc_peerlink *l = arg;
    (void)what;
    l->errors = NULL;
    bufferevent_free(bev);
}

static void on_child_ended(void *user, pid_t pid, int status)
{
    struct fc_peerlink *l = user;
    char why[80];
    (void)pid;
    l->pid = 0;
    if (WIFSIGNALED(status))
        snprintf(why, sizeof(why),
                 "the channel's command was killed by "
                 "signal %d",
                 WTERMSIG(status));
    else
        snprintf(why, sizeof(why),
                 "the channel's command ended with status "
                 "%d",
                 WEXITSTATUS(status));
    read_last_words(l);
    go_down(l, why);
}

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
    struct fc_peerlink *l = arg;
    uint8_t value[8] = { 0 };
    (void)fd;
    (void)what;
    if (fc_now_ms() - l->heard_ms > l->config->timeout_s * 1000ull)
        go_down(l, l->state == FC_PEERLINK_UP ? "nothing was heard for too long"
                                              : "no answer to HELLO");
    else if (l->state == FC_PEERLINK_UP)
        fc_peerlink_send(l, FC_CHANNEL_PING, value, sizeof(value));
}

static int say_hello(struct fc_peerlink *l)
{
    uint8_t body[512];
    struct fc_channel_hello hello = l->config->hello;
    hello.channel = l->number;
    ssize_t n = fc_channel_hello_make(&hello, body, sizeof(body));
    return n < 0 ? (int)n
                 : fc_peerlink_send(l, FC_CHANNEL_HELLO, body, (size_t)n);
}

/* Our ends of the command's sockets, which are kept on success. */
static int set_up(struct fc_peerlink *l, int frames, int errors)
{
    const struct timeval beat = { BEAT_S, 0 };
    struct event_base *base = l->config->base;
    l->frames = bufferevent_socket_new(
        base, frames, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (!l->frames) {
        close(frames);
        close(errors);
        return FC_ENOMEM;
    }
    l->errors = bufferevent_socket_new(
        base, errors, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (!l->errors) {
        close(errors);
        return FC_ENOMEM;
    }
    bufferevent_setcb(l->frames, on_read, on_written, on_closed, l);
    bufferevent_setwatermark(l->frames, EV_READ, 0,
                             4 * (MAX_INPUT_BODY + FC_CHANNEL_HEADER));
    bufferevent_setcb(l->errors, on_error_text, NULL, on_error_end, l);
    bufferevent_setwatermark(l->errors, EV_READ, 0, 2 * MAX_ERROR_LINE);
    l->beat = event_new(base, -1, EV_PERSIST, on_beat, l);
    if (!l->beat || event_add(l->beat, &beat) < 0 ||
        bufferevent_enable(l->frames, EV_READ | EV_WRITE) < 0 ||
        bufferevent_enable(l->errors, EV_READ) < 0)
        return FC_ENOMEM;
    return say_hello(l);
}

void fc_peerlink_start(struct fc_peerlink *l)
{
    const char *argv[] = { "sh", "-c", l->config->command, NULL };
    int frames[2] = { -1, -1 }, errors[2] = { -1, -1 };
    char why[200];

    l->last_error[0] = l->farewell[0] = '\0';
    l->state = FC_PEERLINK_CONNECTING;
    l->heard_ms = fc_now_ms();
    int type = SOCK_STREAM | SOCK_CLOEXEC;
    int rc = FC_ESYS;
    if (socketpair(AF_UNIX, type, 0, frames) < 0 ||
        socketpair(AF_UNIX, type, 0, errors) < 0 ||
        fc_set_nonblock(frames[0], 1) || fc_set_nonblock(errors[0], 1))
        goto out;
    l->pid = fc_children_run(l->config->children, argv, frames[1], frames[1],
                             errors[1], on_child_ended, l);
    if (l->pid < 0)
        goto out;
    rc = set_up(l, frames[0], errors[0]);
    frames[0] = errors[0] = -1;
out:
    if (rc)
        snprintf(why, sizeof(why), "cannot start the channel's command: %s",
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
    for (int i = 0; i < 2; i++) {
        fc_close(&frames[i]);
        fc_close(&errors[i]);
    }
    if (rc)
        go_down(l, why);
}
