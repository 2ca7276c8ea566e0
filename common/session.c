/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

#define MIN_FD 3
#define MAX_FD 1023

void fc_session_defaults(struct fc_session *s)
{
    *s = (struct fc_session){
        .back_fd = -1,
        .status_fd = -1,
        .staged_fd = -1,
        .max_downtime_ms = 300,
        .max_rounds = 30,
        .window_bytes = 2097152,
        .hello_ms = 10000,
        .peer_timeout_s = 30,
        .fixed_ms = 100,
    };
}

/* Decimal digits only: strtoull alone would take signs and spaces. */
static int parse_number(const char *text, uint64_t min, uint64_t max,
                        uint64_t *value_r)
{
    size_t len = strlen(text);
    if (!len || len > 20 || strspn(text, "0123456789") != len)
        return FC_EFORMAT;
    errno = 0;
    uint64_t v = strtoull(text, NULL, 10);
    if (errno || v < min || v > max)
        return FC_EFORMAT;
    *value_r = v;
    return 0;
}

static int parse_fd(const char *text, int *fd_r)
{
    uint64_t v;
    int rc = parse_number(text, MIN_FD, MAX_FD, &v);
    if (rc == 0)
        *fd_r = (int)v;
    return rc;
}

static int parse_u32(const char *text, uint32_t min, uint32_t max,
                     uint32_t *value_r)
{
    uint64_t v;
    int rc = parse_number(text, min, max, &v);
    if (rc == 0)
        *value_r = (uint32_t)v;
    return rc;
}

/* One of two words. */
static int parse_word(const char *text, const char *no, const char *yes,
                      bool *value_r)
{
    bool is_yes = !strcmp(text, yes);
    if (!is_yes && strcmp(text, no))
        return FC_EFORMAT;
    *value_r = is_yes;
    return 0;
}

/* Keys that set a number of 32 bits. */
static const struct {
    const char *name;
    size_t offset;
    uint32_t min, max;
} numbers[] = {
    { "max_downtime_ms", offsetof(struct fc_session, max_downtime_ms), 1,
      3600000 },
    { "deadline_s", offsetof(struct fc_session, deadline_s), 0, 86400 },
    { "max_rounds", offsetof(struct fc_session, max_rounds), 1, 1000 },
    { "hello_ms", offsetof(struct fc_session, hello_ms), 100, 60000 },
    { "peer_timeout_s", offsetof(struct fc_session, peer_timeout_s), 5, 3600 },
    { "fixed_ms", offsetof(struct fc_session, fixed_ms), 0, 60000 },
};

#define KNOWN_VERSION 1u
#define KNOWN_UUID 2u

/* FC_EINVAL: no such key. */
static int set_key(struct fc_session *s, const char *key, const char *value,
                   unsigned *seen)
{
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (!strcmp(key, numbers[i].name))
            return parse_u32(value, numbers[i].min, numbers[i].max,
                             (uint32_t *)((char *)s + numbers[i].offset));
    if (!strcmp(key, "version")) {
        uint64_t v;
        if (parse_number(value, 0, UINT32_MAX, &v) < 0)
            return FC_EFORMAT;
        *seen |= KNOWN_VERSION;
        return v == FC_SESSION_VERSION ? 0 : FC_EVERSION;
    }
    if (!strcmp(key, "uuid")) {
        *seen |= KNOWN_UUID;
        return fc_uuid_parse(value, s->uuid);
    }
    if (!strcmp(key, "back_fd"))
        return parse_fd(value, &s->back_fd);
    if (!strcmp(key, "status_fd"))
        return parse_fd(value, &s->status_fd);
    if (!strcmp(key, "staged_fd"))
        return parse_fd(value, &s->staged_fd);
    if (!strcmp(key, "token"))
        return fc_hex_parse(value, s->token, sizeof(s->token));
    if (!strcmp(key, "epoch"))
        return parse_number(value, 0, UINT64_MAX, &s->epoch);
    if (!strcmp(key, "window_bytes"))
        return parse_number(value, 65536, 1073741824, &s->window_bytes);
    if (!strcmp(key, "floor_pages"))
        return parse_number(value, 0, FC_SESSION_PAGES_MAX, &s->floor_pages);
    if (!strcmp(key, "link_bps"))
        return parse_number(value, 0, FC_SESSION_LINK_MAX, &s->link_bps);
    if (!strcmp(key, "at_deadline"))
        return parse_word(value, "stop", "abort", &s->abort_at_deadline);
    if (!strcmp(key, "fallback"))
        return parse_word(value, "plain", "fail", &s->fail_when_plain);
    return FC_EINVAL;
}

