/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "luggage.h"

/* Until a migration has shown it: suspend and resume, which no page count
 * explains, and how much longer a page takes a migration than the worker. */
#define FIXED_MS 100.0
#define PAGE_FACTOR 2.0
#define MAX_ROUNDS 30u
#define ESTIMATE_MS 10000u

static void on_up(void *user, const struct fc_channel_welcome *welcome,
                  bool new_epoch)
{
    struct fc_guest *g = user;
    (void)welcome;
    fc_stager_up(&g->stager, new_epoch);
}

static void on_stored(void *user, void *tag, const uint64_t *refused,
                      uint32_t count)
{
    struct fc_guest *g = user;
    fc_stager_stored(&g->stager, tag, refused, count);
}

static void on_lost(void *user, void *tag)
{
    struct fc_guest *g = user;
    fc_stager_lost(&g->stager, tag);
}

static void on_evicted(void *user, const uint64_t *pfns, uint32_t count)
{
    struct fc_guest *g = user;
    fc_stager_evicted(&g->stager, pfns, count);
}

static void run_stager(struct fc_guest *g, uint64_t now_ms)
{
    struct fc_stager_limits limits = {
        .rate_bps = g->armed.rate_bytes
                        ? g->armed.rate_bytes
                        : fc_settings_u64(g->settings, FC_SET_STAGE_RATE),
        .quiet_ms =
            (uint64_t)(fc_settings_double(g->settings, FC_SET_STAGE_QUIET) *
                       1000),
        .risk = fc_settings_double(g->settings, FC_SET_STAGE_RISK) / 100,
        .list_p = (double)fc_predict_listed(&g->predict, now_ms),
    };
    if (limits.rate_bps) /* 0 would be no limit */
        limits.rate_bps =
            1 + (uint64_t)((double)limits.rate_bps * g->rate_share);
    bool sampling = g->log.on && !g->trouble;
    fc_stager_run(&g->stager, &limits, sampling, now_ms);
}

static void on_ready(void *user)
{
    run_stager(user, fc_now_ms());
}

static const struct fc_uplink_events uplink_events = {
    .up = on_up,
    .stored = on_stored,
    .lost = on_lost,
    .evicted = on_evicted,
    .ready = on_ready,
};

static int open_uplink(struct fc_guest *g, char *why)
{
    char uuid[FC_UUID_TEXT], command[4 * FC_ARMED_COMMAND];
    const char *pattern =
        g->armed.command[0]
            ? g->armed.command
            : fc_settings_text(g->settings, FC_SET_CHANNEL_COMMAND);
    fc_uuid_format(g->armed.uuid, uuid);
    int rc = fc_settings_command(pattern, g->armed.host, uuid, command,
                                 sizeof(command));
    if (rc) {
        snprintf(why, FC_GUEST_WHY,
                 "the host's name or the channel's command "
                 "cannot be used");
        return FC_EINVAL;
    }
    struct fc_uplink_args args = {
        .base = g->env->base,
        .children = g->env->children,
        .command = command,
        .name = g->name,
        .guest_pages = g->domain_pages,
        .channels = g->armed.channels ? g->armed.channels
                                      : (unsigned)fc_settings_u64(
                                            g->settings, FC_SET_CHANNELS),
        .timeout_s =
            (uint32_t)fc_settings_u64(g->settings, FC_SET_PEER_TIMEOUT),
    };
    memcpy(args.uuid, g->armed.uuid, FC_UUID_BYTES);
    rc = fc_uplink_new(&args, &uplink_events, g, &g->uplink);
    if (rc)
        snprintf(why, FC_GUEST_WHY, "cannot open channels: %s",
                 fc_strerror(rc));
    g->stager.uplink = g->uplink;
    return rc;
}

