/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "primary_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "volume.h"

struct fc_primary_file {
    struct fc_volume *volume;
    int direct_fd; /* -1: the file system has no O_DIRECT */
    atomic_bool failing;
};

int fc_primary_file_open(const char *path, struct fc_primary_file **p_r)
{
    struct fc_primary_file *p = calloc(1, sizeof(*p));

    if (!p)
        return FC_ENOMEM;
    p->direct_fd = -1;
    int rc = fc_volume_open(path, 0, &p->volume);
    if (rc) {
        free(p);
        return rc;
    }
    p->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && p->volume->is_device)
        ioctl(fd, BLKFLSBUF, 0);
    else if (fd >= 0)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    fc_close(&fd);
    *p_r = p;
    return 0;
}

void fc_primary_file_close(struct fc_primary_file *p)
{
    if (!p)
        return;
    fc_volume_close(p->volume);
    fc_close(&p->direct_fd);
    free(p);
}

uint64_t fc_primary_file_size(const struct fc_primary_file *p)
{
    return p->volume->size_bytes;
}

/* Says it once until it works again. */
static int answer(struct fc_primary_file *p, int rc, const char *doing)
{
    int err = errno;

    if (!rc) {
        atomic_store(&p->failing, false);
        return 0;
    }
    if (!atomic_exchange(&p->failing, true))
        fc_error("primary: %s: %s; held until it works", doing, strerror(err));
    return FC_EPEER;
}

static int file_read(void *user, uint64_t offset, void *buf, size_t len)
{
    struct fc_primary_file *p = user;

    return answer(p, fc_volume_read(p->volume, buf, len, offset), "reading");
}

static int file_write(void *user, uint64_t offset, const void *buf, size_t len)
{
    struct fc_primary_file *p = user;

    return answer(p, fc_volume_write(p->volume, buf, len, offset), "writing");
}

static int file_zero(void *user, uint64_t offset, uint64_t len)
{
    struct fc_primary_file *p = user;

    return answer(p, fc_volume_zero(p->volume, offset, len, true), "zeroing");
}

static int file_trim(void *user, uint64_t offset, uint64_t len)
{
    struct fc_primary_file *p = user;

    return answer(p, fc_volume_trim(p->volume, offset, len), "trimming");
}

static int file_flush(void *user)
{
    struct fc_primary_file *p = user;

    return answer(p, fc_volume_sync(p->volume), "making it durable");
}

static int file_aio_fd(void *user)
{
    const struct fc_primary_file *p = user;

    return p->direct_fd;
}

const struct fc_primary_ops fc_primary_file_ops = {
    .read = file_read,
    .write = file_write,
    .zero = file_zero,
    .trim = file_trim,
    .flush = file_flush,
    .aio_fd = file_aio_fd,
};
