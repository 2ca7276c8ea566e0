/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DAEMON_H
#define FC_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "armed.h"
#include "blocktrace.h"
#include "child.h"
#include "control.h"
#include "disks.h"
#include "domains.h"
#include "guest.h"
#include "keepers.h"
#include "settings.h"
#include "worker.h"
#include "xenwatch.h"

struct event;
struct event_base;

/*
 * The daemon: everything that forecopyd_main.c sets up, and tests with fakes.
 * One thread runs it all, but for the worker's.
 */

/* What it needs from Xen. */
struct fc_daemon_xen {
    const struct fc_domains_ops *domains;
    void *domains_user;
    const struct fc_xenwatch_ops *watch;
    void *watch_user;
    const struct fc_dirtylog_ops *log;
    void *log_user;
    const struct fc_guestmem_ops *mem;
    void *mem_user;
    char version[32];
};

/* Strings are kept, not copied. */
struct fc_daemon_config {
    const char *config_path;
    bool config_optional;
    bool debug; /* log level debug, whatever the settings say */
    const char *socket_path;
    const char *armed_dir; /* NULL: armed guests are not kept */
    const char *proc_root, *sys_root;
    const char *block_tool; /* forecopy-block; NULL: disks are not traced */
    const char *xl_path;    /* Xen's own xl, of the running version */
    uid_t keeper_uid;
    gid_t keeper_gid;
    const char *disks_dir; /* databases and maps; NULL: no disks are moved */
    const char *disks_run; /* has a directory for each attached disk */
    const char *nbdkit, *nbdkit_plugin;
    uid_t engine_uid; /* 0: engines stay what we are */
    gid_t engine_gid;
    struct fc_daemon_xen xen;
};

#define FC_PROTOCOL 1

/* An armed guest, whether it runs here at present or not. */
struct fc_armed_guest {
    struct fc_armed armed;
    struct fc_guest *guest; /* NULL: the domain is not here, or refused */
    uint64_t retry_ms;      /* when to try again to start it */
    char why[FC_GUEST_WHY]; /* it could not be started */
    struct fc_armed_guest *next;
};

/* A migration that is under way. */
struct fc_hold {
    struct fc_client *client;
    struct fc_daemon *daemon;
    uint8_t uuid[FC_UUID_BYTES];
    uint32_t domid;
    char host[FC_ARMED_HOST]; /* it goes to; empty: not told */
    bool staged_wanted, with_disks;
    bool answered;
    uint64_t deadline_ms; /* of draining */
    uint64_t start_ms;
    struct event *drain;
    struct fc_hold *next;
};

/* What a guest's xenstore keys and `set` gave. */
struct fc_guest_settings {
    uint8_t uuid[FC_UUID_BYTES];
    struct fc_settings settings;
    struct fc_guest_settings *next;
};

struct fc_prepare;
struct fc_recording;

struct fc_daemon {
    const struct fc_daemon_config *config;
    struct event_base *base;
    struct fc_settings settings; /* the host's */
    struct fc_guest_settings *guest_settings;
    unsigned guest_settings_count;
    struct fc_children *children;
    struct fc_worker *worker;
    struct fc_domains domains;
    struct fc_keepers *keepers;
    struct fc_control *control;
    struct fc_blocktrace *blocktrace; /* NULL: disks are not traced */
    struct fc_armed_db *db;           /* NULL: not kept */
    struct fc_armed_guest *armed;
    unsigned armed_count;
    struct fc_hold *holds;
    struct fc_prepare *prepares;
    struct fc_disks *disks; /* NULL: none are moved */
    struct fc_recording *recordings;
    struct fc_guest_env env;
    struct fc_calibration calibration; /* what migrations have taught */
    struct fc_linkrate links;
    struct event *watch, *second, *tick, *stop_timer;
    uint64_t next_guest_id;
    unsigned closing; /* uplinks that say goodbye */
    bool stopping, domains_failed;
    uint64_t start_ms;

    struct {
        uint64_t arms, disarms, migrations, migrations_failed, migration_bytes,
            leftovers_removed, channels_received;
    } counters;
};

/* 0, or an fc_err; what is wrong is logged. */
int fc_daemon_init(struct fc_daemon *d, struct event_base *base,
                   const struct fc_daemon_config *config);

/* Begins to stop: guests say goodbye, dirty logs are switched off; ends the
 * event loop when that is done, 3 s later at the latest. */
void fc_daemon_stop(struct fc_daemon *d);

void fc_daemon_dispose(struct fc_daemon *d);

/* Reads the configuration file anew. */
void fc_daemon_reload(struct fc_daemon *d);

/* The parts below are used among the daemon's own files. */

/* Settings: daemon_settings.c */
struct fc_settings *fc_daemon_guest_settings(struct fc_daemon *d,
                                             const uint8_t *uuid, bool make);
void fc_daemon_settings_event(struct fc_daemon *d, const char *path);
void fc_daemon_settings_apply(struct fc_daemon *d);

