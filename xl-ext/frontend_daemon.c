/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "err.h"
#include "frontend_daemon.h"
#include "frontend_report.h"

/* The daemon answers at once but for migrate-begin, where it lists every
 * staged page (about 1 s per 10 GiB). */
#define CONNECT_MS 2000
#define REPLY_MS 10000
#define BEGIN_MS 60000

int fc_front_daemon_connect(char *why)
{
    int sock = fc_ctl_connect(NULL, CONNECT_MS);
    if (sock < 0)
        snprintf(why, FC_FRONT_WHY,
                 "forecopyd does not answer (%s); nothing "
                 "is staged",
                 strerror(errno));
    return sock;
}

static struct json_object *request(const char *cmd, const char *domain)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "cmd", json_object_new_string(cmd));
    if (domain)
        json_object_object_add(o, "domain", json_object_new_string(domain));
    return o;
}

int fc_front_daemon_call(int sock, struct json_object *req,
                         struct json_object **reply_r, int *fds_r,
                         int timeout_ms, char *why)
{
    int rc = fc_ctl_call(sock, req, NULL, 0, reply_r, fds_r, timeout_ms);

    json_object_put(req);
    if (!rc)
        return 0;
    if (rc == FC_EDAEMON)
        snprintf(why, FC_FRONT_WHY, "forecopyd does not answer");
    else
        snprintf(why, FC_FRONT_WHY, "forecopyd: %s",
                 fc_json_str(*reply_r, "error", fc_strerror(rc)));
    fc_front_scrub(why);
    return rc;
}

static int take_guest(struct json_object *reply, struct fc_front_guest *guest,
                      char *why)
{
    struct json_object *guests;
    if (!json_object_object_get_ex(reply, "guests", &guests) ||
        !json_object_is_type(guests, json_type_array) ||
        json_object_array_length(guests) != 1) {
        snprintf(why, FC_FRONT_WHY, "forecopyd does not know the domain");
        return FC_ENODOM;
    }
    struct json_object *one = json_object_array_get_idx(guests, 0);
    int64_t domid = fc_json_int(one, "domid", -1);
    if (fc_uuid_parse(fc_json_str(one, "uuid", ""), guest->uuid) || domid < 1 ||
        domid > UINT16_MAX) {
        snprintf(why, FC_FRONT_WHY,
                 "forecopyd gave a domain without a "
                 "valid uuid and number");
        return FC_EFORMAT;
    }
    fc_uuid_format(guest->uuid, guest->uuid_text);
    snprintf(guest->name, sizeof(guest->name), "%s",
             fc_json_str(one, "name", ""));
    guest->domid = (uint32_t)domid;
    guest->status = json_object_get(one);
    return 0;
}

int fc_front_daemon_guest(int sock, const char *domain,
                          struct fc_front_guest *guest, char *why)
{
    struct json_object *reply = NULL;

    *guest = (struct fc_front_guest){ 0 };
    int rc = fc_front_daemon_call(sock, request("status", domain), &reply, NULL,
                                  REPLY_MS, why);
    if (!rc)
        rc = take_guest(reply, guest, why);
    json_object_put(reply);
    return rc;
}

void fc_front_guest_dispose(struct fc_front_guest *guest)
{
    json_object_put(guest->status);
    guest->status = NULL;
}

static void setting(struct json_object *settings, const char *key,
                    int64_t lowest, int64_t highest, uint32_t *value)
{
    int64_t v = fc_json_int(settings, key, -1);
    if (v >= lowest && v <= highest)
        *value = (uint32_t)v;
}

void fc_front_daemon_settings(int sock, const char *domain,
                              struct fc_session *session)
{
    struct json_object *reply = NULL, *s;
    char why[FC_FRONT_WHY];
    uint32_t window = (uint32_t)session->window_bytes;

