/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "blkengine.h"

#include <string.h>
#include <time.h>

#include "blkengine_ctl.h"
#include "err.h"
#include "log.h"
#include "map.h"

static const char *const roles[] = { "source", "shadow", "cache" };

int fc_blkengine_role_parse(const char *name)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, roles[i]))
            return i;
    return FC_EINVAL;
}

const char *fc_blkengine_role_name(enum fc_blkengine_role role)
{
    return roles[role];
}

static int open_source(const struct fc_blkengine_config *c, struct fc_volume *v,
                       struct fc_blkengine *e)
{
    struct fc_feed_config fc = { .block_bytes = c->block_bytes,
                                 .size = e->size };
    memcpy(fc.uuid, c->uuid, sizeof(fc.uuid));
    strcpy(fc.name, c->vdev);
    int rc = fc_source_open(v, c->block_bytes, &e->source);
    if (rc) {
        fc_volume_close(v);
        return rc;
    }
    if (!c->owner) /* nothing of the guest's until told that it is ours */
        fc_source_hold(e->source, 0);
    return fc_feed_open(&fc, e->source, &e->feed);
}

static int open_map(const struct fc_blkengine_config *c, uint64_t size,
                    struct fc_map **m_r)
{
    struct fc_map_id id = { .size_bytes = size,
                            .block_bytes = c->block_bytes,
                            .cache = c->role == FC_ENGINE_CACHE };
    struct fc_volume *file;
    memcpy(id.uuid, c->uuid, sizeof(id.uuid));
    strcpy(id.vdev, c->vdev);
    int rc = fc_volume_open(c->map, FC_VOLUME_CREATE, &file);
    if (rc)
        return rc;
    rc = fc_map_open(file, &id, m_r);
    if (rc)
        fc_volume_close(file);
    return rc;
}

/* What a cache is of, and whether it is as large. */
static int open_home(const struct fc_blkengine_config *c,
                     struct fc_blkengine *e)
{
    bool path = c->primary[0] == '/';
    int rc = path ? fc_primary_file_open(c->primary, &e->shared)
                  : fc_primary_nbd_open(c->primary, &e->primary);
    if (rc && path)
        fc_error("primary %s: %s: %m", c->primary, fc_strerror(rc));
    if (rc)
        return rc;
    uint64_t size = path ? fc_primary_file_size(e->shared)
                         : fc_primary_nbd_size(e->primary);
    if (size == e->size)
        return 0;
    fc_error("the primary has %llu bytes, not %llu", (unsigned long long)size,
             (unsigned long long)e->size);
    return FC_EINVAL;
}

static int open_primary(const struct fc_blkengine_config *c,
                        struct fc_blkengine *e)
{
    struct fc_sink_config sc = { .block_bytes = c->block_bytes,
                                 .size = e->size };
    if (c->role == FC_ENGINE_CACHE)
        return open_home(c, e);
    memcpy(sc.uuid, c->uuid, sizeof(sc.uuid));
    strcpy(sc.name, c->vdev);
    return fc_sink_open(&sc, &e->sink);
}

static int open_shadow(const struct fc_blkengine_config *c, struct fc_volume *v,
                       struct fc_blkengine *e)
{
    bool cache = c->role == FC_ENGINE_CACHE;
    struct fc_map *map = NULL;
    int rc = open_primary(c, e);
    if (!rc)
        rc = open_map(c, e->size, &map);
    struct fc_shadow_config config = {
        .volume = v,
        .map = map,
        .primary = e->shared    ? &fc_primary_file_ops
                   : e->primary ? &fc_primary_nbd_ops
                                : &fc_sink_primary,
        .primary_user = e->shared    ? (void *)e->shared
                        : e->primary ? (void *)e->primary
                                     : (void *)e->sink,
        .cache = cache,
        .budget_bytes = c->budget_bytes,
    };
    if (!rc && c->owner && !cache &&
        fc_map_state(map)->state != FC_SHADOW_OWNED) {
        fc_error("map %s does not say that the disk is owned here", c->map);
        rc = FC_EPERM;
    }
    if (!rc)
        rc = fc_shadow_open(&config, &e->shadow);
    if (rc) {
        fc_map_close(map);
        fc_volume_close(v);
        return rc;
    }
    if (e->sink)
        fc_sink_attach(e->sink, e->shadow);
    return 0;
}

int fc_blkengine_open(const struct fc_blkengine_config *config,
                      struct fc_blkengine *e)
{
    struct fc_volume *v;
    *e = (struct fc_blkengine){ .config = *config };
    int rc = fc_volume_open(config->volume, 0, &v);
    if (rc) {
        fc_error("volume %s: %s: %m", config->volume, fc_strerror(rc));
        return rc;
    }
    e->size = config->size ? config->size : v->size_bytes;
    e->range_bytes =
        (uint64_t)fc_range_blocks((e->size + config->block_bytes - 1) /
                                      config->block_bytes,
                                  config->block_bytes) *
        config->block_bytes;
    if (e->size > v->size_bytes || !e->size || e->size % FC_FRAME_SECTOR ||
        (config->role == FC_ENGINE_SOURCE && e->size != v->size_bytes)) {
        fc_error("volume %s has %llu bytes, which does not do for a disk of "
                 "%llu",
                 config->volume, (unsigned long long)v->size_bytes,
                 (unsigned long long)e->size);
        fc_volume_close(v);
        return FC_EINVAL;
    }
    rc = config->role == FC_ENGINE_SOURCE ? open_source(config, v, e)
                                          : open_shadow(config, v, e);
    if (rc)
        fc_error("cannot open the engine of %s: %s", config->volume,
                 fc_strerror(rc));
    if (!rc)
        rc = fc_blkengine_ctl_open(config->control, e, &e->ctl);
    if (rc)
        fc_blkengine_close(e);
    return rc;
}

