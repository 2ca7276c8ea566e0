/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "err.h"
#include "io.h"

#define RETRY_MS 20       /* while the daemon's backlog is full */
#define READ_BYTES 16384u /* at a time */

static int connect_once(const struct sockaddr_un *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return FC_ESYS;
    if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ||
        fc_set_nonblock(fd, 0)) {
        fc_close(&fd);
        return FC_ESYS;
    }
    return fd;
}

int fc_ctl_connect(const char *path, int timeout_ms)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    uint64_t end = fc_now_ms() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0);
    if (!path)
        path = getenv("FORECOPY_SOCKET");
    if (!path || !*path)
        path = FC_CTL_PATH;
    if (strlen(path) >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        return FC_EDAEMON;
    }
    strcpy(addr.sun_path, path);
    for (;;) {
        int fd = connect_once(&addr);
        if (fd >= 0)
            return fd;
        if (errno != EAGAIN && errno != EINTR)
            return FC_EDAEMON;
        if (fc_now_ms() >= end) {
            errno = ETIMEDOUT;
            return FC_EDAEMON;
        }
        poll(NULL, 0, RETRY_MS);
    }
}

char *fc_ctl_line(struct json_object *o, size_t max, size_t *len_r)
{
    size_t len;
    const char *text =
        json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);
    if (!text || len + 1 > max)
        return NULL;
    char *line = malloc(len + 2);
    if (!line)
        return NULL;
    memcpy(line, text, len);
    line[len] = '\n';
    line[len + 1] = '\0';
    *len_r = len + 1;
    return line;
}

struct json_object *fc_ctl_parse(const char *line, size_t len,
                                 const char **why_r)
{
    struct json_object *o = NULL;
    const char *why = NULL;
    struct json_tokener *tok = NULL;
    if (len > FC_CTL_MAX_REPLY)
        why = "too long";
    else if (memchr(line, '\0', len))
        why = "a zero byte";
    else if (!(tok = json_tokener_new_ex(FC_CTL_MAX_DEPTH)))
        why = "out of memory";
    if (!why) {
        json_tokener_set_flags(tok, JSON_TOKENER_STRICT |
                                        JSON_TOKENER_VALIDATE_UTF8);
        o = json_tokener_parse_ex(tok, line, (int)len);
        enum json_tokener_error err = json_tokener_get_error(tok);
        if (err == json_tokener_continue)
            why = "incomplete JSON";
        else if (err == json_tokener_error_depth)
            why = "nested too deeply";
        else if (err != json_tokener_success)
            why = json_tokener_error_desc(err);
        else if (json_tokener_get_parse_end(tok) != len)
            why = "bytes after the object";
        else if (!json_object_is_type(o, json_type_object))
            why = "not an object";
    }
    if (tok)
        json_tokener_free(tok);
    if (why) {
        json_object_put(o);
        o = NULL;
    }
    if (why_r)
        *why_r = why;
    return o;
}

int fc_ctl_code(const char *name)
{
    for (int rc = 0; rc > -128; rc--)
        if (strcmp(fc_errname(rc), "FC_EUNKNOWN") &&
            !strcmp(fc_errname(rc), name))
            return rc;
    return FC_EPEER;
}

/* All of the line, the descriptors with its first bytes. */
static int send_line(int sock, const char *line, size_t len, const int *fds,
                     int nfds, int timeout_ms)
{
    struct timeval limit = { .tv_sec = timeout_ms / 1000,
                             .tv_usec = timeout_ms % 1000 * 1000 };
    if (timeout_ms > 0)
        setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    while (len) {
        ssize_t r = fc_send_fds(sock, line, len, fds, nfds);
        if (r <= 0)
            return FC_EDAEMON;
        line += r;
        len -= (size_t)r;
        nfds = 0;
    }
    return 0;
}

struct incoming {
    char *text;
    size_t len;
    int fds[FC_CTL_MAX_FDS];
    int nfds;
};

