/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a destination says before a guest with disks is handed over: nothing
 * but what xl expects passes, in order, and none of the ready message before
 * the disks were asked for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transport_gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The banner's length; the ready message follows it. */
#define BANNER 54u
#define READY_END (BANNER + 34u)

struct seen {
    const uint8_t *next, *start;
    unsigned flips;
    int answer;
};

static void pass(void *user, const void *bytes, size_t len)
{
    struct seen *s = user;
    if (memcmp(bytes, s->next, len))
        abort();
    s->next += len;
    if (s->next > s->start + BANNER && (s->flips != 1 || s->answer))
        abort();
}

static int flip(void *user)
{
    struct seen *s = user;
    if (s->next != s->start + BANNER)
        abort();
    s->flips++;
    return s->answer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    struct seen seen = { .next = data + 1,
                         .start = data + 1,
                         .answer = data[0] & 1 ? -1 : 0 };
    struct fc_gate gate = { .pass = pass, .flip = flip, .user = &seen };
    size_t piece = (size_t)(data[0] >> 1) + 1;
    int rc = 0;
    for (size_t at = 1; at < size; at += piece) {
        int now = fc_gate_feed(&gate, data + at,
                               piece < size - at ? piece : size - at);
        if (rc && now != rc)
            abort();
        rc = now;
    }
    if (seen.flips > 1 || (seen.flips && size - 1 < READY_END))
        abort();
    return 0;
}
