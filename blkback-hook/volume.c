/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "direct.h"
#include "err.h"
#include "io.h"

/* What zeros are written from where the volume cannot make them itself. */
#define ZEROS_BYTES 65536u
static const uint8_t zeros[ZEROS_BYTES];

struct file {
    int fd;
    bool is_device;
    uint32_t sector;         /* device: its logical block size */
    struct fc_direct direct; /* of a device */
};

static int file_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct file *f = user;

    return f->is_device ? fc_direct_read(&f->direct, buf, len, offset)
                        : fc_pread_all(f->fd, buf, len, offset);
}

static int file_write(void *user, const void *buf, size_t len, uint64_t offset)
{
    struct file *f = user;

    return f->is_device ? fc_direct_write(&f->direct, buf, len, offset)
                        : fc_pwrite_all(f->fd, buf, len, offset);
}

static int write_zeros(struct file *f, uint64_t offset, uint64_t len)
{
    while (len) {
        size_t n = len < ZEROS_BYTES ? (size_t)len : ZEROS_BYTES;
        int rc = file_write(f, zeros, n, offset);
        if (rc)
            return rc;
        offset += n;
        len -= n;
    }
    return 0;
}

static int fallocate_retry(int fd, int mode, uint64_t offset, uint64_t len)
{
    int r;

    do
        r = fallocate(fd, mode, (off_t)offset, (off_t)len);
    while (r && errno == EINTR);
    return r;
}

/* Whole sectors made zero by the volume itself; false: it cannot. */
static bool zero_sectors(const struct file *f, uint64_t offset, uint64_t len,
                         bool punch)
{
    if (punch &&
        !fallocate_retry(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         offset, len))
        return true;
    if (f->is_device) {
        uint64_t range[2] = { offset, len };
        return !ioctl(f->fd, BLKZEROOUT, range);
    }
    return !fallocate_retry(f->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                            offset, len);
}

/* The sectors that lie whole within a range; false: there are none. */
static bool whole_sectors(const struct file *f, uint64_t offset, uint64_t len,
                          uint64_t *from_r, uint64_t *to_r)
{
    uint64_t mask = (uint64_t)f->sector - 1;

    *from_r = (offset + mask) & ~mask;
    *to_r = (offset + len) & ~mask;
    return *from_r < *to_r;
}

static int file_zero(void *user, uint64_t offset, uint64_t len, bool punch)
{
    struct file *f = user;
    uint64_t from, to;

    if (!whole_sectors(f, offset, len, &from, &to) ||
        !zero_sectors(f, from, to - from, punch))
        return write_zeros(f, offset, len);
    int rc = write_zeros(f, offset, from - offset);
    return rc ? rc : write_zeros(f, to, offset + len - to);
}

/* A volume that cannot is left as it is: trim promises nothing. */
static int file_trim(void *user, uint64_t offset, uint64_t len)
{
    const struct file *f = user;
    uint64_t from, to;

    if (!whole_sectors(f, offset, len, &from, &to))
        return 0;
    uint64_t range[2] = { from, to - from };
    int r =
        f->is_device
            ? ioctl(f->fd, BLKDISCARD, range)
            : fallocate_retry(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              from, to - from);
    return r && errno == EIO ? FC_EIO : 0;
}

static int file_sync(void *user)
{
    const struct file *f = user;

    return fdatasync(f->fd) ? FC_EIO : 0;
}

static int file_data(void *user, uint64_t offset, uint64_t end,
                     uint64_t *from_r, uint64_t *to_r)
{
    const struct file *f = user;
    off_t from = (off_t)offset, to = (off_t)end;

    if (!f->is_device) {
        from = lseek(f->fd, (off_t)offset, SEEK_DATA);
        if (from < 0 && errno == ENXIO)
            from = (off_t)end;
        else if (from < 0)
            from = (off_t)offset; /* a file system that cannot say */
        to = from < (off_t)end ? lseek(f->fd, from, SEEK_HOLE) : (off_t)end;
    }
    *from_r = (uint64_t)from < end ? (uint64_t)from : end;
    *to_r = to >= 0 && (uint64_t)to < end ? (uint64_t)to : end;
    return 0;
}

