/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel.h"

#include <string.h>

#include "err.h"
#include "framing.h"
#include "page.h"
#include "wire.h"

#define MAX_NAME 255u

static const struct fc_framing framing = {
    .magic = { 'F', 'C', 'C', 'H' },
    .version = FC_CHANNEL_VERSION,
    .last_type = FC_CHANNEL_MODEL,
    .max_body = FC_CHANNEL_MAX_BODY,
};
_Static_assert(FC_CHANNEL_HEADER == FC_FRAMING_HEADER &&
                   FC_CHANNEL_MAX_TEXT == FC_FRAMING_MAX_TEXT,
               "the two channels are framed alike");

int fc_channel_head_parse(const uint8_t raw[FC_CHANNEL_HEADER],
                          struct fc_channel_head *head_r)
{
    struct fc_framing_head h;
    int rc = fc_framing_head_parse(&framing, raw, &h);
    if (!rc)
        *head_r = (struct fc_channel_head){ h.type, h.length, h.check };
    return rc;
}

void fc_channel_head_make(uint8_t raw[FC_CHANNEL_HEADER],
                          enum fc_channel_type type, const void *body,
                          uint32_t length)
{
    fc_framing_head_make(&framing, raw, type, body, length);
}

int fc_channel_check(const struct fc_channel_head *head, const void *body)
{
    return fc_framing_check(head->check, body, head->length);
}

int fc_channel_hello_parse(const void *body, size_t len,
                           struct fc_channel_hello *hello_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_channel_hello h = { 0 };
    h.highest = fc_get_u16(&r);
    h.lowest = fc_get_u16(&r);
    h.channel = fc_get_u16(&r);
    uint16_t flags = fc_get_u16(&r);
    const uint8_t *uuid = fc_get_bytes(&r, FC_UUID_BYTES);
    h.guest_pages = fc_get_u64(&r);
    uint16_t name_len = fc_get_u16(&r);
    const uint8_t *name = fc_get_bytes(&r, name_len);
    if (!fc_framing_exact(&r) || flags || name_len > MAX_NAME ||
        h.lowest > h.highest)
        return FC_EFORMAT;
    memcpy(h.uuid, uuid, FC_UUID_BYTES);
    fc_framing_scrub(h.name, name, name_len);
    *hello_r = h;
    return 0;
}

ssize_t fc_channel_hello_make(const struct fc_channel_hello *hello, void *out,
                              size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    size_t name_len = strnlen(hello->name, MAX_NAME);
    fc_put_u16(&w, hello->highest);
    fc_put_u16(&w, hello->lowest);
    fc_put_u16(&w, hello->channel);
    fc_put_u16(&w, 0);
    fc_put_bytes(&w, hello->uuid, FC_UUID_BYTES);
    fc_put_u64(&w, hello->guest_pages);
    fc_put_u16(&w, (uint16_t)name_len);
    fc_put_bytes(&w, hello->name, name_len);
    return fc_framing_made(&w);
}

int fc_channel_welcome_parse(const void *body, size_t len,
                             struct fc_channel_welcome *welcome_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_channel_welcome v = { 0 };
    v.version = fc_get_u16(&r);
    uint16_t flags = fc_get_u16(&r);
    uint32_t zero = fc_get_u32(&r);
    v.epoch = fc_get_u64(&r);
    const uint8_t *token = fc_get_bytes(&r, FC_TOKEN_BYTES);
    v.pages_held = fc_get_u64(&r);
    v.budget_bytes = fc_get_u64(&r);
    if (!fc_framing_exact(&r) || flags || zero || !v.epoch)
        return FC_EFORMAT;
    memcpy(v.token, token, FC_TOKEN_BYTES);
    *welcome_r = v;
    return 0;
}

ssize_t fc_channel_welcome_make(const struct fc_channel_welcome *welcome,
                                void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_u16(&w, welcome->version);
    fc_put_u16(&w, 0);
    fc_put_u32(&w, 0);
    fc_put_u64(&w, welcome->epoch);
    fc_put_bytes(&w, welcome->token, FC_TOKEN_BYTES);
    fc_put_u64(&w, welcome->pages_held);
    fc_put_u64(&w, welcome->budget_bytes);
    return fc_framing_made(&w);
}

static bool get_pfns(struct fc_reader *r, uint64_t *pfns, uint32_t count)
{
    if (count > FC_CHANNEL_MAX_PFNS)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        pfns[i] = fc_get_u64(r);
        if (pfns[i] & ~FC_PFN_MASK)
            return false;
    }
    return !r->bad;
}

int fc_channel_stored_parse(const void *body, size_t len, uint64_t *seq_r,
                            uint32_t *pages_r, uint64_t *refused,
                            uint32_t *refused_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    uint64_t seq = fc_get_u64(&r);
    uint32_t pages = fc_get_u32(&r), count = fc_get_u32(&r);
    if (count > pages || !get_pfns(&r, refused, count) || !fc_framing_exact(&r))
        return FC_EFORMAT;
    *seq_r = seq;
    *pages_r = pages;
    *refused_r = count;
    return 0;
}

ssize_t fc_channel_stored_make(uint64_t seq, uint32_t pages,
                               const uint64_t *refused, uint32_t nrefused,
                               void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    if (nrefused > FC_CHANNEL_MAX_PFNS)
        return FC_ETOOBIG;
    fc_put_u64(&w, seq);
    fc_put_u32(&w, pages);
    fc_put_u32(&w, nrefused);
    for (uint32_t i = 0; i < nrefused; i++)
        fc_put_u64(&w, refused[i]);
    return fc_framing_made(&w);
}

int fc_channel_pfns_parse(const void *body, size_t len, uint64_t *pfns,
                          uint32_t *count_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    if (len % sizeof(uint64_t) || len / sizeof(uint64_t) > FC_CHANNEL_MAX_PFNS)
        return FC_EFORMAT;
    uint32_t count = (uint32_t)(len / sizeof(uint64_t));
    if (!get_pfns(&r, pfns, count))
        return FC_EFORMAT;
    *count_r = count;
    return 0;
}

ssize_t fc_channel_pfns_make(const uint64_t *pfns, uint32_t count, void *out,
                             size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    if (count > FC_CHANNEL_MAX_PFNS)
        return FC_ETOOBIG;
    for (uint32_t i = 0; i < count; i++)
        fc_put_u64(&w, pfns[i]);
    return fc_framing_made(&w);
}

int fc_channel_value_parse(const void *body, size_t len, uint64_t *value_r)
{
    return fc_framing_value_parse(body, len, value_r);
}

int fc_channel_text_parse(enum fc_channel_type type, const void *body,
                          size_t len, uint16_t *reason_r,
                          char text[FC_CHANNEL_MAX_TEXT + 1])
{
    return fc_framing_text_parse(body, len,
                                 type == FC_CHANNEL_BYE ? FC_BYE_SHUTDOWN : -1,
                                 reason_r, text);
}

ssize_t fc_channel_text_make(enum fc_channel_type type, uint16_t reason,
                             const char *text, void *out, size_t cap)
{
    return fc_framing_text_make(type == FC_CHANNEL_BYE ? reason : -1, text, out,
                                cap);
}