void fc_guest_log_trouble(int rc, char why[FC_GUEST_WHY])
{
    if (rc == FC_ENOLOG)
        snprintf(why, FC_GUEST_WHY,
                 "Xen cannot log the dirty pages of this "
                 "guest (does it have a passed-through device?)");
    else if (rc == FC_ELIMIT)
        snprintf(why, FC_GUEST_WHY,
                 "the guest's physical map is larger than "
                 "4 TiB");
    else
        snprintf(why, FC_GUEST_WHY,
                 "cannot log the guest's dirty pages: %s%s%s", fc_strerror(rc),
                 rc == FC_ESYS ? ": " : "",
                 rc == FC_ESYS ? strerror(errno) : "");
}

static int open_log(struct fc_guest *g, char *why)
{
    int rc = fc_dirtylog_init(&g->log, g->env->log_ops, g->env->log_user,
                              g->env->proc_root, g->domid);
    if (!rc)
        rc = fc_dirtylog_enable(&g->log);
    if (rc == FC_EBUSY)
        rc = 0; /* another save: the sampler waits for its end */
    if (rc)
        fc_guest_log_trouble(rc, why);
    return rc;
}

static int set_up(struct fc_guest *g, char *why)
{
    uint64_t now = fc_now_ms();
    int rc = open_log(g, why);
    if (rc)
        return rc;
    rc = fc_pagetab_init(&g->pages, g->log.pfns, now);
    if (!rc)
        rc = fc_scorer_init(&g->scorer,
                            fc_settings_text(g->settings, FC_SET_SCORER),
                            g->log.pfns);
    if (!rc)
        rc = fc_sampler_init(&g->sampler, &g->log, &g->pages, &g->scorer);
    if (rc) {
        snprintf(why, FC_GUEST_WHY, "%s", fc_strerror(rc));
        return rc;
    }
    fc_sampler_resume(&g->sampler, now);
    struct fc_predict_args predict = { .domid = g->domid,
                                       .pages = g->log.pfns,
                                       .scorer = &g->scorer,
                                       .db = g->env->db,
                                       .watch = g->env->watch,
                                       .watch_user = g->env->watch_user };
    memcpy(predict.uuid, g->armed.uuid, FC_UUID_BYTES);
    fc_predict_init(&g->predict, &predict, now);
    struct fc_stager_args args = { &g->pages, &g->scorer, g->env->worker, g->id,
                                   g->domid };
    fc_stager_init(&g->stager, &args, now);
    return open_uplink(g, why);
}

static void dispose(struct fc_guest *g)
{
    fc_stager_dispose(&g->stager);
    fc_predict_dispose(&g->predict);
    fc_sampler_dispose(&g->sampler);
    fc_scorer_dispose(&g->scorer);
    fc_pagetab_dispose(&g->pages);
    free(g);
}

int fc_guest_can_log(const struct fc_domain *domain, char why[FC_GUEST_WHY])
{
    if (domain->type != FC_DOMAIN_PV)
        return 0;
    snprintf(why, FC_GUEST_WHY,
             "Xen cannot log the dirty pages of a PV "
             "guest (its hypervisor is built without shadow paging)");
    return FC_ENOLOG;
}

int fc_guest_new(const struct fc_guest_env *env, const struct fc_armed *armed,
                 const struct fc_settings *settings,
                 const struct fc_domain *domain, uint64_t id,
                 struct fc_guest **guest_r, char why[FC_GUEST_WHY])
{
    int rc = fc_guest_can_log(domain, why);
    if (rc)
        return rc;
    struct fc_guest *g = calloc(1, sizeof(*g));
    if (!g) {
        snprintf(why, FC_GUEST_WHY, "out of memory");
        return FC_ENOMEM;
    }
    g->env = env;
    g->settings = settings;
    g->armed = *armed;
    g->id = id;
    g->rate_share = 1;
    g->domid = domain->domid;
    fc_guest_domain(g, domain);
    rc = set_up(g, why);
    if (rc) {
        (void)fc_dirtylog_disable(&g->log);
        dispose(g);
        return rc;
    }
    *guest_r = g;
    return 0;
}

