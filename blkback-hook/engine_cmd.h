/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ENGINE_CMD_H
#define FC_ENGINE_CMD_H

#include <json-c/json.h>

struct fc_engine;

/*
 * Does what a request of the control socket says (docs/formats/
 * engine-control.md) and fills `reply`, with "ok" in any case. `fds` came with
 * it; those that were taken over are gone from fds and *nfds afterwards. May
 * wait; any thread.
 */
void fc_engine_cmd(struct fc_engine *e, struct json_object *request, int *fds,
                   int *nfds, struct json_object *reply);

#endif
