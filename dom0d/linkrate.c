/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "linkrate.h"

#include <string.h>

#include "err.h"
#include "wire.h"

#define VERSION 1u
#define WEIGHT 0.5 /* of the latest migration */
#define MOST_BPS 1e12

static const char *bare(const char *host)
{
    const char *at = strrchr(host, '@');
    return at ? at + 1 : host;
}

static unsigned place_of(const struct fc_linkrate *l, const char *host)
{
    unsigned i = 0;
    while (i < l->count && strcmp(l->of[i].host, host))
        i++;
    return i;
}

void fc_linkrate_learn(struct fc_linkrate *l, const char *host, double bps)
{
    host = bare(host);
    size_t len = strlen(host);
    if (!(bps >= 1 && bps <= MOST_BPS) || !len || len >= FC_LINKRATE_NAME)
        return;
    unsigned at = place_of(l, host);
    if (at < l->count)
        bps = l->of[at].bps + WEIGHT * (bps - l->of[at].bps);
    else if (l->count < FC_LINKRATE_HOSTS)
        l->count++;
    else
        at = FC_LINKRATE_HOSTS - 1;
    memmove(&l->of[1], &l->of[0], at * sizeof(l->of[0]));
    memcpy(l->of[0].host, host, len + 1);
    l->of[0].bps = bps;
}

double fc_linkrate_of(const struct fc_linkrate *l, const char *host)
{
    unsigned at = place_of(l, bare(host));
    return at < l->count ? l->of[at].bps : 0;
}

ssize_t fc_linkrate_encode(const struct fc_linkrate *l, void *out, size_t cap)
{
    struct fc_writer w = fc_writer_of(out, cap);
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, l->count);
    for (unsigned i = 0; i < l->count; i++) {
        size_t len = strlen(l->of[i].host);
        fc_put_u64(&w, (uint64_t)l->of[i].bps);
        fc_put_u16(&w, (uint16_t)len);
        fc_put_bytes(&w, l->of[i].host, len);
    }
    return w.bad ? FC_ETOOBIG : (ssize_t)fc_writer_used(&w);
}

static int decode(struct fc_reader *r, struct fc_linkrate *l)
{
    uint32_t version = fc_get_u32(r), count = fc_get_u32(r);
    if (r->bad || version != VERSION || count > FC_LINKRATE_HOSTS)
        return FC_EFORMAT;
    for (; l->count < count; l->count++) {
        uint64_t bps = fc_get_u64(r);
        uint16_t len = fc_get_u16(r);
        const uint8_t *name = fc_get_bytes(r, len);
        if (!name || !len || len >= FC_LINKRATE_NAME ||
            memchr(name, '\0', len) || !bps || bps > (uint64_t)MOST_BPS)
            return FC_EFORMAT;
        memcpy(l->of[l->count].host, name, len);
        l->of[l->count].bps = (double)bps;
    }
    return fc_reader_left(r) ? FC_EFORMAT : 0;
}

int fc_linkrate_decode(const void *buf, size_t len, struct fc_linkrate *l)
{
    struct fc_reader r = fc_reader_of(buf, len);
    memset(l, 0, sizeof(*l));
    int rc = decode(&r, l);
    if (rc)
        memset(l, 0, sizeof(*l));
    return rc;
}
