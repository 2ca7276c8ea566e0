/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "client_helper.h"
#include "client_out.h"
#include "client_remote.h"
#include "ctl.h"
#include "err.h"

/*
 * `forecopy doctor`: what would make a migration fall back to plain xl, or
 * fail, found before it is asked for. Each check yields one finding; a fault
 * comes with what to do about it. A check that rests on one that failed is
 * left out instead of failing too. Nothing is changed anywhere.
 */
#define RUN_MS 10000
#define TEXT 512
#define OUTPUT 65536
#define PAGE_BYTES 4096

enum verdict { OK, NOTE, FAULT };

struct doctor {
    struct fc_client_task *c;
    struct json_object *findings;
    unsigned faults;
    char xen[FC_CLIENT_XEN];   /* "4.17"; empty: unknown */
    struct json_object *guest; /* of the local daemon's status, or NULL */
    char output[OUTPUT];
};

__attribute__((format(printf, 5, 6))) static void
find(struct doctor *d, enum verdict verdict, const char *check,
     const char *advice, const char *fmt, ...)
{
    static const char *const names[] = { "ok", "note", "fault" };
    static const char *const marks[] = { "ok   ", "note ", "FAULT" };
    char text[TEXT];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    d->faults += verdict == FAULT;
    if (d->c->args->json) {
        struct json_object *o = json_object_new_object();
        fc_client_add(o, "check", check);
        fc_client_add(o, "verdict", names[verdict]);
        fc_client_add(o, "text", text);
        if (verdict != OK)
            fc_client_add(o, "advice", advice);
        json_object_array_add(d->findings, o);
        return;
    }
    fprintf(d->c->out, "%s %-12s ", marks[verdict], check);
    fc_out_text(d->c->out, text);
    fputc('\n', d->c->out);
    if (verdict != OK)
        fprintf(d->c->out, "%19s-> %s\n", "", advice);
    fflush(d->c->out);
}

static bool read_text(struct doctor *d, const char *path, char *text,
                      size_t cap)
{
    if (d->c->world->read(d->c->world->user, path, text, cap))
        return false;
    text[strcspn(text, "\n")] = '\0';
    return true;
}

static int run(struct doctor *d, const char *command, int timeout_ms)
{
    return d->c->world->run(d->c->world->user, command, timeout_ms, d->output,
                            sizeof(d->output));
}

static void check_host(struct doctor *d)
{
    char text[64] = "";
    if (!d->c->world->is_root)
        find(d, FAULT, "user", "run it as root", "not running as root");
    if (!read_text(d, "/proc/xen/capabilities", text, sizeof(text)) ||
        !strstr(text, "control_d"))
        find(d, FAULT, "dom0",
             "boot the Xen hypervisor, run this in dom0, and mount xenfs on "
             "/proc/xen",
             "this is not dom0 of a Xen host");
    else if (fc_client_xen(d->c->world, d->xen))
        find(d, FAULT, "dom0", "load the module xen-sys-hypervisor",
             "the hypervisor's version is not in /sys/hypervisor");
    else
        find(d, OK, "dom0", NULL, "dom0 of Xen %s", d->xen);
}

static void check_helper(struct doctor *d)
{
    char path[FC_CLIENT_HELPER];
    if (!*d->xen)
        return;
    int rc = fc_client_helper(d->c->world, d->xen, path);
    if (rc == FC_ENOENT)
        find(d, FAULT, "helper",
             "install the forecopy package built for the running Xen",
             "%s is missing: the installed one is for another Xen", path);
    else if (rc)
        find(d, FAULT, "helper",
             "reinstall forecopy and the running Xen's libraries",
             "%s fails its self-test", path);
    else
        find(d, OK, "helper", NULL, "%s works", path);
}

