/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "daemon.h"
#include "disks.h"

/* Numbers that are for people have no use for more digits than these. */
static double rounded(double v)
{
    return round(v * 1000) / 1000;
}

static void put_double(struct json_object *o, const char *key, double v)
{
    fc_json_put_double(o, key, rounded(v));
}

struct json_object *fc_json_estimate(const struct fc_estimate *e)
{
    struct json_object *o = json_object_new_object();
    fc_json_put_int(o, "bytes", e->bytes);
    fc_json_put_int(o, "total_ms", e->total_ms);
    fc_json_put_int(o, "downtime_ms", e->downtime_ms);
    put_double(o, "confidence", e->confidence);
    fc_json_put_int(o, "link_bps", (uint64_t)e->link_bps);
    fc_json_put_int(o, "floor_pages", e->floor_pages);
    fc_json_put_int(o, "missing_pages", e->missing_pages);
    fc_json_put_int(o, "missing_bytes", e->missing_bytes);
    fc_json_put_int(o, "reference_pages", e->reference_pages);
    fc_json_put_int(o, "zero_pages", e->zero_pages);
    fc_json_put_int(o, "rounds", e->rounds);
    fc_json_put_bool(o, "link_known", e->link_known);
    fc_json_put_bool(o, "converges", e->converges);
    fc_json_put_text(o, "basis", e->basis);
    return o;
}

static void estimate_memory(struct fc_daemon *d, const struct fc_domain *domain,
                            const char *host, uint32_t max_downtime_ms,
                            struct fc_estimate *e)
{
    static const struct fc_curve unknown;
    const struct fc_armed_guest *a = fc_daemon_armed(d, domain->uuid);
    if (a && a->guest) {
        fc_guest_estimate(a->guest, max_downtime_ms, e);
        return;
    }
    const struct fc_settings *s =
        fc_daemon_guest_settings(d, domain->uuid, false);
    if (!s)
        s = &d->settings;
    double told = fc_settings_double(s, FC_SET_LINK_RATE);
    double seen = told > 0 ? 0 : fc_linkrate_of(&d->links, host);
    struct fc_estimate_in in = {
        .pages = domain->pages,
        .link_bps = told > 0 ? told : seen,
        .link_remembered = seen > 0,
        .curve = &unknown,
        .page_us = d->calibration.page_us,
        .page_us_learned = d->calibration.page_us > 0,
        .scan_ms = d->calibration.scan_ms,
        .fixed_ms = d->calibration.samples ? d->calibration.fixed_ms : 100,
        .overhead_ms = d->calibration.overhead_ms,
        .max_downtime_ms =
            max_downtime_ms ? max_downtime_ms
                            : (uint32_t)fc_settings_u64(s, FC_SET_MAX_DOWNTIME),
        .max_rounds = 30,
    };
    fc_estimate_run(&in, e);
}

void fc_daemon_estimate(struct fc_daemon *d, const struct fc_domain *domain,
                        const char *host, bool disks, uint32_t max_downtime_ms,
                        struct fc_estimate *e)
{
    estimate_memory(d, domain, host, max_downtime_ms, e);
    if (disks) {
        e->downtime_ms += (uint64_t)d->calibration.disks_ms;
        e->total_ms += (uint64_t)d->calibration.disks_ms;
    }
}

static double percent(uint64_t part, uint64_t whole)
{
    double p = whole ? 100.0 * (double)part / (double)whole : 0;
    return p > 100 ? 100 : p;
}

