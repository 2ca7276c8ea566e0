/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "recording.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "err.h"
#include "log.h"

/*
 * A recording takes what a sampler of the guest's dirty log takes at each
 * CLEAN. While the guest is armed that is the armed guest's sampler; otherwise
 * the recording has one of its own, which owns the log then. There are never
 * two: arming takes the log away from the recording (yield), and at the next
 * tick the recording listens to the armed guest; when that is gone, at the next
 * tick it switches the log on for itself again.
 *
 * While a migration holds the guest, or another save has the log, nothing is
 * taken, by the rules of dirtylog.c. What was written meanwhile is not known:
 * such an interruption is counted, and the trace's time stands still over it,
 * so that each tick's time is that in which its writes were seen.
 *
 * A recording goes through three states: it takes (ticks come in), it ends (a
 * reason is set; the recorder writes what waits), it has ended (the recorder is
 * done). It is forgotten when its connection has asked for the end's figures,
 * or is gone.
 */

static struct fc_guest *armed_guest(const struct fc_recording *r)
{
    struct fc_armed_guest *a = fc_daemon_armed(r->daemon, r->uuid);
    return a && a->guest && a->guest->domid == r->domid ? a->guest : NULL;
}

static bool is_held(const struct fc_recording *r)
{
    return fc_daemon_hold(r->daemon, r->uuid) != NULL;
}

void fc_recording_release(struct fc_recording *r)
{
    r->log.held = is_held(r);
    if (!r->own || r->log.held)
        return;
    r->own = false;
    fc_sampler_dispose(&r->sampler);
    int rc = fc_dirtylog_disable(&r->log);
    if (rc && rc != FC_EBUSY && rc != FC_ENODOM)
        fc_warn("%s: cannot switch the dirty log off: %s", r->name,
                fc_strerror(rc));
}

void fc_recording_stop(struct fc_recording *r)
{
    struct fc_guest *g = armed_guest(r);
    if (g && g->id == r->guest_id)
        g->sampler.watcher = NULL;
    r->guest_id = 0;
    fc_recording_release(r);
}

void fc_recording_end(struct fc_recording *r, bool failed, const char *reason)
{
    if (r->ending)
        return;
    r->ending = true;
    r->failed = failed;
    snprintf(r->reason, sizeof(r->reason), "%s", reason);
    fc_recording_stop(r);
    if (*r->disk.vdev)
        fc_recording_disk_end(r);
    else
        fc_recorder_end(r->recorder);
    fc_info("%s: its recording ends: %s", r->name, reason);
}

void fc_recording_failure(int rc, int error, char why[FC_GUEST_WHY])
{
    if (rc == FC_EFULL)
        snprintf(why, FC_GUEST_WHY,
                 "the guest writes faster than the file can be written "
                 "(more than %u MiB wait)",
                 FC_RECORDER_QUEUE >> 20);
    else
        snprintf(why, FC_GUEST_WHY, "cannot write the file: %s",
                 rc == FC_EIO ? strerror(error) : fc_strerror(rc));
}

static uint64_t not_negative(double v)
{
    return v > 0 ? (uint64_t)v : 0;
}

static void take_rates(struct fc_recording *r, const struct fc_domain *domain)
{
    /* Bytes come both ways together: half each is as good a guess as any. */
    uint64_t vif = not_negative(domain->vif_bytes_ps / 2);
    uint64_t vbd = not_negative(domain->vbd_bytes_ps / 2);
    r->rates = (struct fc_trace_rates){
        .cpu_permille = (uint32_t)not_negative(domain->cpu_percent * 10),
        .net_rx = vif,
        .net_tx = vif,
        .vbd_rd = vbd,
        .vbd_wr = vbd,
    };
}

static bool same_rates(const struct fc_trace_rates *a,
                       const struct fc_trace_rates *b)
{
    return a->cpu_permille == b->cpu_permille && a->net_rx == b->net_rx &&
           a->vbd_rd == b->vbd_rd;
}

static void on_taken(void *user, const uint64_t *bits, uint64_t window_ms)
{
    struct fc_recording *r = user;
    const struct fc_guest *g = r->own ? NULL : armed_guest(r);
    const struct fc_dirtylog *log = g ? &g->log : &r->log;
    uint64_t pfns = log->pfns < r->pfns ? log->pfns : r->pfns;
    uint64_t pages, time_us = r->time_us + window_ms * 1000;
    if (r->ending || r->error)
        return;
    r->blind = false;
    if (!same_rates(&r->rates, &r->written_rates))
        r->error = fc_recorder_rates(r->recorder, time_us, &r->rates);
    r->written_rates = r->rates;
    /* The canary is set whether the guest wrote it or not. */
    if (!r->error)
        r->error = fc_recorder_tick(r->recorder, time_us, bits, pfns,
                                    log->canary, &pages);
    if (r->error)
        return; /* the next tick of the clock ends it */
    r->time_us = time_us;
    r->ticks++;
    r->pages += pages;
}

static void on_lost(void *user)
{
    struct fc_recording *r = user;
    if (!r->blind && !r->ending)
        r->interruptions++;
    r->blind = true;
}

static const struct fc_sampler_watcher watcher = { on_taken, on_lost };