/* Armed guests: daemon_guests.c */
struct fc_armed_guest *fc_daemon_armed(struct fc_daemon *d,
                                       const uint8_t *uuid);
/* Takes an armed guest in, in place of one of the same uuid, and starts it
 * when its domain is here. As fc_guest_new(); also FC_ELIMIT. */
int fc_daemon_arm(struct fc_daemon *d, const struct fc_armed *armed,
                  char why[FC_GUEST_WHY]);
/* FC_ENOENT when it is not armed. */
int fc_daemon_disarm(struct fc_daemon *d, const uint8_t *uuid,
                     enum fc_channel_bye reason, const char *text);
void fc_daemon_start_guests(struct fc_daemon *d, uint64_t now_ms);
/* Disarms guests whose domain has not been here for as long as the setting
 * says. To be called every second, after the domains were listed. */
void fc_daemon_check_away(struct fc_daemon *d, uint32_t wall_s);
/* Seconds until that happens to a guest whose domain is not here. */
uint32_t fc_daemon_away_left_s(struct fc_daemon *d,
                               const struct fc_armed_guest *a, uint32_t wall_s);
void fc_daemon_domain_gone(void *arg, const struct fc_domain *domain);
void fc_daemon_job_done(void *user, struct fc_job *job);
void fc_daemon_close_all(struct fc_daemon *d);

/* Migrations: control_migrate.c */
struct fc_hold *fc_daemon_hold(struct fc_daemon *d, const uint8_t *uuid);
void fc_control_migrate_begin(struct fc_daemon *d, struct fc_client *client,
                              struct json_object *req);
void fc_control_migrate_end(struct fc_daemon *d, struct fc_client *client,
                            struct json_object *req);
void fc_control_migrate_gone(struct fc_daemon *d, struct fc_client *client);

/* The destination's side: control_receive.c */
void fc_control_receive(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req, int *fds);
void fc_control_store_open(struct fc_daemon *d, struct fc_client *client,
                           struct json_object *req);
void fc_control_prepare(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req);
void fc_control_prepare_gone(struct fc_daemon *d, struct fc_client *client);
void fc_control_prepare_free(struct fc_daemon *d); /* all that are under way */
void fc_daemon_channel_closed(void *user, uint64_t id);
/* What another host knows of a guest that comes from there: kept when it is
 * what it should be, and the guest is not armed and running here. */
void fc_daemon_model(void *user, const uint8_t *uuid, const uint8_t *bytes,
                     size_t len);

/* What the predictor knows: control_predict.c */
void fc_control_rank(struct fc_daemon *d, struct fc_client *client,
                     struct json_object *req);
void fc_control_heatmap(struct fc_daemon *d, struct fc_client *client,
                        struct json_object *req);
void fc_control_when(struct fc_daemon *d, struct fc_client *client,
                     struct json_object *req);

/* Recordings: control_record.c */
#define FC_RECORDINGS 8u /* most at a time; some 25 MiB each at worst */
void fc_control_record(struct fc_daemon *d, struct fc_client *client,
                       struct json_object *req, int *fds);
void fc_control_record_status(struct fc_daemon *d, struct fc_client *client);
void fc_control_record_stop(struct fc_daemon *d, struct fc_client *client);
void fc_control_record_gone(struct fc_daemon *d, struct fc_client *client);
/* To be called every FC_GUEST_TICK_MS, after the guests' ticks. */
void fc_daemon_record_tick(struct fc_daemon *d, uint64_t now_ms);
/* The guest's dirty log is about to be an armed guest's: a recording's own use
 * of it ends. */
void fc_daemon_record_yield(struct fc_daemon *d, const uint8_t *uuid);
void fc_daemon_record_end_all(struct fc_daemon *d, const char *reason);
void fc_daemon_record_free(struct fc_daemon *d);

/* Requests: control_requests.c */
extern const struct fc_control_handler fc_control_requests;
/* The domain that a request names; NULL after answering that there is none. */
const struct fc_domain *fc_control_domain(struct fc_daemon *d,
                                          struct fc_client *client,
                                          struct json_object *req);

/* JSON: control_json.c; objects are the caller's. */
struct json_object *fc_json_estimate(const struct fc_estimate *e);
struct json_object *fc_json_guest(struct fc_daemon *d,
                                  const struct fc_domain *domain,
                                  const struct fc_armed_guest *armed);
/* An armed guest whose domain is not here. */
struct json_object *fc_json_away(struct fc_daemon *d,
                                 const struct fc_armed_guest *armed);
struct json_object *fc_json_guests(struct fc_daemon *d);
struct json_object *fc_json_counters(struct fc_daemon *d);
/* An estimate for any domain, armed or not; `host` is where to, "" for where
 * it is armed for, if it is; `disks`: they go with it. */
void fc_daemon_estimate(struct fc_daemon *d, const struct fc_domain *domain,
                        const char *host, bool disks, uint32_t max_downtime_ms,
                        struct fc_estimate *e);

#endif
