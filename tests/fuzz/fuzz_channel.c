/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Channel frames: whatever parses can be made again and says the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t out[FC_CHANNEL_MAX_PFNS * 8 + 64];
static uint64_t pfns[FC_CHANNEL_MAX_PFNS];

static void same(ssize_t made, const uint8_t *body, size_t len)
{
    if (made != (ssize_t)len || memcmp(out, body, len))
        abort();
}

static void parse_body(enum fc_channel_type type, const uint8_t *body,
                       size_t len)
{
    struct fc_channel_hello hello;
    struct fc_channel_welcome welcome;
    char text[FC_CHANNEL_MAX_TEXT + 1];
    uint64_t value;
    uint32_t pages, count;
    uint16_t reason;
    switch (type) {
    case FC_CHANNEL_HELLO:
        if (!fc_channel_hello_parse(body, len, &hello) &&
            fc_channel_hello_make(&hello, out, sizeof(out)) != (ssize_t)len)
            abort();
        break;
    case FC_CHANNEL_WELCOME:
        if (!fc_channel_welcome_parse(body, len, &welcome))
            same(fc_channel_welcome_make(&welcome, out, sizeof(out)), body,
                 len);
        break;
    case FC_CHANNEL_STORED:
        if (!fc_channel_stored_parse(body, len, &value, &pages, pfns, &count))
            same(fc_channel_stored_make(value, pages, pfns, count, out,
                                        sizeof(out)),
                 body, len);
        break;
    case FC_CHANNEL_EVICTED:
    case FC_CHANNEL_DROP:
        if (!fc_channel_pfns_parse(body, len, pfns, &count))
            same(fc_channel_pfns_make(pfns, count, out, sizeof(out)), body,
                 len);
        break;
    case FC_CHANNEL_PING:
    case FC_CHANNEL_PONG:
        fc_channel_value_parse(body, len, &value);
        break;
    case FC_CHANNEL_BYE:
    case FC_CHANNEL_ERROR:
        if (!fc_channel_text_parse(type, body, len, &reason, text) &&
            fc_channel_text_make(type, reason, text, out, sizeof(out)) !=
                (ssize_t)len)
            abort();
        break;
    case FC_CHANNEL_PUT:
    case FC_CHANNEL_MODEL:
        break; /* a page batch: fuzz_batch; fuzz_learned, fuzz_profile */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_channel_head head;
    if (size < FC_CHANNEL_HEADER || fc_channel_head_parse(data, &head))
        return 0;
    /* The check is not asked: it would keep the fuzzer out of the bodies. */
    parse_body(head.type, data + FC_CHANNEL_HEADER, size - FC_CHANNEL_HEADER);
    if (head.length <= size - FC_CHANNEL_HEADER)
        fc_channel_check(&head, data + FC_CHANNEL_HEADER);
    return 0;
}
