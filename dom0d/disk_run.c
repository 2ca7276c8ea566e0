/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files of a disk in the run directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_engine.h"
#include "err.h"

void fc_disk_run_path(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *leaf,
                      char out[FC_DISK_PATH])
{
    char name[FC_DISK_ID_TEXT];
    fc_disk_id_format(id, name);
    snprintf(out, FC_DISK_PATH, "%s/%s%s%s", env->run_dir, name,
             *leaf ? "/" : "", leaf);
}

int fc_disk_run_make(const struct fc_disk_env *env, const struct fc_disk_id *id)
{
    char path[FC_DISK_PATH];
    if (mkdir(env->run_dir, 0700) < 0 && errno != EEXIST)
        return FC_ESYS;
    fc_disk_run_path(env, id, "", path);
    return mkdir(path, 0700) < 0 && errno != EEXIST ? FC_ESYS : 0;
}

int fc_disk_run_read(const struct fc_disk_env *env, const struct fc_disk_id *id,
                     const char *leaf, char out[FC_DISK_PATH])
{
    char path[FC_DISK_PATH];
    fc_disk_run_path(env, id, leaf, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? FC_ENOENT : FC_EIO;
    ssize_t n = read(fd, out, FC_DISK_PATH - 1);
    fc_close(&fd);
    if (n < 0)
        return FC_EIO;
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return *out ? 0 : FC_ENOENT;
}

int fc_disk_run_write(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *leaf,
                      const char *text)
{
    char path[FC_DISK_PATH], fresh[FC_DISK_PATH + 8];
    fc_disk_run_path(env, id, leaf, path);
    if (!text)
        return unlink(path) < 0 && errno != ENOENT ? FC_ESYS : 0;
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return FC_ESYS;
    int rc = fc_write_all(fd, text, strlen(text));
    if (!rc)
        rc = fc_write_all(fd, "\n", 1);
    fc_close(&fd);
    return rc || rename(fresh, path) < 0 ? FC_ESYS : 0;
}

bool fc_disk_run_uses(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *volume)
{
    char target[FC_DISK_PATH];
    bool uses = false;
    DIR *dir = opendir(env->run_dir);
    const struct dirent *entry;
    while (dir && !uses && (entry = readdir(dir))) {
        struct fc_disk_id other;
        uses = !fc_disk_id_parse(entry->d_name, &other) &&
               !fc_disk_id_equal(&other, id) &&
               !fc_disk_run_read(env, &other, "target", target) &&
               !strcmp(target, volume);
    }
    if (dir)
        closedir(dir);
    return uses;
}

void fc_disk_dm_name(const struct fc_disk_id *id, char out[FC_DISK_DM])
{
    char name[FC_DISK_ID_TEXT];
    fc_disk_id_format(id, name);
    snprintf(out, FC_DISK_DM, "forecopy-%s", name);
}
