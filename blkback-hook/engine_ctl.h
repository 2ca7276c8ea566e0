/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ENGINE_CTL_H
#define FC_ENGINE_CTL_H

struct fc_engine;

/*
 * The engine's control socket, docs/formats/engine-control.md: a thread that
 * accepts, and one for each connection.
 */
struct fc_engine_ctl;

/* Binds and listens at `path` (a stale socket there is replaced); a connection
 * is served once started. The engine outlives it. 0 or an error, logged. */
int fc_engine_ctl_open(const char *path, struct fc_engine *e,
                       struct fc_engine_ctl **c_r);
int fc_engine_ctl_start(struct fc_engine_ctl *c); /* 0 or FC_ESYS */

/* Ends the connections and their threads; requests that wait for the engine
 * must have been ended. Removes the socket. NULL is fine. */
void fc_engine_ctl_close(struct fc_engine_ctl *c);

#endif
