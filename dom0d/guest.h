/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GUEST_H
#define FC_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "dirtylog.h"
#include "domains.h"
#include "estimate.h"
#include "hashset.h"
#include "linkrate.h"
#include "pagetab.h"
#include "predict.h"
#include "sampler.h"
#include "scorer.h"
#include "settings.h"
#include "stager.h"
#include "uplink.h"
#include "worker.h"

/*
 * An armed guest: what watches it and copies its pages. Event loop thread only.
 */
#define FC_ARMED_HOST 256u
#define FC_ARMED_COMMAND 1024u

/* What arming says, and what outlives the daemon. */
struct fc_armed {
    uint8_t uuid[FC_UUID_BYTES];
    char host[FC_ARMED_HOST];
    char command[FC_ARMED_COMMAND]; /* "": the setting's */
    uint64_t rate_bytes;            /* 0: the setting's */
    uint32_t channels;              /* 0: the setting's */
    uint32_t away_since_s;          /* by time(2); 0: its domain is here */
};

/* The daemon's parts that a guest uses; they outlive it. */
struct fc_guest_env {
    struct event_base *base;
    struct fc_children *children;
    struct fc_worker *worker;
    const struct fc_dirtylog_ops *log_ops;
    void *log_user;
    const char *proc_root;
    const struct fc_calibration *calibration;
    const struct fc_linkrate *links;
    struct fc_armed_db *db; /* NULL: nothing is kept */
    const struct fc_xenwatch_ops *watch;
    void *watch_user;
    float adapt_share; /* of a core, for each guest's GRU */
};

struct fc_guest {
    const struct fc_guest_env *env;
    const struct fc_settings *settings; /* the guest's; outlives it */
    struct fc_armed armed;
    uint64_t id; /* unique in the daemon's life */
    uint32_t domid;
    uint64_t domain_pages;
    char name[FC_DOMAIN_NAME];

    struct fc_dirtylog log;
    struct fc_pagetab pages;
    struct fc_scorer scorer;
    struct fc_sampler sampler;
    struct fc_predict predict;
    struct fc_stager stager;
    struct fc_uplink *uplink;
    uint64_t estimated_ms; /* when the predictor was told how long a migration
                            * would take */
    int trouble;           /* why it cannot be sampled, 0 */
    bool held;
    double rate_share; /* of its rate limit that staging may use, 0 to 1 */
    struct fc_guest *next;
};

#define FC_GUEST_WHY 300

/* Whether Xen can log this domain's writes at all: 0, or FC_ENOLOG with a
 * sentence in `why`. */
int fc_guest_can_log(const struct fc_domain *domain, char why[FC_GUEST_WHY]);

/* The sentence for an error (not FC_EBUSY) of the dirty log's. */
void fc_guest_log_trouble(int rc, char why[FC_GUEST_WHY]);

/*
 * Starts watching and connecting. 0; FC_ENOLOG (its writes cannot be logged),
 * FC_ELIMIT, FC_ENODOM, FC_EINVAL (the command), FC_ENOMEM, FC_ESYS, with a
 * sentence in `why`.
 */
int fc_guest_new(const struct fc_guest_env *env, const struct fc_armed *armed,
                 const struct fc_settings *settings,
                 const struct fc_domain *domain, uint64_t id,
                 struct fc_guest **guest_r, char why[FC_GUEST_WHY]);

/* Ends it: the dirty log is switched off unless the domain is `gone`, BYE is
 * said, all is freed. */
void fc_guest_close(struct fc_guest *g, enum fc_channel_bye reason,
                    const char *text, bool gone, void (*closed)(void *user),
                    void *user);

/* To be called every FC_GUEST_TICK_MS. */
#define FC_GUEST_TICK_MS 50
void fc_guest_tick(struct fc_guest *g, uint64_t now_ms);

/* What the domain list says now. */
void fc_guest_domain(struct fc_guest *g, const struct fc_domain *domain);

/* A job of this guest's is back. */
void fc_guest_job_done(struct fc_guest *g, struct fc_job *job, uint64_t now_ms);

/* A migration begins: nothing touches the guest until release. Channels stay
 * open, PUTs in flight may still be acknowledged. */
void fc_guest_hold(struct fc_guest *g);
void fc_guest_release(struct fc_guest *g, uint64_t now_ms);

/* Sends what is known of it to the destination: it goes there. */
void fc_guest_send_model(struct fc_guest *g);

/* PUTs that are not acknowledged yet. */
unsigned fc_guest_in_flight(const struct fc_guest *g);

/* The set of all contents that the destination acknowledged. 0 (empty when
 * nothing is staged), FC_ENOMEM or FC_ESYS. The caller disposes of it. */
int fc_guest_hashset(const struct fc_guest *g, struct fc_hashset *set);

/* `max_downtime_ms` 0: the setting's. */
void fc_guest_estimate(const struct fc_guest *g, uint32_t max_downtime_ms,
                       struct fc_estimate *estimate);

/* The same with what the guest is expected to do at each of the coming hours;
 * as fc_predict_when(). */
unsigned fc_guest_when(const struct fc_guest *g, uint32_t max_downtime_ms,
                       uint64_t wall_s, unsigned hours,
                       struct fc_profile_window *windows, int *best_r);

/* One word for what it is doing, and why in `reason_r` ("" when plain). */
const char *fc_guest_state(const struct fc_guest *g, const char **reason_r);

/* Bytes that it takes here. */
size_t fc_guest_bytes(const struct fc_guest *g);

#endif