static void file_close(void *user)
{
    struct file *f = user;

    if (f->is_device)
        fc_direct_dispose(&f->direct);
    fc_close(&f->fd);
    free(f);
}

static const struct fc_volume_ops file_ops = {
    .read = file_read,
    .write = file_write,
    .zero = file_zero,
    .trim = file_trim,
    .sync = file_sync,
    .data = file_data,
    .close = file_close,
};

/* Kind, size and sector of what was opened. */
static int file_measure(struct file *f, uint64_t *size_r)
{
    struct stat st;

    if (fstat(f->fd, &st))
        return FC_ESYS;
    f->sector = 512;
    if (S_ISREG(st.st_mode)) {
        *size_r = (uint64_t)st.st_size;
        return 0;
    }
    if (!S_ISBLK(st.st_mode))
        return FC_EINVAL;
    int sector, flags = fcntl(f->fd, F_GETFL);
    if (ioctl(f->fd, BLKGETSIZE64, size_r) ||
        ioctl(f->fd, BLKSSZGET, &sector) || flags < 0 ||
        fcntl(f->fd, F_SETFL, flags | O_DIRECT))
        return FC_ESYS;
    f->sector = (uint32_t)sector;
    f->is_device = true;
    fc_direct_init(&f->direct, f->fd, f->sector, *size_r);
    return 0;
}

int fc_volume_open(const char *path, unsigned flags, struct fc_volume **v_r)
{
    int mode = flags & FC_VOLUME_READ_ONLY ? O_RDONLY : O_RDWR;
    struct file *f = calloc(1, sizeof(*f));
    uint64_t size = 0;

    if (!f)
        return FC_ENOMEM;
    if (flags & FC_VOLUME_CREATE)
        mode |= O_CREAT;
    /* O_NONBLOCK: no wait for a writer if it is a fifo; it is refused below */
    f->fd = open(path, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    int rc = f->fd < 0 ? FC_ESYS : file_measure(f, &size);
    if (!rc)
        rc = fc_volume_new(&file_ops, f, size, v_r);
    if (rc) {
        file_close(f);
        return rc;
    }
    (*v_r)->is_device = f->is_device;
    return 0;
}

int fc_volume_new(const struct fc_volume_ops *ops, void *user,
                  uint64_t size_bytes, struct fc_volume **v_r)
{
    struct fc_volume *v = calloc(1, sizeof(*v));

    if (!v)
        return FC_ENOMEM;
    v->ops = ops;
    v->user = user;
    v->size_bytes = size_bytes;
    *v_r = v;
    return 0;
}

void fc_volume_close(struct fc_volume *v)
{
    if (!v)
        return;
    v->ops->close(v->user);
    free(v);
}

int fc_volume_read(struct fc_volume *v, void *buf, size_t len, uint64_t offset)
{
    return v->ops->read(v->user, buf, len, offset);
}

int fc_volume_write(struct fc_volume *v, const void *buf, size_t len,
                    uint64_t offset)
{
    return v->ops->write(v->user, buf, len, offset);
}

int fc_volume_zero(struct fc_volume *v, uint64_t offset, uint64_t len,
                   bool punch)
{
    return v->ops->zero(v->user, offset, len, punch);
}

int fc_volume_trim(struct fc_volume *v, uint64_t offset, uint64_t len)
{
    return v->ops->trim(v->user, offset, len);
}

int fc_volume_sync(struct fc_volume *v)
{
    return v->ops->sync(v->user);
}

int fc_volume_data(struct fc_volume *v, uint64_t offset, uint64_t end,
                   uint64_t *from_r, uint64_t *to_r)
{
    if (v->ops->data)
        return v->ops->data(v->user, offset, end, from_r, to_r);
    *from_r = offset;
    *to_r = end;
    return 0;
}
