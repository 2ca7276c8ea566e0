/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_survey.h"

#include <string.h>

#include "blocktrace.h"
#include "ctl.h"
#include "err.h"
#include "log.h"

#define ANSWER_MS 20000u
#define ONE_MILLION 1e6f

static uint64_t blocks_of(const struct fc_disk_survey *v)
{
    return v->size / v->block_bytes + (v->size % v->block_bytes != 0);
}

/* What was known before, to be taken over where nothing new is. */
struct before {
    const struct fc_disk_survey *v;
    struct fc_disk_range *range;
    unsigned count;
};

static void on_before(void *user, const char *host,
                      const struct fc_disk_range *old)
{
    const struct before *b = user;
    if (strcmp(host, b->v->host))
        return;
    for (unsigned i = 0; i < b->count; i++) {
        struct fc_disk_range *r = &b->range[i];
        if (r->first != old->first || r->blocks != old->blocks)
            continue;
        if (!r->used_s)
            r->used_s = old->used_s;
        if (!r->foretold) {
            r->foretold = old->foretold;
            r->chance_ppm = old->chance_ppm;
        }
    }
}

static void foretell(const struct fc_disk_survey *v,
                     struct fc_disk_range *range, unsigned count, uint32_t each)
{
    float chance[FC_RANGES_MAX];
    if (fc_blocktrace_chances(v->env->trace, v->id.uuid, v->id.vdev,
                              (uint64_t)each * v->block_bytes, count, chance))
        return;
    for (unsigned i = 0; i < count; i++) {
        float p = chance[i] > 0 ? chance[i] : 0; /* no NaN either */
        range[i].foretold = true;
        range[i].chance_ppm = (uint32_t)((p < 1 ? p : 1) * ONE_MILLION);
    }
}

static uint64_t number_at(struct json_object *list, unsigned i)
{
    int64_t n = json_object_get_int64(json_object_array_get_idx(list, i));
    return n > 0 ? (uint64_t)n : 0;
}

static bool is_list(struct json_object *list, unsigned count)
{
    return json_object_is_type(list, json_type_array) &&
           json_object_array_length(list) == count;
}

/* The engine's answer as ranges; false when it is not one. */
static bool take(const struct fc_disk_survey *v, struct json_object *reply,
                 struct fc_disk_range *range)
{
    struct json_object *valid = NULL, *used = NULL;
    uint64_t blocks = blocks_of(v);
    uint32_t each = fc_range_blocks(blocks, v->block_bytes);
    unsigned count = fc_range_count(blocks, v->block_bytes);
    json_object_object_get_ex(reply, "valid", &valid);
    json_object_object_get_ex(reply, "used_s", &used);
    if (fc_json_int(reply, "range_blocks", 0) != each ||
        !is_list(valid, count) || !is_list(used, count))
        return false;
    for (unsigned i = 0; i < count; i++) {
        uint64_t first = (uint64_t)i * each, left = blocks - first;
        uint64_t n = number_at(valid, i);
        range[i] = (struct fc_disk_range){
            .first = first,
            .blocks = left < each ? (uint32_t)left : each,
            .epoch = v->epoch,
            .used_s = number_at(used, i),
        };
        range[i].valid = n < range[i].blocks ? (uint32_t)n : range[i].blocks;
    }
    return true;
}

/* With what else is known. */
static void keep(const struct fc_disk_survey *v, struct fc_disk_range *range,
                 unsigned count)
{
    struct before b = { v, range, count };
    foretell(v, range, count, fc_range_blocks(blocks_of(v), v->block_bytes));
    int rc = fc_diskmeta_ranges(v->meta, &v->id, on_before, &b);
    if (!rc)
        rc = fc_diskmeta_ranges_put(v->meta, &v->id, v->host, range, count);
    if (rc)
        fc_warn("%s: what is known of its parts cannot be kept: %s", v->id.vdev,
                fc_strerror(rc));
}

static void on_ranges(void *user, int rc, struct json_object *reply, int *fd,
                      const char *why)
{
    struct fc_disk_survey *v = user;
    struct fc_disk_range range[FC_RANGES_MAX];
    (void)fd;
    (void)why;
    v->asked = false;
    if (v->complete) /* since it was asked */
        return;
    if (rc || !take(v, reply, range)) {
        v->mark = 0;
        return;
    }
    keep(v, range, fc_range_count(blocks_of(v), v->block_bytes));
}

void fc_disk_survey_complete(struct fc_disk_survey *v)
{
    struct fc_disk_range range[FC_RANGES_MAX];
    if (!v->meta || !v->size || !v->block_bytes)
        return;
    v->complete = true;
    uint64_t blocks = blocks_of(v);
    uint32_t each = fc_range_blocks(blocks, v->block_bytes);
    unsigned count = fc_range_count(blocks, v->block_bytes);
    for (unsigned i = 0; i < count; i++) {
        uint64_t first = (uint64_t)i * each, left = blocks - first;
        uint32_t n = left < each ? (uint32_t)left : each;
        range[i] = (struct fc_disk_range){
            .first = first, .blocks = n, .valid = n, .epoch = v->epoch
        };
    }
    keep(v, range, count);
}

void fc_disk_survey_tick(struct fc_disk_survey *v, struct fc_disk_engine *e,
                         uint64_t mark, uint64_t now_ms)
{
    bool handed_over = v->epoch != v->asked_epoch; /* told at once */
    if (!v->meta || !v->size || !v->block_bytes || v->asked ||
        (mark == v->mark && !handed_over) ||
        (v->asked_ms && now_ms - v->asked_ms < FC_SURVEY_MS && !handed_over))
        return;
    v->asked_epoch = v->epoch;
    v->asked_ms = now_ms;
    v->asked = !fc_disk_engine_call(e, fc_disk_engine_request("ranges"), NULL,
                                    0, ANSWER_MS, on_ranges, v);
    if (v->asked)
        v->mark = mark;
}

void fc_disk_survey_down(struct fc_disk_survey *v)
{
    v->asked = false;
    v->mark = 0;
}
