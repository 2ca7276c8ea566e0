/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block channel frames: whatever parses can be made again and says the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t out[4096], plain[FC_FRAME_MAX_PLAIN];

static void same(ssize_t made, const uint8_t *body, size_t len)
{
    if (made != (ssize_t)len || memcmp(out, body, len))
        abort();
}

static void parse_data(const uint8_t *body, size_t len)
{
    struct fc_frame_data data;
    const uint8_t *p;
    if (fc_frame_data_parse(body, len, &data))
        return;
    same(fc_frame_data_make(&data, out, sizeof(out)), body, FC_FRAME_DATA_HEAD);
    if (data.encoding != FC_FRAME_UNREADABLE &&
        !fc_frame_data_plain(&data, plain, &p) && p) {
        volatile uint8_t last = p[data.length - 1];
        (void)last;
    }
}

static void parse_body(enum fc_frame_type type, const uint8_t *body, size_t len)
{
    struct fc_frame_hello hello;
    struct fc_frame_welcome welcome;
    struct fc_frame_want want;
    struct fc_frame_flip flip;
    char text[FC_FRAME_MAX_TEXT + 1];
    uint64_t value;
    uint16_t reason;
    switch (type) {
    case FC_FRAME_HELLO:
        if (!fc_frame_hello_parse(body, len, &hello) &&
            fc_frame_hello_make(&hello, out, sizeof(out)) > (ssize_t)len)
            abort();
        break;
    case FC_FRAME_WELCOME:
        if (!fc_frame_welcome_parse(body, len, &welcome))
            same(fc_frame_welcome_make(&welcome, out, sizeof(out)), body, len);
        break;
    case FC_FRAME_DATA:
        parse_data(body, len);
        break;
    case FC_FRAME_WANT:
        if (!fc_frame_want_parse(body, len, &want))
            same(fc_frame_want_make(&want, out, sizeof(out)), body, len);
        break;
    case FC_FRAME_FENCE:
    case FC_FRAME_FENCED:
    case FC_FRAME_LEASE:
    case FC_FRAME_OWNED:
    case FC_FRAME_RETURN:
    case FC_FRAME_RETURNED:
        if (!fc_frame_flip_parse(type, body, len, &flip))
            same(fc_frame_flip_make(type, &flip, out, sizeof(out)), body, len);
        break;
    case FC_FRAME_STORED:
    case FC_FRAME_PING:
    case FC_FRAME_PONG:
        if (!fc_frame_value_parse(body, len, &value))
            same(fc_frame_value_make(value, out, sizeof(out)), body, len);
        break;
    case FC_FRAME_BYE:
    case FC_FRAME_ERROR:
        if (!fc_frame_text_parse(type, body, len, &reason, text) &&
            fc_frame_text_make(type, reason, text, out, sizeof(out)) >
                (ssize_t)len)
            abort();
        break;
    case FC_FRAME_HELD:
    case FC_FRAME_MISSING: /* pieces of a set: fuzz_blockset */
    case FC_FRAME_CHECK:
    case FC_FRAME_COMPLETE:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_frame_head head;
    if (size < FC_FRAME_HEADER || fc_frame_head_parse(data, &head))
        return 0;
    /* The check is not asked: it would keep the fuzzer out of the bodies. */
    parse_body(head.type, data + FC_FRAME_HEADER, size - FC_FRAME_HEADER);
    if (head.length <= size - FC_FRAME_HEADER)
        fc_frame_check(&head, data + FC_FRAME_HEADER);
    return 0;
}
