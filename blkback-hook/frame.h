/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRAME_H
#define FC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "io.h"

/*
 * Frames of the block channel, docs/formats/block-channel.md. Bodies are small
 * structs here; a DATA's bytes and a set's piece are left in place. Nothing
 * allocates or keeps state; any thread.
 */
#define FC_FRAME_VERSION 1
#define FC_FRAME_HEADER 16u
#define FC_FRAME_MAX_BODY 1114112u /* 1 MiB of data, and room around it */
#define FC_FRAME_MAX_TEXT 256u
#define FC_FRAME_MAX_NAME 15u
#define FC_FRAME_MAX_PLAIN (1u << 20)  /* bytes of one DATA or WANT */
#define FC_FRAME_MAX_ZEROS (64u << 20) /* of one DATA that is all zeros */
#define FC_FRAME_MAX_PIECE (1u << 20)  /* of a block set */
#define FC_FRAME_SECTOR 512u           /* what offsets are multiples of */
#define FC_FRAME_DATA_HEAD 48u         /* of a DATA's body, before the bytes */
#define FC_MIGRATION_BYTES 16

enum fc_frame_type {
    FC_FRAME_HELLO = 1,
    FC_FRAME_WELCOME = 2,
    FC_FRAME_HELD = 3,
    FC_FRAME_DATA = 4,
    FC_FRAME_STORED = 5,
    FC_FRAME_WANT = 6,
    FC_FRAME_MISSING = 7,
    FC_FRAME_FENCE = 8,
    FC_FRAME_FENCED = 9,
    FC_FRAME_LEASE = 10,
    FC_FRAME_OWNED = 11,
    FC_FRAME_RETURN = 12,
    FC_FRAME_RETURNED = 13,
    FC_FRAME_CHECK = 14,
    FC_FRAME_COMPLETE = 15,
    FC_FRAME_PING = 16,
    FC_FRAME_PONG = 17,
    FC_FRAME_BYE = 18,
    FC_FRAME_ERROR = 19,
};

enum fc_frame_encoding {
    FC_FRAME_RAW = 0,
    FC_FRAME_LZ4 = 1,
    FC_FRAME_ZEROS = 2,
    FC_FRAME_UNREADABLE = 3,
};

enum fc_frame_status {
    FC_FRAME_DONE = 0,
    FC_FRAME_REFUSED = 1,
    FC_FRAME_FAILED = 2,
};

enum fc_frame_bye { FC_FRAME_DETACHED = 0, FC_FRAME_FINISHED = 1 };

struct fc_frame_head {
    enum fc_frame_type type;
    uint32_t length; /* of the body */
    uint32_t check;
};

struct fc_frame_hello {
    uint16_t highest, lowest;
    uint32_t block_bytes;
    uint8_t uuid[FC_UUID_BYTES];
    uint64_t size, epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    char name[FC_FRAME_MAX_NAME + 1];
};

struct fc_frame_welcome {
    uint16_t version;
    bool owner, fenced;
    uint64_t epoch;
    uint8_t migration[FC_MIGRATION_BYTES];
    uint64_t held;
};

struct fc_frame_data {
    uint64_t seq, answer, offset;
    uint32_t length; /* of the plain bytes */
    enum fc_frame_encoding encoding;
    bool keep;
    uint64_t hash_lo, hash_hi;
    const uint8_t *bytes; /* within the body */
    uint32_t coded;       /* how many they are */
};

struct fc_frame_want {
    uint64_t number, offset;
    uint32_t length;
};

/* FENCE, LEASE, RETURN; with status and invalid their answers. */
struct fc_frame_flip {
    uint8_t migration[FC_MIGRATION_BYTES];
    uint64_t epoch;
    enum fc_frame_status status;
    uint64_t invalid;
};

/* Header: 0, or FC_EFORMAT / FC_EVERSION / FC_ETOOBIG. */
int fc_frame_head_parse(const uint8_t raw[FC_FRAME_HEADER],
                        struct fc_frame_head *head_r);
/* Writes a header for `body`, computing the check. */
void fc_frame_head_make(uint8_t raw[FC_FRAME_HEADER], enum fc_frame_type type,
                        const void *body, uint32_t length);
/* 0 or FC_ECHECK. */
int fc_frame_check(const struct fc_frame_head *head, const void *body);

/* "DATA", for messages; never NULL. */
const char *fc_frame_name(enum fc_frame_type type);

/* Bodies. Parsers: 0 or FC_EFORMAT. Makers: length or FC_ETOOBIG. */
int fc_frame_hello_parse(const void *body, size_t len,
                         struct fc_frame_hello *hello_r);
ssize_t fc_frame_hello_make(const struct fc_frame_hello *hello, void *out,
                            size_t cap);
int fc_frame_welcome_parse(const void *body, size_t len,
                           struct fc_frame_welcome *welcome_r);
ssize_t fc_frame_welcome_make(const struct fc_frame_welcome *welcome, void *out,
                              size_t cap);
/* The maker writes the part before the bytes, which follow it. */
int fc_frame_data_parse(const void *body, size_t len,
                        struct fc_frame_data *data_r);
ssize_t fc_frame_data_make(const struct fc_frame_data *data, void *out,
                           size_t cap);
int fc_frame_want_parse(const void *body, size_t len,
                        struct fc_frame_want *want_r);
ssize_t fc_frame_want_make(const struct fc_frame_want *want, void *out,
                           size_t cap);
int fc_frame_flip_parse(enum fc_frame_type type, const void *body, size_t len,
                        struct fc_frame_flip *flip_r);
ssize_t fc_frame_flip_make(enum fc_frame_type type,
                           const struct fc_frame_flip *flip, void *out,
                           size_t cap);
/* STORED, PING, PONG. */
int fc_frame_value_parse(const void *body, size_t len, uint64_t *value_r);
ssize_t fc_frame_value_make(uint64_t value, void *out, size_t cap);
/* BYE (reason and text), ERROR (text; reason ignored). Text is scrubbed. */
int fc_frame_text_parse(enum fc_frame_type type, const void *body, size_t len,
                        uint16_t *reason_r, char text[FC_FRAME_MAX_TEXT + 1]);
ssize_t fc_frame_text_make(enum fc_frame_type type, uint16_t reason,
                           const char *text, void *out, size_t cap);

/*
 * A DATA's plain bytes, decoded into `plain` (at least FC_FRAME_MAX_PLAIN) or
 * in place: *plain_r is NULL for zeros, else `length` bytes whose hash was
 * found right. 0, FC_EFORMAT (not LZ4 of that length) or FC_ECHECK. Not for
 * FC_FRAME_UNREADABLE.
 */
int fc_frame_data_plain(const struct fc_frame_data *data, uint8_t *plain,
                        const uint8_t **plain_r);

/*
 * Fills encoding, hash, bytes and coded of `data` for `length` plain bytes:
 * zeros are found, the rest goes into `coded` (FC_FRAME_MAX_PLAIN bytes, apart
 * from `plain`), LZ4-coded where that is shorter.
 */
void fc_frame_data_encode(struct fc_frame_data *data, const uint8_t *plain,
                          uint8_t *coded);

#endif
