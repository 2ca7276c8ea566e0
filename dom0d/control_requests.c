/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "err.h"
#include "log.h"

#define MAX_LOG_LINES 1024

static void do_version(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds)
{
    char host[256] = "";
    struct json_object *o = json_object_new_object();
    (void)req;
    (void)fds;
    gethostname(host, sizeof(host) - 1);
    json_object_object_add(o, "version", json_object_new_string(FC_VERSION));
    json_object_object_add(o, "protocol", json_object_new_int(FC_PROTOCOL));
    json_object_object_add(o, "xen",
                           json_object_new_string(d->config->xen.version));
    json_object_object_add(o, "pid", json_object_new_int(getpid()));
    json_object_object_add(o, "host", json_object_new_string(host));
    fc_client_reply(client, o, -1);
}

const struct fc_domain *fc_control_domain(struct fc_daemon *d,
                                          struct fc_client *client,
                                          struct json_object *req)
{
    const char *what = fc_json_str(req, "domain", "");
    char number[24];
    struct json_object *o;
    if (json_object_object_get_ex(req, "domain", &o) &&
        json_object_is_type(o, json_type_int)) {
        snprintf(number, sizeof(number), "%lld",
                 (long long)json_object_get_int64(o));
        what = number;
    }
    const struct fc_domain *domain =
        *what ? fc_domains_find(&d->domains, what) : NULL;
    /* It may have been made a moment ago. */
    if (!domain && *what && !fc_domains_scan(&d->domains))
        domain = fc_domains_find(&d->domains, what);
    if (!domain)
        fc_client_fail(client, FC_ENODOM, "there is no domain \"%.100s\"",
                       what);
    return domain;
}

static void do_arm(struct fc_daemon *d, struct fc_client *client,
                   struct json_object *req, int *fds)
{
    struct fc_armed armed = { 0 };
    char why[FC_GUEST_WHY], uuid[FC_UUID_TEXT];
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    (void)fds;
    if (!domain)
        return;
    const char *host = fc_json_str(req, "host", "");
    const char *command = fc_json_str(req, "command", "");
    int64_t rate = fc_json_int(req, "rate_bytes", 0);
    int64_t channels = fc_json_int(req, "channels", 0);
    if (!fc_settings_host_ok(host)) {
        fc_client_fail(client, FC_EINVAL, "\"%.100s\" is no name of a host",
                       host);
        return;
    }
    if (strlen(command) >= sizeof(armed.command) || rate < 0 || channels < 0 ||
        channels > (int64_t)FC_UPLINK_CHANNELS) {
        fc_client_fail(client, FC_EINVAL,
                       "rate_bytes, channels (at most %u) "
                       "or command is out of range",
                       FC_UPLINK_CHANNELS);
        return;
    }
    if (fc_daemon_hold(d, domain->uuid)) {
        fc_client_fail(client, FC_EBUSY, "%s is being migrated", domain->name);
        return;
    }
    memcpy(armed.uuid, domain->uuid, FC_UUID_BYTES);
    snprintf(armed.host, sizeof(armed.host), "%s", host);
    snprintf(armed.command, sizeof(armed.command), "%s", command);
    armed.rate_bytes = (uint64_t)rate;
    armed.channels = (uint32_t)channels;
    int rc = fc_daemon_arm(d, &armed, why);
    if (rc) {
        fc_client_fail(client, rc, "%s cannot be armed: %s", domain->name, why);
        return;
    }
    rc = d->db ? fc_armed_db_put(d->db, &armed) : 0;
    if (rc)
        fc_warn("cannot note on disk that %s is armed: %s", domain->name,
                rc == FC_EIO ? strerror(errno) : fc_strerror(rc));
    struct json_object *o = json_object_new_object();
    fc_uuid_format(armed.uuid, uuid);
    json_object_object_add(o, "uuid", json_object_new_string(uuid));
    fc_client_reply(client, o, -1);
}

/* The uuid of a guest that may be armed without running here. */
static bool named_uuid(struct fc_daemon *d, struct json_object *req,
                       uint8_t *uuid)
{
    const char *what = fc_json_str(req, "domain", "");
    return !fc_uuid_parse(what, uuid) && fc_daemon_armed(d, uuid);
}

