/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/wait.h>

#include "daemon.h"
#include "err.h"
#include "log.h"
#include "luggage.h"
#include "procscan.h"

/*
 * Requests at the destination. `prepare` clears the way for a migration: an
 * attempt that failed can leave a paused NAME--incoming behind, and xl then
 * refuses the next one because of its name. It is destroyed only when all of
 * these hold: exactly that name, the guest's own uuid, paused, no restore
 * helper of its at work, and no `xl migrate-receive` at all (which may hold an
 * incoming domain whose memory is complete and which is about to run). If in
 * doubt it stays, and the answer says why.
 */
#define DESTROY_MS 30000u

void fc_control_receive(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req, int *fds)
{
    uint8_t uuid[FC_UUID_BYTES];
    uint64_t id;
    if (fc_uuid_parse(fc_json_str(req, "uuid", ""), uuid)) {
        fc_client_fail(client, FC_EINVAL, "\"uuid\" is no uuid");
        return;
    }
    if (fds[0] < 0 || fds[1] < 0) {
        fc_client_fail(client, FC_EINVAL, "two descriptors are needed");
        return;
    }
    if (d->stopping) {
        fc_client_fail(client, FC_EBUSY, "the daemon stops");
        return;
    }
    int rc = fc_keepers_receive(d->keepers, uuid, fds[0], fds[1], &id);
    if (rc) {
        fc_client_fail(client, rc, "no channel can be taken in: %s%s%s",
                       fc_strerror(rc), rc == FC_ESYS ? ": " : "",
                       rc == FC_ESYS ? strerror(errno) : "");
        return;
    }
    d->counters.channels_received++;
    fc_client_set_tag(client, id);
    fc_client_reply(client, NULL, -1);
}

void fc_daemon_channel_closed(void *user, uint64_t id)
{
    struct fc_daemon *d = user;
    struct fc_client *client =
        d->control ? fc_control_by_tag(d->control, id) : NULL;
    if (client)
        fc_client_close(client);
}

void fc_control_store_open(struct fc_daemon *d, struct fc_client *client,
                           struct json_object *req)
{
    uint8_t uuid[FC_UUID_BYTES], token[FC_TOKEN_BYTES];
    struct json_object *o;
    uint64_t pages;
    if (fc_uuid_parse(fc_json_str(req, "uuid", ""), uuid) ||
        fc_hex_parse(fc_json_str(req, "token", ""), token, sizeof(token)) ||
        !json_object_object_get_ex(req, "epoch", &o) ||
        !json_object_is_type(o, json_type_int)) {
        fc_client_fail(client, FC_EINVAL,
                       "uuid, token or epoch is not as it "
                       "must be");
        return;
    }
    int fd = fc_keepers_store(d->keepers, uuid, token,
                              json_object_get_uint64(o), &pages);
    if (fd < 0) {
        fc_client_fail(client, fd,
                       fd == FC_ENOENT ? "there is no store of that epoch"
                                       : "the store may not be opened");
        return;
    }
    struct json_object *reply = json_object_new_object();
    json_object_object_add(reply, "pages", json_object_new_uint64(pages));
    fc_client_reply(client, reply, fd);
}

/* A destroy that is under way. */
struct fc_prepare {
    struct fc_daemon *daemon;
    struct fc_client *client; /* NULL: gone */
    uint32_t domid;
    pid_t pid;
    bool timed_out;
    struct event *timeout;
    struct fc_prepare *next;
};

static void answer(struct fc_client *client, uint32_t removed,
                   const char *reason)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "removed", json_object_new_int64(removed));
    json_object_object_add(o, "reason", json_object_new_string(reason));
    json_object_object_add(o, "version", json_object_new_string(FC_VERSION));
    json_object_object_add(o, "protocol", json_object_new_int(FC_PROTOCOL));
    fc_client_reply(client, o, -1);
}

