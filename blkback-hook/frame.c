/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frame.h"

#include <lz4.h>
#include <string.h>
#include <xxhash.h>

#include "err.h"
#include "framing.h"
#include "wire.h"

#define FLAG_OWNER 1u /* of WELCOME */
#define FLAG_FENCED 2u
#define FLAG_KEEP 1u /* of DATA */
#define BLOCK_MIN 4096u
#define BLOCK_MAX (1u << 20)

static const char *const names[] = {
    [FC_FRAME_HELLO] = "HELLO",       [FC_FRAME_WELCOME] = "WELCOME",
    [FC_FRAME_HELD] = "HELD",         [FC_FRAME_DATA] = "DATA",
    [FC_FRAME_STORED] = "STORED",     [FC_FRAME_WANT] = "WANT",
    [FC_FRAME_MISSING] = "MISSING",   [FC_FRAME_FENCE] = "FENCE",
    [FC_FRAME_FENCED] = "FENCED",     [FC_FRAME_LEASE] = "LEASE",
    [FC_FRAME_OWNED] = "OWNED",       [FC_FRAME_RETURN] = "RETURN",
    [FC_FRAME_RETURNED] = "RETURNED", [FC_FRAME_CHECK] = "CHECK",
    [FC_FRAME_COMPLETE] = "COMPLETE", [FC_FRAME_PING] = "PING",
    [FC_FRAME_PONG] = "PONG",         [FC_FRAME_BYE] = "BYE",
    [FC_FRAME_ERROR] = "ERROR",
};

const char *fc_frame_name(enum fc_frame_type type)
{
    return type >= FC_FRAME_HELLO && type <= FC_FRAME_ERROR ? names[type] : "?";
}

static const struct fc_framing framing = {
    .magic = { 'F', 'C', 'B', 'K' },
    .version = FC_FRAME_VERSION,
    .last_type = FC_FRAME_ERROR,
    .max_body = FC_FRAME_MAX_BODY,
};
_Static_assert(FC_FRAME_HEADER == FC_FRAMING_HEADER &&
                   FC_FRAME_MAX_TEXT == FC_FRAMING_MAX_TEXT,
               "the two channels are framed alike");

int fc_frame_head_parse(const uint8_t raw[FC_FRAME_HEADER],
                        struct fc_frame_head *head_r)
{
    struct fc_framing_head h;
    int rc = fc_framing_head_parse(&framing, raw, &h);
    if (!rc)
        *head_r = (struct fc_frame_head){ h.type, h.length, h.check };
    return rc;
}

void fc_frame_head_make(uint8_t raw[FC_FRAME_HEADER], enum fc_frame_type type,
                        const void *body, uint32_t length)
{
    fc_framing_head_make(&framing, raw, type, body, length);
}

int fc_frame_check(const struct fc_frame_head *head, const void *body)
{
    return fc_framing_check(head->check, body, head->length);
}

/* A range of sectors, not empty, that a disk of any size could have. */
static bool range_ok(uint64_t offset, uint32_t length, uint32_t max)
{
    return length && length <= max && length % FC_FRAME_SECTOR == 0 &&
           offset % FC_FRAME_SECTOR == 0 &&
           offset <= (uint64_t)INT64_MAX - length;
}

int fc_frame_hello_parse(const void *body, size_t len,
                         struct fc_frame_hello *hello_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_frame_hello h = { 0 };
    h.highest = fc_get_u16(&r);
    h.lowest = fc_get_u16(&r);
    h.block_bytes = fc_get_u32(&r);
    const uint8_t *uuid = fc_get_bytes(&r, FC_UUID_BYTES);
    h.size = fc_get_u64(&r);
    h.epoch = fc_get_u64(&r);
    const uint8_t *migration = fc_get_bytes(&r, FC_MIGRATION_BYTES);
    uint16_t name_len = fc_get_u16(&r);
    const uint8_t *name = fc_get_bytes(&r, name_len);
    if (!fc_framing_exact(&r) || name_len > FC_FRAME_MAX_NAME ||
        h.lowest > h.highest || h.block_bytes < BLOCK_MIN ||
        h.block_bytes > BLOCK_MAX || h.block_bytes & (h.block_bytes - 1) ||
        !h.size || h.size > INT64_MAX || h.size % FC_FRAME_SECTOR)
        return FC_EFORMAT;
    memcpy(h.uuid, uuid, FC_UUID_BYTES);
    memcpy(h.migration, migration, FC_MIGRATION_BYTES);
    fc_framing_scrub(h.name, name, name_len);
    *hello_r = h;
    return 0;
}

