/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an incoming disk is shown as. */
#include <string.h>

#include "disk_incoming_int.h"
#include "err.h"

static void put_int(struct json_object *o, const char *key, uint64_t v)
{
    json_object_object_add(o, key, json_object_new_int64((int64_t)v));
}

static void put_text(struct json_object *o, const char *key, const char *v)
{
    json_object_object_add(o, key, json_object_new_string(v));
}

static const char *state_of(const struct fc_incoming *n)
{
    if (n->list == fc_incoming_complete)
        return "completing";
    if (n->list == fc_incoming_discard_it || n->doomed)
        return "discarding";
    if (n->list)
        return "preparing";
    if (n->v.owned)
        return "hydrating";
    return n->channel ? "filling" : "waiting";
}

static struct json_object *json_of(const struct fc_incoming *n)
{
    struct json_object *o = json_object_new_object();
    char uuid[FC_UUID_TEXT];
    fc_uuid_format(n->v.id.uuid, uuid);
    put_text(o, "uuid", uuid);
    put_text(o, "vdev", n->v.id.vdev);
    put_text(o, "role", "shadow");
    put_text(o, "state", state_of(n));
    put_text(o, "volume", n->v.path);
    put_text(o, "device", n->device);
    put_text(o, "reason", n->trouble);
    put_int(o, "size", n->v.size);
    put_int(o, "epoch", n->epoch);
    put_int(o, "valid_bytes", n->valid * n->v.block_bytes);
    json_object_object_add(
        o, "coverage_percent",
        json_object_new_double(
            n->blocks ? 100.0 * (double)n->valid / (double)n->blocks : 0));
    fc_readstats_show(&n->stats, o);
    put_int(o, "received_bytes", n->received);
    put_int(o, "reads", n->reads);
    put_int(o, "read_ms_sum", n->read_ms);
    put_int(o, "held", n->held);
    put_int(o, "prefetched", n->prefetched);
    put_int(o, "prefetch_used", n->prefetch_used);
    json_object_object_add(o, "owned", json_object_new_boolean(n->v.owned));
    json_object_object_add(o, "warm", json_object_new_boolean(n->v.warm));
    json_object_object_add(o, "channel", json_object_new_boolean(n->channel));
    return o;
}

void fc_incoming_json(const struct fc_incoming_set *set, const uint8_t *uuid,
                      struct json_object *list)
{
    for (const struct fc_incoming *n = set->first; n; n = n->next)
        if (!n->removed &&
            (!uuid || !memcmp(n->v.id.uuid, uuid, FC_UUID_BYTES)))
            json_object_array_add(list, json_of(n));
}
