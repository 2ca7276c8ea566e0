/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tracing has taught: names, the order of blocks, what is shown. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocktrace_int.h"
#include "err.h"

void fc_blocktrace_vdev(uint32_t number, char text[FC_BLOCKTRACE_VDEV])
{
    uint32_t disk, part;
    const char *kind = "xvd";
    if (number >> 28 == 1) { /* the form for many disks */
        disk = number >> 8 & 0xfffff;
        part = number & 0xff;
    } else if (number >> 8 == 202 || number >> 8 == 8) {
        kind = number >> 8 == 8 ? "sd" : "xvd";
        disk = number >> 4 & 0xf;
        part = number & 0xf;
    } else if (number >> 8 == 3 || number >> 8 == 22) {
        kind = "hd";
        disk = (number >> 8 == 22 ? 2 : 0) + (number >> 6 & 1);
        part = number & 0x3f;
    } else {
        disk = UINT32_MAX;
        part = 0;
    }
    if (disk >= 26 + 26 * 26) {
        snprintf(text, FC_BLOCKTRACE_VDEV, "d%" PRIu32, number);
        return;
    }
    char first = disk < 26 ? 0 : (char)('a' + disk / 26 - 1);
    char last = (char)('a' + disk % 26);
    int n =
        first ? snprintf(text, FC_BLOCKTRACE_VDEV, "%s%c%c", kind, first, last)
              : snprintf(text, FC_BLOCKTRACE_VDEV, "%s%c", kind, last);
    if (part)
        snprintf(text + n, FC_BLOCKTRACE_VDEV - (size_t)n, "%" PRIu32, part);
}

struct ranked {
    float p;
    uint32_t extent;
};

static int likelier(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->extent < y->extent ? -1 : x->extent > y->extent;
}

/* Its chances within a minute and within eight, together. */
static struct ranked *rank(struct fc_engine *e, uint32_t *n_r)
{
    uint32_t n = fc_engine_active(e);
    const struct fc_region_ref *ref = fc_engine_regions(e);
    const float *mid = fc_engine_scores(e, FC_SCORER_MIXTURE, 1);
    const float *later = fc_engine_scores(e, FC_SCORER_MIXTURE, 2);
    struct ranked *r = n ? calloc(n, sizeof(*r)) : NULL;
    if (!r || !ref || !mid || !later) {
        free(r);
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++)
        r[i] = (struct ranked){ mid[i] + later[i], (uint32_t)ref[i].first };
    qsort(r, n, sizeof(*r), likelier);
    *n_r = n;
    return r;
}

static struct disk *known_disk(struct fc_blocktrace *b, const uint8_t *uuid,
                               const char *vdev)
{
    struct disk *d = b ? b->disks : NULL;
    while (d && (memcmp(d->uuid, uuid, FC_UUID_BYTES) || strcmp(d->vdev, vdev)))
        d = d->next;
    return d && d->engine && d->ticked_us && fc_engine_active(d->engine) ? d
                                                                         : NULL;
}

int fc_blocktrace_chances(struct fc_blocktrace *b, const uint8_t *uuid,
                          const char *vdev, uint64_t range_bytes,
                          unsigned count, float *chance_r)
{
    struct disk *d = known_disk(b, uuid, vdev);
    const struct fc_region_ref *ref = d ? fc_engine_regions(d->engine) : NULL;
    const float *p =
        d ? fc_engine_scores(d->engine, FC_SCORER_MIXTURE, 2) : NULL;
    if (!ref || !p)
        return FC_ENOENT;
    memset(chance_r, 0, count * sizeof(*chance_r));
    for (uint32_t i = 0; i < fc_engine_active(d->engine); i++) {
        uint64_t at = ref[i].first * FC_BLOCKTRACE_EXTENT / range_bytes;
        if (at < count && p[i] > chance_r[at])
            chance_r[at] = p[i];
    }
    return 0;
}

int fc_blocktrace_order(struct fc_blocktrace *b, const uint8_t *uuid,
                        const char *vdev, uint32_t block_bytes, uint64_t size,
                        uint32_t **blocks_r, uint32_t *count_r)
{
    struct disk *d = known_disk(b, uuid, vdev);
    uint32_t n, count = 0,
                each = block_bytes ? FC_BLOCKTRACE_EXTENT / block_bytes : 0;
    if (!each || FC_BLOCKTRACE_EXTENT % block_bytes)
        return FC_EINVAL;
    uint64_t blocks = size / block_bytes + (size % block_bytes != 0);
    if (!d)
        return FC_ENOENT;
    struct ranked *r = rank(d->engine, &n);
    uint32_t *block = r ? malloc((size_t)n * each * sizeof(*block)) : NULL;
    for (uint32_t i = 0; block && i < n; i++)
        for (uint32_t k = 0; k < each; k++) {
            uint64_t at = (uint64_t)r[i].extent * each + k;
            if (at < blocks && at <= UINT32_MAX)
                block[count++] = (uint32_t)at;
        }
    free(r);
    if (!block)
        return FC_ENOMEM;
    *blocks_r = block;
    *count_r = count;
    return 0;
}

struct json_object *fc_blocktrace_json(const struct fc_blocktrace *b,
                                       const uint8_t *uuid)
{
    struct json_object *all = json_object_new_array();
    const struct run *r = b && b->current ? b->runs : NULL;
    bool begun = r && r->reader.start.devices;
    uint64_t lost = b ? b->lost : 0;
    for (const struct run *any = b ? b->runs : NULL; any; any = any->next)
        lost += any->reader.lost;
    for (const struct disk *d = b ? b->disks : NULL; d; d = d->next) {
        if (memcmp(d->uuid, uuid, FC_UUID_BYTES))
            continue;
        struct json_object *o = json_object_new_object();
        json_object_object_add(o, "vdev", json_object_new_string(d->vdev));
        json_object_object_add(
            o, "method",
            json_object_new_string(
                begun ? fc_blockbatch_means_name(r->reader.start.means) : ""));
        json_object_object_add(o, "reads", json_object_new_uint64(d->reads));
        json_object_object_add(o, "writes", json_object_new_uint64(d->writes));
        json_object_object_add(
            o, "extents",
            json_object_new_uint64(d->engine ? fc_engine_active(d->engine)
                                             : 0));
        json_object_object_add(o, "lost", json_object_new_uint64(lost));
        json_object_array_add(all, o);
    }
    return all;
}
