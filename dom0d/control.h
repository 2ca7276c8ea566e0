/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CONTROL_H
#define FC_CONTROL_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "ctl.h"

struct event_base;

/*
 * The server's end of the control socket (docs/formats/control.md): clients,
 * lines, descriptors. What requests mean is in control_requests.c. Event loop
 * thread only.
 */
#define FC_CONTROL_CLIENTS 64u

struct fc_control;
struct fc_client;

struct fc_control_handler {
    /*
     * A request. Answer it by one of the two below, at once or later; the
     * client's next request waits until then. `req` is valid during the call;
     * descriptors in fds (-1: none) are closed after it unless set to -1.
     */
    void (*request)(void *user, struct fc_client *client,
                    struct json_object *req, int fds[FC_CTL_MAX_FDS]);

    /* The client is gone; forget it. */
    void (*gone)(void *user, struct fc_client *client);
};

/*
 * Listens at `path`, taking the place of a socket that nobody serves. 0,
 * FC_EBUSY (somebody does), FC_ENOMEM or FC_ESYS. `path` is kept, not copied.
 */
int fc_control_new(struct event_base *base, const char *path,
                   const struct fc_control_handler *handler, void *user,
                   struct fc_control **control_r);

/* Drops all clients (`gone` is called) and removes the socket. */
void fc_control_free(struct fc_control *c);

/* {"ok":true, ...}: takes over `reply` (an object, or NULL for an empty one)
 * and `fd` (-1: none). */
void fc_client_reply(struct fc_client *client, struct json_object *reply,
                     int fd);

/* {"ok":false, ...}; `code` is an fc_err. */
void fc_client_fail(struct fc_client *client, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Closes the connection when all is sent. Not from within `gone`. */
void fc_client_close(struct fc_client *client);

/* A mark of the handler's for this client; 0 at first. */
void fc_client_set_tag(struct fc_client *client, uint64_t tag);
uint64_t fc_client_tag(const struct fc_client *client);

/* The client with this tag, or NULL. */
struct fc_client *fc_control_by_tag(struct fc_control *c, uint64_t tag);

unsigned fc_control_clients(const struct fc_control *c);

#endif
