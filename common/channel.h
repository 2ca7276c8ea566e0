/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CHANNEL_H
#define FC_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "io.h"
#include "session.h"

/* Channel frames, docs/formats/channel.md. Bodies other than page batches are
 * small structs here; no function allocates or keeps state. */
#define FC_CHANNEL_VERSION 1
#define FC_CHANNEL_HEADER 16u
#define FC_CHANNEL_MAX_BODY 4400000u
#define FC_CHANNEL_MAX_TEXT 256u
#define FC_CHANNEL_MAX_PFNS 4096u
#define FC_CHANNEL_MAX_MODEL (288u << 10)

enum fc_channel_type {
    FC_CHANNEL_HELLO = 1,
    FC_CHANNEL_WELCOME = 2,
    FC_CHANNEL_PUT = 3,
    FC_CHANNEL_STORED = 4,
    FC_CHANNEL_EVICTED = 5,
    FC_CHANNEL_DROP = 6,
    FC_CHANNEL_PING = 7,
    FC_CHANNEL_PONG = 8,
    FC_CHANNEL_BYE = 9,
    FC_CHANNEL_ERROR = 10,
    FC_CHANNEL_MODEL = 11,
};

enum fc_channel_bye {
    FC_BYE_DETACHED = 0,
    FC_BYE_MIGRATED = 1,
    FC_BYE_DISARMED = 2,
    FC_BYE_SHUTDOWN = 3,
};

struct fc_channel_head {
    enum fc_channel_type type;
    uint32_t length; /* of the body */
    uint32_t check;
};

struct fc_channel_hello {
    uint16_t highest, lowest, channel;
    uint8_t uuid[FC_UUID_BYTES];
    uint64_t guest_pages;
    char name[256];
};

struct fc_channel_welcome {
    uint16_t version;
    uint64_t epoch;
    uint8_t token[FC_TOKEN_BYTES];
    uint64_t pages_held, budget_bytes;
};

/* Header: 0, or FC_EFORMAT / FC_EVERSION / FC_ETOOBIG. */
int fc_channel_head_parse(const uint8_t raw[FC_CHANNEL_HEADER],
                          struct fc_channel_head *head_r);
/* Writes a header for `body`, computing the check. */
void fc_channel_head_make(uint8_t raw[FC_CHANNEL_HEADER],
                          enum fc_channel_type type, const void *body,
                          uint32_t length);
/* 0 or FC_ECHECK. */
int fc_channel_check(const struct fc_channel_head *head, const void *body);

/* Bodies. Parsers: 0 or FC_EFORMAT. Makers: length or FC_ETOOBIG. */
int fc_channel_hello_parse(const void *body, size_t len,
                           struct fc_channel_hello *hello_r);
ssize_t fc_channel_hello_make(const struct fc_channel_hello *hello, void *out,
                              size_t cap);
int fc_channel_welcome_parse(const void *body, size_t len,
                             struct fc_channel_welcome *welcome_r);
ssize_t fc_channel_welcome_make(const struct fc_channel_welcome *welcome,
                                void *out, size_t cap);
/* STORED: refused pfns into `refused` (FC_CHANNEL_MAX_PFNS entries). */
int fc_channel_stored_parse(const void *body, size_t len, uint64_t *seq_r,
                            uint32_t *pages_r, uint64_t *refused,
                            uint32_t *refused_r);
ssize_t fc_channel_stored_make(uint64_t seq, uint32_t pages,
                               const uint64_t *refused, uint32_t nrefused,
                               void *out, size_t cap);
/* EVICTED, DROP. */
int fc_channel_pfns_parse(const void *body, size_t len, uint64_t *pfns,
                          uint32_t *count_r);
ssize_t fc_channel_pfns_make(const uint64_t *pfns, uint32_t count, void *out,
                             size_t cap);
/* PING, PONG: the value is 8 bytes, little endian. 0 or FC_EFORMAT. */
int fc_channel_value_parse(const void *body, size_t len, uint64_t *value_r);
/* BYE (reason and text), ERROR (text; reason ignored). Text is scrubbed. */
int fc_channel_text_parse(enum fc_channel_type type, const void *body,
                          size_t len, uint16_t *reason_r,
                          char text[FC_CHANNEL_MAX_TEXT + 1]);
ssize_t fc_channel_text_make(enum fc_channel_type type, uint16_t reason,
                             const char *text, void *out, size_t cap);

#endif
