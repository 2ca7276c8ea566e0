/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_WIRE_H
#define FC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Bounds-checked little-endian reading and writing. Every format is parsed and
 * made through these. A reader that ran past its end returns zeros and stays
 * `bad`; check it once after a group of fields. Not shared between threads.
 */
struct fc_reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

static inline struct fc_reader fc_reader_of(const void *buf, size_t len)
{
    return (struct fc_reader){ buf, (const uint8_t *)buf + len, false };
}

static inline size_t fc_reader_left(const struct fc_reader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->p);
}

/* `len` bytes in place, or NULL. */
static inline const uint8_t *fc_get_bytes(struct fc_reader *r, size_t len)
{
    if (r->bad || (size_t)(r->end - r->p) < len) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += len;
    return p;
}

static inline uint64_t fc_le_load(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void fc_le_store(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t fc_get_le(struct fc_reader *r, unsigned bytes)
{
    const uint8_t *p = fc_get_bytes(r, bytes);
    return p ? fc_le_load(p, bytes) : 0;
}

static inline uint8_t fc_get_u8(struct fc_reader *r)
{
    return (uint8_t)fc_get_le(r, 1);
}

static inline uint16_t fc_get_u16(struct fc_reader *r)
{
    return (uint16_t)fc_get_le(r, 2);
}

static inline uint32_t fc_get_u32(struct fc_reader *r)
{
    return (uint32_t)fc_get_le(r, 4);
}

static inline uint64_t fc_get_u64(struct fc_reader *r)
{
    return fc_get_le(r, 8);
}

/* Writer into a buffer of fixed size; `bad` when it did not fit. */
struct fc_writer {
    uint8_t *start;
    uint8_t *p;
    uint8_t *end;
    bool bad;
};

static inline struct fc_writer fc_writer_of(void *buf, size_t len)
{
    return (struct fc_writer){ buf, buf, (uint8_t *)buf + len, false };
}

static inline size_t fc_writer_used(const struct fc_writer *w)
{
    return (size_t)(w->p - w->start);
}

/* Room for `len` bytes to fill in, or NULL. */
static inline uint8_t *fc_put_room(struct fc_writer *w, size_t len)
{
    if (w->bad || (size_t)(w->end - w->p) < len) {
        w->bad = true;
        return NULL;
    }
    uint8_t *p = w->p;
    w->p += len;
    return p;
}

static inline void fc_put_le(struct fc_writer *w, uint64_t v, unsigned bytes)
{
    uint8_t *p = fc_put_room(w, bytes);
    if (p)
        fc_le_store(p, v, bytes);
}

static inline void fc_put_u8(struct fc_writer *w, uint8_t v)
{
    fc_put_le(w, v, 1);
}

static inline void fc_put_u16(struct fc_writer *w, uint16_t v)
{
    fc_put_le(w, v, 2);
}

static inline void fc_put_u32(struct fc_writer *w, uint32_t v)
{
    fc_put_le(w, v, 4);
}

static inline void fc_put_u64(struct fc_writer *w, uint64_t v)
{
    fc_put_le(w, v, 8);
}

static inline void fc_put_bytes(struct fc_writer *w, const void *src,
                                size_t len)
{
    uint8_t *p = fc_put_room(w, len);
    if (p && len)
        memcpy(p, src, len);
}

#endif