/* Reads up to the first newline, which becomes the text's end. */
static int read_line(int sock, struct incoming *in, uint64_t end_ms)
{
    for (;;) {
        uint64_t now = fc_now_ms();
        int left = now < end_ms ? (int)(end_ms - now) : 0, n = 0;
        int r = fc_wait_readable(sock, left);
        if (r <= 0) {
            errno = r ? errno : ETIMEDOUT;
            return FC_EDAEMON;
        }
        char *text = realloc(in->text, in->len + READ_BYTES);
        if (!text)
            return FC_ENOMEM;
        in->text = text;
        ssize_t got =
            fc_recv_fds(sock, text + in->len, READ_BYTES, in->fds + in->nfds,
                        FC_CTL_MAX_FDS - in->nfds, &n);
        in->nfds += n;
        if (got == 0)
            errno = ECONNRESET;
        if (got <= 0)
            return FC_EDAEMON;
        char *newline = memchr(text + in->len, '\n', (size_t)got);
        in->len += (size_t)got;
        if (newline) {
            if (newline + 1 != text + in->len)
                return FC_EFORMAT;
            in->len--;
            return 0;
        }
        if (in->len > FC_CTL_MAX_REPLY)
            return FC_ETOOBIG;
    }
}

int fc_ctl_call(int sock, struct json_object *request, const int *fds, int nfds,
                struct json_object **reply_r, int *fds_r, int timeout_ms)
{
    struct incoming in = { .text = NULL };
    uint64_t end = fc_now_ms() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0);
    size_t len;
    int rc;
    *reply_r = NULL;
    for (int i = 0; fds_r && i < FC_CTL_MAX_FDS; i++)
        fds_r[i] = -1;
    char *line = fc_ctl_line(request, FC_CTL_MAX_LINE, &len);
    if (!line)
        return FC_ETOOBIG;
    rc = send_line(sock, line, len, fds, nfds, timeout_ms);
    if (rc)
        goto out;
    rc = read_line(sock, &in, end);
    if (rc)
        goto out;
    *reply_r = fc_ctl_parse(in.text, in.len, NULL);
    if (!*reply_r)
        rc = FC_EFORMAT;
    else if (!fc_json_bool(*reply_r, "ok", 0))
        rc = fc_ctl_code(fc_json_str(*reply_r, "code", ""));
    if (*reply_r && !fc_json_bool(*reply_r, "ok", 0) && !rc)
        rc = FC_EPEER;
out:
    for (int i = 0; i < in.nfds; i++) {
        if (fds_r && !rc)
            fds_r[i] = in.fds[i];
        else
            fc_close(&in.fds[i]);
    }
    free(in.text);
    free(line);
    return rc;
}

struct json_object *fc_json_member(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;
    if (json_object_is_type(o, json_type_object))
        json_object_object_get_ex(o, key, &v);
    return v;
}

const char *fc_json_str(struct json_object *o, const char *key,
                        const char *fallback)
{
    struct json_object *v = fc_json_member(o, key);
    return json_object_is_type(v, json_type_string) ? json_object_get_string(v)
                                                    : fallback;
}

int64_t fc_json_int(struct json_object *o, const char *key, int64_t fallback)
{
    struct json_object *v = fc_json_member(o, key);
    return json_object_is_type(v, json_type_int) ? json_object_get_int64(v)
                                                 : fallback;
}

double fc_json_double(struct json_object *o, const char *key, double fallback)
{
    struct json_object *v = fc_json_member(o, key);
    if (!json_object_is_type(v, json_type_double) &&
        !json_object_is_type(v, json_type_int))
        return fallback;
    double d = json_object_get_double(v); /* json-c reads NaN, JSON or not */
    return isfinite(d) ? d : fallback;
}

int fc_json_bool(struct json_object *o, const char *key, int fallback)
{
    struct json_object *v = fc_json_member(o, key);
    return json_object_is_type(v, json_type_boolean)
               ? json_object_get_boolean(v)
               : fallback;
}

void fc_json_put_int(struct json_object *o, const char *key, int64_t v)
{
    json_object_object_add(o, key, json_object_new_int64(v));
}

void fc_json_put_double(struct json_object *o, const char *key, double v)
{
    json_object_object_add(o, key, json_object_new_double(v));
}

void fc_json_put_text(struct json_object *o, const char *key, const char *v)
{
    json_object_object_add(o, key, json_object_new_string(v));
}

void fc_json_put_bool(struct json_object *o, const char *key, int v)
{
    json_object_object_add(o, key, json_object_new_boolean(v));
}
