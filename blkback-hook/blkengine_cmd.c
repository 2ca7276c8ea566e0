/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "blkengine_cmd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "blkengine.h"
#include "err.h"
#include "wire.h"

#define FLIP_MS 30000 /* when no timeout is given */

enum { SOURCE = 1, SHADOW = 2, CACHE = 4, ALL = 7 };

struct call {
    struct fc_blkengine *e;
    struct json_object *request, *reply;
    int *fds, *nfds;
};

static void put_int(struct json_object *o, const char *key, uint64_t v)
{
    json_object_object_add(
        o, key, json_object_new_int64(v > INT64_MAX ? INT64_MAX : (int64_t)v));
}

static void put_bool(struct json_object *o, const char *key, bool v)
{
    json_object_object_add(o, key, json_object_new_boolean(v));
}

static void put_str(struct json_object *o, const char *key, const char *v)
{
    json_object_object_add(o, key, json_object_new_string(v));
}

static void put_migration(struct json_object *o,
                          const uint8_t migration[FC_MIGRATION_BYTES])
{
    static const uint8_t none[FC_MIGRATION_BYTES];
    char hex[2 * FC_MIGRATION_BYTES + 1] = "";
    if (memcmp(migration, none, sizeof(none)))
        fc_hex_format(migration, FC_MIGRATION_BYTES, hex);
    put_str(o, "migration", hex);
}

/* ---- status ---------------------------------------------------------------
 */

static void source_status(struct fc_blkengine *e, struct json_object *o)
{
    static const char *const states[] = { "running", "fenced", "leasing",
                                          "leased" };
    struct fc_source_status s;
    struct fc_feed_status f;
    fc_source_status(e->source, &s);
    fc_feed_status(e->feed, &f);
    uint64_t remaining = s.remaining_blocks + f.unacked_blocks;
    if (remaining > s.blocks)
        remaining = s.blocks; /* written again while on its way */
    put_str(o, "state", states[f.state]);
    put_bool(o, "owner", f.state == FC_FEED_RUNNING && !s.holding);
    put_int(o, "epoch", f.epoch);
    put_migration(o, f.migration);
    put_int(o, "blocks", s.blocks);
    put_int(o, "remaining_blocks", remaining);
    put_int(o, "valid_blocks", s.blocks - remaining);
    put_int(o, "dirty_rate_bps", s.dirty_rate_bps);
    put_int(o, "sent_bytes", f.sent_bytes);
    put_int(o, "received_bytes", f.received_bytes);
    put_int(o, "data_bytes", f.data_bytes);
    put_int(o, "zero_bytes", f.zero_bytes);
    put_bool(o, "channel", f.channel);
    put_bool(o, "complete", f.complete);
    put_int(o, "reads", s.reads);
    put_int(o, "read_ms_sum", s.read_ns_sum / 1000000);
    put_int(o, "writes", s.writes);
    put_int(o, "answered", f.answered);
    put_int(o, "held", s.held);
    put_str(o, "error", f.error);
}

static void shadow_status(struct fc_blkengine *e, struct json_object *o)
{
    static const char *const states[] = { "copying", "fenced", "owned" };
    struct fc_shadow_status s;
    struct fc_sink_status k = { .channel = false };
    (void)fc_shadow_keep_stats(e->shadow, fc_now_ms()); /* logged */
    fc_shadow_status(e->shadow, &s);
    if (e->sink)
        fc_sink_status(e->sink, &k);
    put_str(o, "state", states[s.state]);
    put_bool(o, "owner", s.state == FC_SHADOW_OWNED);
    put_int(o, "epoch", s.epoch);
    put_migration(o, s.migration);
    put_int(o, "blocks", s.blocks);
    put_int(o, "remaining_blocks", s.remaining_blocks);
    put_int(o, "valid_blocks", s.valid_blocks);
    put_int(o, "sent_bytes", k.sent_bytes);
    put_int(o, "received_bytes", e->sink ? k.received_bytes : s.received_bytes);
    put_bool(o, "channel",
             e->sink     ? k.channel
             : e->shared ? s.primary_reachable
                         : fc_primary_nbd_reachable(e->primary));
    put_bool(o, "complete", !s.remaining_blocks);
    put_int(o, "reads", s.reads);
    put_int(o, "read_ms_sum", s.read_ms_sum);
    put_int(o, "writes", s.writes);
    put_int(o, "read_hits", s.read_hits);
    put_int(o, "read_misses", s.read_misses);
    put_int(o, "miss_ms_sum", s.miss_ms_sum);
    json_object_object_add(o, "metrics", fc_readstats_json(&s.stats));
    put_int(o, "prefetched", s.prefetched);
    put_int(o, "prefetch_used", s.prefetch_used);
    put_int(o, "fills", s.fills);
    put_int(o, "evicted", s.evicted);
    put_int(o, "commits", s.commits);
    put_int(o, "wants", k.wants);
    put_int(o, "held", s.held);
    put_bool(o, "written", s.written);
    put_str(o, "error", k.error);
}

