/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "client_helper.h"
#include "client_out.h"
#include "client_predict.h"
#include "ctl.h"
#include "err.h"

#define DEFAULT_DELAY_S 3.0 /* xentop's */
#define DEFAULT_LINES 50
#define CLEAR_SCREEN "\033[H\033[2J"

struct json_object *fc_client_request(const char *name)
{
    struct json_object *o = json_object_new_object();
    if (o)
        fc_client_add(o, "cmd", name);
    return o;
}

void fc_client_add(struct json_object *request, const char *key,
                   const char *value)
{
    if (value)
        json_object_object_add(request, key, json_object_new_string(value));
}

static void add_number(struct json_object *request, const char *key,
                       int64_t value)
{
    if (value >= 0)
        json_object_object_add(request, key, json_object_new_int64(value));
}

void fc_client_why(int rc, struct json_object *reply, char *text)
{
    const char *error = fc_json_str(reply, "error", NULL);
    if (reply && error)
        snprintf(text, FC_CLIENT_WHY, "%s", error);
    else if (reply)
        snprintf(text, FC_CLIENT_WHY, "%s", fc_strerror(rc));
    else if (rc == FC_EDAEMON)
        snprintf(text, FC_CLIENT_WHY,
                 "%s: %s (is it running, and are you "
                 "root?)",
                 fc_strerror(rc), strerror(errno));
    else
        snprintf(text, FC_CLIENT_WHY, "forecopyd's answer: %s",
                 fc_strerror(rc));
}

static void complain(struct fc_client_task *c, const char *why)
{
    fputs("forecopy: ", c->err);
    fc_out_text(c->err, why);
    putc('\n', c->err);
}

int fc_client_ask(struct fc_client_task *c, struct json_object *request,
                  struct json_object **reply_r)
{
    char why[FC_CLIENT_WHY];
    int rc = c->world->call(c->world->user, request, reply_r);
    if (rc) {
        fc_client_why(rc, *reply_r, why);
        complain(c, why);
    }
    return rc;
}

void fc_client_show_failure(struct fc_client_task *c, int rc,
                            struct json_object *reply)
{
    char why[FC_CLIENT_WHY];
    struct json_object *o = json_object_new_object();
    fc_client_why(rc, reply, why);
    json_object_object_add(o, "ok", json_object_new_boolean(0));
    fc_client_add(o, "code", fc_errname(rc));
    fc_client_add(o, "error", why);
    fc_client_add(o, "client_version", FC_VERSION);
    fc_out_json(c->out, o);
    json_object_put(o);
}

static void show_arm(struct fc_client_task *c, struct json_object *reply)
{
    fc_out_text(c->out, c->args->operand[0]);
    fputs(" (", c->out);
    fc_out_text(c->out, fc_json_str(reply, "uuid", "?"));
    fputs(") is armed for ", c->out);
    fc_out_text(c->out, c->args->operand[1]);
    putc('\n', c->out);
}

static void show_set(struct fc_client_task *c, struct json_object *reply)
{
    struct json_object *value = fc_json_member(reply, "value");
    fc_out_text(c->out, c->args->operand[0]);
    fputs(" = ", c->out);
    fc_out_text(c->out,
                value ? json_object_get_string(value) : c->args->operand[1]);
    putc('\n', c->out);
}

static void show_version(struct fc_client_task *c, struct json_object *reply)
{
    fprintf(c->out, "forecopy %s\nforecopyd ", FC_VERSION);
    fc_out_text(c->out, fc_json_str(reply, "version", "?"));
    fprintf(c->out, " (protocol %lld, Xen ",
            (long long)fc_json_int(reply, "protocol", 0));
    fc_out_text(c->out, fc_json_str(reply, "xen", "?"));
    fprintf(c->out, ", pid %lld, host ",
            (long long)fc_json_int(reply, "pid", 0));
    fc_out_text(c->out, fc_json_str(reply, "host", "?"));
    fputs(")\nsave helper ", c->out);
    const char *helper = fc_json_str(reply, "helper", NULL);
    fc_out_text(c->out, helper ? helper : "for the running Xen: none");
    if (helper)
        fputs(fc_json_bool(reply, "helper_works", 0) ? ": works"
                                                     : ": fails its self-test",
              c->out);
    putc('\n', c->out);
}

static void show_prepare(struct fc_client_task *c, struct json_object *reply)
{
    int64_t removed = fc_json_int(reply, "removed", 0);
    if (removed > 0)
        fprintf(c->out,
                "removed domain %lld, left over from an earlier "
                "attempt\n",
                (long long)removed);
    fputs("ready\n", c->out);
}

/* The exit status. */
static int show(struct fc_client_task *c, struct json_object *reply)
{
    switch (c->args->verb) {
    case FC_VERB_ARM:
        show_arm(c, reply);
        break;
    case FC_VERB_STATUS:
        fc_out_guests(c->out, fc_json_member(reply, "guests"));
        break;
    case FC_VERB_STAT:
        fc_out_counters(c->out, fc_json_member(reply, "counters"));
        break;
    case FC_VERB_LOG:
        fc_out_lines(c->out, fc_json_member(reply, "lines"));
        break;
    case FC_VERB_SET:
        show_set(c, reply);
        break;
    case FC_VERB_GET:
        fc_out_settings(c->out, fc_json_member(reply, "settings"));
        break;
    case FC_VERB_RANK:
        fc_client_show_rank(c->out, reply);
        break;
    case FC_VERB_HEATMAP:
        return fc_client_show_heatmap(c, reply);
    case FC_VERB_WHEN:
        fc_client_show_when(c->out, reply);
        break;
    case FC_VERB_PREPARE:
        show_prepare(c, reply);
        break;
    case FC_VERB_VERSION:
        show_version(c, reply);
        break;
    case FC_VERB_DISKS:
    case FC_VERB_SHADOW:
    case FC_VERB_UNSHADOW:
    case FC_VERB_LEASE:
    case FC_VERB_DISK_RECEIVE:
    case FC_VERB_DISK_PREPARE:
    case FC_VERB_DISARM:
    case FC_VERB_RECEIVE:
    case FC_VERB_RECORD:
    case FC_VERB_DOCTOR:
        break;
    }
    return 0;
}

