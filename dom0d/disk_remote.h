/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_REMOTE_H
#define FC_DISK_REMOTE_H

#include "disk_job_int.h"

/* What a job asks the destination: `forecopy disk-prepare` there, the request
 * as JSON on its input. */

/* {uuid, name, migration, disks, overwrite...} */
struct json_object *fc_disk_remote_request(const struct fc_disk_job *job);

/* Takes over `request`; `done` comes once, later, unless job->remote is freed.
 * `reply` is valid during the call. 0, FC_EFORMAT (the command has no place for
 * it), FC_EINVAL, FC_ENOMEM or FC_ESYS. */
int fc_disk_remote_ask(struct fc_disk_job *job, struct json_object *request,
                       void (*done)(void *user, int rc,
                                    struct json_object *reply,
                                    const char *why));

/* What the destination says of each volume. */
void fc_disk_remote_volumes(struct fc_disk_job *job, struct json_object *reply);

#endif