static int parse_pair(struct fc_session *s, char *pair, unsigned *seen,
                      char *why, size_t why_len)
{
    char *value = strchr(pair, '=');
    if (!value) {
        snprintf(why, why_len, "'%s' is no key=value pair", pair);
        return FC_EFORMAT;
    }
    *value++ = '\0';
    int rc = set_key(s, pair, value, seen);
    if (rc == FC_EINVAL)
        snprintf(why, why_len, "unknown key '%s'", pair);
    else if (rc == FC_EVERSION)
        snprintf(why, why_len, "version %s is not %d", value,
                 FC_SESSION_VERSION);
    else if (rc < 0)
        snprintf(why, why_len, "'%s' is out of range for %s", value, pair);
    return rc == FC_EINVAL ? FC_EFORMAT : rc;
}

int fc_session_parse(const char *text, struct fc_session *s, char *why,
                     size_t why_len)
{
    char copy[FC_SESSION_TEXT];
    unsigned seen = 0;
    fc_session_defaults(s);
    size_t len = strnlen(text, sizeof(copy));
    if (len == sizeof(copy)) {
        snprintf(why, why_len, "longer than %d bytes", FC_SESSION_TEXT - 1);
        return FC_EFORMAT;
    }
    memcpy(copy, text, len + 1);
    char *rest = copy, *pair;
    while ((pair = strsep(&rest, ","))) {
        int rc = parse_pair(s, pair, &seen, why, why_len);
        if (rc < 0)
            return rc;
    }
    if (seen != (KNOWN_VERSION | KNOWN_UUID)) {
        snprintf(why, why_len, "no %s",
                 seen & KNOWN_VERSION ? "uuid" : "version");
        return FC_EFORMAT;
    }
    return 0;
}

static int format_fds(const struct fc_session *s, char *text, size_t cap)
{
    const struct {
        const char *name;
        int fd;
    } fds[] = { { "back_fd", s->back_fd },
                { "status_fd", s->status_fd },
                { "staged_fd", s->staged_fd } };
    int used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i].fd >= 0)
            used += snprintf(text + used, cap - (size_t)used, ",%s=%d",
                             fds[i].name, fds[i].fd);
    return used;
}

int fc_session_format(const struct fc_session *s, char text[FC_SESSION_TEXT])
{
    char uuid[FC_UUID_TEXT], token[2 * FC_TOKEN_BYTES + 1], fds[96];
    fc_uuid_format(s->uuid, uuid);
    fc_hex_format(s->token, sizeof(s->token), token);
    format_fds(s, fds, sizeof(fds));
    int n = snprintf(
        text, FC_SESSION_TEXT,
        "version=%d%s,token=%s,epoch=%" PRIu64 ",uuid=%s,max_downtime_ms=%u,"
        "deadline_s=%u,at_deadline=%s,max_rounds=%u,window_bytes=%" PRIu64
        ",hello_ms=%u,peer_timeout_s=%u,fallback=%s,fixed_ms=%u,link_bps="
        "%" PRIu64 ",floor_pages=%" PRIu64,
        FC_SESSION_VERSION, fds, token, s->epoch, uuid, s->max_downtime_ms,
        s->deadline_s, s->abort_at_deadline ? "abort" : "stop", s->max_rounds,
        s->window_bytes, s->hello_ms, s->peer_timeout_s,
        s->fail_when_plain ? "fail" : "plain", s->fixed_ms, s->link_bps,
        s->floor_pages);
    return n < FC_SESSION_TEXT ? 0 : FC_ETOOBIG;
}
