/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon.h"
#include "err.h"
#include "log.h"

/*
 * A guest stays armed until it is disarmed or has been migrated. While its
 * domain is here, there is a struct fc_guest that watches it. A domain that
 * goes takes its fc_guest with it; one that comes back (a reboot makes a new
 * domain with the same uuid) gets a new one.
 *
 * One that does not come back is disarmed in the end: at once when it went as
 * xl's NAME--migratedaway, and otherwise (it was shut down, or saved, or went
 * by other means) after `armed_away_s`. Since when it is away is kept on disk,
 * in the clock of the wall, so that a daemon that starts anew goes on counting;
 * a clock that was set back begins anew, one that was set forward ends it
 * early.
 */
#define RETRY_MS 5000u

struct fc_armed_guest *fc_daemon_armed(struct fc_daemon *d, const uint8_t *uuid)
{
    for (struct fc_armed_guest *a = d->armed; a; a = a->next)
        if (!memcmp(a->armed.uuid, uuid, FC_UUID_BYTES))
            return a;
    return NULL;
}

static void goodbye_said(void *user)
{
    struct fc_daemon *d = user;
    d->closing--;
    if (d->stopping && !d->closing)
        event_base_loopexit(d->base, NULL);
}

static void close_guest(struct fc_daemon *d, struct fc_armed_guest *a,
                        enum fc_channel_bye reason, const char *text, bool gone)
{
    struct fc_guest *g = a->guest;
    if (!g)
        return;
    a->guest = NULL;
    d->closing++;
    fc_guest_close(g, reason, text, gone, goodbye_said, d);
}

static bool name_ends(const struct fc_domain *domain, const char *suffix)
{
    size_t len = strlen(domain->name), n = strlen(suffix);
    return len > n && !strcmp(domain->name + len - n, suffix);
}

/* A domain that is being received has the guest's uuid as well. */
static bool is_incoming(const struct fc_domain *domain)
{
    return name_ends(domain, "--incoming");
}

static int start(struct fc_daemon *d, struct fc_armed_guest *a,
                 const struct fc_domain *domain, char *why)
{
    struct fc_settings *s = fc_daemon_guest_settings(d, a->armed.uuid, true);
    if (!s) {
        snprintf(why, FC_GUEST_WHY, "too many guests have settings");
        return FC_ELIMIT;
    }
    fc_daemon_record_yield(d, a->armed.uuid);
    int rc = fc_guest_new(&d->env, &a->armed, s, domain, d->next_guest_id++,
                          &a->guest, why);
    if (!rc) {
        fc_info("%s (domain %u) is armed for %s", domain->name, domain->domid,
                a->armed.host);
        a->why[0] = '\0';
    }
    return rc;
}

static const struct fc_domain *domain_of(struct fc_daemon *d,
                                         const struct fc_armed_guest *a)
{
    const struct fc_domain *domain =
        fc_domains_by_uuid(&d->domains, a->armed.uuid);
    return domain && !is_incoming(domain) ? domain : NULL;
}

static void remove_armed(struct fc_daemon *d, struct fc_armed_guest *a)
{
    for (struct fc_armed_guest **at = &d->armed; *at; at = &(*at)->next)
        if (*at == a) {
            *at = a->next;
            d->armed_count--;
            break;
        }
    free(a);
}

int fc_daemon_arm(struct fc_daemon *d, const struct fc_armed *armed,
                  char why[FC_GUEST_WHY])
{
    struct fc_armed_guest *old = fc_daemon_armed(d, armed->uuid);
    uint64_t limit = fc_settings_u64(&d->settings, FC_SET_MAX_ARMED);
    if (!old && d->armed_count >= limit) {
        snprintf(why, FC_GUEST_WHY,
                 "%u guests are armed already, which is "
                 "the limit (max_armed_guests)",
                 d->armed_count);
        return FC_ELIMIT;
    }
    if (old) {
        close_guest(d, old, FC_BYE_DISARMED, "armed anew", false);
        remove_armed(d, old);
    }
    struct fc_armed_guest *a = calloc(1, sizeof(*a));
    if (!a) {
        snprintf(why, FC_GUEST_WHY, "out of memory");
        return FC_ENOMEM;
    }
    a->armed = *armed;
    const struct fc_domain *domain = domain_of(d, a);
    int rc = domain ? start(d, a, domain, why) : 0;
    if (rc) {
        free(a);
        return rc;
    }
    a->next = d->armed;
    d->armed = a;
    d->armed_count++;
    d->counters.arms++;
    return 0;
}

int fc_daemon_disarm(struct fc_daemon *d, const uint8_t *uuid,
                     enum fc_channel_bye reason, const char *text)
{
    struct fc_armed_guest *a = fc_daemon_armed(d, uuid);
    if (!a)
        return FC_ENOENT;
    bool gone = !fc_domains_by_uuid(&d->domains, uuid);
    close_guest(d, a, reason, text, gone);
    remove_armed(d, a);
    d->counters.disarms++;
    int rc = d->db ? fc_armed_db_remove(d->db, uuid) : 0;
    if (rc)
        fc_warn("cannot note on disk that a guest is disarmed: %s",
                strerror(errno));
    return 0;
}

