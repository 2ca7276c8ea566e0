/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_REMOTE_H
#define FC_FRONTEND_REMOTE_H

#include <json-c/json.h>

#include "frontend_args.h"
#include "frontend_daemon.h"

/*
 * Asks the destination through the same remote command that xl would use.
 * 0 with its reply (the caller puts it), or FC_EPEER with a sentence in `why`
 * (FC_FRONT_WHY bytes): no forecopy there, one that is too old, or its daemon
 * does not answer. Bounded in time.
 */
int fc_front_remote_prepare(const struct fc_front_args *args,
                            const struct fc_front_guest *guest,
                            struct json_object **reply_r, char *why);

/* Likewise, but changes nothing there. */
int fc_front_remote_version(const struct fc_front_args *args,
                            struct json_object **reply_r, char *why);

#endif
