/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISKS_H
#define FC_DISKS_H

#include <json-c/json.h>

#include "control.h"
#include "disk_id.h"

struct fc_daemon;
struct fc_disk_job;
struct fc_domain;

/*
 * Guests' disks in the daemon: databases, jobs of the source, shadows of the
 * destination, and the requests about them (docs/formats/control.md). Event
 * loop thread only.
 */
struct fc_disks;

/* Opens the databases and takes up what an earlier daemon left. 0, FC_ENOMEM,
 * or what a database that cannot be opened gives; then there are no disks. */
int fc_disks_new(struct fc_daemon *d, struct fc_disks **disks_r);
/* Leaves engines, tables and devices as they are. May be NULL; so below. */
void fc_disks_free(struct fc_disks *s);
/* How the reads of all disks here were served, as `stat` has it. */
void fc_disks_counters(struct fc_disks *s, struct json_object *o);
/* To be called each second, after the domains were counted. */
void fc_disks_tick(struct fc_disks *s, uint64_t now_ms);
void fc_disks_client_gone(struct fc_disks *s, struct fc_client *client);

/*
 * Answers a request of a name that is about disks; false when it is none of
 * them. As fc_control_handler's `request`.
 */
bool fc_disks_request(struct fc_daemon *d, const char *name,
                      struct fc_client *client, struct json_object *req,
                      int *fds);

#endif
