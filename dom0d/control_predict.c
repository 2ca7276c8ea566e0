/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "daemon.h"
#include "err.h"

/* When not said, and the most. */
#define HOURS 24
#define REGIONS 50
#define MAX_REGIONS 1024
#define CELLS 1024
#define HORIZON_MS 10000
#define MAX_HORIZON_MS 3600000
#define HEAT_UNIT 1e6 /* of the reply's numbers */
#define MAX_DOWNTIME_MS 3600000

/* The armed guest that a request names, with its domain here; NULL after
 * answering. */
static struct fc_guest *guest_of(struct fc_daemon *d, struct fc_client *client,
                                 struct json_object *req)
{
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    if (!domain)
        return NULL;
    struct fc_armed_guest *a = fc_daemon_armed(d, domain->uuid);
    if (!a)
        fc_client_fail(client, FC_ENOENT,
                       "%s is not armed, nothing watches its memory",
                       domain->name);
    else if (!a->guest)
        fc_client_fail(client, FC_ENOENT, "%s is not watched: %s", domain->name,
                       a->why);
    return a ? a->guest : NULL;
}

static struct json_object *entry_json(const struct fc_rank_entry *e)
{
    struct json_object *o = json_object_new_array();
    int64_t next_ms = e->next_ms == FC_RANK_NEVER ? -1 : (int64_t)e->next_ms;
    json_object_array_add(o, json_object_new_int64((int64_t)e->first));
    json_object_array_add(o, json_object_new_int64(e->pages));
    json_object_array_add(o, json_object_new_double((double)e->p));
    json_object_array_add(o, json_object_new_int64(next_ms));
    return o;
}

static struct json_object *list_json(const struct fc_guest *g,
                                     enum fc_rank_list which,
                                     const struct fc_rank_view *v,
                                     uint32_t limit)
{
    char method[FC_PREDICT_METHOD];
    struct json_object *o = json_object_new_object();
    struct json_object *regions = json_object_new_array();
    for (uint32_t i = 0; i < v->count && i < limit; i++)
        json_object_array_add(regions, entry_json(&v->entries[i]));
    fc_json_put_text(o, "name", g->name);
    fc_json_put_text(o, "list", fc_rank_list_name(which));
    fc_json_put_int(o, "horizon_ms", v->horizon_ms);
    fc_json_put_double(o, "most_p", (double)v->max_p);
    fc_json_put_double(o, "confidence", (double)v->confidence);
    fc_json_put_int(o, "chosen_from", v->chosen_from);
    fc_json_put_int(o, "count", v->count);
    fc_json_put_int(o, "tick", (int64_t)v->tick);
    fc_json_put_int(o, "age_ms", (int64_t)(fc_now_ms() - v->time_ms));
    fc_json_put_text(o, "method", fc_predict_method(&g->predict, method));
    json_object_object_add(o, "regions", regions);
    return o;
}

void fc_control_rank(struct fc_daemon *d, struct fc_client *client,
                     struct json_object *req)
{
    struct fc_rank_view v;
    int64_t limit = fc_json_int(req, "limit", REGIONS);
    const char *name = fc_json_str(req, "list", "staging");
    bool delta = !strcmp(name, "delta");
    enum fc_rank_list which = delta ? FC_RANK_DELTA : FC_RANK_STAGING;
    if (limit < 1 || limit > MAX_REGIONS ||
        (!delta && strcmp(name, "staging"))) {
        fc_client_fail(client, FC_EINVAL,
                       "list is staging or delta, limit 1 to %d", MAX_REGIONS);
        return;
    }
    const struct fc_guest *g = guest_of(d, client, req);
    if (!g)
        return;
    const struct fc_lists *lists = g->predict.lists;
    if (!lists) {
        fc_client_fail(client, FC_ENOENT,
                       "%s has no ranked lists: its scorer is %s", g->name,
                       g->scorer.ops->name);
        return;
    }
    if (fc_rank_reader_look(fc_lists_reader(lists), which, &v)) {
        fc_client_fail(client, FC_ENOENT,
                       "%s has no ranked lists yet, its writes are not seen",
                       g->name);
        return;
    }
    /* Nobody writes meanwhile: this is the thread that does. */
    struct json_object *o = list_json(g, which, &v, (uint32_t)limit);
    int fd = fc_lists_fd(lists);
    fc_client_reply(client, o, fd < 0 ? -1 : fd);
}

