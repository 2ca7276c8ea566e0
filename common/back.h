/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BACK_H
#define FC_BACK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Back-channel frames, docs/formats/back-channel.md. */
#define FC_BACK_HEADER 8u
#define FC_BACK_MAX_BODY 2048u
#define FC_BACK_MAX_TEXT 256u
#define FC_BACK_MAX_MISSING 255u

enum fc_back_type {
    FC_BACK_WELCOME = 1,
    FC_BACK_REFUSE = 2,
    FC_BACK_ACK = 3,
    FC_BACK_SYNCED = 4,
    FC_BACK_MISSING = 5,
    FC_BACK_DONE = 6,
    FC_BACK_FAILED = 7,
};

#define FC_BACK_STORE_FOUND 1u /* flag of WELCOME */

struct fc_back_frame {
    enum fc_back_type type;
    union {
        struct {
            uint16_t version, flags;
            uint64_t pages_held;
        } welcome;
        uint64_t value; /* ACK: bytes; SYNCED: id */
        struct {
            unsigned count;
            uint64_t pfn[FC_BACK_MAX_MISSING];
        } missing;
        char text[FC_BACK_MAX_TEXT + 1]; /* REFUSE, FAILED: scrubbed, NUL */
    };
};

/* Frame into `out` (FC_BACK_HEADER + FC_BACK_MAX_BODY suffice). Returns its
 * length or FC_EINVAL. */
ssize_t fc_back_encode(const struct fc_back_frame *frame, void *out,
                       size_t cap);

/*
 * The frame at the start of `buf`. Returns bytes consumed, 0 when more are
 * needed, FC_EFORMAT when there is no valid frame.
 */
ssize_t fc_back_decode(const void *buf, size_t len,
                       struct fc_back_frame *frame_r);

/*
 * Splits what the receiver prints into frames and xl's own bytes. Feed it all
 * bytes in order; every byte is handed to `plain` or taken as part of a frame.
 * Bytes that start like a frame but are none are plain (a receiver that is not
 * ours). A frame starts at the beginning, after a frame or after a newline,
 * nowhere else. After DONE or FAILED everything is plain. Holds back at most one
 * frame.
 */
struct fc_back_splitter {
    uint8_t held[FC_BACK_HEADER + FC_BACK_MAX_BODY];
    size_t used;
    int finished;
    int in_text; /* the last plain byte was not a newline */
    void (*plain)(void *user, const void *bytes, size_t len);
    void (*frame)(void *user, const void *raw, size_t len,
                  const struct fc_back_frame *frame);
    void *user;
};

void fc_back_split(struct fc_back_splitter *s, const void *bytes, size_t len);

/* At the stream's end: what is held back was plain. */
void fc_back_split_end(struct fc_back_splitter *s);

#endif
