/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "back.h"

#include <string.h>

#include "err.h"
#include "framing.h"
#include "wire.h"

static const uint8_t magic[4] = { 0, 'F', 'C', 'B' };

#define WELCOME_BYTES 16u

static size_t text_length(const char *text)
{
    size_t n = strnlen(text, FC_BACK_MAX_TEXT);
    /* A cut must not leave half a UTF-8 character. */
    while (n == FC_BACK_MAX_TEXT && n && (text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static int put_body(struct fc_writer *w, const struct fc_back_frame *f)
{
    switch (f->type) {
    case FC_BACK_WELCOME:
        fc_put_u16(w, f->welcome.version);
        fc_put_u16(w, f->welcome.flags);
        fc_put_u32(w, 0);
        fc_put_u64(w, f->welcome.pages_held);
        return 0;
    case FC_BACK_ACK:
    case FC_BACK_SYNCED:
        fc_put_u64(w, f->value);
        return 0;
    case FC_BACK_MISSING:
        if (f->missing.count < 1 || f->missing.count > FC_BACK_MAX_MISSING)
            return FC_EINVAL;
        for (unsigned i = 0; i < f->missing.count; i++)
            fc_put_u64(w, f->missing.pfn[i]);
        return 0;
    case FC_BACK_REFUSE:
    case FC_BACK_FAILED:
        fc_put_bytes(w, f->text, text_length(f->text));
        return 0;
    case FC_BACK_DONE:
        return 0;
    }
    return FC_EINVAL;
}

ssize_t fc_back_encode(const struct fc_back_frame *frame, void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_bytes(&w, magic, sizeof(magic));
    fc_put_u16(&w, (uint16_t)frame->type);
    uint8_t *length = fc_put_room(&w, 2);
    if (put_body(&w, frame) < 0 || w.bad)
        return FC_EINVAL;
    fc_le_store(length, fc_writer_used(&w) - FC_BACK_HEADER, 2);
    return (ssize_t)fc_writer_used(&w);
}

/* The text is another host's: nothing in it may move a terminal's cursor. */
static void get_text(struct fc_reader *r, struct fc_back_frame *f)
{
    size_t n = fc_reader_left(r);
    fc_framing_scrub(f->text, fc_get_bytes(r, n), n);
}

static int get_body(struct fc_reader *r, struct fc_back_frame *f)
{
    size_t len = fc_reader_left(r);
    switch (f->type) {
    case FC_BACK_WELCOME:
        f->welcome.version = fc_get_u16(r);
        f->welcome.flags = fc_get_u16(r);
        if (fc_get_u32(r))
            return FC_EFORMAT;
        f->welcome.pages_held = fc_get_u64(r);
        break;
    case FC_BACK_ACK:
    case FC_BACK_SYNCED:
        f->value = fc_get_u64(r);
        break;
    case FC_BACK_MISSING:
        if (!len || len % 8 || len / 8 > FC_BACK_MAX_MISSING)
            return FC_EFORMAT;
        f->missing.count = (unsigned)(len / 8);
        for (unsigned i = 0; i < f->missing.count; i++)
            f->missing.pfn[i] = fc_get_u64(r);
        break;
    case FC_BACK_REFUSE:
    case FC_BACK_FAILED:
        if (len > FC_BACK_MAX_TEXT)
            return FC_EFORMAT;
        get_text(r, f);
        break;
    case FC_BACK_DONE:
        break;
    default:
        return FC_EFORMAT;
    }
    return r->bad || fc_reader_left(r) ? FC_EFORMAT : 0;
}

/* Whether bodies of this type can have this length at all. Found out from the
 * header alone, so that what is no frame is not held back for its "body". */
static bool length_fits(unsigned type, size_t len)
{
    switch (type) {
    case FC_BACK_WELCOME:
        return len == WELCOME_BYTES;
    case FC_BACK_ACK:
    case FC_BACK_SYNCED:
        return len == 8;
    case FC_BACK_MISSING:
        return len && len % 8 == 0 && len / 8 <= FC_BACK_MAX_MISSING;
    case FC_BACK_REFUSE:
    case FC_BACK_FAILED:
        return len <= FC_BACK_MAX_TEXT;
    case FC_BACK_DONE:
        return len == 0;
    }
    return false;
}

ssize_t fc_back_decode(const void *buf, size_t len,
                       struct fc_back_frame *frame_r)
{
    size_t n = len < sizeof(magic) ? len : sizeof(magic);
    if (memcmp(buf, magic, n))
        return FC_EFORMAT;
    if (len < FC_BACK_HEADER)
        return 0;
    struct fc_reader r = fc_reader_of(buf, len);
    fc_get_bytes(&r, sizeof(magic));
    unsigned type = fc_get_u16(&r);
    size_t body = fc_get_u16(&r);
    if (!length_fits(type, body))
        return FC_EFORMAT;
    const uint8_t *p = fc_get_bytes(&r, body);
    if (!p)
        return 0;
    struct fc_reader b = fc_reader_of(p, body);
    frame_r->type = (enum fc_back_type)type;
    if (get_body(&b, frame_r) < 0)
        return FC_EFORMAT;
    return (ssize_t)(FC_BACK_HEADER + body);
}

/*
 * Looks at what is held. Takes a frame out, or gives up the bytes before the
 * next possible start of one. Returns false when more bytes are needed.
 */
/*
 * How many of the bytes are plain for sure. A frame starts at a zero byte, but
 * only where xl has not begun a message of its own: xl ends some of these with
 * a zero byte and then waits, so that one must not be held back.
 */
static size_t plain_length(const struct fc_back_splitter *s, const uint8_t *p,
                           size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] == magic[0] && (i ? p[i - 1] == '\n' : !s->in_text))
            return i;
    return len;
}

static void give_plain(struct fc_back_splitter *s, const uint8_t *p, size_t len)
{
    if (!len)
        return;
    s->in_text = p[len - 1] != '\n';
    s->plain(s->user, p, len);
}

static bool split_held(struct fc_back_splitter *s)
{
    struct fc_back_frame frame;
    ssize_t n = fc_back_decode(s->held, s->used, &frame);
    if (n == 0)
        return false;
    if (n > 0) {
        if (frame.type == FC_BACK_DONE || frame.type == FC_BACK_FAILED)
            s->finished = 1;
        s->in_text = 0;
        if (s->frame)
            s->frame(s->user, s->held, (size_t)n, &frame);
    } else {
        s->in_text = 1;
        n = 1 + (ssize_t)plain_length(s, s->held + 1, s->used - 1);
        give_plain(s, s->held, (size_t)n);
    }
    s->used -= (size_t)n;
    memmove(s->held, s->held + n, s->used);
    return s->used > 0 && !s->finished;
}

void fc_back_split(struct fc_back_splitter *s, const void *bytes, size_t len)
{
    const uint8_t *p = bytes, *end = p + len;
    while (p < end && !s->finished) {
        if (!s->used) {
            size_t plain = plain_length(s, p, (size_t)(end - p));
            give_plain(s, p, plain);
            p += plain;
        }
        size_t n = sizeof(s->held) - s->used;
        if (n > (size_t)(end - p))
            n = (size_t)(end - p);
        memcpy(s->held + s->used, p, n);
        s->used += n;
        p += n;
        while (s->used && split_held(s))
            ;
    }
    if (!s->finished)
        return;
    fc_back_split_end(s);
    if (p < end)
        s->plain(s->user, p, (size_t)(end - p));
}

void fc_back_split_end(struct fc_back_splitter *s)
{
    if (s->used)
        s->plain(s->user, s->held, s->used);
    s->used = 0;
}
