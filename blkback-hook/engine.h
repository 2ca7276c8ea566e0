/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ENGINE_H
#define FC_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "feed.h"
#include "primary_nbd.h"
#include "shadow.h"
#include "sink.h"
#include "source.h"

/*
 * One disk's engine, of any role: what nbdkit's requests and the control socket
 * meet in. Opened as root before nbdkit drops its privileges, started after it
 * forked.
 */
enum fc_engine_role { FC_ENGINE_SOURCE, FC_ENGINE_SHADOW, FC_ENGINE_CACHE };

struct fc_engine_config {
    enum fc_engine_role role;
    const char *volume, *map, *control; /* paths; map: not for a source */
    const char *primary;                /* cache: an NBD URI */
    uint8_t uuid[FC_UUID_BYTES];
    char vdev[FC_VDEV_BYTES];
    uint32_t block_bytes;
    uint64_t size;         /* 0: the volume's */
    uint64_t budget_bytes; /* cache */
    bool owner;            /* shadow: owned already, without a hand-over */
};

struct fc_engine_ctl;

struct fc_engine {
    struct fc_engine_config config;
    uint64_t size;
    struct fc_source *source; /* source */
    struct fc_feed *feed;
    struct fc_shadow *shadow;       /* shadow, cache */
    struct fc_sink *sink;           /* shadow */
    struct fc_primary_nbd *primary; /* cache */
    struct fc_engine_ctl *ctl;
};

/* "source", "shadow" or "cache" to a role, or negative; and back. */
int fc_engine_role_parse(const char *name);
const char *fc_engine_role_name(enum fc_engine_role role);

/*
 * Opens volume, map and control socket. The config's strings must stay. 0, or
 * an error that was logged.
 */
int fc_engine_open(const struct fc_engine_config *config, struct fc_engine *e);
/* Starts threads. 0 or an error that was logged. */
int fc_engine_start(struct fc_engine *e);
/* Ends every wait and thread, makes all durable. No request may be running. */
void fc_engine_close(struct fc_engine *e);
/* Held requests end with FC_ECANCEL. */
void fc_engine_cancel(struct fc_engine *e);
/* Requests that are held back now. */
uint32_t fc_engine_held(struct fc_engine *e);

/* The guest's requests; results as in source.h and shadow.h. */
int fc_engine_read(struct fc_engine *e, uint64_t offset, void *buf, size_t len);
int fc_engine_write(struct fc_engine *e, uint64_t offset, const void *buf,
                    size_t len, bool durable);
int fc_engine_zero(struct fc_engine *e, uint64_t offset, uint64_t len,
                   bool punch, bool durable);
int fc_engine_trim(struct fc_engine *e, uint64_t offset, uint64_t len,
                   bool durable);
int fc_engine_flush(struct fc_engine *e);
/* Volume and map durable at once, whatever is held. 0 or FC_EIO. */
int fc_engine_sync(struct fc_engine *e);

#endif