static void do_disarm(struct fc_daemon *d, struct fc_client *client,
                      struct json_object *req, int *fds)
{
    uint8_t uuid[FC_UUID_BYTES];
    (void)fds;
    if (!named_uuid(d, req, uuid)) {
        const struct fc_domain *domain = fc_control_domain(d, client, req);
        if (!domain)
            return;
        memcpy(uuid, domain->uuid, sizeof(uuid));
    }
    if (fc_daemon_hold(d, uuid)) {
        fc_client_fail(client, FC_EBUSY, "the guest is being migrated");
        return;
    }
    if (fc_daemon_disarm(d, uuid, FC_BYE_DISARMED, "disarmed"))
        fc_client_fail(client, FC_ENOENT, "the guest is not armed");
    else
        fc_client_reply(client, NULL, -1);
}

/* The one guest that is asked for; NULL after answering that there is none. */
static struct json_object *one_guest(struct fc_daemon *d,
                                     struct fc_client *client,
                                     struct json_object *req)
{
    uint8_t uuid[FC_UUID_BYTES];
    if (named_uuid(d, req, uuid) && !fc_domains_by_uuid(&d->domains, uuid))
        return fc_json_away(d, fc_daemon_armed(d, uuid));
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    return domain ? fc_json_guest(d, domain, fc_daemon_armed(d, domain->uuid))
                  : NULL;
}

static void do_status(struct fc_daemon *d, struct fc_client *client,
                      struct json_object *req, int *fds)
{
    struct json_object *list;
    (void)fds;
    if (json_object_object_get_ex(req, "domain", NULL)) {
        struct json_object *guest = one_guest(d, client, req);
        if (!guest)
            return;
        list = json_object_new_array();
        json_object_array_add(list, guest);
    } else {
        list = fc_json_guests(d);
    }
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "guests", list);
    fc_client_reply(client, o, -1);
}

static void do_stat(struct fc_daemon *d, struct fc_client *client,
                    struct json_object *req, int *fds)
{
    struct json_object *o = json_object_new_object();
    (void)req;
    (void)fds;
    json_object_object_add(o, "counters", fc_json_counters(d));
    fc_client_reply(client, o, -1);
}

static void add_line(void *user, const char *line)
{
    json_object_array_add(user, json_object_new_string(line));
}

static void do_log(struct fc_daemon *d, struct fc_client *client,
                   struct json_object *req, int *fds)
{
    int64_t lines = fc_json_int(req, "lines", 100);
    int level = fc_log_level_parse(fc_json_str(req, "level", "debug"));
    (void)d;
    (void)fds;
    if (lines < 1 || lines > MAX_LOG_LINES || level < 0) {
        fc_client_fail(client, FC_EINVAL,
                       "lines is 1 to %d, level error, "
                       "warning, info or debug",
                       MAX_LOG_LINES);
        return;
    }
    struct json_object *list = json_object_new_array();
    fc_log_dump((unsigned)lines, (enum fc_level)level, add_line, list);
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "lines", list);
    fc_client_reply(client, o, -1);
}

/* The settings that a request is about: the host's, or the domain's. NULL
 * after answering. */
static struct fc_settings *settings_of(struct fc_daemon *d,
                                       struct fc_client *client,
                                       struct json_object *req)
{
    if (!json_object_object_get_ex(req, "domain", NULL))
        return &d->settings;
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    if (!domain)
        return NULL;
    struct fc_settings *s = fc_daemon_guest_settings(d, domain->uuid, true);
    if (!s)
        fc_client_fail(client, FC_ELIMIT, "too many guests have settings");
    return s;
}

static void do_set(struct fc_daemon *d, struct fc_client *client,
                   struct json_object *req, int *fds)
{
    struct json_object *value = NULL, *o;
    char why[FC_SETTING_WHY];
    struct fc_settings *s = settings_of(d, client, req);
    (void)fds;
    if (!s)
        return;
    const char *key = fc_json_str(req, "key", "");
    bool given = json_object_object_get_ex(req, "value", &value);
    int rc = 0;
    if (!given) {
        fc_client_fail(client, FC_EINVAL, "no value is given");
        return;
    }
    /* null: what was set before is forgotten */
    if (value)
        rc = fc_settings_set(s, FC_SOURCE_CONTROL, key,
                             json_object_get_string(value), why);
    else
        fc_settings_unset(s, FC_SOURCE_CONTROL, key);
    if (rc) {
        fc_client_fail(client, rc, "%s", why);
        return;
    }
    fc_daemon_settings_apply(d);
    struct json_object *all = fc_settings_json(s, key);
    if (!all || !json_object_object_get_ex(all, key, &o)) {
        json_object_put(all);
        fc_client_fail(client, FC_ENOENT, "there is no setting \"%.64s\"", key);
        return;
    }
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, "value", json_object_get(o));
    json_object_put(all);
    fc_client_reply(client, reply, -1);
}

