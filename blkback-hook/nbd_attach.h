/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_NBD_ATTACH_H
#define FC_NBD_ATTACH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Kernel nbd devices on an engine's unix socket, over generic netlink.
 *
 * One connection, no time limit for a request, and ten years for a connection
 * to come back: whatever happens to the engine, the guest's I/O waits and
 * never fails. An engine that was restarted gets the device back by
 * fc_nbd_reattach().
 *
 * Devices of ours carry FC_NBD_BACKEND as their backend's identifier (Linux
 * 5.14 or later); no other is reconfigured or disconnected.
 *
 * Results are 0 or an fc_err, and a failure was logged. One thread.
 */
#define FC_NBD_BACKEND "forecopy"
#define FC_NBD_DEAD_CONN_S (10ull * 365 * 86400)
/*
 * How often the kernel looks at requests that wait. What was in flight to an
 * engine that died is sent again only then; by default that is 30 s. Nothing
 * fails at it, but each look is a line in the kernel's log.
 */
#define FC_NBD_LOOK_MS 2000u

struct nl_msg;

struct fc_nbd_device { /* what sysfs says */
    bool exists, connected;
    uint64_t bytes;
    uint32_t logical_block; /* bytes */
    char backend[64];
};

struct fc_nbd_ops {
    /*
     * Sends the request, which stays the caller's, and waits for the answer;
     * *index_r is the device that a CONNECT chose. FC_ESYS with errno: the
     * kernel refused.
     */
    int (*request)(void *user, struct nl_msg *message, uint32_t *index_r);
    void (*look)(void *user, uint32_t index, struct fc_nbd_device *device);
    /* Sets the block layer's timer for requests; 0 or FC_ESYS. */
    int (*set_timer)(void *user, uint32_t index, unsigned ms);
    /* Does anybody still hold the unix socket that we have closed? */
    bool (*socket_held)(void *user, ino_t inode);
    void (*sleep_ms)(void *user, unsigned ms);
};

struct fc_nbd {
    const struct fc_nbd_ops *ops;
    void *user;
    int family; /* number of the driver's netlink family */
};

/*
 * The kernel's. FC_ENOENT, logged, when the driver is not there. Close frees
 * what open made, also after a failure.
 */
int fc_nbd_open(struct fc_nbd *nbd);
void fc_nbd_close(struct fc_nbd *nbd);

/* "/dev/nbd7" or "nbd7" to 7; -1: neither. */
int fc_nbd_index(const char *device);

struct fc_nbd_request {
    const char *socket;  /* path */
    const char *export;  /* name; "" for the default one */
    uint64_t bytes;      /* of the device; 0: all that the export has */
    uint32_t block_size; /* the device's sector size */
    int timeout_ms;      /* for the handshake; to reattach, for all */
};

/*
 * A new device. Refused: an export that is shorter than asked for, that wants
 * larger blocks than the sector size, or that is writable and cannot flush.
 */
int fc_nbd_attach(const struct fc_nbd *nbd, const struct fc_nbd_request *req,
                  uint32_t *index_r);

/*
 * Gives the device a new connection in the place of one that is dead. The
 * kernel takes none as long as it holds the old one for alive, and does not
 * say so; this tries until it does, FC_ETIMEOUT when the time is over (the old
 * server has to be ended first).
 */
int fc_nbd_reattach(const struct fc_nbd *nbd, uint32_t index,
                    const struct fc_nbd_request *req);

/* Ends the connection; requests still waiting fail. One that is not connected
 * is no fault. */
int fc_nbd_detach(const struct fc_nbd *nbd, uint32_t index);

#endif