static void primary_up(void *user)
{
    struct fc_blkengine *e = user;
    fc_shadow_primary_up(e->shadow);
}

int fc_blkengine_start(struct fc_blkengine *e)
{
    int rc = e->shadow ? fc_shadow_start(e->shadow) : 0;
    if (!rc && e->primary)
        rc = fc_primary_nbd_start(e->primary, primary_up, e);
    if (!rc)
        rc = fc_blkengine_ctl_start(e->ctl);
    if (rc)
        fc_error("cannot start the engine's threads: %s", fc_strerror(rc));
    return rc;
}

void fc_blkengine_cancel(struct fc_blkengine *e)
{
    if (e->source)
        fc_source_cancel(e->source);
    if (e->feed)
        fc_feed_cancel(e->feed);
    if (e->shadow)
        fc_shadow_cancel(e->shadow);
}

void fc_blkengine_close(struct fc_blkengine *e)
{
    fc_blkengine_cancel(e);
    fc_blkengine_ctl_close(e->ctl);
    fc_feed_close(e->feed);
    fc_source_close(e->source);
    if (e->sink)
        fc_sink_stop(e->sink);
    fc_shadow_close(e->shadow);
    fc_sink_close(e->sink);
    fc_primary_nbd_close(e->primary);
    fc_primary_file_close(e->shared);
    *e = (struct fc_blkengine){ .config = e->config };
}

uint32_t fc_blkengine_held(struct fc_blkengine *e)
{
    if (e->source) {
        struct fc_source_status s;
        fc_source_status(e->source, &s);
        return s.held;
    }
    struct fc_shadow_status s;
    fc_shadow_status(e->shadow, &s);
    return s.held;
}

/* The guest asks for something of these bytes. */
static void note_use(struct fc_blkengine *e, uint64_t offset, uint64_t len)
{
    struct timespec now;
    if (!len || offset >= e->size || len > e->size - offset)
        return;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    for (uint64_t i = offset / e->range_bytes;
         i <= (offset + len - 1) / e->range_bytes; i++)
        if (atomic_load_explicit(&e->used_s[i], memory_order_relaxed) !=
            (unsigned long long)now.tv_sec)
            atomic_store_explicit(&e->used_s[i], (unsigned long long)now.tv_sec,
                                  memory_order_relaxed);
}

int fc_blkengine_ranges(struct fc_blkengine *e, uint32_t valid_r[FC_RANGES_MAX])
{
    uint32_t blocks = fc_map_blocks(e->size, e->config.block_bytes);
    uint32_t each = fc_range_blocks(blocks, e->config.block_bytes);
    uint32_t n = fc_range_count(blocks, e->config.block_bytes);
    struct fc_blockset set;
    int rc = fc_blockset_init(&set, blocks, false);
    if (rc)
        return rc;
    if (e->source)
        fc_source_todo(e->source, &set);
    else
        fc_shadow_valid(e->shadow, &set);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t count = blocks - i * each < each ? blocks - i * each : each;
        uint32_t held = fc_blockset_count_range(&set, i * each, count);
        valid_r[i] = e->source ? count - held : held;
    }
    fc_blockset_dispose(&set);
    return (int)n;
}

int fc_blkengine_read(struct fc_blkengine *e, uint64_t offset, void *buf,
                      size_t len)
{
    note_use(e, offset, len);
    return e->source ? fc_source_read(e->source, offset, buf, len)
                     : fc_shadow_read(e->shadow, offset, buf, len);
}

/* A shadow has no durable write of its own: what a flush covers, it covers. */
static int then_flush(struct fc_blkengine *e, int rc, bool durable)
{
    return rc || !durable ? rc : fc_shadow_flush(e->shadow);
}

int fc_blkengine_write(struct fc_blkengine *e, uint64_t offset, const void *buf,
                       size_t len, bool durable)
{
    note_use(e, offset, len);
    if (e->source)
        return fc_source_write(e->source, offset, buf, len, durable);
    return then_flush(e, fc_shadow_write(e->shadow, offset, buf, len), durable);
}

int fc_blkengine_zero(struct fc_blkengine *e, uint64_t offset, uint64_t len,
                      bool punch, bool durable)
{
    note_use(e, offset, len);
    if (e->source)
        return fc_source_zero(e->source, offset, len, punch, durable);
    return then_flush(e, fc_shadow_zero(e->shadow, offset, len, punch),
                      durable);
}

int fc_blkengine_trim(struct fc_blkengine *e, uint64_t offset, uint64_t len,
                      bool durable)
{
    note_use(e, offset, len);
    if (e->source)
        return fc_source_trim(e->source, offset, len, durable);
    return then_flush(e, fc_shadow_trim(e->shadow, offset, len), durable);
}

int fc_blkengine_flush(struct fc_blkengine *e)
{
    return e->source ? fc_source_flush(e->source) : fc_shadow_flush(e->shadow);
}

int fc_blkengine_sync(struct fc_blkengine *e)
{
    return e->source ? fc_source_sync(e->source) : fc_shadow_sync(e->shadow);
}