static int cmd_status(struct call *c)
{
    char uuid[FC_UUID_TEXT];
    fc_uuid_format(c->e->config.uuid, uuid);
    put_str(c->reply, "role", fc_blkengine_role_name(c->e->config.role));
    put_str(c->reply, "uuid", uuid);
    put_str(c->reply, "vdev", c->e->config.vdev);
    put_int(c->reply, "size", c->e->size);
    put_int(c->reply, "block_bytes", c->e->config.block_bytes);
    if (c->e->source)
        source_status(c->e, c->reply);
    else
        shadow_status(c->e, c->reply);
    return 0;
}

/* ---- the channel and what it does -----------------------------------------
 */

static int cmd_channel(struct call *c)
{
    if (*c->nfds != 2)
        return FC_EINVAL;
    int in = c->fds[0], out = c->fds[1];
    *c->nfds = 0; /* taken over in any case */
    return c->e->feed ? fc_feed_channel(c->e->feed, in, out)
                      : fc_sink_channel(c->e->sink, in, out);
}

static int cmd_order(struct call *c)
{
    struct stat st;
    if (*c->nfds != 1)
        return FC_EINVAL;
    if (fstat(c->fds[0], &st) || !S_ISREG(st.st_mode) || st.st_size % 4)
        return FC_EFORMAT;
    uint64_t blocks =
        (c->e->size + c->e->config.block_bytes - 1) / c->e->config.block_bytes;
    uint64_t count = (uint64_t)st.st_size / 4;
    if (count > blocks)
        count = blocks;
    uint8_t *raw = malloc(count * 4 + 1);
    int rc = raw ? 0 : FC_ENOMEM;
    for (size_t at = 0; !rc && at < count * 4;) {
        ssize_t r = pread(c->fds[0], raw + at, count * 4 - at, (off_t)at);
        rc = r < 0 ? FC_EIO : r == 0 ? FC_EFORMAT : 0;
        at += r > 0 ? (size_t)r : 0;
    }
    uint32_t *order = (uint32_t *)(void *)raw;
    for (size_t i = 0; !rc && i < count; i++)
        order[i] = (uint32_t)fc_le_load(raw + 4 * i, 4);
    if (!rc)
        rc = c->e->feed ? fc_feed_order(c->e->feed, order, count)
                        : fc_shadow_set_order(c->e->shadow, order, count);
    free(raw);
    if (!rc)
        put_int(c->reply, "blocks", count);
    return rc;
}

static int cmd_rate(struct call *c)
{
    int64_t rate = fc_json_int(c->request, "bytes_ps", -1);
    if (rate < 0)
        return FC_EINVAL;
    if (c->e->feed)
        fc_feed_rate(c->e->feed, (uint64_t)rate);
    else
        fc_shadow_set_rate(c->e->shadow, (uint64_t)rate);
    return 0;
}

