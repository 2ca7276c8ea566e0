/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "err.h"
#include "log.h"

/*
 * Timers: once a second the domains are listed and counted, armed guests whose
 * domain has come are started, those whose domain has long been away are
 * disarmed; every FC_GUEST_TICK_MS, while there are armed
 * guests, each looks whether there is something to do, and each recording
 * likewise. Watches of xenstore make
 * new domains and settings known at once.
 */
#define STOP_S 3
#define WATCH_EVENTS 100
#define PROFILE_S                                                              \
    (90 * 86400u) /* profiles of guests gone so long are dropped */

/* Each guest that is here has an even part of it. */
static void share_adapting(struct fc_daemon *d)
{
    unsigned guests = 0;
    for (const struct fc_armed_guest *a = d->armed; a; a = a->next)
        guests += a->guest != NULL;
    double percent = fc_settings_double(&d->settings, FC_SET_ADAPT_SHARE);
    d->env.adapt_share = (float)(percent / 100 / (guests ? guests : 1));
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    struct fc_daemon *d = arg;
    uint64_t now = fc_now_ms();
    (void)fd;
    (void)what;
    if (d->stopping)
        return;
    int rc = fc_domains_count(&d->domains, now);
    if (rc && !d->domains_failed)
        fc_error("cannot list the domains: %s", strerror(errno));
    d->domains_failed = rc != 0;
    if (!rc)
        fc_daemon_check_away(d, (uint32_t)time(NULL));
    fc_daemon_start_guests(d, now);
    fc_disks_tick(d->disks, now);
    if (d->blocktrace)
        fc_blocktrace_tick(d->blocktrace,
                           fc_settings_text(&d->settings, FC_SET_BLOCK_TRACE),
                           now);
    share_adapting(d);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct fc_daemon *d = arg;
    (void)fd;
    (void)what;
    for (struct fc_armed_guest *a = d->armed; a; a = a->next)
        if (a->guest)
            fc_guest_tick(a->guest, fc_now_ms());
    fc_daemon_record_tick(d, fc_now_ms());
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    struct fc_daemon *d = arg;
    struct fc_xenwatch_event event;
    bool domains = false;
    (void)fd;
    (void)what;
    for (int i = 0; i < WATCH_EVENTS && d->config->xen.watch->next(
                                            d->config->xen.watch_user, &event);
         i++) {
        if (event.type == FC_XENWATCH_SETTING)
            fc_daemon_settings_event(d, event.path);
        else
            domains = true;
    }
    if (domains && !d->stopping && !fc_domains_scan(&d->domains))
        fc_daemon_start_guests(d, fc_now_ms());
}

static int add_timers(struct fc_daemon *d)
{
    const struct timeval second = { 1, 0 };
    const struct timeval tick = { 0, FC_GUEST_TICK_MS * 1000 };
    int fd = d->config->xen.watch->fd(d->config->xen.watch_user);
    d->second = event_new(d->base, -1, EV_PERSIST, on_second, d);
    d->tick = event_new(d->base, -1, EV_PERSIST, on_tick, d);
    if (!d->second || !d->tick || event_add(d->second, &second) < 0 ||
        event_add(d->tick, &tick) < 0)
        return FC_ENOMEM;
    if (fd < 0)
        return 0;
    d->watch = event_new(d->base, fd, EV_READ | EV_PERSIST, on_watch, d);
    return d->watch && event_add(d->watch, NULL) == 0 ? 0 : FC_ENOMEM;
}

static void arm_again(void *user, const struct fc_armed *armed)
{
    struct fc_daemon *d = user;
    struct fc_armed_guest *a = calloc(1, sizeof(*a));
    if (!a)
        return;
    a->armed = *armed;
    a->next = d->armed;
    d->armed = a;
    d->armed_count++;
}

