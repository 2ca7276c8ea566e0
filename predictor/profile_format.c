/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "err.h"
#include "profile.h"
#include "wire.h"

/* docs/formats/profile.md */
#define VERSION 1u
#define BODY_BYTES (FC_PROFILE_BYTES - 8u)
#define MOST 1e15f

static const char magic[8] = "FCPROFIL";

static void put_float(struct fc_writer *w, float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    fc_put_u32(w, bits);
}

ssize_t fc_profile_encode(const struct fc_profile *p, void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_bytes(&w, magic, sizeof(magic));
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, FC_PROFILE_CELLS);
    fc_put_u64(&w, p->last_s);
    fc_put_u64(&w, 0);
    for (unsigned i = 0; i < FC_PROFILE_CELLS; i++) {
        const struct fc_profile_cell *c = &p->cells[i];
        put_float(&w, c->seconds);
        put_float(&w, c->visits);
        fc_put_u32(&w, c->hour);
        put_float(&w, c->rate);
        put_float(&w, c->square);
        for (unsigned k = 0; k < FC_PROFILE_AGES; k++)
            put_float(&w, c->pages[k]);
    }
    if (w.bad)
        return FC_ETOOBIG;
    fc_put_u64(&w, XXH3_64bits(out, BODY_BYTES));
    return w.bad ? FC_ETOOBIG : (ssize_t)fc_writer_used(&w);
}

/* A number that is one, not negative and not absurd; else `r` goes bad. */
static float get_float(struct fc_reader *r)
{
    uint32_t bits = fc_get_u32(r);
    float f;
    memcpy(&f, &bits, sizeof(f));
    if (!(f >= 0 && f <= MOST)) {
        r->bad = true;
        return 0;
    }
    return f;
}

static bool get_cell(struct fc_reader *r, struct fc_profile_cell *c)
{
    c->seconds = get_float(r);
    c->visits = get_float(r);
    c->hour = fc_get_u32(r);
    c->rate = get_float(r);
    c->square = get_float(r);
    for (unsigned k = 0; k < FC_PROFILE_AGES; k++) {
        c->pages[k] = get_float(r);
        if (k && c->pages[k] < c->pages[k - 1])
            return false;
    }
    return !r->bad;
}

static int decode(const void *buf, size_t len, struct fc_profile *p, char *why,
                  size_t why_len)
{
    struct fc_reader r = fc_reader_of(buf, len);
    const uint8_t *m = fc_get_bytes(&r, sizeof(magic));
    uint32_t version = fc_get_u32(&r), cells = fc_get_u32(&r);
    if (r.bad || memcmp(m, magic, sizeof(magic))) {
        snprintf(why, why_len, "not a profile");
        return FC_EFORMAT;
    }
    if (version != VERSION) {
        snprintf(why, why_len, "version %u is not %u", version, VERSION);
        return FC_EVERSION;
    }
    if (len != FC_PROFILE_BYTES || cells != FC_PROFILE_CELLS) {
        snprintf(why, why_len, "%zu bytes for %u cells, not %u for %u", len,
                 cells, FC_PROFILE_BYTES, FC_PROFILE_CELLS);
        return FC_EFORMAT;
    }
    if (XXH3_64bits(buf, BODY_BYTES) !=
        fc_le_load((const uint8_t *)buf + BODY_BYTES, 8)) {
        snprintf(why, why_len, "the checksum does not match");
        return FC_ECHECK;
    }
    p->last_s = fc_get_u64(&r);
    if (fc_get_u64(&r)) {
        snprintf(why, why_len, "reserved bytes are not zero");
        return FC_EFORMAT;
    }
    for (unsigned i = 0; i < FC_PROFILE_CELLS; i++)
        if (!get_cell(&r, &p->cells[i])) {
            snprintf(why, why_len, "cell %u has a number out of range", i);
            return FC_EFORMAT;
        }
    return 0;
}

int fc_profile_decode(const void *buf, size_t len, struct fc_profile *p_r,
                      char *why, size_t why_len)
{
    fc_profile_init(p_r);
    int rc = decode(buf, len, p_r, why, why_len);
    if (rc)
        fc_profile_init(p_r);
    return rc;
}
