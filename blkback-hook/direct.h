/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DIRECT_H
#define FC_DIRECT_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Reading and writing a descriptor opened with O_DIRECT at any offset, from
 * and to any memory. What is aligned goes as it is; the rest through a bounce
 * buffer, and a write that begins or ends inside a sector reads that sector
 * first. Such writes exclude each other, so two of them may share a sector.
 */
struct fc_direct {
    int fd;
    uint32_t sector;      /* bytes, a power of two, at most 4096 */
    uint64_t size_bytes;  /* a multiple of the sector */
    pthread_mutex_t edge; /* sectors that are read, changed and written */
};

void fc_direct_init(struct fc_direct *d, int fd, uint32_t sector,
                    uint64_t size_bytes);
void fc_direct_dispose(struct fc_direct *d); /* fd stays open */

/* Any number of threads. 0; FC_EIO with errno (EIO, ENOSPC: past the end);
 * FC_ENOMEM. */
int fc_direct_read(struct fc_direct *d, void *buf, size_t len, uint64_t offset);
int fc_direct_write(struct fc_direct *d, const void *buf, size_t len,
                    uint64_t offset);

#endif
