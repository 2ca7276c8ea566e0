/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_INCOMING_H
#define FC_DISK_INCOMING_H

#include "diskmeta.h"
#include "domains.h"
#include "disk_engine.h"
#include "lease.h"

/*
 * The destination's side: shadows of guests' disks, each a volume that an
 * engine fills, from `disk-prepare` until all blocks are there and the guest's
 * disk lies on the volume itself, or until it is given up. What is known of
 * each is in the metadata, so that a daemon that is started anew goes on with
 * them. Event loop thread only.
 */
#define FC_INCOMING_MAX 1024u
#define FC_INCOMING_WHY 400

struct fc_incoming;
struct fc_incoming_set;

struct fc_incoming_args {
    const struct fc_disk_env *env;
    struct fc_lease_db *leases;
    struct fc_diskmeta *meta;
    /* Whether a domain of that uuid is here; and not paused or suspended. */
    bool (*guest_here)(void *user, const uint8_t *uuid);
    bool (*guest_runs)(void *user, const uint8_t *uuid);
    /* The channel of one (tag of the last fc_incoming_channel()) has ended. */
    void (*channel_ended)(void *user, uint64_t tag);
    void *user;
    unsigned step_ms, linger_ms;
};

/* Takes up what an earlier daemon left. 0 or FC_ENOMEM. */
int fc_incoming_new(const struct fc_incoming_args *args,
                    struct fc_incoming_set **set_r);
/* Leaves engines and devices alone. */
void fc_incoming_free(struct fc_incoming_set *set);
void fc_incoming_limits(struct fc_incoming_set *set, unsigned step_ms,
                        unsigned linger_ms);
/* To be called each second. */
void fc_incoming_tick(struct fc_incoming_set *set, uint64_t now_ms);

/* What a source wants for one disk. Strings are copied. */
struct fc_incoming_want {
    struct fc_disk_id id;
    const char *name;    /* of the guest */
    const char *target;  /* path of the volume at the source */
    const char *pattern; /* of the volume's path here */
    uint64_t size, epoch;
    uint32_t block_bytes;
    uint8_t migration[FC_MIGRATION_BYTES];
    bool overwrite, dry_run, warm;
};

/* Called once, maybe from within fc_incoming_prepare(). `text` says what is
 * with the volume, or what is wrong. */
typedef void fc_incoming_done(void *user, int rc, const char *text);

/*
 * Makes ready for one disk: the volume is made or checked, the engine started,
 * the kernel's nbd device attached, `incoming` written. With dry_run it says
 * what it would do. FC_EPERM (somebody else's volume), FC_EINVAL (size, path),
 * FC_EBUSY (the guest is here), FC_ELIMIT, FC_ENOMEM, FC_ESYS, FC_EPEER.
 */
void fc_incoming_prepare(struct fc_incoming_set *set,
                         const struct fc_incoming_want *want,
                         fc_incoming_done *done, void *user);
/* No calls of `done` for this user any more. */
void fc_incoming_forget_user(struct fc_incoming_set *set, void *user);

/* Hands a channel to the disk's engine; the descriptors stay the caller's.
 * *tag_r names the channel until it has ended. 0, FC_ENOENT (nothing was
 * prepared) or FC_EDAEMON. */
int fc_incoming_channel(struct fc_incoming_set *set,
                        const struct fc_disk_id *id, int in, int out,
                        uint64_t *tag_r);

/*
 * Gives up a guest's shadows. `migration`: those of that one, also if this host
 * owns them by now (the source has taken them back), but not warm ones; they go
 * when the domain that was being received is gone. NULL: all, also warm ones.
 * 0, or FC_EBUSY: they are this host's, or the guest runs here.
 */
int fc_incoming_discard(struct fc_incoming_set *set, const uint8_t *uuid,
                        const uint8_t *migration);

/* Adds one object for each disk (of one guest, or all) to the array. */
void fc_incoming_json(const struct fc_incoming_set *set, const uint8_t *uuid,
                      struct json_object *list);

#endif
