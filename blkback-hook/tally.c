/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tally.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"

#define LEAST_SLOTS 1024u

int fc_tally_init(struct fc_tally *t)
{
    *t = (struct fc_tally){ .mask = LEAST_SLOTS - 1 };
    t->slot = calloc(LEAST_SLOTS, sizeof(*t->slot));
    return t->slot ? 0 : FC_ENOMEM;
}

void fc_tally_dispose(struct fc_tally *t)
{
    free(t->slot);
    free(t->sorted);
    *t = (struct fc_tally){ .mask = 0 };
}

static struct fc_tally_entry *find(struct fc_tally_entry *slot, uint32_t mask,
                                   uint32_t device, uint64_t extent)
{
    uint64_t h =
        (extent * FC_BLOCKBATCH_DEVICES + device) * 0x9e3779b97f4a7c15ull;
    uint32_t i = (uint32_t)(h >> 32) & mask;
    while (slot[i].used &&
           (slot[i].device != device || slot[i].count.extent != extent))
        i = (i + 1) & mask;
    return &slot[i];
}

static int grow(struct fc_tally *t)
{
    uint32_t mask = 2 * t->mask + 1;
    struct fc_tally_entry *slot = calloc((size_t)mask + 1, sizeof(*slot));
    if (!slot)
        return FC_ENOMEM;
    for (uint32_t i = 0; i <= t->mask; i++) {
        const struct fc_tally_entry *e = &t->slot[i];
        if (e->used)
            *find(slot, mask, e->device, e->count.extent) = *e;
    }
    free(t->slot);
    t->slot = slot;
    t->mask = mask;
    return 0;
}

static uint32_t add32(uint32_t a, uint32_t b)
{
    return a + b < a ? UINT32_MAX : a + b;
}

int fc_tally_add(struct fc_tally *t, uint32_t device,
                 const struct fc_blockbatch_count *count)
{
    struct fc_tally_entry *e = find(t->slot, t->mask, device, count->extent);
    if (!e->used) {
        if (t->n >= FC_TALLY_MOST)
            return FC_ELIMIT;
        if (t->n >= t->mask / 2) {
            int rc = grow(t);
            if (rc)
                return rc;
            e = find(t->slot, t->mask, device, count->extent);
        }
        *e = (struct fc_tally_entry){ .device = device,
                                      .used = 1,
                                      .count.extent = count->extent };
        t->n++;
    }
    e->count.reads = add32(e->count.reads, count->reads);
    e->count.writes = add32(e->count.writes, count->writes);
    e->count.read_bytes += count->read_bytes;
    e->count.write_bytes += count->write_bytes;
    return 0;
}

static int by_extent(const void *a, const void *b)
{
    const struct fc_blockbatch_count *x = a, *y = b;
    return x->extent < y->extent ? -1 : x->extent > y->extent;
}

int fc_tally_sort(struct fc_tally *t)
{
    uint32_t at[FC_BLOCKBATCH_DEVICES] = { 0 };
    struct fc_blockbatch_count *sorted =
        realloc(t->sorted, (t->n + 1) * sizeof(*sorted));
    if (!sorted)
        return FC_ENOMEM;
    t->sorted = sorted;
    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->slot[i].used)
            at[t->slot[i].device]++;
    t->first[0] = 0;
    for (uint32_t d = 0; d < FC_BLOCKBATCH_DEVICES; d++) {
        t->first[d + 1] = t->first[d] + at[d];
        at[d] = t->first[d];
    }
    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->slot[i].used)
            sorted[at[t->slot[i].device]++] = t->slot[i].count;
    for (uint32_t d = 0; d < FC_BLOCKBATCH_DEVICES; d++)
        qsort(sorted + t->first[d], t->first[d + 1] - t->first[d],
              sizeof(*sorted), by_extent);
    return 0;
}

const struct fc_blockbatch_count *fc_tally_of(const struct fc_tally *t,
                                              uint32_t device, uint32_t *n_r)
{
    *n_r = t->first[device + 1] - t->first[device];
    return t->sorted + t->first[device];
}

void fc_tally_clear(struct fc_tally *t)
{
    memset(t->slot, 0, ((size_t)t->mask + 1) * sizeof(*t->slot));
    memset(t->first, 0, sizeof(t->first));
    t->n = 0;
}
