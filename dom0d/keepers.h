/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_KEEPERS_H
#define FC_KEEPERS_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "child.h"
#include "keeper.h"

struct event_base;

/*
 * The keepers that run (keeper.h), one for each guest that other hosts stage
 * here. They share one budget in equal parts. Event loop thread only.
 */
struct fc_keepers;

#define FC_KEEPERS_MAX 256u

struct fc_keepers_args {
    struct event_base *base;
    struct fc_children *children;
    uint64_t budget_bytes; /* of all together */
    uint64_t linger_ms;
    uid_t uid; /* keepers become these when the daemon is root */
    gid_t gid;
    /* A channel given under this id was let go. Not called from within
     * fc_keepers_receive(). */
    void (*closed)(void *user, uint64_t id);
    /* A source sent what it knows of its guest; nobody has looked at it. */
    void (*model)(void *user, const uint8_t *uuid, const uint8_t *bytes,
                  size_t len);
    void *user;
};

/* 0 or FC_ENOMEM. */
int fc_keepers_new(const struct fc_keepers_args *args,
                   struct fc_keepers **keepers_r);

/* Asks all to end, and forgets them: they end by themselves as well when the
 * daemon is gone. */
void fc_keepers_free(struct fc_keepers *k);

/* Later keepers linger so long; the budget is shared out anew at once. */
void fc_keepers_set_limits(struct fc_keepers *k, uint64_t budget_bytes,
                           uint64_t linger_ms);

/*
 * Hands a channel to the keeper of `uuid`, starting one when there is none. The
 * descriptors stay the caller's. `*id_r` is what `closed` will name. 0;
 * FC_ELIMIT (too many keepers); FC_EBUSY (it is ending or behind: the source
 * tries again); FC_ENOMEM; FC_ESYS.
 */
int fc_keepers_receive(struct fc_keepers *k, const uint8_t *uuid, int in_fd,
                       int out_fd, uint64_t *id_r);

/*
 * The store of `uuid`, read-only, for whoever shows its token and epoch.
 * Returns a descriptor of the caller's; FC_ENOENT (there is none of that
 * epoch), FC_EPERM (wrong token) or FC_ESYS.
 */
int fc_keepers_store(struct fc_keepers *k, const uint8_t *uuid,
                     const uint8_t *token, uint64_t epoch, uint64_t *pages_r);

struct fc_keepers_status {
    unsigned keepers, channels;
    uint64_t pages, used_bytes, budget_bytes, received_bytes, evicted;
};
void fc_keepers_status(const struct fc_keepers *k, struct fc_keepers_status *s);

#endif
