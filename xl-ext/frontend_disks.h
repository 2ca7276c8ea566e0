/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_DISKS_H
#define FC_FRONTEND_DISKS_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "frontend_args.h"
#include "frontend_daemon.h"

/*
 * The disks of a migration, moved by forecopyd (docs/formats/control.md): begun
 * before xl is started, handed over by the transport, ended after xl has. One
 * thread. Errors with a sentence in `why` (FC_FRONT_WHY bytes).
 */
#define FC_FRONT_MIGRATION_TEXT 33

enum fc_front_disks_end {
    FC_FRONT_DISKS_MOVED,  /* the guest runs at the destination */
    FC_FRONT_DISKS_KEPT,   /* it goes on here */
    FC_FRONT_DISKS_UNKNOWN /* handed over, and xl broke off: nobody knows */
};

struct fc_front_disks {
    int sock; /* its end is an abort; -1: nothing begun */
    bool lazy;
    char migration[FC_FRONT_MIGRATION_TEXT];
    struct json_object *begun,
        *status; /* the replies, the last of the second */
    uint64_t begun_ms, converged_ms;
};

void fc_front_disks_init(struct fc_front_disks *d);
/* Also ends the connection: an abort, when it was not ended before. */
void fc_front_disks_dispose(struct fc_front_disks *d);

/*
 * Checks and prepares both hosts and starts to copy; with args->dry_run only
 * checks. FC_EDAEMON, FC_EFORMAT, or what the daemon said: nothing is changed.
 */
int fc_front_disks_begin(struct fc_front_disks *d,
                         const struct fc_front_args *args, const char *uuid,
                         char *why);

struct fc_front_disks_wait {
    uint64_t deadline_ms; /* of fc_now_ms(); 0: none */
    bool abort_at_deadline;
    bool tty; /* a line that is drawn again, not a line for each tenth */
};

/*
 * Shows progress until the disks have converged, or the deadline has come
 * and what is left can be sent while the guest stands still. FC_ECANCEL when
 * a signal asked to stop (these are blocked by the caller), FC_ETIMEOUT at the
 * deadline, FC_EDAEMON, FC_EFORMAT, FC_EPEER when the copy failed.
 */
int fc_front_disks_wait(struct fc_front_disks *d,
                        const struct fc_front_disks_wait *w, char *why);

/* Asks for the state anew, into d->status. */
int fc_front_disks_ask(struct fc_front_disks *d, char *why);
/* By the last state: whether the destination owns them. */
bool fc_front_disks_flipped(const struct fc_front_disks *d);

/* Tells how it ended. Does nothing when nothing was begun. */
int fc_front_disks_finish(struct fc_front_disks *d, enum fc_front_disks_end end,
                          char *why);

/* For the report; the caller's to put. NULL when nothing was begun. */
struct json_object *fc_front_disks_facts(const struct fc_front_disks *d,
                                         enum fc_front_disks_end end);

#endif