void fc_control_heatmap(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req)
{
    static struct fc_heatmap map;
    int64_t cells = fc_json_int(req, "cells", CELLS);
    int64_t horizon_ms = fc_json_int(req, "horizon_ms", HORIZON_MS);
    if (cells < 1 || cells > FC_HEATMAP_CELLS || horizon_ms < 1 ||
        horizon_ms > MAX_HORIZON_MS) {
        fc_client_fail(client, FC_EINVAL,
                       "cells is 1 to %u, horizon_ms 1 to %d", FC_HEATMAP_CELLS,
                       MAX_HORIZON_MS);
        return;
    }
    const struct fc_guest *g = guest_of(d, client, req);
    if (!g)
        return;
    fc_predict_heat(&g->predict, (uint32_t)horizon_ms, (unsigned)cells, &map);
    struct json_object *o = json_object_new_object();
    struct json_object *heat = json_object_new_array();
    for (unsigned c = 0; c < map.cells; c++)
        json_object_array_add(
            heat,
            json_object_new_int64((int64_t)((double)map.heat[c] * HEAT_UNIT)));
    fc_json_put_text(o, "name", g->name);
    fc_json_put_int(o, "pages", (int64_t)map.pages);
    fc_json_put_int(o, "page_bytes", FC_PAGE_SIZE);
    fc_json_put_int(o, "horizon_ms", horizon_ms);
    json_object_object_add(o, "heat", heat);
    fc_client_reply(client, o, -1);
}

static struct json_object *window_json(const struct fc_profile_window *w)
{
    struct json_object *o = json_object_new_object();
    fc_json_put_int(o, "start_s", (int64_t)w->start_s);
    fc_json_put_int(o, "bytes", (int64_t)w->bytes);
    fc_json_put_int(o, "total_ms", (int64_t)w->total_ms);
    fc_json_put_int(o, "downtime_ms", (int64_t)w->downtime_ms);
    fc_json_put_bool(o, "converges", w->converges);
    json_object_object_add(o, "confidence",
                           json_object_new_double((double)w->confidence));
    json_object_object_add(
        o, "basis", json_object_new_string(fc_profile_basis_name(w->basis)));
    return o;
}

void fc_control_when(struct fc_daemon *d, struct fc_client *client,
                     struct json_object *req)
{
    struct fc_profile_window windows[FC_PREDICT_HOURS];
    int64_t hours = fc_json_int(req, "hours", HOURS);
    int64_t downtime = fc_json_int(req, "max_downtime_ms", 0);
    int best;
    if (hours < 1 || hours > FC_PREDICT_HOURS || downtime < 0 ||
        downtime > MAX_DOWNTIME_MS) {
        fc_client_fail(client, FC_EINVAL,
                       "hours is 1 to %u, max_downtime_ms 1 to %d",
                       FC_PREDICT_HOURS, MAX_DOWNTIME_MS);
        return;
    }
    const struct fc_guest *g = guest_of(d, client, req);
    if (!g)
        return;
    unsigned n = fc_guest_when(g, (uint32_t)downtime, (uint64_t)time(NULL),
                               (unsigned)hours, windows, &best);
    struct json_object *o = json_object_new_object();
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < n; i++)
        json_object_array_add(list, window_json(&windows[i]));
    json_object_object_add(o, "name", json_object_new_string(g->name));
    json_object_object_add(o, "windows", list);
    fc_json_put_int(o, "best", best);
    fc_client_reply(client, o, -1);
}
