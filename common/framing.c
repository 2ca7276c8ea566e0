/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "framing.h"

#include <string.h>
#include <xxhash.h>

#include "err.h"

static uint32_t check_of(const void *body, uint32_t length)
{
    return (uint32_t)XXH3_64bits(body, length);
}

int fc_framing_head_parse(const struct fc_framing *f,
                          const uint8_t raw[FC_FRAMING_HEADER],
                          struct fc_framing_head *head_r)
{
    struct fc_reader r = fc_reader_of(raw, FC_FRAMING_HEADER);
    const uint8_t *magic = fc_get_bytes(&r, sizeof(f->magic));
    uint8_t version = fc_get_u8(&r), type = fc_get_u8(&r);
    uint16_t zero = fc_get_u16(&r);
    uint32_t length = fc_get_u32(&r), check = fc_get_u32(&r);
    if (memcmp(magic, f->magic, sizeof(f->magic)))
        return FC_EFORMAT;
    if (version != f->version)
        return FC_EVERSION;
    if (!type || type > f->last_type || zero)
        return FC_EFORMAT;
    if (length > f->max_body)
        return FC_ETOOBIG;
    *head_r = (struct fc_framing_head){ type, length, check };
    return 0;
}

void fc_framing_head_make(const struct fc_framing *f,
                          uint8_t raw[FC_FRAMING_HEADER], unsigned type,
                          const void *body, uint32_t length)
{
    struct fc_writer w = fc_writer_of(raw, FC_FRAMING_HEADER);
    fc_put_bytes(&w, f->magic, sizeof(f->magic));
    /* version, type, two zero bytes; gcc 12 warns of a u8 here, wrongly */
    fc_put_u32(&w, f->version | (uint32_t)type << 8);
    fc_put_u32(&w, length);
    fc_put_u32(&w, check_of(body, length));
}

int fc_framing_check(uint32_t check, const void *body, uint32_t length)
{
    return check_of(body, length) == check ? 0 : FC_ECHECK;
}

bool fc_framing_exact(const struct fc_reader *r)
{
    return !r->bad && r->p == r->end;
}

ssize_t fc_framing_made(const struct fc_writer *w)
{
    return w->bad ? FC_ETOOBIG : (ssize_t)fc_writer_used(w);
}

void fc_framing_scrub(char *text, const uint8_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        text[i] = from[i] < 0x20 || from[i] == 0x7f ? '?' : (char)from[i];
    text[len] = '\0';
}

int fc_framing_value_parse(const void *body, size_t len, uint64_t *value_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    uint64_t value = fc_get_u64(&r);
    if (!fc_framing_exact(&r))
        return FC_EFORMAT;
    *value_r = value;
    return 0;
}

int fc_framing_text_parse(const void *body, size_t len, int most_reason,
                          uint16_t *reason_r,
                          char text[FC_FRAMING_MAX_TEXT + 1])
{
    struct fc_reader r = fc_reader_of(body, len);
    uint16_t reason = most_reason < 0 ? 0 : fc_get_u16(&r);
    size_t left = fc_reader_left(&r);
    if (r.bad || (most_reason >= 0 && reason > most_reason) ||
        left > FC_FRAMING_MAX_TEXT)
        return FC_EFORMAT;
    fc_framing_scrub(text, fc_get_bytes(&r, left), left);
    if (reason_r)
        *reason_r = reason;
    return 0;
}

ssize_t fc_framing_text_make(int reason, const char *text, void *out,
                             size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    if (reason >= 0)
        fc_put_u16(&w, (uint16_t)reason);
    fc_put_bytes(&w, text, strnlen(text, FC_FRAMING_MAX_TEXT));
    return fc_framing_made(&w);
}
