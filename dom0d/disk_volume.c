/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"

int fc_volume_look(const char *path, struct fc_volume_look *look)
{
    struct stat st;
    *look = (struct fc_volume_look){ FC_VOLUME_NONE, 0 };
    if (stat(path, &st) < 0)
        return errno == ENOENT ? 0 : FC_EIO;
    if (S_ISREG(st.st_mode)) {
        look->kind = FC_VOLUME_FILE;
        look->size = (uint64_t)st.st_size;
        return 0;
    }
    if (!S_ISBLK(st.st_mode)) {
        look->kind = FC_VOLUME_OTHER;
        return 0;
    }
    look->kind = FC_VOLUME_BLOCK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int r = fd < 0 ? -1 : ioctl(fd, BLKGETSIZE64, &look->size);
    fc_close(&fd);
    return r < 0 ? FC_EIO : 0;
}

int fc_volume_check(const char *path, const struct fc_volume_look *look,
                    uint64_t size, bool ours, bool overwrite, bool *make_r,
                    char *text, size_t cap)
{
    *make_r = look->kind == FC_VOLUME_NONE;
    if (*make_r) {
        if (!strncmp(path, "/dev/", 5) &&
            !fc_volume_is_lv(path, NULL, NULL, 0)) {
            snprintf(text, cap, "there is no device %.300s", path);
            return FC_EINVAL;
        }
        snprintf(text, cap, "%.300s is created", path);
        return 0;
    }
    if (look->kind == FC_VOLUME_OTHER) {
        snprintf(text, cap, "%.300s is neither a file nor a block device",
                 path);
        return FC_EINVAL;
    }
    /* The guest's disk must not change its size under it: the tables must
     * match. */
    if (look->size != size) {
        snprintf(text, cap, "%.300s has %llu bytes and the guest's disk %llu",
                 path, (unsigned long long)look->size,
                 (unsigned long long)size);
        return FC_EINVAL;
    }
    if (!ours && !overwrite) {
        snprintf(text, cap,
                 "%.300s is there and not known as a copy of this disk; "
                 "--overwrite-disk would overwrite it",
                 path);
        return FC_EPERM;
    }
    snprintf(text, cap,
             ours ? "%.300s is there, ours" : "%.300s is there, is overwritten",
             path);
    return 0;
}

static bool lv_part(const char *from, size_t len, char *to, size_t cap)
{
    if (!len || len >= 128 || from[0] == '-' || from[0] == '.' ||
        strspn(from, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789._+-") < len)
        return false;
    if (!to)
        return true;
    if (len >= cap)
        return false;
    memcpy(to, from, len);
    to[len] = '\0';
    return true;
}

bool fc_volume_is_lv(const char *path, char *group, char *name, size_t cap)
{
    if (strncmp(path, "/dev/", 5))
        return false;
    const char *first = path + 5, *slash = strchr(first, '/');
    if (!slash || strchr(slash + 1, '/') || !strncmp(first, "mapper/", 7))
        return false;
    return lv_part(first, (size_t)(slash - first), group, cap) &&
           lv_part(slash + 1, strlen(slash + 1), name, cap);
}

int fc_volume_make_file(const char *path, uint64_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return FC_ESYS;
    int rc = ftruncate(fd, (off_t)size) < 0 || fsync(fd) < 0 ? FC_ESYS : 0;
    fc_close(&fd);
    if (rc) {
        int saved = errno;
        unlink(path);
        errno = saved;
    }
    return rc;
}
