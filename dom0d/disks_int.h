/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISKS_INT_H
#define FC_DISKS_INT_H

#include "daemon.h"
#include "disk_incoming.h"
#include "disk_job.h"
#include "disks.h"

/* Shared by disks.c, control_disks.c and control_shadow.c. */
#define FC_DISK_HOLDS 64u
#define FC_DISK_FLIPPERS 4u

/* One migration's disks, from disk-begin until all is over and told. */
struct fc_disk_hold {
    struct fc_disks *disks;
    struct fc_disk_job *job; /* NULL: over */
    uint8_t uuid[FC_UUID_BYTES], migration[FC_MIGRATION_BYTES];
    struct fc_client *client; /* that holds it; NULL: gone, or none */
    bool beginning, dry_run, warm, passed;
    struct fc_client *flipper[FC_DISK_FLIPPERS];
    uint64_t max_rate; /* 0: the guest's own limit */
    uint64_t passed_ms, asked_back_ms, over_ms, order_ms;
    struct json_object *last; /* its status when it was over */
    struct fc_disk_hold *next;
};

struct fc_disk_prepare;

struct fc_disks {
    struct fc_daemon *daemon;
    struct fc_disk_env env;
    char lease_dir[FC_DISK_PATH], meta_dir[FC_DISK_PATH], map_dir[FC_DISK_PATH];
    struct fc_lease_db *leases;
    struct fc_diskmeta *meta;
    struct fc_incoming_set *incoming;
    struct fc_disk_hold *holds;
    unsigned hold_count;
    struct fc_disk_prepare *prepares;
};

/* disks.c */
struct fc_disk_hold *fc_disks_hold_new(struct fc_disks *s, const uint8_t *uuid);
void fc_disks_hold_free(struct fc_disk_hold *h);
struct fc_disk_hold *fc_disks_hold_of(struct fc_disks *s, const uint8_t *uuid);
/* A job's arguments from the settings in force; the rest is zero. */
void fc_disks_job_args(struct fc_disks *s, const uint8_t *uuid,
                       struct fc_job_args *args);
extern const struct fc_job_events fc_disks_job_events;

/* control_disks.c: the source's */
void fc_disks_begin(struct fc_disks *s, struct fc_client *client,
                    struct json_object *req);
void fc_disks_status(struct fc_disks *s, struct fc_client *client,
                     struct json_object *req);
void fc_disks_flip(struct fc_disks *s, struct fc_client *client,
                   struct json_object *req);
void fc_disks_end(struct fc_disks *s, struct fc_client *client,
                  struct json_object *req);
void fc_disks_shadow(struct fc_disks *s, struct fc_client *client,
                     struct json_object *req);
void fc_disks_unshadow(struct fc_disks *s, struct fc_client *client,
                       struct json_object *req);
void fc_disks_answer_begin(struct fc_disk_hold *h, int rc, const char *why);
void fc_disks_answer_flip(struct fc_disk_hold *h, int rc, const char *why);

/* control_shadow.c: the destination's, and what both show */
void fc_disks_receive(struct fc_disks *s, struct fc_client *client,
                      struct json_object *req, int *fds);
void fc_disks_prepare(struct fc_disks *s, struct fc_client *client,
                      struct json_object *req);
void fc_disks_prepare_gone(struct fc_disks *s, struct fc_client *client);
void fc_disks_list(struct fc_disks *s, struct fc_client *client,
                   struct json_object *req);
void fc_disks_lease_show(struct fc_disks *s, struct fc_client *client,
                         struct json_object *req);
void fc_disks_lease_override(struct fc_disks *s, struct fc_client *client,
                             struct json_object *req);

#endif