    if (!fc_front_daemon_call(sock, request("get", domain), &reply, NULL,
                              REPLY_MS, why) &&
        json_object_object_get_ex(reply, "settings", &s)) {
        setting(s, "max_downtime_ms", 1, 3600000, &session->max_downtime_ms);
        setting(s, "window_bytes", 65536, 1073741824, &window);
        setting(s, "peer_timeout_s", 5, 3600, &session->peer_timeout_s);
        session->window_bytes = window;
    }
    json_object_put(reply);
}

static struct json_object *take_estimate(struct json_object *reply)
{
    struct json_object *estimate;
    if (!json_object_object_get_ex(reply, "estimate", &estimate) ||
        !json_object_is_type(estimate, json_type_object))
        return NULL;
    return json_object_get(estimate);
}

int fc_front_daemon_estimate(int sock, const char *domain, const char *host,
                             bool disks, long max_downtime_ms,
                             struct json_object **estimate_r, char *why)
{
    struct json_object *reply = NULL, *req = request("estimate", domain);

    json_object_object_add(req, "max_downtime_ms",
                           json_object_new_int64(max_downtime_ms));
    if (host)
        json_object_object_add(req, "host", json_object_new_string(host));
    if (disks)
        json_object_object_add(req, "disks", json_object_new_boolean(1));
    int rc = fc_front_daemon_call(sock, req, &reply, NULL, REPLY_MS, why);
    *estimate_r = rc ? NULL : take_estimate(reply);
    json_object_put(reply);
    return rc;
}

int fc_front_daemon_begin(int sock, const char *domain, const char *host,
                          bool no_stage, bool disks, struct fc_session *session,
                          struct json_object **estimate_r, char *why)
{
    struct json_object *reply = NULL;
    struct json_object *req = request("migrate-begin", domain);
    int fds[FC_CTL_MAX_FDS] = { -1, -1 };

    if (host)
        json_object_object_add(req, "host", json_object_new_string(host));
    if (no_stage)
        json_object_object_add(req, "no_stage", json_object_new_boolean(1));
    if (disks)
        json_object_object_add(req, "disks", json_object_new_boolean(1));
    *estimate_r = NULL;
    int rc = fc_front_daemon_call(sock, req, &reply, fds, BEGIN_MS, why);
    if (rc)
        goto out;

    *estimate_r = take_estimate(reply);
    int64_t link = fc_json_int(*estimate_r, "link_bps", 0);
    if (fc_json_bool(*estimate_r, "link_known", false) && link > 0 &&
        link <= FC_SESSION_LINK_MAX)
        session->link_bps = (uint64_t)link;
    int64_t floor = fc_json_int(*estimate_r, "floor_pages", 0);
    if (floor > 0 && floor <= FC_SESSION_PAGES_MAX)
        session->floor_pages = (uint64_t)floor;
    uint8_t token[FC_TOKEN_BYTES];
    if (fds[0] >= 0 && !no_stage &&
        !fc_hex_parse(fc_json_str(reply, "token", ""), token, sizeof(token))) {
        memcpy(session->token, token, sizeof(token));
        struct json_object *epoch;
        if (json_object_object_get_ex(reply, "epoch", &epoch))
            session->epoch = json_object_get_uint64(epoch);
        session->staged_fd = fds[0];
        fds[0] = -1;
    }
out:
    for (unsigned i = 0; i < FC_CTL_MAX_FDS; i++)
        fc_close(&fds[i]);
    json_object_put(reply);
    return rc;
}

int fc_front_daemon_end(int sock, const char *uuid, bool success,
                        struct json_object *summary, char *why)
{
    struct json_object *reply = NULL, *req = request("migrate-end", NULL);

    json_object_object_add(req, "uuid", json_object_new_string(uuid));
    json_object_object_add(req, "success", json_object_new_boolean(success));
    json_object_object_add(req, "summary", summary);
    int rc = fc_front_daemon_call(sock, req, &reply, NULL, REPLY_MS, why);
    json_object_put(reply);
    return rc;
}