static struct json_object *make_request(const struct fc_client_args *a)
{
    static const char *const names[] = {
        [FC_VERB_ARM] = "arm",         [FC_VERB_DISARM] = "disarm",
        [FC_VERB_STATUS] = "status",   [FC_VERB_STAT] = "stat",
        [FC_VERB_LOG] = "log",         [FC_VERB_SET] = "set",
        [FC_VERB_GET] = "get",         [FC_VERB_PREPARE] = "prepare",
        [FC_VERB_VERSION] = "version", [FC_VERB_RANK] = "rank",
        [FC_VERB_HEATMAP] = "heatmap", [FC_VERB_WHEN] = "when",
    };
    struct json_object *o = fc_client_request(names[a->verb]);
    if (!o)
        return NULL;
    switch (a->verb) {
    case FC_VERB_ARM:
        fc_client_add(o, "domain", a->operand[0]);
        fc_client_add(o, "host", a->operand[1]);
        add_number(o, "rate_bytes", a->rate_bytes);
        add_number(o, "channels", a->channels);
        fc_client_add(o, "command", a->command);
        break;
    case FC_VERB_DISARM:
    case FC_VERB_STATUS:
        fc_client_add(o, "domain", a->operand[0]);
        break;
    case FC_VERB_RANK:
        fc_client_add(o, "domain", a->operand[0]);
        fc_client_add(o, "list", a->list);
        add_number(o, "limit", a->lines > 0 ? a->lines : DEFAULT_LINES);
        break;
    case FC_VERB_HEATMAP:
        fc_client_add(o, "domain", a->operand[0]);
        break;
    case FC_VERB_WHEN:
        fc_client_add(o, "domain", a->operand[0]);
        add_number(o, "hours", a->hours);
        break;
    case FC_VERB_LOG:
        add_number(o, "lines", a->lines > 0 ? a->lines : DEFAULT_LINES);
        fc_client_add(o, "level", a->level);
        break;
    case FC_VERB_SET:
        fc_client_add(o, "key", a->operand[0]);
        fc_client_add(o, "value", a->operand[1]);
        fc_client_add(o, "domain", a->operand[2]);
        break;
    case FC_VERB_GET:
        fc_client_add(o, "key", a->operand[0]);
        fc_client_add(o, "domain", a->operand[1]);
        break;
    case FC_VERB_PREPARE:
        fc_client_add(o, "uuid", a->uuid);
        fc_client_add(o, "name", a->name);
        break;
    default:
        break;
    }
    return o;
}

static void pause_for(double seconds)
{
    struct timespec ts = { .tv_sec = (time_t)seconds };
    ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
    nanosleep(&ts, NULL);
}

/* What a source has to know of this host besides its daemon. */
static void add_helper(struct fc_client_task *c, struct json_object *reply)
{
    char xen[FC_CLIENT_XEN], path[FC_CLIENT_HELPER];
    int rc = fc_client_xen(c->world, xen);
    if (!rc)
        rc = fc_client_helper(c->world, xen, path);
    json_object_object_add(
        reply, "helper", rc == FC_ENOENT ? NULL : json_object_new_string(path));
    json_object_object_add(reply, "helper_works", json_object_new_boolean(!rc));
}

/* One request and what it shows. */
static int ask_and_show(struct fc_client_task *c, struct json_object *request)
{
    struct json_object *reply = NULL;
    int rc = fc_client_ask(c, request, &reply), status = rc ? 1 : 0;
    if (!rc && c->args->verb == FC_VERB_VERSION) {
        fc_client_add(reply, "client_version", FC_VERSION);
        add_helper(c, reply);
    }
    if (c->args->json && rc) {
        fc_client_show_failure(c, rc, reply);
    } else if (c->args->json) {
        fc_out_json(c->out, reply);
    } else if (!rc) {
        status = show(c, reply);
    }
    fflush(c->out);
    json_object_put(reply);
    return status;
}

int fc_client_run(struct fc_client_task *c)
{
    const struct fc_client_args *a = c->args;
    if (a->verb == FC_VERB_DISKS || a->verb == FC_VERB_SHADOW ||
        a->verb == FC_VERB_UNSHADOW || a->verb == FC_VERB_LEASE)
        return fc_client_disks(c);
    bool repeat = a->batch || a->delay_s > 0 || a->iterations > 0;
    double delay = a->delay_s > 0 ? a->delay_s : DEFAULT_DELAY_S;
    int status = 0;
    struct json_object *request = make_request(a);
    if (!request) {
        complain(c, fc_strerror(FC_ENOMEM));
        return 1;
    }
    for (int64_t n = 0; n == 0 || (repeat && !status); n++) {
        if (a->iterations > 0 && n >= a->iterations)
            break;
        if (n)
            pause_for(delay);
        if (repeat && !a->batch && !a->json && c->terminal)
            fputs(CLEAR_SCREEN, c->out);
        status = ask_and_show(c, request);
        if (ferror(c->out))
            status = 1;
    }
    json_object_put(request);
    return status;
}
