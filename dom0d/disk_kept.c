/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "log.h"

#define SUFFIX ".serving"

static void kept_path(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *more,
                      char out[FC_DISK_PATH])
{
    char name[FC_DISK_ID_TEXT];
    fc_disk_id_format(id, name);
    snprintf(out, FC_DISK_PATH, "%s/%s" SUFFIX "%s", env->state_dir, name,
             more);
}

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? -1 : fsync(fd);
    fc_close(&fd);
    return r < 0 ? FC_ESYS : 0;
}

int fc_disk_kept_put(const struct fc_disk_env *env, const struct fc_disk_id *id)
{
    char text[FC_DISK_PATH], path[FC_DISK_PATH], fresh[FC_DISK_PATH];
    int rc = fc_disk_run_read(env, id, "state.json", text);
    if (rc)
        return FC_ESYS;
    kept_path(env, id, "", path);
    kept_path(env, id, ".new", fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return FC_ESYS;
    rc = fc_write_all(fd, text, strlen(text)) || fsync(fd) < 0 ? FC_ESYS : 0;
    fc_close(&fd);
    if (!rc && rename(fresh, path) < 0)
        rc = FC_ESYS;
    return rc ? rc : sync_dir(env->state_dir);
}

void fc_disk_kept_drop(const struct fc_disk_env *env,
                       const struct fc_disk_id *id)
{
    char path[FC_DISK_PATH];
    kept_path(env, id, "", path);
    if (unlink(path) < 0 && errno != ENOENT)
        fc_warn("%s: %s", path, strerror(errno));
}

static bool is_passed(struct fc_lease_db *leases, const struct fc_disk_id *id,
                      struct json_object *state)
{
    uint8_t migration[FC_MIGRATION_BYTES];
    struct fc_lease lease;
    return !fc_hex_parse(fc_json_str(state, "migration", ""), migration,
                         sizeof(migration)) &&
           !fc_lease_get(leases, id, &lease) &&
           lease.state == FC_LEASE_PASSED &&
           !memcmp(lease.migration, migration, sizeof(migration));
}

/* Neither nbd nor loop devices outlive a reboot. */
static int write_state(const struct fc_disk_env *env,
                       const struct fc_disk_id *id, struct json_object *state)
{
    const char *target = fc_json_str(state, "target", "");
    struct stat st;
    json_object_object_add(state, "device", json_object_new_string(""));
    if (!stat(target, &st) && S_ISREG(st.st_mode))
        json_object_object_add(state, "volume", json_object_new_string(target));
    int rc = fc_disk_run_make(env, id);
    if (!rc)
        rc =
            fc_disk_run_write(env, id, "hold", fc_json_str(state, "host", "?"));
    if (!rc)
        rc = fc_disk_run_write(env, id, "state.json",
                               json_object_to_json_string_ext(
                                   state, JSON_C_TO_STRING_PLAIN |
                                              JSON_C_TO_STRING_NOSLASHESCAPE));
    return rc;
}

static void restore(const struct fc_disk_env *env, struct fc_lease_db *leases,
                    const struct fc_disk_id *id)
{
    char path[FC_DISK_PATH], text[FC_DISK_PATH], name[FC_DISK_ID_TEXT];
    struct json_object *state = NULL;
    if (!fc_disk_run_read(env, id, "state.json", text) ||
        !fc_disk_run_read(env, id, "target", text))
        return; /* this host was not booted since */
    fc_disk_id_format(id, name);
    kept_path(env, id, "", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    fc_close(&fd);
    if (n > 0 && (size_t)n < sizeof(text))
        state = fc_ctl_parse(text, (size_t)n, NULL);
    if (!state || !is_passed(leases, id, state)) {
        fc_warn("%s: no lease bears it out; it is dropped", path);
        fc_disk_kept_drop(env, id);
    } else if (write_state(env, id, state)) {
        fc_error("%s: serving it cannot be taken up again: %s", name,
                 strerror(errno));
    } else {
        fc_info("%s: serving it is taken up again after a reboot", name);
    }
    json_object_put(state);
}

void fc_disk_kept_restore(const struct fc_disk_env *env,
                          struct fc_lease_db *leases)
{
    DIR *dir = opendir(env->state_dir);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char name[FC_DISK_ID_TEXT];
        struct fc_disk_id id;
        size_t len = strlen(entry->d_name), end = strlen(SUFFIX);
        if (len <= end || len - end >= sizeof(name) ||
            strcmp(entry->d_name + len - end, SUFFIX))
            continue;
        memcpy(name, entry->d_name, len - end);
        name[len - end] = '\0';
        if (!fc_disk_id_parse(name, &id))
            restore(env, leases, &id);
    }
    if (dir)
        closedir(dir);
}
