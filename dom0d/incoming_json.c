/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an incoming disk is shown as. */
#include <string.h>

#include "ctl.h"
#include "disk_incoming_int.h"
#include "err.h"

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
    fc_json_put_text(o, "uuid", uuid);
    fc_json_put_text(o, "vdev", n->v.id.vdev);
    fc_json_put_text(o, "role", "shadow");
    fc_json_put_text(o, "state", state_of(n));
    fc_json_put_text(o, "volume", n->v.path);
    fc_json_put_text(o, "device", n->device);
    fc_json_put_text(o, "reason", n->trouble);
    fc_json_put_int(o, "size", n->v.size);
    fc_json_put_int(o, "epoch", n->epoch);
    fc_json_put_int(o, "valid_bytes", n->valid * n->v.block_bytes);
    json_object_object_add(
        o, "coverage_percent",
        json_object_new_double(
            n->blocks ? 100.0 * (double)n->valid / (double)n->blocks : 0));
    fc_readstats_show(&n->stats, o);
    fc_json_put_int(o, "received_bytes", n->received);
    fc_json_put_int(o, "reads", n->reads);
    fc_json_put_int(o, "read_ms_sum", n->read_ms);
    fc_json_put_int(o, "held", n->held);
    fc_json_put_int(o, "prefetched", n->prefetched);
    fc_json_put_int(o, "prefetch_used", n->prefetch_used);
    fc_json_put_bool(o, "owned", n->v.owned);
    fc_json_put_bool(o, "warm", n->v.warm);
    fc_json_put_bool(o, "channel", n->channel);
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