/* What only an armed guest has. */
static void put_staging(struct json_object *o, const struct fc_guest *g)
{
    struct fc_uplink_status s;
    char method[FC_PREDICT_METHOD];
    const char *reason, *state = fc_guest_state(g, &reason);
    uint64_t clean = g->pages.valid + g->pages.zero;
    fc_uplink_status(g->uplink, &s);
    fc_json_put_text(o, "state", state);
    fc_json_put_text(o, "reason", reason);
    fc_json_put_int(o, "zero_pages", g->pages.zero);
    fc_json_put_int(o, "staged_pages", g->pages.staged);
    fc_json_put_int(o, "valid_pages", g->pages.valid);
    put_double(o, "staged_percent",
               percent(g->pages.staged + g->pages.zero, g->domain_pages));
    put_double(o, "valid_percent", percent(clean, g->domain_pages));
    put_double(o, "dirty_rate_pps", g->sampler.written_per_s);
    fc_json_put_int(o, "staged_bytes", s.sent_bytes);
    fc_json_put_int(o, "channels", s.channels);
    fc_json_put_int(o, "rate_bytes",
                    g->armed.rate_bytes
                        ? g->armed.rate_bytes
                        : fc_settings_u64(g->settings, FC_SET_STAGE_RATE));
    put_double(o, "log_share_percent", g->sampler.log_share * 100);
    fc_json_put_text(o, "method", fc_predict_method(&g->predict, method));
    json_object_object_add(o, "predictor",
                           fc_predict_json(&g->predict, fc_now_ms()));
    fc_json_put_int(o, "memory_bytes", fc_guest_bytes(g));
}

static void put_plain(struct json_object *o, const char *state,
                      const char *reason)
{
    fc_json_put_text(o, "state", state);
    fc_json_put_text(o, "reason", reason);
    fc_json_put_int(o, "zero_pages", 0);
    fc_json_put_int(o, "staged_pages", 0);
    fc_json_put_int(o, "valid_pages", 0);
    put_double(o, "staged_percent", 0);
    put_double(o, "valid_percent", 0);
    put_double(o, "dirty_rate_pps", 0);
    fc_json_put_int(o, "staged_bytes", 0);
    fc_json_put_int(o, "channels", 0);
    fc_json_put_int(o, "rate_bytes", 0);
    put_double(o, "log_share_percent", 0);
}

struct json_object *fc_json_guest(struct fc_daemon *d,
                                  const struct fc_domain *domain,
                                  const struct fc_armed_guest *armed)
{
    struct json_object *o = json_object_new_object();
    struct fc_estimate estimate;
    char uuid[FC_UUID_TEXT];

    fc_uuid_format(domain->uuid, uuid);
    fc_json_put_text(o, "name", domain->name);
    fc_json_put_text(o, "uuid", uuid);
    fc_json_put_int(o, "domid", domain->domid);
    fc_json_put_text(o, "type", fc_domain_type_name(domain->type));
    fc_json_put_bool(o, "armed", armed != NULL);
    fc_json_put_text(o, "host", armed ? armed->armed.host : "");
    fc_json_put_int(o, "pages", domain->pages);
    if (armed && armed->guest)
        put_staging(o, armed->guest);
    else if (fc_daemon_hold(d, domain->uuid))
        put_plain(o, "migrating", "");
    else if (armed && armed->why[0])
        put_plain(o, "refused", armed->why);
    else
        put_plain(o, "idle", "");
    put_double(o, "cpu_percent", domain->cpu_percent);
    put_double(o, "vif_bytes_ps", domain->vif_bytes_ps);
    put_double(o, "vbd_bytes_ps", domain->vbd_bytes_ps);
    json_object_object_add(o, "traced_disks",
                           fc_blocktrace_json(d->blocktrace, domain->uuid));
    fc_daemon_estimate(d, domain, "", false, 0, &estimate);
    json_object_object_add(o, "estimate", fc_json_estimate(&estimate));
    return o;
}

/* "23 h", "59 min", "5 s" */
static void format_left(uint32_t seconds, char *out, size_t cap)
{
    if (seconds >= 7200)
        snprintf(out, cap, "%u h", seconds / 3600);
    else if (seconds >= 120)
        snprintf(out, cap, "%u min", seconds / 60);
    else
        snprintf(out, cap, "%u s", seconds);
}

struct json_object *fc_json_away(struct fc_daemon *d,
                                 const struct fc_armed_guest *a)
{
    struct json_object *o = json_object_new_object();
    uint32_t left = fc_daemon_away_left_s(d, a, (uint32_t)time(NULL));
    char uuid[FC_UUID_TEXT], in[32], reason[96];
    format_left(left, in, sizeof(in));
    snprintf(reason, sizeof(reason),
             "its domain does not run here; disarmed in %s", in);
    fc_uuid_format(a->armed.uuid, uuid);
    fc_json_put_text(o, "name", uuid);
    fc_json_put_text(o, "uuid", uuid);
    fc_json_put_int(o, "domid", 0);
    fc_json_put_text(o, "type", "");
    fc_json_put_bool(o, "armed", 1);
    fc_json_put_text(o, "host", a->armed.host);
    fc_json_put_int(o, "pages", 0);
    put_plain(o, "idle", reason);
    fc_json_put_int(o, "disarm_in_s", left);
    return o;
}