/* A sampler of its own. 0, or as fc_dirtylog_init() and _enable(); while
 * another save has the log, it waits for its end. */
static int open_own(struct fc_recording *r, uint64_t now_ms)
{
    const struct fc_guest_env *env = &r->daemon->env;
    int rc = fc_dirtylog_init(&r->log, env->log_ops, env->log_user,
                              env->proc_root, r->domid);
    if (!rc)
        rc = fc_sampler_init(&r->sampler, &r->log, NULL, NULL);
    if (rc)
        return rc;
    rc = fc_dirtylog_enable(&r->log);
    if (rc && rc != FC_EBUSY) {
        fc_sampler_dispose(&r->sampler);
        return rc;
    }
    r->own = true;
    r->sampler.fixed_ms = r->interval_ms;
    fc_sampler_resume(&r->sampler, now_ms);
    r->sampler.watcher = &watcher;
    r->sampler.watcher_user = r;
    return 0;
}

static void listen_to(struct fc_recording *r, struct fc_guest *g)
{
    r->guest_id = g->id;
    g->sampler.watcher = &watcher;
    g->sampler.watcher_user = r;
}

static void end_for_log(struct fc_recording *r, int rc)
{
    char why[FC_GUEST_WHY];
    if (rc == FC_ENODOM) {
        fc_recording_end(r, false, "the domain is gone");
        return;
    }
    fc_guest_log_trouble(rc, why);
    fc_recording_end(r, true, why);
}

/* Samples by itself, unless a migration holds the guest. */
static void tick_own(struct fc_recording *r, const struct fc_domain *domain,
                     uint64_t now_ms)
{
    const struct fc_settings *s =
        fc_daemon_guest_settings(r->daemon, r->uuid, false);
    bool was_held = r->own && r->log.held;
    int rc = 0;
    s = s ? s : &r->daemon->settings;
    if (is_held(r)) {
        r->log.held = true;
        if (r->own)
            on_lost(r);
        return;
    }
    if (was_held) {
        /* The migration switched the log off; it is taken over again. */
        r->log.held = r->log.on = false;
        r->sampler.paused = true;
        fc_sampler_resume(&r->sampler, now_ms);
    }
    if (domain->suspended || domain->dying)
        return;
    if (!r->own)
        rc = open_own(r, now_ms);
    const struct fc_sampler_limits limits = {
        .interval_ms = r->interval_ms,
        .log_share = fc_settings_double(s, FC_SET_LOG_SHARE) / 100,
        .fault_cost_ns = (uint32_t)fc_settings_u64(s, FC_SET_FAULT_COST),
    };
    if (!rc)
        rc = fc_sampler_tick(&r->sampler, &limits, now_ms);
    if (rc && rc != FC_EBUSY)
        end_for_log(r, rc);
}

const struct fc_domain *fc_recording_domain(const struct fc_recording *r)
{
    const struct fc_domains *all = &r->daemon->domains;
    for (unsigned i = 0; i < all->count; i++)
        if (all->list[i].domid == r->domid &&
            !memcmp(all->list[i].uuid, r->uuid, FC_UUID_BYTES))
            return &all->list[i];
    return NULL;
}

void fc_recording_go_on(struct fc_recording *r, uint64_t now_ms)
{
    struct fc_recorder_state s;
    const struct fc_domain *domain = fc_recording_domain(r);
    char why[FC_GUEST_WHY];
    fc_recorder_state(r->recorder, &s);
    if (r->error || s.rc) {
        fc_recording_failure(s.rc ? s.rc : r->error, s.error, why);
        fc_recording_end(r, true, why);
    } else if (!domain) {
        fc_recording_end(r, false, "the domain is gone");
    } else if (r->deadline_ms && now_ms >= r->deadline_ms) {
        fc_recording_end(r, false, "the time is over");
    }
    if (r->ending)
        return;
    take_rates(r, domain);
    struct fc_guest *g = armed_guest(r);
    if (r->guest_id && (!g || g->id != r->guest_id)) {
        r->guest_id = 0;
        on_lost(r);
    }
    if (g && !r->guest_id)
        listen_to(r, g);
    if (!g)
        tick_own(r, domain, now_ms);
}

int fc_recording_open(struct fc_recording *r, struct fc_trace_head *head)
{
    struct fc_guest *g = armed_guest(r);
    uint32_t tick_ms = r->interval_ms;
    uint64_t start_s = (uint64_t)time(NULL);
    if (g) {
        uint64_t under_way_ms = fc_now_ms() - g->sampler.window_start_ms;
        listen_to(r, g);
        r->blind = g->sampler.paused;
        r->pfns = g->log.pfns;
        tick_ms = FC_RECORDING_PLANNED_MS;
        start_s -= under_way_ms / 1000;
    } else {
        int rc = open_own(r, fc_now_ms());
        if (rc)
            return rc;
        r->pfns = r->log.pfns;
    }
    *head = (struct fc_trace_head){
        .kind = FC_TRACE_MEMORY,
        .unit_shift = 12,
        .tick_us = tick_ms * 1000,
        .units = r->pfns,
        .start_s = start_s,
    };
    return 0;
}

void fc_recording_yield(struct fc_recording *r)
{
    if (!r->own)
        return;
    on_lost(r);
    fc_recording_release(r);
}
