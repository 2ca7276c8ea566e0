/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SESSION_H
#define FC_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"

#define FC_SESSION_ENV "FORECOPY_SESSION"
#define FC_SESSION_VERSION 1
#define FC_SESSION_TEXT 1024 /* longest text form, with the NUL */
#define FC_TOKEN_BYTES 16
#define FC_SESSION_PAGES_MAX (INT64_C(1) << 40)
#define FC_SESSION_LINK_MAX INT64_C(1000000000000) /* bytes a second */

/* docs/formats/session.md has every field's range and default. */
struct fc_session {
    int back_fd, status_fd, staged_fd; /* -1: none */
    uint8_t token[FC_TOKEN_BYTES];
    uint64_t epoch;
    uint8_t uuid[FC_UUID_BYTES];
    uint32_t max_downtime_ms;
    uint32_t deadline_s;
    bool abort_at_deadline;
    uint32_t max_rounds;
    uint64_t window_bytes;
    uint32_t hello_ms;
    uint32_t peer_timeout_s;
    bool fail_when_plain;
    uint32_t fixed_ms;
    uint64_t link_bps;    /* 0: not known */
    uint64_t floor_pages; /* 0: not known */
};

void fc_session_defaults(struct fc_session *s);

/* 0, or FC_EFORMAT / FC_EVERSION with a message in `why` (of `why_len`). */
int fc_session_parse(const char *text, struct fc_session *s, char *why,
                     size_t why_len);

/* 0 or FC_ETOOBIG. */
int fc_session_format(const struct fc_session *s, char text[FC_SESSION_TEXT]);

#endif
