/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_RUN_H
#define FC_FRONTEND_RUN_H

#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FC_FRONT_MAX_INHERIT 4
#define FC_FRONT_REASON 257

/* One run of the real xl with our helper in it. */
struct fc_front_run {
    /* set by the caller */
    const char *xl; /* program */
    const char *const *argv;
    const char *helper;   /* for LIBXL_SAVE_HELPER */
    const char *session;  /* for FORECOPY_SESSION */
    const char *disks;    /* for FORECOPY_DISK_MIGRATION; NULL: none */
    const sigset_t *mask; /* of signals, for xl; NULL: as it is here */
    uint32_t domid;
    int status_fd;                     /* our end; stays the caller's */
    int inherit[FC_FRONT_MAX_INHERIT]; /* xl's; closed here in any case */
    unsigned ninherit;
    bool tty; /* draw progress on standard error */

    /* the outcome */
    int wait_status;  /* as waitpid(2) gives it */
    bool connected;   /* the helper was heard of */
    bool suspended;   /* it suspended the guest */
    bool interrupted; /* the user asked to stop before that */
    uint64_t started_ms, suspended_ms, ended_ms;
    char mode[16], reason[FC_FRONT_REASON], fault[16]; /* "": not said */
    struct json_object *summary;                       /* NULL: none came */
};

/*
 * Starts xl in this process group and on this terminal, deaf to SIGINT,
 * SIGTERM, SIGHUP and SIGQUIT, turns these into a clean end, shows progress
 * and waits for xl's end. 0 or FC_ESYS with errno (nothing was started). One
 * thread; no other children may end meanwhile.
 */
int fc_front_run(struct fc_front_run *run);
void fc_front_run_dispose(struct fc_front_run *run);

/* The signals that ask to stop, but for those that are ignored (nohup). */
void fc_front_stop_signals(sigset_t *set);

/* Whether a failed run is worth a plain migration: the helper says that it was
 * at fault, before the guest was suspended, and nobody interrupted. */
bool fc_front_run_ours(const struct fc_front_run *run);

#endif
