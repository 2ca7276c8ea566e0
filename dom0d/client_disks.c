/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "client_out.h"
#include "ctl.h"
#include "err.h"
#include "io.h"

/*
 * Disks: what is shown of them, shadows kept ahead of a migration, leases; and
 * `forecopy disk-prepare`, which hands the JSON on its input to the daemon and
 * its answer back, so that no path has to survive a shell.
 */
static size_t length(struct json_object *list)
{
    return json_object_is_type(list, json_type_array)
               ? json_object_array_length(list)
               : 0;
}

static void put_text(FILE *out, struct json_object *o, const char *key,
                     int width)
{
    const char *text = fc_json_str(o, key, "");
    if (!*text)
        text = "-";
    for (int pad = width - (int)strlen(text); pad > 0; pad--)
        putc(' ', out);
    putc(' ', out);
    fc_out_text(out, text);
}

static void put_percent(FILE *out, struct json_object *o, const char *key,
                        int width)
{
    if (fc_json_member(o, key))
        fprintf(out, " %*.1f", width, fc_json_double(o, key, 0));
    else
        fprintf(out, " %*s", width, "-");
}

static void show_disks(FILE *out, struct json_object *list)
{
    fprintf(out, " %12s %6s %7s %10s %9s %8s %6s %6s %-12s %s\n", "NAME",
            "VDEV", "ROLE", "STATE", "SIZE(MiB)", "THERE(%)", "HIT(%)", "EPOCH",
            "OWNER", "VOLUME");
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        const char *owner = fc_json_str(o, "owner", "");
        const char *reason = fc_json_str(o, "reason", "");
        put_text(out, o, "name", 12);
        put_text(out, o, "vdev", 6);
        put_text(out, o, "role", 7);
        put_text(out, o, "state", 10);
        fprintf(out, " %9.0f", fc_json_double(o, "size", 0) / (1 << 20));
        put_percent(out, o, "coverage_percent", 8);
        put_percent(out, o, "hit_percent", 6);
        fprintf(out, " %6lld ", (long long)fc_json_int(o, "epoch", 0));
        fc_out_text(out, *owner ? owner : "this host");
        put_text(out, o, "volume", 0);
        if (*reason) {
            fputs("  ", out);
            fc_out_text(out, reason);
        }
        putc('\n', out);
    }
}

static void show_leases(FILE *out, struct json_object *list)
{
    fprintf(out, "%-36s %6s %7s %6s %-32s %s\n", "UUID", "VDEV", "STATE",
            "EPOCH", "MIGRATION", "OWNER");
    for (size_t i = 0; i < length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        const char *owner = fc_json_str(o, "owner", "");
        fc_out_text(out, fc_json_str(o, "uuid", "-"));
        put_text(out, o, "vdev", 6);
        put_text(out, o, "state", 7);
        fprintf(out, " %6lld", (long long)fc_json_int(o, "epoch", 0));
        put_text(out, o, "migration", 32);
        putc(' ', out);
        fc_out_text(out, *owner ? owner : "this host");
        putc('\n', out);
    }
}

static struct json_object *make_request(const struct fc_client_args *a)
{
    bool override = a->verb == FC_VERB_LEASE && a->operand[0] &&
                    !strcmp(a->operand[0], "override");
    struct json_object *o =
        fc_client_request(a->verb == FC_VERB_DISKS      ? "disks"
                          : a->verb == FC_VERB_SHADOW   ? "shadow"
                          : a->verb == FC_VERB_UNSHADOW ? "unshadow"
                          : override                    ? "lease-override"
                                                        : "lease-show");
    if (!o)
        return NULL;
    if (override) {
        fc_client_add(o, "uuid", a->operand[1]);
        fc_client_add(o, "vdev", a->operand[2]);
        fc_client_add(o, "host", a->host);
    } else if (a->verb != FC_VERB_LEASE) {
        fc_client_add(o, "domain", a->operand[0]);
        fc_client_add(o, "host", a->operand[1]);
        fc_client_add(o, "template", a->template_);
    }
    if (a->overwrite)
        json_object_object_add(o, "overwrite", json_object_new_boolean(1));
    return o;
}

/* Whether the operator knows what overruling a lease can cost. */
static int is_warned(struct fc_client_task *c)
{
    const char *owner = c->args->host ? c->args->host : "this host";
    fprintf(c->err,
            "forecopy: WARNING: you are about to say that %s owns disk %s.\n"
            "forecopy: WARNING: If another host has it, and the guest runs or "
            "has run there,\n"
            "forecopy: WARNING: what it wrote there is LOST, or both hosts "
            "write and BOTH copies\n"
            "forecopy: WARNING: are destroyed. Make sure that the guest is "
            "down everywhere, and that\n"
            "forecopy: WARNING: the volume at %s holds all of its data.\n",
            owner, c->args->operand[2], owner);
    if (!c->args->force)
        fputs("forecopy: nothing was changed; --force does it\n", c->err);
    return c->args->force;
}

/* The request on standard input, of one line; NULL when it is none. */
static struct json_object *read_request(void)
{
    char *text = malloc(FC_CTL_MAX_LINE + 1);
    size_t used = 0;
    ssize_t r = 0;
    struct json_object *o = NULL;
    while (text && used < FC_CTL_MAX_LINE) {
        r = read(STDIN_FILENO, text + used, FC_CTL_MAX_LINE - used);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        used += (size_t)r;
        if (memchr(text + used - r, '\n', (size_t)r))
            break; /* ssh need not end its input */
    }
    if (text)
        o = fc_ctl_parse(text, strcspn((text[used] = '\0', text), "\n"), NULL);
    free(text);
    return o;
}

static int prepare(struct fc_client_task *c)
{
    struct json_object *reply = NULL, *request = read_request();
    if (!request) {
        fputs("forecopy: disk-prepare wants a JSON object on its input\n",
              c->err);
        return 1;
    }
    json_object_object_add(request, "cmd",
                           json_object_new_string("disk-prepare"));
    int rc = c->world->call(c->world->user, request, &reply);
    if (rc)
        fc_client_show_failure(c, rc, reply);
    else
        fc_out_json(c->out, reply);
    fflush(c->out);
    json_object_put(reply);
    json_object_put(request);
    return rc ? 1 : 0;
}

int fc_client_disks(struct fc_client_task *c)
{
    const struct fc_client_args *a = c->args;
    struct json_object *reply = NULL;
    if (a->verb == FC_VERB_DISK_PREPARE)
        return prepare(c);
    if (a->verb == FC_VERB_LEASE && a->operand[0] &&
        !strcmp(a->operand[0], "override") && !is_warned(c))
        return 1;
    struct json_object *request = make_request(a);
    if (!request)
        return 1;
    int rc = fc_client_ask(c, request, &reply);
    json_object_put(request);
    if (a->json && rc)
        fc_client_show_failure(c, rc, reply);
    else if (a->json)
        fc_out_json(c->out, reply);
    else if (!rc && a->verb == FC_VERB_DISKS)
        show_disks(c->out, fc_json_member(reply, "disks"));
    else if (!rc && fc_json_member(reply, "leases"))
        show_leases(c->out, fc_json_member(reply, "leases"));
    fflush(c->out);
    json_object_put(reply);
    return rc ? 1 : 0;
}
