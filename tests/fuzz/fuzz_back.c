/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a destination prints: no byte is lost or made up in splitting it, and
 * every frame that is taken out encodes to the bytes it came from. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "back.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    const uint8_t *next; /* of the input */
    const uint8_t *end;
};

static void on_plain(void *user, const void *bytes, size_t len)
{
    struct seen *s = user;
    if (len > (size_t)(s->end - s->next) || memcmp(bytes, s->next, len))
        abort();
    s->next += len;
}

static void on_frame(void *user, const void *raw, size_t len,
                     const struct fc_back_frame *frame)
{
    uint8_t again[FC_BACK_HEADER + FC_BACK_MAX_BODY];
    on_plain(user, raw, len);
    /* scrubbed text may differ, its length not */
    if (fc_back_encode(frame, again, sizeof(again)) > (ssize_t)len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    struct seen seen = { data + 1, data + size };
    struct fc_back_splitter split = { .plain = on_plain,
                                      .frame = on_frame,
                                      .user = &seen };
    size_t piece = (size_t)data[0] + 1;
    for (size_t at = 1; at < size; at += piece)
        fc_back_split(&split, data + at, piece < size - at ? piece : size - at);
    fc_back_split_end(&split);
    if (seen.next != seen.end)
        abort();
    return 0;
}
