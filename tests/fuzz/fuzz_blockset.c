/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block sets from the wire: what is taken stays within the set, its count is
 * right, and it can be sent on. The first two bytes are the set's size. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blockset.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct fc_blockset *s)
{
    uint32_t count = 0;

    for (uint32_t b = fc_blockset_next(s, 0); b < s->blocks;
         b = fc_blockset_next(s, b + 1))
        count++;
    if (count != s->count)
        abort();
}

static void send_on(const struct fc_blockset *s)
{
    uint8_t buf[FC_BLOCKSET_PIECE_MIN * 4];
    struct fc_blockset got;
    uint32_t at = 0, next;
    size_t len;

    if (fc_blockset_init(&got, s->blocks, true))
        abort();
    while (at < s->blocks) {
        if (fc_blockset_encode(s, at, buf, sizeof(buf), &len, &next) ||
            fc_blockset_decode(&got, at, buf, len, &at) || at != next)
            abort();
    }
    if (memcmp(got.words, s->words, ((size_t)s->blocks + 63) / 64 * 8))
        abort();
    fc_blockset_dispose(&got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_blockset s;
    uint32_t next, first = 0;

    if (size < 2 ||
        fc_blockset_init(&s, (uint32_t)fc_le_load(data, 2) + 1, false))
        return 0;
    data += 2;
    size -= 2;
    while (size && first < s.blocks) {
        /* a piece says how long it is; cut it out as a frame would */
        size_t len = size;
        if (size >= FC_BLOCKSET_HEAD_BYTES) {
            uint64_t body = fc_le_load(data + 12, 4);
            if (body < size - FC_BLOCKSET_HEAD_BYTES)
                len = FC_BLOCKSET_HEAD_BYTES + (size_t)body;
        }
        if (fc_blockset_decode(&s, first, data, len, &next))
            break;
        if (next <= first || next > s.blocks)
            abort();
        first = next;
        data += len;
        size -= len;
    }
    check(&s);
    send_on(&s);
    fc_blockset_dispose(&s);
    return 0;
}
