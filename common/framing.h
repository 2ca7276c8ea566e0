/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRAMING_H
#define FC_FRAMING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

/*
 * What the frames of the channel and of the block channel have in common
 * (docs/formats/channel.md, block-channel.md): the head, and the bodies that
 * are a number or a text. Nothing allocates or keeps state; any thread.
 */
#define FC_FRAMING_HEADER 16u
#define FC_FRAMING_MAX_TEXT 256u

/* One kind of channel. */
struct fc_framing {
    char magic[4];
    uint8_t version, last_type; /* types are 1 to that */
    uint32_t max_body;
};

struct fc_framing_head {
    unsigned type;
    uint32_t length; /* of the body */
    uint32_t check;
};

/* 0, or FC_EFORMAT / FC_EVERSION / FC_ETOOBIG. */
int fc_framing_head_parse(const struct fc_framing *f,
                          const uint8_t raw[FC_FRAMING_HEADER],
                          struct fc_framing_head *head_r);
/* Writes a head for `body`, computing the check. */
void fc_framing_head_make(const struct fc_framing *f,
                          uint8_t raw[FC_FRAMING_HEADER], unsigned type,
                          const void *body, uint32_t length);
/* Whether the body is the one that was sent: 0 or FC_ECHECK. */
int fc_framing_check(uint32_t check, const void *body, uint32_t length);

/* Whether the reader took everything, no more and no less. */
bool fc_framing_exact(const struct fc_reader *r);
/* The length of what was written, or FC_ETOOBIG. */
ssize_t fc_framing_made(const struct fc_writer *w);

/* Text for a terminal or a log out of bytes from another host: `len` of them
 * and a NUL. */
void fc_framing_scrub(char *text, const uint8_t *from, size_t len);

/* Bodies. Parsers: 0 or FC_EFORMAT. Makers: length or FC_ETOOBIG. */
int fc_framing_value_parse(const void *body, size_t len, uint64_t *value_r);

/*
 * Text, scrubbed; `most_reason` below 0: nothing before it, else a u16 from 0
 * to that, the reason, which goes to reason_r (0 when there is none) unless
 * that is NULL.
 */
int fc_framing_text_parse(const void *body, size_t len, int most_reason,
                          uint16_t *reason_r,
                          char text[FC_FRAMING_MAX_TEXT + 1]);
ssize_t fc_framing_text_make(int reason, const char *text, void *out,
                             size_t cap);

#endif