void fc_guest_close(struct fc_guest *g, enum fc_channel_bye reason,
                    const char *text, bool gone, void (*closed)(void *user),
                    void *user)
{
    if (!gone) {
        int rc = fc_dirtylog_disable(&g->log);
        if (rc && rc != FC_EBUSY && rc != FC_ENODOM)
            fc_warn("%s: cannot switch the dirty log off: %s", g->name,
                    fc_strerror(rc));
    }
    g->stager.uplink = NULL;
    fc_uplink_close(g->uplink, reason, text, closed, user);
    dispose(g);
}

void fc_guest_domain(struct fc_guest *g, const struct fc_domain *domain)
{
    memcpy(g->name, domain->name, sizeof(g->name));
    g->domain_pages = domain->pages;
    fc_predict_domain(&g->predict, domain);
}

/* The predictor's last horizon is "until the migration ends". */
static void tell_migration(struct fc_guest *g, uint64_t now_ms)
{
    struct fc_estimate e;
    if (now_ms - g->estimated_ms < ESTIMATE_MS)
        return;
    g->estimated_ms = now_ms;
    fc_guest_estimate(g, 0, &e);
    fc_predict_migration(&g->predict, e.total_ms);
}

void fc_guest_tick(struct fc_guest *g, uint64_t now_ms)
{
    if (g->held)
        return;
    struct fc_sampler_limits limits = {
        .interval_ms =
            (uint32_t)fc_settings_u64(g->settings, FC_SET_SAMPLE_INTERVAL),
        .log_share = fc_settings_double(g->settings, FC_SET_LOG_SHARE) / 100,
        .fault_cost_ns =
            (uint32_t)fc_settings_u64(g->settings, FC_SET_FAULT_COST),
    };
    bool was_paused = g->sampler.paused;
    int rc = fc_sampler_tick(&g->sampler, &limits, now_ms);
    if (g->sampler.paused && !was_paused)
        fc_info("%s: another save is under way; paused", g->name);
    else if (!g->sampler.paused && was_paused)
        fc_info("%s: the other save is over; goes on", g->name);
    if (rc == FC_EBUSY)
        rc = 0;
    if (rc && rc != g->trouble)
        fc_warn("%s: cannot sample its writes: %s", g->name, fc_strerror(rc));
    if (rc && !g->trouble)
        fc_pagetab_blind(&g->pages);
    g->trouble = rc;
    fc_scorer_engine_adapt(&g->scorer, g->env->adapt_share);
    fc_predict_tick(&g->predict, &g->sampler, g->name, now_ms,
                    (uint64_t)time(NULL));
    tell_migration(g, now_ms);
    run_stager(g, now_ms);
}

void fc_guest_job_done(struct fc_guest *g, struct fc_job *job, uint64_t now_ms)
{
    int rc = fc_stager_job_done(&g->stager, job, now_ms);
    if (rc && rc != FC_ENODOM)
        fc_warn("%s: cannot read its memory: %s", g->name, fc_strerror(rc));
    run_stager(g, now_ms);
}

void fc_guest_hold(struct fc_guest *g)
{
    g->held = true;
    g->log.held = true;
    fc_stager_hold(&g->stager);
}

void fc_guest_release(struct fc_guest *g, uint64_t now_ms)
{
    g->held = false;
    g->log.held = false;
    /* The migration switched the log off; the sampler takes it over again. */
    g->log.on = false;
    g->sampler.paused = true;
    fc_sampler_resume(&g->sampler, now_ms);
    fc_stager_release(&g->stager);
}

void fc_guest_send_model(struct fc_guest *g)
{
    uint8_t *bytes = NULL;
    size_t len;
    int rc = fc_luggage_pack(&g->predict, &bytes, &len);
    if (!rc)
        fc_uplink_model(g->uplink, bytes, len);
    else
        fc_warn("%s: what is known of it does not go with it: %s", g->name,
                fc_strerror(rc));
    free(bytes);
}

