/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domains.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "err.h"

#define DESCRIBE_MS 5000u

const char *fc_domain_type_name(enum fc_domain_type type)
{
    switch (type) {
    case FC_DOMAIN_PV:
        return "pv";
    case FC_DOMAIN_PVH:
        return "pvh";
    case FC_DOMAIN_HVM:
        return "hvm";
    }
    return "unknown";
}

int fc_domains_init(struct fc_domains *d, const struct fc_domains_ops *ops,
                    void *user, const char *sys_root)
{
    memset(d, 0, sizeof(*d));
    d->ops = ops;
    d->user = user;
    d->sys_root = sys_root;
    d->list = calloc(FC_DOMAINS_MAX, sizeof(*d->list));
    d->scan = calloc(FC_DOMAINS_MAX, sizeof(*d->scan));
    if (d->list && d->scan)
        return 0;
    fc_domains_dispose(d);
    return FC_ENOMEM;
}

void fc_domains_dispose(struct fc_domains *d)
{
    free(d->list);
    free(d->scan);
    memset(d, 0, sizeof(*d));
}

/* The same domain in the list that was. */
static struct fc_domain *same(const struct fc_domains *d,
                              const struct fc_domain *now)
{
    for (unsigned i = 0; i < d->count; i++)
        if (d->list[i].domid == now->domid &&
            !memcmp(d->list[i].uuid, now->uuid, FC_UUID_BYTES))
            return &d->list[i];
    return NULL;
}

/* What a scan does not give is carried over. */
static void carry_over(struct fc_domain *to, const struct fc_domain *from)
{
    memcpy(to->name, from->name, sizeof(to->name));
    to->type = from->type;
    to->counted = from->counted;
    to->counted_cpu_ns = from->counted_cpu_ns;
    to->vif_bytes = from->vif_bytes;
    to->vbd_bytes = from->vbd_bytes;
    to->cpu_percent = from->cpu_percent;
    to->vif_bytes_ps = from->vif_bytes_ps;
    to->vbd_bytes_ps = from->vbd_bytes_ps;
}

/* Renaming is part of every migration: NAME--incoming becomes NAME, and at the
 * source NAME becomes NAME--migratedaway while it is suspended, a moment before
 * it is destroyed. */
static int scan(struct fc_domains *d, bool describe)
{
    int n = d->ops->list(d->user, d->scan, FC_DOMAINS_MAX);
    if (n < 0)
        return n;

    for (unsigned i = 0; i < d->count; i++)
        d->list[i].seen = false;
    unsigned kept = 0;
    for (int i = 0; i < n; i++) {
        struct fc_domain *now = &d->scan[i];
        struct fc_domain *was = same(d, now);
        now->seen = false;
        if (now->dying)
            continue;
        if (was) {
            was->seen = true;
            carry_over(now, was);
        }
        if (describe || !was || now->suspended)
            (void)d->ops->describe(d->user, now);
        now->seen = was != NULL;
        d->scan[kept++] = *now;
    }

    struct fc_domain *old = d->list;
    unsigned nold = d->count;
    d->list = d->scan;
    d->scan = old;
    d->count = kept;
    for (unsigned i = 0; i < nold; i++)
        if (!old[i].seen && d->gone)
            d->gone(d->arg, &old[i]);
    for (unsigned i = 0; i < kept; i++)
        if (!d->list[i].seen && d->came)
            d->came(d->arg, &d->list[i]);
    return 0;
}

int fc_domains_scan(struct fc_domains *d)
{
    return scan(d, true);
}

static double per_second(uint64_t now, uint64_t was, uint64_t ms)
{
    return now > was && ms ? (double)(now - was) * 1000.0 / (double)ms : 0;
}

static void count(struct fc_domain *dom, const char *sys_root, uint64_t ms)
{
    uint64_t vif = fc_counters_vif_bytes(sys_root, dom->domid);
    uint64_t vbd = fc_counters_vbd_bytes(sys_root, dom->domid);
    if (dom->counted) {
        dom->cpu_percent =
            per_second(dom->cpu_ns, dom->counted_cpu_ns, ms) / 1e7;
        dom->vif_bytes_ps = per_second(vif, dom->vif_bytes, ms);
        dom->vbd_bytes_ps = per_second(vbd, dom->vbd_bytes, ms);
    }
    dom->counted = true;
    dom->counted_cpu_ns = dom->cpu_ns;
    dom->vif_bytes = vif;
    dom->vbd_bytes = vbd;
}

int fc_domains_count(struct fc_domains *d, uint64_t now_ms)
{
    uint64_t ms = d->counted_ms ? now_ms - d->counted_ms : 0;
    bool describe = now_ms - d->described_ms >= DESCRIBE_MS;
    int rc = scan(d, describe);
    if (rc)
        return rc;
    for (unsigned i = 0; i < d->count; i++)
        count(&d->list[i], d->sys_root, ms);
    d->counted_ms = now_ms;
    if (describe)
        d->described_ms = now_ms;
    return 0;
}

const struct fc_domain *fc_domains_by_uuid(const struct fc_domains *d,
                                           const uint8_t *uuid)
{
    const struct fc_domain *found = NULL;
    /* Within one host, a migration has the uuid twice: the elder counts. */
    for (unsigned i = 0; i < d->count; i++)
        if (!memcmp(d->list[i].uuid, uuid, FC_UUID_BYTES) &&
            (!found || d->list[i].domid < found->domid))
            found = &d->list[i];
    return found;
}

const struct fc_domain *fc_domains_find(const struct fc_domains *d,
                                        const char *what)
{
    uint8_t uuid[FC_UUID_BYTES];
    char *end;
    if (!fc_uuid_parse(what, uuid))
        return fc_domains_by_uuid(d, uuid);
    errno = 0;
    unsigned long domid = strtoul(what, &end, 10);
    bool number = what[0] >= '0' && what[0] <= '9' && !*end && !errno;
    for (unsigned i = 0; i < d->count; i++)
        if (number ? d->list[i].domid == domid : !strcmp(d->list[i].name, what))
            return &d->list[i];
    return NULL;
}