static void do_get(struct fc_daemon *d, struct fc_client *client,
                   struct json_object *req, int *fds)
{
    struct fc_settings *s = settings_of(d, client, req);
    (void)fds;
    if (!s)
        return;
    const char *key = fc_json_str(req, "key", NULL);
    struct json_object *settings = fc_settings_json(s, key);
    if (!settings) {
        fc_client_fail(client, FC_ENOENT, "there is no setting \"%.64s\"",
                       key ? key : "");
        return;
    }
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "settings", settings);
    fc_client_reply(client, o, -1);
}

static void do_estimate(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req, int *fds)
{
    struct fc_estimate estimate;
    int64_t downtime = fc_json_int(req, "max_downtime_ms", 0);
    (void)fds;
    if (downtime < 0 || downtime > 3600000) {
        fc_client_fail(client, FC_EINVAL, "max_downtime_ms is 1 to 3600000");
        return;
    }
    const struct fc_domain *domain = fc_control_domain(d, client, req);
    if (!domain)
        return;
    fc_daemon_estimate(d, domain, fc_json_str(req, "host", ""),
                       fc_json_bool(req, "disks", 0), (uint32_t)downtime,
                       &estimate);
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "estimate", fc_json_estimate(&estimate));
    fc_client_reply(client, o, -1);
}

static void do_rank(struct fc_daemon *d, struct fc_client *client,
                    struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_rank(d, client, req);
}

static void do_heatmap(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_heatmap(d, client, req);
}

static void do_when(struct fc_daemon *d, struct fc_client *client,
                    struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_when(d, client, req);
}

static void do_record(struct fc_daemon *d, struct fc_client *client,
                      struct json_object *req, int *fds)
{
    fc_control_record(d, client, req, fds);
}

static void do_record_status(struct fc_daemon *d, struct fc_client *client,
                             struct json_object *req, int *fds)
{
    (void)req;
    (void)fds;
    fc_control_record_status(d, client);
}

static void do_record_stop(struct fc_daemon *d, struct fc_client *client,
                           struct json_object *req, int *fds)
{
    (void)req;
    (void)fds;
    fc_control_record_stop(d, client);
}

static void do_receive(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds)
{
    fc_control_receive(d, client, req, fds);
}

static void do_store_open(struct fc_daemon *d, struct fc_client *client,
                          struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_store_open(d, client, req);
}

static void do_migrate_begin(struct fc_daemon *d, struct fc_client *client,
                             struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_migrate_begin(d, client, req);
}

static void do_migrate_end(struct fc_daemon *d, struct fc_client *client,
                           struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_migrate_end(d, client, req);
}

static void do_prepare(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds)
{
    (void)fds;
    fc_control_prepare(d, client, req);
}

static const struct {
    const char *name;
    void (*run)(struct fc_daemon *d, struct fc_client *client,
                struct json_object *req, int *fds);
} requests[] = {
    { "version", do_version },
    { "arm", do_arm },
    { "disarm", do_disarm },
    { "status", do_status },
    { "stat", do_stat },
    { "log", do_log },
    { "set", do_set },
    { "get", do_get },
    { "record", do_record },
    { "record-status", do_record_status },
    { "record-stop", do_record_stop },
    { "receive", do_receive },
    { "store-open", do_store_open },
    { "migrate-begin", do_migrate_begin },
    { "migrate-end", do_migrate_end },
    { "estimate", do_estimate },
    { "rank", do_rank },
    { "heatmap", do_heatmap },
    { "when", do_when },
    { "prepare", do_prepare },
};

static void on_request(void *user, struct fc_client *client,
                       struct json_object *req, int fds[FC_CTL_MAX_FDS])
{
    struct fc_daemon *d = user;
    const char *cmd = fc_json_str(req, "cmd", "");
    for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        if (!strcmp(requests[i].name, cmd)) {
            fc_debug("request: %s", cmd);
            requests[i].run(d, client, req, fds);
            return;
        }
    if (fc_disks_request(d, cmd, client, req, fds))
        return;
    fc_client_fail(client, FC_EINVAL, "there is no request \"%.40s\"", cmd);
}

static void on_gone(void *user, struct fc_client *client)
{
    struct fc_daemon *d = user;
    fc_control_migrate_gone(d, client);
    fc_control_prepare_gone(d, client);
    fc_control_record_gone(d, client);
    fc_disks_client_gone(d->disks, client);
}

const struct fc_control_handler fc_control_requests = {
    .request = on_request,
    .gone = on_gone,
};