static void check_xl(struct doctor *d)
{
    int status = run(d, "xl migrate --predictive --dump-options", RUN_MS);
    if (status || !strstr(d->output, "max-downtime"))
        find(d, FAULT, "xl",
             "dpkg --configure -a, then reinstall forecopy; look at "
             "`dpkg-divert --list '*xl*'` and at PATH",
             "`xl` is not forecopy's front end: --predictive is unknown");
    else if (!d->c->world->executable(d->c->world->user, "/usr/sbin/xl.xen"))
        find(d, FAULT, "xl", "reinstall xen-utils-common, then forecopy",
             "Xen's own xl is not at /usr/sbin/xl.xen");
    else
        find(d, OK, "xl", NULL, "xl knows --predictive");
}

/* The daemon's answer; NULL after the finding why not. */
static struct json_object *ask(struct doctor *d, struct json_object *request,
                               const char *check, const char *advice)
{
    struct json_object *reply = NULL;
    char why[FC_CLIENT_WHY];
    int rc = d->c->world->call(d->c->world->user, request, &reply);
    json_object_put(request);
    if (!rc)
        return reply;
    fc_client_why(rc, reply, why);
    find(d, FAULT, check, advice, "%s", why);
    json_object_put(reply);
    return NULL;
}

static bool check_daemon(struct doctor *d)
{
    struct json_object *reply =
        ask(d, fc_client_request("version"), "daemon",
            "systemctl status forecopyd; journalctl -u forecopyd");
    if (!reply)
        return false;
    const char *version = fc_json_str(reply, "version", "?");
    const char *xen = fc_json_str(reply, "xen", "?");
    if (strcmp(version, FC_VERSION))
        find(d, FAULT, "daemon", "systemctl restart forecopyd",
             "forecopyd is version %s, this program %s", version, FC_VERSION);
    else if (*d->xen && strncmp(xen, d->xen, strlen(d->xen)))
        find(d, FAULT, "daemon",
             "install the forecopy package built for the running Xen",
             "forecopyd is for Xen %s, %s runs", xen, d->xen);
    else
        find(d, OK, "daemon", NULL, "forecopyd %s answers", version);
    json_object_put(reply);
    return true;
}

static void judge_guest(struct doctor *d, const char *domain)
{
    const char *type = fc_json_str(d->guest, "type", "?");
    const char *state = fc_json_str(d->guest, "state", "?");
    const char *reason = fc_json_str(d->guest, "reason", "");
    if (!strcmp(type, "pv"))
        find(d, FAULT, "guest",
             "use `xl save` and `xl restore`, or set type=\"pvh\" in the "
             "guest's configuration",
             "%s is a PV guest: this Xen logs dirty pages of PVH and HVM "
             "guests only",
             domain);
    else if (!strcmp(state, "refused"))
        find(d, FAULT, "guest",
             "mend what the reason says, then `forecopy arm` again",
             "staging of %s was refused: %s", domain, reason);
    else if (!fc_json_bool(d->guest, "armed", 0))
        find(d, NOTE, "guest",
             "`forecopy arm DOMAIN HOST` some minutes before a migration",
             "%s (%s) is not armed: its migration starts cold", domain, type);
    else
        find(d, OK, "guest", NULL, "%s (%s) is armed, %s%s%s", domain, type,
             state, *reason ? ": " : "", reason);
}

static void check_guest(struct doctor *d, const char *domain)
{
    struct json_object *request = fc_client_request("status");
    fc_client_add(request, "domain", domain);
    struct json_object *reply =
        ask(d, request, "guest", "`xl list` shows the guests that there are");
    struct json_object *guests = fc_json_member(reply, "guests");
    if (json_object_is_type(guests, json_type_array) &&
        json_object_array_length(guests) == 1)
        d->guest = json_object_get(json_object_array_get_idx(guests, 0));
    if (d->guest)
        judge_guest(d, domain);
    else if (reply)
        find(d, FAULT, "guest", "`xl list` shows the guests that there are",
             "forecopyd knows no %s", domain);
    json_object_put(reply);
}