ssize_t fc_frame_hello_make(const struct fc_frame_hello *hello, void *out,
                            size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    size_t name_len = strnlen(hello->name, FC_FRAME_MAX_NAME);
    fc_put_u16(&w, hello->highest);
    fc_put_u16(&w, hello->lowest);
    fc_put_u32(&w, hello->block_bytes);
    fc_put_bytes(&w, hello->uuid, FC_UUID_BYTES);
    fc_put_u64(&w, hello->size);
    fc_put_u64(&w, hello->epoch);
    fc_put_bytes(&w, hello->migration, FC_MIGRATION_BYTES);
    fc_put_u16(&w, (uint16_t)name_len);
    fc_put_bytes(&w, hello->name, name_len);
    return fc_framing_made(&w);
}

int fc_frame_welcome_parse(const void *body, size_t len,
                           struct fc_frame_welcome *welcome_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_frame_welcome v = { 0 };
    v.version = fc_get_u16(&r);
    uint16_t flags = fc_get_u16(&r);
    uint32_t zero = fc_get_u32(&r);
    v.epoch = fc_get_u64(&r);
    const uint8_t *migration = fc_get_bytes(&r, FC_MIGRATION_BYTES);
    v.held = fc_get_u64(&r);
    if (!fc_framing_exact(&r) || flags > FLAG_FENCED || zero)
        return FC_EFORMAT;
    v.owner = flags == FLAG_OWNER;
    v.fenced = flags == FLAG_FENCED;
    memcpy(v.migration, migration, FC_MIGRATION_BYTES);
    *welcome_r = v;
    return 0;
}

ssize_t fc_frame_welcome_make(const struct fc_frame_welcome *welcome, void *out,
                              size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_u16(&w, welcome->version);
    fc_put_u16(&w, welcome->owner    ? FLAG_OWNER
                   : welcome->fenced ? FLAG_FENCED
                                     : 0);
    fc_put_u32(&w, 0);
    fc_put_u64(&w, welcome->epoch);
    fc_put_bytes(&w, welcome->migration, FC_MIGRATION_BYTES);
    fc_put_u64(&w, welcome->held);
    return fc_framing_made(&w);
}

/* Whether as many bytes came as that encoding has for that length. */
static bool coded_ok(const struct fc_frame_data *d)
{
    switch (d->encoding) {
    case FC_FRAME_RAW:
        return d->coded == d->length;
    case FC_FRAME_LZ4:
        return d->coded && d->coded < d->length;
    case FC_FRAME_ZEROS:
        return !d->coded && !d->hash_lo && !d->hash_hi;
    case FC_FRAME_UNREADABLE:
        return !d->coded && !d->hash_lo && !d->hash_hi && d->answer && !d->keep;
    }
    return false;
}

int fc_frame_data_parse(const void *body, size_t len,
                        struct fc_frame_data *data_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_frame_data d = { 0 };
    d.seq = fc_get_u64(&r);
    d.answer = fc_get_u64(&r);
    d.offset = fc_get_u64(&r);
    d.length = fc_get_u32(&r);
    uint8_t encoding = fc_get_u8(&r), flags = fc_get_u8(&r);
    uint16_t zero = fc_get_u16(&r);
    d.hash_lo = fc_get_u64(&r);
    d.hash_hi = fc_get_u64(&r);
    d.coded = (uint32_t)fc_reader_left(&r);
    d.bytes = fc_get_bytes(&r, d.coded);
    d.encoding = encoding;
    d.keep = flags & FLAG_KEEP;
    if (r.bad || encoding > FC_FRAME_UNREADABLE || flags & ~FLAG_KEEP || zero ||
        !range_ok(d.offset, d.length,
                  encoding == FC_FRAME_ZEROS ? FC_FRAME_MAX_ZEROS
                                             : FC_FRAME_MAX_PLAIN) ||
        !coded_ok(&d))
        return FC_EFORMAT;
    *data_r = d;
    return 0;
}

ssize_t fc_frame_data_make(const struct fc_frame_data *data, void *out,
                           size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_u64(&w, data->seq);
    fc_put_u64(&w, data->answer);
    fc_put_u64(&w, data->offset);
    fc_put_u32(&w, data->length);
    fc_put_u32(&w, (uint32_t)data->encoding | (data->keep ? FLAG_KEEP : 0)
                                                  << 8);
    fc_put_u64(&w, data->hash_lo);
    fc_put_u64(&w, data->hash_hi);
    return fc_framing_made(&w);
}

int fc_frame_want_parse(const void *body, size_t len,
                        struct fc_frame_want *want_r)
{
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_frame_want v = { 0 };
    v.number = fc_get_u64(&r);
    v.offset = fc_get_u64(&r);
    v.length = fc_get_u32(&r);
    uint32_t zero = fc_get_u32(&r);
    if (!fc_framing_exact(&r) || zero ||
        !range_ok(v.offset, v.length, FC_FRAME_MAX_PLAIN))
        return FC_EFORMAT;
    *want_r = v;
    return 0;
}