/* A daemon that cannot remember goes on without. */
static void open_db(struct fc_daemon *d)
{
    if (!d->config->armed_dir)
        return;
    int rc = fc_armed_db_open(d->config->armed_dir, &d->db);
    if (!rc)
        rc = fc_armed_db_each(d->db, arm_again, d);
    if (!rc) {
        fc_armed_db_calibration(d->db, &d->calibration);
        fc_armed_db_links(d->db, &d->links);
    }
    uint64_t before_s = (uint64_t)time(NULL) - PROFILE_S;
    if (!rc && (fc_armed_db_profile_prune(d->db, before_s) < 0 ||
                fc_armed_db_learned_prune(d->db, before_s) < 0))
        fc_warn("%s: cannot drop what is known of guests long gone",
                d->config->armed_dir);
    if (rc)
        fc_error(
            "%s: %s; armed guests will not be remembered", d->config->armed_dir,
            rc == FC_ESYS || rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
    if (rc) {
        fc_armed_db_close(d->db);
        d->db = NULL;
    }
    d->env.db = d->db;
}

/* Likewise. */
static void open_disks(struct fc_daemon *d)
{
    if (!d->config->disks_dir)
        return;
    int rc = fc_disks_new(d, &d->disks);
    if (rc)
        fc_error("%s: %s; no disks can be moved", d->config->disks_dir,
                 rc == FC_ESYS || rc == FC_EIO ? strerror(errno)
                                               : fc_strerror(rc));
}

static enum fc_blocktrace_answer is_traced(void *user, uint32_t domid,
                                           uint8_t uuid_r[FC_UUID_BYTES])
{
    struct fc_daemon *d = user;
    for (unsigned i = 0; i < d->domains.count; i++) {
        const struct fc_domain *domain = &d->domains.list[i];
        if (domain->domid != domid)
            continue;
        memcpy(uuid_r, domain->uuid, FC_UUID_BYTES);
        return fc_daemon_armed(d, domain->uuid) ? FC_BLOCKTRACE_YES
                                                : FC_BLOCKTRACE_NO;
    }
    return FC_BLOCKTRACE_GONE;
}

static int start_blocktrace(struct fc_daemon *d)
{
    struct fc_blocktrace_args args = {
        .base = d->base,
        .children = d->children,
        .sys_root = d->config->sys_root,
        .program = d->config->block_tool,
        .ask = is_traced,
        .user = d,
    };
    return args.program ? fc_blocktrace_new(&args, &d->blocktrace) : 0;
}

static int set_up(struct fc_daemon *d)
{
    const struct fc_daemon_config *c = d->config;
    int rc = fc_children_new(d->base, &d->children);
    if (!rc)
        rc = fc_worker_new(d->base, c->xen.mem, c->xen.mem_user,
                           fc_daemon_job_done, d, &d->worker);
    if (!rc)
        rc = fc_domains_init(&d->domains, c->xen.domains, c->xen.domains_user,
                             c->sys_root);
    if (rc)
        return rc;
    d->domains.gone = fc_daemon_domain_gone;
    d->domains.arg = d;
    d->env = (struct fc_guest_env){
        .base = d->base,
        .children = d->children,
        .worker = d->worker,
        .log_ops = c->xen.log,
        .log_user = c->xen.log_user,
        .proc_root = c->proc_root,
        .calibration = &d->calibration,
        .links = &d->links,
        .watch = c->xen.watch,
        .watch_user = c->xen.watch_user,
    };
    struct fc_keepers_args keepers = {
        .base = d->base,
        .children = d->children,
        .budget_bytes = fc_settings_u64(&d->settings, FC_SET_STORE_BUDGET),
        .linger_ms = fc_settings_u64(&d->settings, FC_SET_STORE_LINGER) * 1000,
        .uid = c->keeper_uid,
        .gid = c->keeper_gid,
        .closed = fc_daemon_channel_closed,
        .model = fc_daemon_model,
        .user = d,
    };
    rc = fc_keepers_new(&keepers, &d->keepers);
    rc = rc ? rc : start_blocktrace(d);
    return rc ? rc : add_timers(d);
}

int fc_daemon_init(struct fc_daemon *d, struct event_base *base,
                   const struct fc_daemon_config *config)
{
    memset(d, 0, sizeof(*d));
    d->config = config;
    d->base = base;
    d->next_guest_id = 1;
    d->start_ms = fc_now_ms();
    fc_settings_init(&d->settings, NULL);
    fc_daemon_reload(d);
    int rc = set_up(d);
    if (rc) {
        fc_error("cannot start: %s",
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
        return rc;
    }
    rc = fc_domains_count(&d->domains, fc_now_ms());
    if (rc) {
        fc_error("cannot list the domains: %s", strerror(errno));
        return rc;
    }
    /* Guests that are armed again are to find the settings of xenstore. */
    fc_daemon_settings_event(d, FC_XENWATCH_CONFIG);
    fc_daemon_settings_event(d, FC_XENWATCH_DOMAINS);
    open_db(d);
    fc_daemon_check_away(d, (uint32_t)time(NULL));
    fc_daemon_start_guests(d, fc_now_ms());
    open_disks(d);
    rc = fc_control_new(base, config->socket_path, &fc_control_requests, d,
                        &d->control);
    if (rc)
        fc_error("cannot listen at %s: %s", config->socket_path,
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
    return rc;
}

static void on_stopped(evutil_socket_t fd, short what, void *arg)
{
    struct fc_daemon *d = arg;
    (void)fd;
    (void)what;
    event_base_loopexit(d->base, NULL);
}

void fc_daemon_stop(struct fc_daemon *d)
{
    struct timeval limit = { STOP_S, 0 };
    if (d->stopping)
        return;
    d->stopping = true;
    fc_control_free(d->control);
    d->control = NULL;
    fc_daemon_record_end_all(d, "forecopyd stops");
    fc_daemon_close_all(d);
    if (!d->closing)
        limit.tv_sec = 0;
    d->stop_timer = evtimer_new(d->base, on_stopped, d);
    if (!d->stop_timer || evtimer_add(d->stop_timer, &limit) < 0)
        event_base_loopexit(d->base, NULL);
}

static void free_event(struct event **e)
{
    if (*e)
        event_free(*e);
    *e = NULL;
}

void fc_daemon_dispose(struct fc_daemon *d)
{
    fc_control_free(d->control);
    d->control = NULL;
    free_event(&d->watch);
    free_event(&d->second);
    free_event(&d->tick);
    free_event(&d->stop_timer);
    fc_daemon_record_free(d);
    fc_daemon_close_all(d);
    fc_control_prepare_free(d);
    fc_disks_free(d->disks);
    fc_keepers_free(d->keepers);
    fc_worker_free(d->worker);
    fc_blocktrace_free(d->blocktrace);
    d->blocktrace = NULL;
    fc_domains_dispose(&d->domains);
    fc_children_free(d->children);
    fc_armed_db_close(d->db);
    for (struct fc_guest_settings *g = d->guest_settings, *next; g; g = next) {
        next = g->next;
        fc_settings_dispose(&g->settings);
        free(g);
    }
    fc_settings_dispose(&d->settings);
    memset(d, 0, sizeof(*d));
}
