/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "client_remote.h"
#include "ctl.h"
#include "err.h"

#define REMOTE_MS 110000u
#define WORDS "forecopy disk-prepare"
#define STATUS_NOT_FOUND 127
#define STATUS_USAGE 2 /* a forecopy that does not know the word */
#define STATUS_SSH 255

struct asking {
    struct fc_disk_job *job;
    void (*done)(void *user, int rc, struct json_object *reply,
                 const char *why);
};

static void add_text(struct json_object *o, const char *key, const char *text)
{
    json_object_object_add(o, key, json_object_new_string(text));
}

struct json_object *fc_disk_remote_request(const struct fc_disk_job *job)
{
    struct json_object *o = json_object_new_object();
    struct json_object *list = json_object_new_array();
    char uuid[FC_UUID_TEXT], hex[FC_MIGRATION_TEXT];
    fc_uuid_format(job->args.uuid, uuid);
    fc_hex_format(job->migration, FC_MIGRATION_BYTES, hex);
    add_text(o, "uuid", uuid);
    add_text(o, "name", job->args.name);
    add_text(o, "migration", hex);
    json_object_object_add(o, "warm", json_object_new_boolean(job->args.warm));
    json_object_object_add(o, "dry_run",
                           json_object_new_boolean(job->args.dry_run));
    for (unsigned i = 0; i < job->count; i++) {
        const struct disk *d = &job->disk[i];
        struct json_object *one = json_object_new_object();
        add_text(one, "vdev", d->id.vdev);
        add_text(one, "target", d->target);
        if (*job->args.template_)
            add_text(one, "template", job->args.template_);
        json_object_object_add(one, "size",
                               json_object_new_int64((int64_t)d->size));
        json_object_object_add(one, "block_bytes",
                               json_object_new_int64(job->args.block_bytes));
        json_object_object_add(one, "epoch",
                               json_object_new_int64((int64_t)d->epoch));
        json_object_object_add(one, "overwrite",
                               json_object_new_boolean(job->args.overwrite));
        json_object_array_add(list, one);
    }
    json_object_object_add(o, "disks", list);
    return o;
}

/* The first line that is a JSON object; a login script may print others. */
static struct json_object *find_reply(const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        struct json_object *o =
            text[0] == '{' ? fc_ctl_parse(text, len, NULL) : NULL;
        if (o)
            return o;
        text += len + (text[len] == '\n');
    }
    return NULL;
}

static void explain(const struct fc_disk_job *job, int rc, int status,
                    struct json_object *reply, const char *err,
                    char why[FC_JOB_WHY])
{
    const char *host = job->args.host;
    const char *error = fc_json_str(reply, "error", NULL);
    char line[200];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    fc_task_last_line(error ? error : err, line, sizeof(line));
    if (error)
        snprintf(why, FC_JOB_WHY, "%.150s: %s", host, line);
    else if (rc == FC_ETIMEOUT)
        snprintf(why, FC_JOB_WHY, "%s did not answer in time", host);
    else if (code == STATUS_NOT_FOUND || code == STATUS_USAGE)
        snprintf(why, FC_JOB_WHY, "%s has no forecopy that takes disks", host);
    else if (code == STATUS_SSH)
        snprintf(why, FC_JOB_WHY, "%.150s cannot be reached: %s", host, line);
    else
        snprintf(why, FC_JOB_WHY, "forecopy at %.150s failed: %s", host, line);
}

static void on_done(void *user, int rc, int status, const char *out,
                    const char *err)
{
    struct asking a = *(struct asking *)user;
    char why[FC_JOB_WHY] = "";
    struct json_object *reply = find_reply(out);
    free(user);
    if (!rc && !fc_json_bool(reply, "ok", 0))
        rc = FC_EPEER;
    if (rc)
        explain(a.job, rc, status, reply, err, why);
    a.job->remote_user = NULL;
    a.done(a.job, rc, reply, why);
    json_object_put(reply);
}

int fc_disk_remote_ask(struct fc_disk_job *job, struct json_object *request,
                       void (*done)(void *user, int rc,
                                    struct json_object *reply, const char *why))
{
    const struct fc_disk_env *env = job->args.env;
    char command[FC_REMOTE_COMMAND];
    const char *argv[] = { "sh", "-c", command, NULL };
    struct fc_remote remote;
    size_t len;
    struct asking *a = calloc(1, sizeof(*a));
    char *line = fc_ctl_line(request, FC_CTL_MAX_LINE, &len);
    json_object_put(request);
    fc_remote_init(&remote);
    int rc = a && line ? fc_remote_use(&remote, job->args.command) : FC_ENOMEM;
    if (!rc)
        rc = fc_remote_command(&remote, job->args.host, WORDS, command);
    if (!rc) {
        *a = (struct asking){ job, done };
        rc = fc_task_run(env->base, env->children, argv, line, REMOTE_MS,
                         on_done, a, &job->remote);
    }
    if (rc)
        free(a);
    else
        job->remote_user = a;
    free(line);
    return rc;
}

void fc_disk_remote_volumes(struct fc_disk_job *job, struct json_object *reply)
{
    struct json_object *list = NULL;
    if (!json_object_object_get_ex(reply, "disks", &list) ||
        !json_object_is_type(list, json_type_array))
        return;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        for (unsigned k = 0; k < job->count; k++)
            if (!strcmp(fc_json_str(o, "vdev", ""), job->disk[k].id.vdev))
                fc_task_last_line(fc_json_str(o, "volume", ""),
                                  job->disk[k].there,
                                  sizeof(job->disk[k].there));
    }
}
