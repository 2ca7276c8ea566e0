/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "err.h"
#include "frontend_daemon.h"
#include "frontend_disks.h"
#include "frontend_exec.h"
#include "frontend_migrate.h"
#include "frontend_remote.h"
#include "frontend_report.h"
#include "session.h"

/*
 * A dry run asks everything a migration would ask, but by requests that
 * change nothing. The destination is also asked for its save helper, which a
 * migration finds out about when the stream starts. It goes on after a "no" so
 * that all is shown. The first "no" is the reason.
 */
struct dry_run {
    const struct fc_front_args *args;
    struct fc_session session;
    struct fc_front_guest guest;
    struct fc_front_forecast forecast;
    struct json_object *estimate, *destination;
    struct fc_front_disks disks;
    char helper[PATH_MAX];
    char reason[FC_FRONT_WHY];
};

static void no(struct dry_run *d, const char *why)
{
    if (!d->reason[0])
        snprintf(d->reason, sizeof(d->reason), "%s", why);
}

static void ask_daemon(struct dry_run *d)
{
    char why[FC_FRONT_WHY];
    int sock = fc_front_daemon_connect(why);

    if (sock < 0) {
        no(d, why);
        return;
    }
    if (fc_front_daemon_guest(sock, d->args->domain, &d->guest, why)) {
        no(d, why);
    } else {
        fc_front_daemon_settings(sock, d->guest.uuid_text, &d->session);
        if (d->args->max_downtime_ms >= 0)
            d->session.max_downtime_ms = (uint32_t)d->args->max_downtime_ms;
        if (fc_front_daemon_estimate(
                sock, d->guest.uuid_text, d->args->host, d->args->with_disks,
                d->session.max_downtime_ms, &d->estimate, why))
            no(d, why);
    }
    fc_close(&sock);
}

static void ask_helper(struct dry_run *d)
{
    char why[FC_FRONT_WHY];

    if (fc_front_helper_path(d->helper)) {
        no(d, "there is no forecopy-save-helper for the running Xen");
        d->helper[0] = '\0';
    } else if (!fc_front_self_test(d->helper)) {
        snprintf(why, sizeof(why), "%.200s fails its self-test", d->helper);
        no(d, why);
        d->helper[0] = '\0';
    }
}

static void ask_destination(struct dry_run *d)
{
    char why[FC_FRONT_WHY];

    if (!d->args->ssh[0])
        return;
    if (fc_front_remote_version(d->args, &d->destination, why)) {
        no(d, why);
    } else if (!fc_json_bool(d->destination, "helper_works", 1)) {
        snprintf(why, sizeof(why),
                 "the save helper at %s is missing or fails its self-test",
                 d->args->host);
        no(d, why);
    }
}

static void ask_disks(struct dry_run *d)
{
    char why[FC_FRONT_WHY];

    if (d->args->with_disks && d->guest.status &&
        fc_front_disks_begin(&d->disks, d->args, d->guest.uuid_text, why))
        no(d, why);
}

int fc_front_dry_run(const struct fc_front_args *args)
{
    struct dry_run d = { .args = args };

    fc_session_defaults(&d.session);
    fc_front_disks_init(&d.disks);
    ask_daemon(&d);
    ask_helper(&d);
    ask_destination(&d);
    ask_disks(&d);

    d.forecast = (struct fc_front_forecast){
        .host = args->host,
        .reason = d.reason[0] ? d.reason : NULL,
        .guest = d.guest.status,
        .estimate = d.estimate,
        .destination = d.destination,
        .helper = d.helper[0] ? d.helper : NULL,
        .in_band = !args->ssh[0],
        .max_downtime_ms = d.session.max_downtime_ms,
        .disks = d.disks.begun,
        .lazy_disks = args->lazy_disks,
    };
    if (args->json) {
        struct json_object *j = fc_front_forecast_json(&d.forecast);
        puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PRETTY));
        json_object_put(j);
    } else {
        fc_front_forecast_text(&d.forecast, stdout);
    }
    fc_front_guest_dispose(&d.guest);
    fc_front_disks_dispose(&d.disks);
    json_object_put(d.estimate);
    json_object_put(d.destination);
    return d.reason[0] ? 1 : 0;
}
