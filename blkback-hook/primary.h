/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PRIMARY_H
#define FC_PRIMARY_H

#include <stddef.h>
#include <stdint.h>

/*
 * Where the blocks are that a shadow does not have: the other host's engine
 * over the block channel, an NBD server, or a shared volume.
 *
 * Every call may come from many threads at once. Offsets and lengths are bytes
 * within the disk's size: whole blocks where the shadow keeps what it reads,
 * as the guest asked otherwise. A call covers at most 1 MiB.
 *
 * Errors: FC_EPEER means "unreachable now". The shadow then holds the guest's
 * request and asks again after fc_shadow_primary_up. Every other error is taken
 * for the primary's last word on that request and reaches the guest.
 */
struct fc_primary_ops {
    /*
     * Reads exactly `len` bytes; blocks until they are there or the primary
     * is found unreachable. The shadow holds no lock of its own meanwhile, so
     * the same block may be handed to fc_shadow_put before this returns.
     */
    int (*read)(void *user, uint64_t offset, void *buf, size_t len);

    /*
     * Only where the shadow is a cache of it (NULL otherwise). zero and trim
     * leave zeros behind (trim: zeros or what was there, as the volume does).
     */
    int (*write)(void *user, uint64_t offset, const void *buf, size_t len);
    int (*zero)(void *user, uint64_t offset, uint64_t len);
    int (*trim)(void *user, uint64_t offset, uint64_t len);
    int (*flush)(void *user);

    /*
     * A primary that pushes its blocks by itself: asks for these to come
     * next, without waiting. With it, hydration pulls nothing by `read`.
     * NULL for one that only answers.
     */
    void (*want)(void *user, uint32_t block, uint32_t count);

    /*
     * A descriptor opened with O_DIRECT that libaio can read the primary
     * through at the disk's own offsets, or -1; NULL stands for -1.
     */
    int (*aio_fd)(void *user);

    /*
     * Makes blocked and later calls return FC_EPEER at once: the engine ends.
     * NULL when no call blocks for long.
     */
    void (*cancel)(void *user);
};

#endif
