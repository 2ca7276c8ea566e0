/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel.h"

#include <string.h>
#include <xxhash.h>

#include "err.h"
#include "page.h"
#include "wire.h"

#define MAGIC "FCCH"
#define MAX_NAME 255u

static uint32_t check_of(const void *body, uint32_t length)
{
    return (uint32_t)XXH3_64bits(body, length);
}

int fc_channel_head_parse(const uint8_t raw[FC_CHANNEL_HEADER],
                          struct fc_channel_head *head_r)
{
    struct fc_reader r = fc_reader_of(raw, FC_CHANNEL_HEADER);
    const uint8_t *magic = fc_get_bytes(&r, 4);
    uint8_t version = fc_get_u8(&r), type = fc_get_u8(&r);
    uint16_t zero = fc_get_u16(&r);
    uint32_t length = fc_get_u32(&r), check = fc_get_u32(&r);
    if (memcmp(magic, MAGIC, 4))
        return FC_EFORMAT;
    if (version != FC_CHANNEL_VERSION)
        return FC_EVERSION;
    if (type < FC_CHANNEL_HELLO || type > FC_CHANNEL_MODEL || zero)
        return FC_EFORMAT;
    if (length > FC_CHANNEL_MAX_BODY)
        return FC_ETOOBIG;
    *head_r = (struct fc_channel_head){ type, length, check };
    return 0;
}

void fc_channel_head_make(uint8_t raw[FC_CHANNEL_HEADER],
                          enum fc_channel_type type, const void *body,
                          uint32_t length)
{
    struct fc_writer w = fc_writer_of(raw, FC_CHANNEL_HEADER);
    fc_put_bytes(&w, MAGIC, 4);
    /* version, type, two zero bytes; gcc 12 warns of a u8 here, wrongly */
    fc_put_u32(&w, FC_CHANNEL_VERSION | (uint32_t)type << 8);
    fc_put_u32(&w, length);
    fc_put_u32(&w, check_of(body, length));
}

int fc_channel_check(const struct fc_channel_head *head, const void *body)
{
    return check_of(body, head->length) == head->check ? 0 : FC_ECHECK;
}

/* Whether the reader took everything, no more and no less. */
static bool exact(const struct fc_reader *r)
{
    return !r->bad && r->p == r->end;
}

static ssize_t made(const struct fc_writer *w)
{
    return w->bad ? FC_ETOOBIG : (ssize_t)fc_writer_used(w);
}

/* Text for a terminal or a log out of bytes from another host. */
static void scrub(char *text, const uint8_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        text[i] = from[i] < 0x20 || from[i] == 0x7f ? '?' : (char)from[i];
    text[len] = '\0';
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
    if (!exact(&r) || flags || name_len > MAX_NAME || h.lowest > h.highest)
        return FC_EFORMAT;
    memcpy(h.uuid, uuid, FC_UUID_BYTES);
    scrub(h.name, name, name_len);
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
    return made(&w);
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
    if (!exact(&r) || flags || zero || !v.epoch)
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
    return made(&w);
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
    if (count > pages || !get_pfns(&r, refused, count) || !exact(&r))
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
    return made(&w);
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
    return made(&w);
}

int fc_channel_value_parse(const void *body, size_t len, uint64_t *value_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    uint64_t value = fc_get_u64(&r);
    if (!exact(&r))
        return FC_EFORMAT;
    *value_r = value;
    return 0;
}

int fc_channel_text_parse(enum fc_channel_type type, const void *body,
                          size_t len, uint16_t *reason_r,
                          char text[FC_CHANNEL_MAX_TEXT + 1])
{
    struct fc_reader r = fc_reader_of(body, len);
    uint16_t reason = type == FC_CHANNEL_BYE ? fc_get_u16(&r) : 0;
    size_t left = fc_reader_left(&r);
    if (r.bad || reason > FC_BYE_SHUTDOWN || left > FC_CHANNEL_MAX_TEXT)
        return FC_EFORMAT;
    scrub(text, fc_get_bytes(&r, left), left);
    if (reason_r)
        *reason_r = reason;
    return 0;
}

ssize_t fc_channel_text_make(enum fc_channel_type type, uint16_t reason,
                             const char *text, void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    if (type == FC_CHANNEL_BYE)
        fc_put_u16(&w, reason);
    fc_put_bytes(&w, text, strnlen(text, FC_CHANNEL_MAX_TEXT));
    return made(&w);
}
