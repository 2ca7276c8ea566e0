/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "direct.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "io.h"

#define MEMORY_ALIGN 4096u /* no device asks for more */
#define BOUNCE_BYTES 262144u

void fc_direct_init(struct fc_direct *d, int fd, uint32_t sector,
                    uint64_t size_bytes)
{
    d->fd = fd;
    d->sector = sector;
    d->size_bytes = size_bytes;
    pthread_mutex_init(&d->edge, NULL);
}

void fc_direct_dispose(struct fc_direct *d)
{
    pthread_mutex_destroy(&d->edge);
}

static bool is_aligned(const struct fc_direct *d, const void *buf, size_t len,
                       uint64_t offset)
{
    return !(((uint64_t)len | offset) & (d->sector - 1)) &&
           !((uintptr_t)buf & (MEMORY_ALIGN - 1));
}

static bool in_range(const struct fc_direct *d, size_t len, uint64_t offset,
                     int error)
{
    if (offset <= d->size_bytes && len <= d->size_bytes - offset)
        return true;
    errno = error;
    return false;
}

/*
 * The sectors that the next piece of [offset, offset + len) touches, no more
 * than the bounce buffer holds; returns how many of the bytes asked for are in
 * them.
 */
static size_t next_piece(const struct fc_direct *d, uint64_t offset, size_t len,
                         uint64_t *from_r, size_t *bytes_r)
{
    uint64_t mask = (uint64_t)d->sector - 1;
    uint64_t from = offset & ~mask, to = (offset + len + mask) & ~mask;

    if (to - from > BOUNCE_BYTES)
        to = from + BOUNCE_BYTES;
    *from_r = from;
    *bytes_r = (size_t)(to - from);
    uint64_t end = offset + len < to ? offset + len : to;
    return (size_t)(end - offset);
}

static uint8_t *bounce_new(const struct fc_direct *d, size_t len)
{
    size_t most = len + 2 * (size_t)d->sector;
    size_t bytes = most < BOUNCE_BYTES ? most : BOUNCE_BYTES;
    return aligned_alloc(MEMORY_ALIGN, (bytes + MEMORY_ALIGN - 1) &
                                           ~((size_t)MEMORY_ALIGN - 1));
}

int fc_direct_read(struct fc_direct *d, void *buf, size_t len, uint64_t offset)
{
    uint8_t *p = buf;
    int rc = 0;

    if (!in_range(d, len, offset, EIO))
        return FC_EIO;
    if (is_aligned(d, buf, len, offset))
        return fc_pread_all(d->fd, p, len, offset);
    uint8_t *bounce = bounce_new(d, len);
    if (!bounce)
        return FC_ENOMEM;
    while (len && !rc) {
        uint64_t from;
        size_t bytes, n = next_piece(d, offset, len, &from, &bytes);
        rc = fc_pread_all(d->fd, bounce, bytes, from);
        if (!rc)
            memcpy(p, bounce + (offset - from), n);
        p += n;
        len -= n;
        offset += n;
    }
    free(bounce);
    return rc;
}

/* One piece by way of the bounce buffer. */
static int write_piece(struct fc_direct *d, uint8_t *bounce, const uint8_t *p,
                       size_t n, uint64_t offset, uint64_t from, size_t bytes)
{
    bool edges = bytes != n;
    int rc = 0;

    if (edges) {
        pthread_mutex_lock(&d->edge);
        rc = fc_pread_all(d->fd, bounce, d->sector, from);
        if (!rc && bytes > d->sector)
            rc = fc_pread_all(d->fd, bounce + bytes - d->sector, d->sector,
                              from + bytes - d->sector);
    }
    if (!rc) {
        memcpy(bounce + (offset - from), p, n);
        rc = fc_pwrite_all(d->fd, bounce, bytes, from);
    }
    if (edges)
        pthread_mutex_unlock(&d->edge);
    return rc;
}

int fc_direct_write(struct fc_direct *d, const void *buf, size_t len,
                    uint64_t offset)
{
    const uint8_t *p = buf;
    int rc = 0;

    if (!in_range(d, len, offset, ENOSPC))
        return FC_EIO;
    if (is_aligned(d, buf, len, offset))
        return fc_pwrite_all(d->fd, p, len, offset);
    uint8_t *bounce = bounce_new(d, len);
    if (!bounce)
        return FC_ENOMEM;
    while (len && !rc) {
        uint64_t from;
        size_t bytes, n = next_piece(d, offset, len, &from, &bytes);
        rc = write_piece(d, bounce, p, n, offset, from, bytes);
        p += n;
        len -= n;
        offset += n;
    }
    free(bounce);
    return rc;
}