/* Settings that keep staging from ever working; the daemon checks ranges. */
static void check_settings(struct doctor *d, const char *domain,
                           struct fc_remote *remote)
{
    struct json_object *request = fc_client_request("get");
    fc_client_add(request, "domain", domain);
    struct json_object *reply =
        ask(d, request, "settings", "forecopy get; forecopy log");
    if (!reply)
        return;
    struct json_object *s = fc_json_member(reply, "settings");
    struct json_object *command = fc_json_member(s, "channel_command");
    const char *text = command ? json_object_get_string(command) : "";
    if (fc_remote_use(remote, text))
        find(d, NOTE, "settings",
             "let channel_command end in `forecopy receive %u`",
             "channel_command is not understood here; the destination is "
             "asked by ssh instead");
    else if (!strstr(text, "%h"))
        find(d, NOTE, "settings",
             "put %h where the host's name belongs in channel_command",
             "channel_command goes to one host, whatever the destination");
    else
        find(d, OK, "settings", NULL, "pages are staged by: %s", text);
    json_object_put(reply);
}

/* Runs `words` at the destination; false after the finding why not. */
static bool run_there(struct doctor *d, const struct fc_remote *remote,
                      const char *host, const char *words)
{
    char command[FC_REMOTE_COMMAND];
    if (fc_remote_command(remote, host, words, command)) {
        find(d, FAULT, "destination", "give the name that ssh knows it by",
             "\"%s\" is no name of a host", host);
        return false;
    }
    int status = run(d, command, 2 * RUN_MS);
    if (!status)
        return true;
    if (status == FC_ETIMEOUT)
        find(d, FAULT, "destination", "look at the network and the firewall",
             "%s did not answer within %d s", host, 2 * RUN_MS / 1000);
    else if (status == 255)
        find(d, FAULT, "destination",
             "as root: `ssh-copy-id HOST`, then `ssh HOST` once to accept its "
             "key",
             "ssh to %s without a password fails", host);
    else if (status == 127)
        find(d, FAULT, "destination", "install forecopy there",
             "%s has no forecopy", host);
    else
        find(d, FAULT, "destination", "log in there and run `forecopy doctor`",
             "`%s` at %s fails (status %d)", words, host, status);
    return false;
}

/* The JSON object in what a remote command printed, or NULL. */
static struct json_object *output_object(struct doctor *d)
{
    const char *start = d->output;
    while (*start && *start != '{')
        start += strcspn(start, "\n") + (start[strcspn(start, "\n")] == '\n');
    return fc_ctl_parse(start, strcspn(start, "\n"), NULL);
}

static bool check_versions(struct doctor *d, const struct fc_remote *remote,
                           const char *host)
{
    if (!run_there(d, remote, host, "forecopy version --json"))
        return false;
    struct json_object *o = output_object(d);
    int64_t protocol = fc_json_int(o, "protocol", 0);
    const char *version = fc_json_str(o, "version", "?");
    const char *xen = fc_json_str(o, "xen", "?");
    bool ok = false;
    if (!o)
        find(d, FAULT, "destination",
             "let root's login there print nothing but what was asked for",
             "%s gave an answer that is not forecopy's", host);
    else if (protocol != FC_CLIENT_PROTOCOL)
        find(d, FAULT, "destination",
             "install the same release of forecopy on both hosts",
             "%s speaks protocol %lld (%s), this host %d (%s)", host,
             (long long)protocol, version, FC_CLIENT_PROTOCOL, FC_VERSION);
    else if (*d->xen && atoi(xen) && strcmp(xen, d->xen) < 0 &&
             strlen(xen) == strlen(d->xen))
        find(d, NOTE, "destination",
             "migrate to the same or a newer release of Xen",
             "%s runs Xen %s, this host %s: Xen promises no way back", host,
             xen, d->xen);
    else if (!fc_json_bool(o, "helper_works", 1))
        find(d, FAULT, "destination", "log in there and run `forecopy doctor`",
             "the save helper at %s is missing or fails its self-test", host);
    else
        find(d, OK, "destination", NULL,
             "%s answers: forecopyd %s, protocol %lld, Xen %s", host, version,
             (long long)protocol, xen);
    ok = o && protocol == FC_CLIENT_PROTOCOL;
    json_object_put(o);
    return ok;
}

static long long mib(int64_t bytes)
{
    return (long long)(bytes >> 20);
}

