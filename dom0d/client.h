/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CLIENT_H
#define FC_CLIENT_H

#include <json-c/json.h>
#include <stdio.h>

#include "client_opts.h"

/*
 * forecopy(8): subcommands over a narrow view of the outside world, so that
 * tests stand in for the daemon, the other host and the system.
 */
#define FC_CLIENT_PROTOCOL 1 /* of channel and stream, as the daemon has it */

struct fc_client_world {
    void *user;

    /*
     * One request to the local daemon (as fc_ctl_call() of a new connection);
     * the request stays the caller's, a reply is.
     */
    int (*call)(void *user, struct json_object *request,
                struct json_object **reply_r);

    /*
     * Runs a command by sh(1) with no input. Its output, NUL-terminated and
     * cut to fit, comes in `text`. Returns its exit status (128 + n for
     * signal n), FC_ETIMEOUT after `timeout_ms`, or FC_ESYS.
     */
    int (*run)(void *user, const char *command, int timeout_ms, char *text,
               size_t cap);

    /* A small file's text, NUL-terminated. 0 or FC_EIO. */
    int (*read)(void *user, const char *path, char *text, size_t cap);

    /* Whether the file is there and may be executed. */
    int (*executable)(void *user, const char *path);

    int is_root;
};

struct fc_client_task {
    const struct fc_client_args *args;
    const struct fc_client_world *world;
    FILE *out, *err;
    int terminal; /* out is one */
};

/* The real world. */
extern const struct fc_client_world fc_client_real_world;

/* Each runs one subcommand and returns the exit status, 0 or 1. */
int fc_client_run(struct fc_client_task *c); /* all but those below */
int fc_client_doctor(struct fc_client_task *c);
int fc_client_receive(struct fc_client_task *c);
int fc_client_record(struct fc_client_task *c);
int fc_client_disks(struct fc_client_task *c); /* all about disks */

/*
 * One request, and "forecopy: TEXT" on the error output when it fails. The
 * reply (the caller's; NULL when there was none) comes in either case.
 */
int fc_client_ask(struct fc_client_task *c, struct json_object *request,
                  struct json_object **reply_r);

/* What a failed request is to be told as; `text` has FC_CLIENT_WHY bytes. */
#define FC_CLIENT_WHY 512
void fc_client_why(int rc, struct json_object *reply, char *text);

/* The same for a program that reads what is printed, as JSON; `reply` may be
 * NULL. */
void fc_client_show_failure(struct fc_client_task *c, int rc,
                            struct json_object *reply);

/* {"cmd":NAME}; NULL only without memory. */
struct json_object *fc_client_request(const char *name);
void fc_client_add(struct json_object *request, const char *key,
                   const char *value); /* nothing when value is NULL */

#endif