static int cmd_ranges(struct call *c)
{
    uint32_t valid[FC_RANGES_MAX];
    uint64_t blocks =
        (c->e->size + c->e->config.block_bytes - 1) / c->e->config.block_bytes;
    int n = fc_blkengine_ranges(c->e, valid);
    if (n < 0)
        return n;
    struct json_object *counts = json_object_new_array();
    struct json_object *used = json_object_new_array();
    for (int i = 0; i < n; i++) {
        json_object_array_add(counts, json_object_new_int64(valid[i]));
        json_object_array_add(used, json_object_new_int64((int64_t)atomic_load(
                                        &c->e->used_s[i])));
    }
    put_int(c->reply, "range_blocks",
            fc_range_blocks(blocks, c->e->config.block_bytes));
    json_object_object_add(c->reply, "valid", counts);
    json_object_object_add(c->reply, "used_s", used);
    return 0;
}

/* ---- handing over ---------------------------------------------------------
 */

static int get_flip(struct call *c, uint8_t migration[FC_MIGRATION_BYTES],
                    uint64_t *epoch_r)
{
    int64_t epoch = fc_json_int(c->request, "epoch", 0);
    if (epoch <= 0 || fc_hex_parse(fc_json_str(c->request, "migration", ""),
                                   migration, FC_MIGRATION_BYTES))
        return FC_EINVAL;
    *epoch_r = (uint64_t)epoch;
    return 0;
}

static int timeout_of(struct call *c)
{
    int64_t ms = fc_json_int(c->request, "timeout_ms", FLIP_MS);
    return ms < 0 ? 0 : ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static int cmd_fence(struct call *c)
{
    uint8_t migration[FC_MIGRATION_BYTES];
    struct fc_source_status s;
    uint64_t epoch;
    int rc = get_flip(c, migration, &epoch);
    if (!rc)
        rc = fc_feed_fence(c->e->feed, migration, epoch,
                           fc_json_bool(c->request, "complete", 0),
                           timeout_of(c));
    if (rc)
        return rc;
    fc_source_status(c->e->source, &s);
    put_int(c->reply, "remaining_blocks", s.remaining_blocks);
    return 0;
}

static int cmd_lease(struct call *c)
{
    return fc_feed_lease(c->e->feed, timeout_of(c));
}

static int cmd_unfence(struct call *c)
{
    return fc_feed_unfence(c->e->feed, timeout_of(c));
}

static int cmd_freeze(struct call *c)
{
    uint8_t migration[FC_MIGRATION_BYTES];
    uint64_t epoch;
    int rc = get_flip(c, migration, &epoch);
    return rc ? rc : fc_feed_freeze(c->e->feed, migration, epoch);
}

static int cmd_sync(struct call *c)
{
    return fc_blkengine_sync(c->e);
}

static int cmd_finish(struct call *c)
{
    int rc = cmd_sync(c);
    if (c->e->feed)
        fc_feed_finish(c->e->feed);
    if (!rc && c->e->sink && !fc_shadow_complete(c->e->shadow))
        rc = FC_EBUSY;
    return rc;
}

/* -------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned roles;
    int (*run)(struct call *c);
} commands[] = {
    { "status", ALL, cmd_status },
    { "channel", SOURCE | SHADOW, cmd_channel },
    { "order", ALL, cmd_order },
    { "rate", ALL, cmd_rate },
    { "ranges", ALL, cmd_ranges },
    { "fence", SOURCE, cmd_fence },
    { "lease", SOURCE, cmd_lease },
    { "unfence", SOURCE, cmd_unfence },
    { "freeze", SOURCE, cmd_freeze },
    { "sync", ALL, cmd_sync },
    { "finish", ALL, cmd_finish },
};

void fc_blkengine_cmd(struct fc_blkengine *e, struct json_object *request,
                      int *fds, int *nfds, struct json_object *reply)
{
    struct call c = { e, request, reply, fds, nfds };
    const char *name = fc_json_str(request, "cmd", "");
    const char *why = NULL;
    int rc = FC_EINVAL;
    why = "no such command";
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name))
            continue;
        bool mine = commands[i].roles & 1u << e->config.role;
        why = mine ? NULL : "not for an engine of this role";
        rc = mine ? commands[i].run(&c) : FC_EINVAL;
        break;
    }
    put_bool(reply, "ok", !rc);
    if (rc) {
        put_str(reply, "code", fc_errname(rc));
        put_str(reply, "error", why ? why : fc_strerror(rc));
    }
}
