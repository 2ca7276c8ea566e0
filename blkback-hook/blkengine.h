/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLKENGINE_H
#define FC_BLKENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "feed.h"
#include "primary_file.h"
#include "primary_nbd.h"
#include "ranges.h"
#include "shadow.h"
#include "sink.h"
#include "source.h"

/*
 * One disk's engine, of any role: what nbdkit's requests and the control socket
 * meet in. Opened as root before nbdkit drops its privileges, started after it
 * forked.
 */
enum fc_blkengine_role { FC_ENGINE_SOURCE, FC_ENGINE_SHADOW, FC_ENGINE_CACHE };

struct fc_blkengine_config {
    enum fc_blkengine_role role;
    const char *volume, *map, *control; /* paths; map: not for a source */
    const char *primary; /* cache: an NBD URI, or a path from / on */
    uint8_t uuid[FC_UUID_BYTES];
    char vdev[FC_VDEV_BYTES];
    uint32_t block_bytes;
    uint64_t size;         /* 0: the volume's */
    uint64_t budget_bytes; /* cache */
    bool owner;            /* shadow: owned already, without a hand-over */
};

struct fc_blkengine_ctl;

struct fc_blkengine {
    struct fc_blkengine_config config;
    uint64_t size;
    struct fc_source *source; /* source */
    struct fc_feed *feed;
    struct fc_shadow *shadow;       /* shadow, cache */
    struct fc_sink *sink;           /* shadow */
    struct fc_primary_nbd *primary; /* cache of an NBD server */
    struct fc_primary_file *shared; /* cache of a path */
    struct fc_blkengine_ctl *ctl;
    /* when the guest asked for something of each range (ranges.h) last, in
     * seconds of 1970; 0: not since the engine was started */
    uint64_t range_bytes;
    atomic_ullong used_s[FC_RANGES_MAX];
};

/* "source", "shadow" or "cache" to a role, or negative; and back. */
int fc_blkengine_role_parse(const char *name);
const char *fc_blkengine_role_name(enum fc_blkengine_role role);

/*
 * Opens volume, map and control socket. The config's strings must stay. 0, or
 * an error that was logged.
 */
int fc_blkengine_open(const struct fc_blkengine_config *config,
                      struct fc_blkengine *e);
/* Starts threads. 0 or an error that was logged. */
int fc_blkengine_start(struct fc_blkengine *e);
/* Ends every wait and thread, makes all durable. No request may be running. */
void fc_blkengine_close(struct fc_blkengine *e);
/* Held requests end with FC_ECANCEL. */
void fc_blkengine_cancel(struct fc_blkengine *e);
/* Requests that are held back now. */
uint32_t fc_blkengine_held(struct fc_blkengine *e);

/* The guest's requests; results as in source.h and shadow.h. */
int fc_blkengine_read(struct fc_blkengine *e, uint64_t offset, void *buf,
                      size_t len);
int fc_blkengine_write(struct fc_blkengine *e, uint64_t offset, const void *buf,
                       size_t len, bool durable);
int fc_blkengine_zero(struct fc_blkengine *e, uint64_t offset, uint64_t len,
                      bool punch, bool durable);
int fc_blkengine_trim(struct fc_blkengine *e, uint64_t offset, uint64_t len,
                      bool durable);
int fc_blkengine_flush(struct fc_blkengine *e);
/*
 * For each range of the disk: blocks that are valid (source: not to be sent).
 * Returns the number of ranges, or FC_ENOMEM.
 */
int fc_blkengine_ranges(struct fc_blkengine *e,
                        uint32_t valid_r[FC_RANGES_MAX]);
/* Volume and map durable at once, whatever is held. 0 or FC_EIO. */
int fc_blkengine_sync(struct fc_blkengine *e);

#endif
