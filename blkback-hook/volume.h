/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_VOLUME_H
#define FC_VOLUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A block device or regular file that holds a disk's bytes (or a map). I/O goes
 * through the page cache, so buffers, offsets and lengths need no alignment and
 * nothing is bounced; zero and trim write the edges that do not fill a sector.
 * Zeros are kept as holes where the volume can have them.
 *
 * Read, write, zero, trim, sync and data may come from many threads at once.
 * Errors: FC_EIO with errno; nothing is logged here.
 */
struct fc_volume_ops {
    /* All of them, or FC_EIO. A read past a file's end gives FC_EIO, EIO. */
    int (*read)(void *user, void *buf, size_t len, uint64_t offset);
    int (*write)(void *user, const void *buf, size_t len, uint64_t offset);
    /* `punch`: give the space back if that leaves zeros. */
    int (*zero)(void *user, uint64_t offset, uint64_t len, bool punch);
    /* The contents may become anything. */
    int (*trim)(void *user, uint64_t offset, uint64_t len);
    int (*sync)(void *user);
    /* As fc_volume_data; NULL: all is data. */
    int (*data)(void *user, uint64_t offset, uint64_t end, uint64_t *from_r,
                uint64_t *to_r);
    void (*close)(void *user);
};

struct fc_volume {
    const struct fc_volume_ops *ops;
    void *user;
    uint64_t size_bytes;
    bool is_device;
};

enum fc_volume_flags {
    FC_VOLUME_READ_ONLY = 1,
    FC_VOLUME_CREATE = 2, /* a file that is not there is made, mode 0600 */
};

/*
 * Opens a block device or a regular file (symbolic links are followed), nothing
 * else. 0; FC_ESYS or FC_ENOMEM with errno; FC_EINVAL for another kind of file.
 */
int fc_volume_open(const char *path, unsigned flags, struct fc_volume **v_r);

/* One over other ops (tests); `user` is closed by ops->close. */
int fc_volume_new(const struct fc_volume_ops *ops, void *user,
                  uint64_t size_bytes, struct fc_volume **v_r);

void fc_volume_close(struct fc_volume *v); /* NULL is fine */

int fc_volume_read(struct fc_volume *v, void *buf, size_t len, uint64_t offset);
int fc_volume_write(struct fc_volume *v, const void *buf, size_t len,
                    uint64_t offset);
int fc_volume_zero(struct fc_volume *v, uint64_t offset, uint64_t len,
                   bool punch);
int fc_volume_trim(struct fc_volume *v, uint64_t offset, uint64_t len);
int fc_volume_sync(struct fc_volume *v);

/*
 * The first stretch of data within [offset, end): [*from_r, *to_r); both are
 * `end` when all of it is known to read as zeros.
 */
int fc_volume_data(struct fc_volume *v, uint64_t offset, uint64_t end,
                   uint64_t *from_r, uint64_t *to_r);

#endif