struct json_object *fc_json_guests(struct fc_daemon *d)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < d->domains.count; i++) {
        const struct fc_domain *domain = &d->domains.list[i];
        json_object_array_add(
            list, fc_json_guest(d, domain, fc_daemon_armed(d, domain->uuid)));
    }
    for (const struct fc_armed_guest *a = d->armed; a; a = a->next)
        if (!fc_domains_by_uuid(&d->domains, a->armed.uuid))
            json_object_array_add(list, fc_json_away(d, a));
    return list;
}

static void add_guest_counters(struct json_object *o, const struct fc_daemon *d)
{
    uint64_t cleans = 0, peeks = 0, pauses = 0, sent = 0, bytes = 0, same = 0,
             evicted = 0, refused = 0, memory = 0;
    for (const struct fc_armed_guest *a = d->armed; a; a = a->next) {
        const struct fc_guest *g = a->guest;
        struct fc_uplink_status s;
        if (!g)
            continue;
        fc_uplink_status(g->uplink, &s);
        cleans += g->sampler.cleans;
        peeks += g->sampler.peeks;
        pauses += g->sampler.pauses;
        sent += g->stager.pages_sent;
        same += g->stager.pages_same;
        evicted += g->stager.pages_evicted;
        refused += g->stager.pages_refused;
        bytes += s.sent_bytes;
        memory += fc_guest_bytes(g);
    }
    fc_json_put_int(o, "log_cleans", cleans);
    fc_json_put_int(o, "log_peeks", peeks);
    fc_json_put_int(o, "log_pauses", pauses);
    fc_json_put_int(o, "staged_pages_sent", sent);
    fc_json_put_int(o, "staged_pages_unchanged", same);
    fc_json_put_int(o, "staged_pages_evicted", evicted);
    fc_json_put_int(o, "staged_pages_refused", refused);
    fc_json_put_int(o, "staged_bytes", bytes);
    fc_json_put_int(o, "guest_state_bytes", memory);
}

struct json_object *fc_json_counters(struct fc_daemon *d)
{
    struct json_object *o = json_object_new_object();
    struct fc_keepers_status k;
    fc_keepers_status(d->keepers, &k);
    fc_json_put_int(o, "uptime_ms", fc_now_ms() - d->start_ms);
    fc_json_put_int(o, "domains", d->domains.count);
    fc_json_put_int(o, "armed_guests", d->armed_count);
    fc_json_put_int(o, "clients", fc_control_clients(d->control));
    fc_json_put_int(o, "arms", d->counters.arms);
    fc_json_put_int(o, "disarms", d->counters.disarms);
    fc_json_put_int(o, "migrations", d->counters.migrations);
    fc_json_put_int(o, "migrations_failed", d->counters.migrations_failed);
    fc_json_put_int(o, "migration_bytes", d->counters.migration_bytes);
    fc_json_put_int(o, "leftovers_removed", d->counters.leftovers_removed);
    put_double(o, "learned_page_us", d->calibration.page_us);
    put_double(o, "learned_scan_ms", d->calibration.scan_ms);
    put_double(o, "learned_fixed_ms", d->calibration.fixed_ms);
    put_double(o, "learned_overhead_ms", d->calibration.overhead_ms);
    put_double(o, "learned_disks_ms", d->calibration.disks_ms);
    add_guest_counters(o, d);
    fc_json_put_int(o, "keepers", k.keepers);
    fc_json_put_int(o, "keeper_channels", k.channels);
    fc_json_put_int(o, "keeper_channels_received",
                    d->counters.channels_received);
    fc_json_put_int(o, "keeper_pages", k.pages);
    fc_json_put_int(o, "keeper_used_bytes", k.used_bytes);
    fc_json_put_int(o, "keeper_budget_bytes", k.budget_bytes);
    fc_json_put_int(o, "keeper_received_bytes", k.received_bytes);
    fc_json_put_int(o, "keeper_pages_evicted", k.evicted);
    fc_disks_counters(d->disks, o);
    return o;
}