/* Those armed whose domain is here and that nothing watches yet. */
void fc_daemon_start_guests(struct fc_daemon *d, uint64_t now_ms)
{
    for (struct fc_armed_guest *a = d->armed; a; a = a->next) {
        char why[FC_GUEST_WHY];
        const struct fc_domain *domain = domain_of(d, a);
        if (!domain)
            continue;
        if (a->guest) {
            fc_guest_domain(a->guest, domain);
            continue;
        }
        if (now_ms < a->retry_ms || fc_daemon_hold(d, a->armed.uuid))
            continue;
        a->retry_ms = now_ms + RETRY_MS;
        if (!start(d, a, domain, why) || !strcmp(a->why, why))
            continue;
        fc_warn("%s cannot be armed: %s", domain->name, why);
        snprintf(a->why, sizeof(a->why), "%s", why);
    }
}

static void note_away(struct fc_daemon *d, struct fc_armed_guest *a,
                      uint32_t since_s)
{
    if (a->armed.away_since_s == since_s)
        return;
    a->armed.away_since_s = since_s;
    int rc = d->db ? fc_armed_db_put(d->db, &a->armed) : 0;
    if (rc)
        fc_warn("cannot note on disk since when a guest is away: %s",
                rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
}

uint32_t fc_daemon_away_left_s(struct fc_daemon *d,
                               const struct fc_armed_guest *a, uint32_t wall_s)
{
    const struct fc_settings *s =
        fc_daemon_guest_settings(d, a->armed.uuid, false);
    uint64_t limit = fc_settings_u64(s ? s : &d->settings, FC_SET_ARMED_AWAY);
    uint32_t since = a->armed.away_since_s;
    if (!since || since > wall_s)
        return (uint32_t)limit;
    return wall_s - since < limit ? (uint32_t)(limit - (wall_s - since)) : 0;
}

void fc_daemon_check_away(struct fc_daemon *d, uint32_t wall_s)
{
    for (struct fc_armed_guest *a = d->armed, *next; a; a = next) {
        char text[FC_UUID_TEXT];
        uint8_t uuid[FC_UUID_BYTES];
        next = a->next;
        memcpy(uuid, a->armed.uuid, sizeof(uuid));
        if (fc_domains_by_uuid(&d->domains, uuid) || fc_daemon_hold(d, uuid)) {
            note_away(d, a, 0);
            continue;
        }
        if (!a->armed.away_since_s || a->armed.away_since_s > wall_s)
            note_away(d, a, wall_s);
        if (fc_daemon_away_left_s(d, a, wall_s))
            continue;
        fc_uuid_format(uuid, text);
        fc_info("guest %s: its domain has not been here for %u s: disarmed",
                text, wall_s - a->armed.away_since_s);
        (void)fc_daemon_disarm(d, uuid, FC_BYE_DISARMED, "away for too long");
    }
}

void fc_daemon_domain_gone(void *arg, const struct fc_domain *domain)
{
    struct fc_daemon *d = arg;
    struct fc_armed_guest *a = fc_daemon_armed(d, domain->uuid);
    if (!a || (a->guest && a->guest->domid != domain->domid))
        return;
    /* A migration's end takes care of a guest that it took away. */
    if (fc_daemon_hold(d, domain->uuid))
        return;
    if (name_ends(domain, "--migratedaway") &&
        !fc_domains_by_uuid(&d->domains, domain->uuid)) {
        fc_info("%s (domain %u) was migrated by plain xl: disarmed",
                domain->name, domain->domid);
        (void)fc_daemon_disarm(d, domain->uuid, FC_BYE_MIGRATED,
                               "migrated by plain xl");
        return;
    }
    if (!a->guest)
        return;
    fc_info("%s (domain %u) is gone; it stays armed", domain->name,
            domain->domid);
    close_guest(d, a, FC_BYE_DETACHED, "the domain is gone", true);
    if (!fc_domains_by_uuid(&d->domains, domain->uuid))
        note_away(d, a, (uint32_t)time(NULL));
}

void fc_daemon_job_done(void *user, struct fc_job *job)
{
    struct fc_daemon *d = user;
    for (struct fc_armed_guest *a = d->armed; a; a = a->next)
        if (a->guest && a->guest->id == job->owner) {
            fc_guest_job_done(a->guest, job, fc_now_ms());
            return;
        }
    fc_job_free(job); /* its guest is gone */
}

void fc_daemon_close_all(struct fc_daemon *d)
{
    while (d->armed) {
        close_guest(d, d->armed, FC_BYE_SHUTDOWN, "the daemon stops", false);
        remove_armed(d, d->armed);
    }
}
