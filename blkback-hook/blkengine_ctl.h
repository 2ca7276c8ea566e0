/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BLKENGINE_CTL_H
#define FC_BLKENGINE_CTL_H

struct fc_blkengine;

/*
 * The engine's control socket, docs/formats/engine-control.md: a thread that
 * accepts, and one for each connection.
 */
struct fc_blkengine_ctl;

/* Binds and listens at `path` (a stale socket there is replaced); a connection
 * is served once started. The engine outlives it. 0 or an error, logged. */
int fc_blkengine_ctl_open(const char *path, struct fc_blkengine *e,
                          struct fc_blkengine_ctl **c_r);
int fc_blkengine_ctl_start(struct fc_blkengine_ctl *c); /* 0 or FC_ESYS */

/* Ends the connections and their threads; requests that wait for the engine
 * must have been ended. Removes the socket. NULL is fine. */
void fc_blkengine_ctl_close(struct fc_blkengine_ctl *c);

#endif