unsigned fc_guest_in_flight(const struct fc_guest *g)
{
    struct fc_uplink_status s;
    fc_uplink_status(g->uplink, &s);
    return s.puts;
}

static void add_hash(void *user, struct fc_hash hash)
{
    /* It was made for as many as there are. */
    (void)fc_hashset_add(user, hash);
}

int fc_guest_hashset(const struct fc_guest *g, struct fc_hashset *set)
{
    int rc = fc_hashset_new(set, g->pages.staged ? g->pages.staged : 1);
    if (!rc)
        fc_pagetab_each_staged(&g->pages, add_hash, set);
    return rc;
}

static struct fc_estimate_in estimate_in(const struct fc_guest *g,
                                         uint32_t max_downtime_ms)
{
    const struct fc_calibration *c = g->env->calibration;
    struct fc_uplink_status s;
    double told = fc_settings_double(g->settings, FC_SET_LINK_RATE);
    fc_uplink_status(g->uplink, &s);
    double seen = told > 0 || s.link_bps > 0
                      ? 0
                      : fc_linkrate_of(g->env->links, g->armed.host);
    return (struct fc_estimate_in){
        .pages = g->domain_pages,
        .known = g->pages.present,
        .zero = g->pages.zero,
        .valid = g->pages.valid,
        .page_bytes = g->stager.page_bytes,
        .link_bps = told > 0   ? told
                    : seen > 0 ? seen
                               : s.link_bps,
        .link_samples = told > 0 ? 0 : s.link_samples,
        .link_remembered = seen > 0,
        .curve = &g->sampler.curve,
        .page_us =
            c->page_us > 0 ? c->page_us : PAGE_FACTOR * g->stager.page_us,
        .page_us_learned = c->page_us > 0,
        .scan_ms = c->scan_ms,
        .fixed_ms = c->samples ? c->fixed_ms : FIXED_MS,
        .overhead_ms = c->overhead_ms,
        .max_downtime_ms =
            max_downtime_ms
                ? max_downtime_ms
                : (uint32_t)fc_settings_u64(g->settings, FC_SET_MAX_DOWNTIME),
        .max_rounds = MAX_ROUNDS,
    };
}

void fc_guest_estimate(const struct fc_guest *g, uint32_t max_downtime_ms,
                       struct fc_estimate *estimate)
{
    struct fc_estimate_in in = estimate_in(g, max_downtime_ms);
    fc_estimate_run(&in, estimate);
}

unsigned fc_guest_when(const struct fc_guest *g, uint32_t max_downtime_ms,
                       uint64_t wall_s, unsigned hours,
                       struct fc_profile_window *windows, int *best_r)
{
    struct fc_estimate_in in = estimate_in(g, max_downtime_ms);
    return fc_predict_when(&g->predict, &g->sampler, &in, wall_s, hours,
                           windows, best_r);
}

const char *fc_guest_state(const struct fc_guest *g, const char **reason_r)
{
    struct fc_uplink_status s;
    fc_uplink_status(g->uplink, &s);
    *reason_r = "";
    if (g->held)
        return "migrating";
    if (g->trouble) {
        *reason_r = fc_strerror(g->trouble);
        return "refused";
    }
    if (g->sampler.paused) {
        *reason_r = "another save is under way";
        return "paused";
    }
    if (!s.channels) {
        *reason_r = s.trouble;
        return "connecting";
    }
    if (g->stager.full)
        *reason_r = "the destination's store is full";
    return fc_stager_is_steady(&g->stager) ? "steady" : "staging";
}

size_t fc_guest_bytes(const struct fc_guest *g)
{
    return sizeof(*g) + fc_pagetab_bytes(&g->pages) +
           g->scorer.ops->bytes(g->scorer.state) +
           (g->log.pfns / 64 + 1) * sizeof(uint64_t);
}