static void free_prepare(struct fc_prepare *p)
{
    for (struct fc_prepare **at = &p->daemon->prepares; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    if (p->timeout)
        event_free(p->timeout);
    free(p);
}

static void on_destroyed(void *user, pid_t pid, int status)
{
    struct fc_prepare *p = user;
    struct fc_daemon *d = p->daemon;
    struct fc_client *client = p->client;
    bool done = WIFEXITED(status) && !WEXITSTATUS(status) && !p->timed_out;
    uint32_t domid = p->domid;
    (void)pid;
    free_prepare(p);
    if (done) {
        d->counters.leftovers_removed++;
        fc_info("domain %u, left over from a failed attempt, is destroyed",
                domid);
        (void)fc_domains_scan(&d->domains);
    } else {
        fc_error("xl destroy %u failed (status %#x)", domid, (unsigned)status);
    }
    if (client)
        answer(client, done ? domid : 0,
               done ? "" : "the leftover domain could not be destroyed");
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct fc_prepare *p = arg;
    (void)fd;
    (void)what;
    p->timed_out = true;
    fc_children_end(p->daemon->children, p->pid);
}

static int destroy(struct fc_daemon *d, struct fc_client *client,
                   const struct fc_domain *domain)
{
    const struct timeval limit = { DESTROY_MS / 1000, 0 };
    char domid[16];
    const char *argv[] = { d->config->xl_path, "destroy", domid, NULL };
    struct fc_prepare *p = calloc(1, sizeof(*p));
    if (!p)
        return FC_ENOMEM;
    p->daemon = d;
    p->client = client;
    p->domid = domain->domid;
    p->next = d->prepares;
    d->prepares = p;
    snprintf(domid, sizeof(domid), "%u", domain->domid);
    p->timeout = evtimer_new(d->base, on_timeout, p);
    int rc = FC_ENOMEM;
    if (p->timeout && !evtimer_add(p->timeout, &limit)) {
        fc_info("destroying %s (domain %u), left over from a failed attempt",
                domain->name, domain->domid);
        p->pid =
            fc_children_run(d->children, argv, -1, -1, -1, on_destroyed, p);
        rc = p->pid < 0 ? FC_ESYS : 0;
    }
    if (rc)
        free_prepare(p);
    return rc;
}

/* Why the leftover must stay, or NULL. */
static const char *must_stay(struct fc_daemon *d,
                             const struct fc_domain *domain,
                             const uint8_t *uuid)
{
    const char *proc = d->config->proc_root;
    if (memcmp(domain->uuid, uuid, FC_UUID_BYTES))
        return "a domain of that name has another uuid";
    if (!domain->paused)
        return "the domain of that name is not paused";
    if (fc_procscan_restorer(proc, domain->domid))
        return "the domain of that name is being restored";
    if (fc_procscan_program(proc, "xl", "migrate-receive"))
        return "a migration is being received";
    for (const struct fc_prepare *p = d->prepares; p; p = p->next)
        if (p->domid == domain->domid)
            return "it is being destroyed already";
    return NULL;
}

void fc_control_prepare(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req)
{
    uint8_t uuid[FC_UUID_BYTES];
    char incoming[FC_DOMAIN_NAME + 16];
    const char *name = fc_json_str(req, "name", "");
    if (fc_uuid_parse(fc_json_str(req, "uuid", ""), uuid) || !*name ||
        strlen(name) >= FC_DOMAIN_NAME) {
        fc_client_fail(client, FC_EINVAL, "uuid or name is not as it must be");
        return;
    }
    snprintf(incoming, sizeof(incoming), "%s--incoming", name);
    const struct fc_domain *domain = NULL;
    if (fc_domains_scan(&d->domains)) {
        fc_client_fail(client, FC_ESYS, "cannot list the domains");
        return;
    }
    for (unsigned i = 0; i < d->domains.count; i++)
        if (!strcmp(d->domains.list[i].name, incoming))
            domain = &d->domains.list[i];
    if (!domain) {
        answer(client, 0, "");
        return;
    }
    const char *why = must_stay(d, domain, uuid);
    if (why) {
        fc_warn("%s (domain %u) stays: %s", incoming, domain->domid, why);
        answer(client, 0, why);
        return;
    }
    int rc = destroy(d, client, domain);
    if (rc)
        fc_client_fail(client, rc, "cannot run %s: %s", d->config->xl_path,
                       rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
}

void fc_control_prepare_gone(struct fc_daemon *d, struct fc_client *client)
{
    for (struct fc_prepare *p = d->prepares; p; p = p->next)
        if (p->client == client)
            p->client = NULL;
}

void fc_control_prepare_free(struct fc_daemon *d)
{
    while (d->prepares) {
        fc_children_forget(d->children, d->prepares->pid);
        free_prepare(d->prepares);
    }
}

void fc_daemon_model(void *user, const uint8_t *uuid, const uint8_t *bytes,
                     size_t len)
{
    struct fc_daemon *d = user;
    const struct fc_armed_guest *a = fc_daemon_armed(d, uuid);
    char text[FC_UUID_TEXT], why[160] = "";
    fc_uuid_format(uuid, text);
    if (!d->db)
        return;
    if (a && a->guest) {
        fc_warn("what another host knows of %s is not taken: it is armed here",
                text);
        return;
    }
    if (fc_luggage_unpack(d->db, uuid, bytes, len, (uint64_t)time(NULL), why,
                          sizeof(why)))
        fc_warn("what came with %s is not used: %s", text, why);
    else
        fc_info("what was learned of %s came with it", text);
}