ssize_t fc_frame_want_make(const struct fc_frame_want *want, void *out,
                           size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_u64(&w, want->number);
    fc_put_u64(&w, want->offset);
    fc_put_u32(&w, want->length);
    fc_put_u32(&w, 0);
    return fc_framing_made(&w);
}

static bool is_answer(enum fc_frame_type type)
{
    return type == FC_FRAME_FENCED || type == FC_FRAME_OWNED ||
           type == FC_FRAME_RETURNED;
}

int fc_frame_flip_parse(enum fc_frame_type type, const void *body, size_t len,
                        struct fc_frame_flip *flip_r)
{
    static const uint8_t none[FC_MIGRATION_BYTES];
    struct fc_reader r = fc_reader_of(body, len);
    struct fc_frame_flip f = { .status = FC_FRAME_DONE };
    const uint8_t *migration = fc_get_bytes(&r, FC_MIGRATION_BYTES);
    uint32_t status = 0, zero = 0;
    f.epoch = fc_get_u64(&r);
    if (is_answer(type)) {
        status = fc_get_u32(&r);
        zero = fc_get_u32(&r);
        f.invalid = fc_get_u64(&r);
    }
    if (!fc_framing_exact(&r) || status > FC_FRAME_FAILED || zero || !f.epoch ||
        !memcmp(migration, none, sizeof(none)))
        return FC_EFORMAT;
    f.status = status;
    memcpy(f.migration, migration, FC_MIGRATION_BYTES);
    *flip_r = f;
    return 0;
}

ssize_t fc_frame_flip_make(enum fc_frame_type type,
                           const struct fc_frame_flip *flip, void *out,
                           size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_bytes(&w, flip->migration, FC_MIGRATION_BYTES);
    fc_put_u64(&w, flip->epoch);
    if (is_answer(type)) {
        fc_put_u32(&w, flip->status);
        fc_put_u32(&w, 0);
        fc_put_u64(&w, flip->invalid);
    }
    return fc_framing_made(&w);
}

int fc_frame_value_parse(const void *body, size_t len, uint64_t *value_r)
{
    return fc_framing_value_parse(body, len, value_r);
}

ssize_t fc_frame_value_make(uint64_t value, void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_u64(&w, value);
    return fc_framing_made(&w);
}

int fc_frame_text_parse(enum fc_frame_type type, const void *body, size_t len,
                        uint16_t *reason_r, char text[FC_FRAME_MAX_TEXT + 1])
{
    return fc_framing_text_parse(body, len,
                                 type == FC_FRAME_BYE ? FC_FRAME_FINISHED : -1,
                                 reason_r, text);
}

ssize_t fc_frame_text_make(enum fc_frame_type type, uint16_t reason,
                           const char *text, void *out, size_t cap)
{
    return fc_framing_text_make(type == FC_FRAME_BYE ? reason : -1, text, out,
                                cap);
}

int fc_frame_data_plain(const struct fc_frame_data *data, uint8_t *plain,
                        const uint8_t **plain_r)
{
    *plain_r = NULL;
    if (data->encoding == FC_FRAME_ZEROS)
        return 0;
    if (data->encoding == FC_FRAME_LZ4) {
        int n = LZ4_decompress_safe((const char *)data->bytes, (char *)plain,
                                    (int)data->coded, (int)data->length);
        if (n != (int)data->length)
            return FC_EFORMAT;
    } else {
        plain = (uint8_t *)(uintptr_t)data->bytes;
    }
    XXH128_hash_t h = XXH3_128bits(plain, data->length);
    if (h.low64 != data->hash_lo || h.high64 != data->hash_hi)
        return FC_ECHECK;
    *plain_r = plain;
    return 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return !p[0] && !memcmp(p, p + 1, len - 1);
}

void fc_frame_data_encode(struct fc_frame_data *data, const uint8_t *plain,
                          uint8_t *coded)
{
    data->hash_lo = data->hash_hi = 0;
    data->bytes = NULL;
    data->coded = 0;
    data->encoding = FC_FRAME_ZEROS;
    if (all_zero(plain, data->length))
        return;
    XXH128_hash_t h = XXH3_128bits(plain, data->length);
    data->hash_lo = h.low64;
    data->hash_hi = h.high64;
    /* a saving of less is not worth the decoding */
    int worth = (int)(data->length - data->length / 16);
    int n = LZ4_compress_default((const char *)plain, (char *)coded,
                                 (int)data->length, worth);
    data->encoding = n > 0 ? FC_FRAME_LZ4 : FC_FRAME_RAW;
    data->bytes = coded;
    data->coded = n > 0 ? (uint32_t)n : data->length;
    if (n <= 0)
        memcpy(coded, plain, data->length);
}
