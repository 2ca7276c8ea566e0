/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_DAEMON_H
#define FC_FRONTEND_DAEMON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"
#include "session.h"

/*
 * What the front end asks forecopyd, docs/formats/control.md. Functions
 * return 0, FC_EDAEMON when the daemon does not answer, or the error it gave,
 * with a sentence in `why` (FC_FRONT_WHY bytes, no control characters).
 */
#define FC_FRONT_WHY 320

struct fc_front_guest {
    struct json_object *status; /* put by fc_front_guest_dispose() */
    uint8_t uuid[FC_UUID_BYTES];
    char uuid_text[FC_UUID_TEXT];
    char name[256];
    uint32_t domid;
};

/* A descriptor, or FC_EDAEMON. */
int fc_front_daemon_connect(char *why);

/*
 * One request, which is taken over. `*reply_r` (set on success, and when the
 * daemon said no) is the caller's to put; fds_r as in fc_ctl_call().
 */
int fc_front_daemon_call(int sock, struct json_object *req,
                         struct json_object **reply_r, int *fds_r,
                         int timeout_ms, char *why);

/* The one guest that `domain` names. Its uuid and domid are checked. */
int fc_front_daemon_guest(int sock, const char *domain,
                          struct fc_front_guest *guest, char *why);
void fc_front_guest_dispose(struct fc_front_guest *guest);

/* Settings in force for the guest into the session; what the daemon does not
 * say or says out of range keeps its default. */
void fc_front_daemon_settings(int sock, const char *domain,
                              struct fc_session *session);

/* `*estimate_r` is the caller's to put. */
int fc_front_daemon_estimate(int sock, const char *domain, const char *host,
                             bool disks, long max_downtime_ms,
                             struct json_object **estimate_r, char *why);

/*
 * Starts the migration on this connection (`host` NULL: not known): token,
 * epoch and the hash set's descriptor (the caller's to close; -1: nothing
 * staged) go into the session.
 */
int fc_front_daemon_begin(int sock, const char *domain, const char *host,
                          bool no_stage, bool disks, struct fc_session *session,
                          struct json_object **estimate_r, char *why);

/* Takes over `summary`. */
int fc_front_daemon_end(int sock, const char *uuid, bool success,
                        struct json_object *summary, char *why);

#endif