/* `room` says in words that the destination has `bytes` for the guest. */
static void judge_room(struct doctor *d, const char *check, const char *room,
                       int64_t bytes, const char *advice)
{
    int64_t need = fc_json_int(d->guest, "pages", 0) * PAGE_BYTES;
    if (bytes < need)
        find(d, NOTE, check, advice, "%s, the guest needs %lld MiB", room,
             mib(need));
    else
        find(d, OK, check, NULL, "%s", room);
}

static void check_memory(struct doctor *d, const struct fc_remote *remote,
                         const char *host)
{
    char room[TEXT];
    if (!run_there(d, remote, host, "xl info free_memory"))
        return;
    int64_t free_bytes = strtoll(d->output, NULL, 10) << 20;
    snprintf(room, sizeof(room), "%s has %lld MiB free", host, mib(free_bytes));
    judge_room(d, "memory", room, free_bytes,
               "free some there, unless xl may balloon its dom0 down "
               "(autoballoon in xl.conf)");
}

static int64_t available_bytes(const char *meminfo)
{
    const char *line = strstr(meminfo, "MemAvailable:");
    return line ? strtoll(line + strlen("MemAvailable:"), NULL, 10) << 10 : 0;
}

static void check_store(struct doctor *d, const struct fc_remote *remote,
                        const char *host)
{
    char room[TEXT];
    if (!run_there(d, remote, host, "forecopy get store_budget_bytes --json"))
        return;
    struct json_object *o = output_object(d);
    struct json_object *value =
        fc_json_member(fc_json_member(o, "settings"), "store_budget_bytes");
    int64_t budget =
        value ? fc_client_bytes_parse(json_object_get_string(value)) : -1;
    json_object_put(o);
    if (budget < 0) {
        find(d, FAULT, "store", "log in there and run `forecopy get`",
             "%s does not say its store_budget_bytes", host);
        return;
    }
    if (!run_there(d, remote, host, "cat /proc/meminfo"))
        return;
    int64_t available = available_bytes(d->output);
    snprintf(room, sizeof(room), "%s allows %lld MiB of staged pages", host,
             mib(budget));
    if (available < budget)
        find(d, NOTE, "store",
             "give its dom0 more memory, or lower store_budget_bytes there",
             "%s, its dom0 has %lld MiB left", room, mib(available));
    else
        judge_room(d, "store", room, budget,
                   "raise store_budget_bytes there for more than the oldest "
                   "pages' worth");
}

static void check_all(struct doctor *d)
{
    const char *domain = d->c->args->operand[0];
    const char *host = d->c->args->operand[1];
    struct fc_remote remote;
    fc_remote_init(&remote);
    check_host(d);
    check_helper(d);
    check_xl(d);
    if (check_daemon(d)) {
        if (domain)
            check_guest(d, domain);
        check_settings(d, d->guest ? domain : NULL, &remote);
    }
    if (!host && d->guest && *fc_json_str(d->guest, "host", ""))
        host = fc_json_str(d->guest, "host", "");
    if (host && check_versions(d, &remote, host)) {
        check_memory(d, &remote, host);
        check_store(d, &remote, host);
    }
}

int fc_client_doctor(struct fc_client_task *c)
{
    struct doctor *d = calloc(1, sizeof(*d));
    if (!d) {
        fprintf(c->err, "forecopy: %s\n", fc_strerror(FC_ENOMEM));
        return 1;
    }
    d->c = c;
    d->findings = json_object_new_array();
    check_all(d);
    int status = d->faults ? 1 : 0;
    if (c->args->json) {
        struct json_object *o = json_object_new_object();
        json_object_object_add(o, "ok", json_object_new_boolean(!status));
        json_object_object_add(o, "checks", json_object_get(d->findings));
        fc_out_json(c->out, o);
        json_object_put(o);
    } else {
        fprintf(c->out, "%u fault%s\n", d->faults, d->faults == 1 ? "" : "s");
    }
    json_object_put(d->findings);
    json_object_put(d->guest);
    free(d);
    return status;
}
