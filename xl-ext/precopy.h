/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PRECOPY_H
#define FC_PRECOPY_H

#include <stdbool.h>
#include <stdint.h>

#include "guest_ops.h"
#include "policy.h"
#include "sender.h"

/*
 * One outgoing live migration: the sender, the policy that ends its rounds,
 * and what is told to the front end. Knows nothing of Xen: libxc's callbacks
 * are passed on to it.
 */
struct fc_precopy_config {
    int in_fd;   /* reading end of libxc's pipe; becomes ours */
    int out_fd;  /* the stream; the caller's */
    int term_fd; /* readable once libxl wants an end (SIGTERM); -1: none */
    const struct fc_session *session;
    const struct fc_hashset *staged; /* NULL: none */
    const struct fc_guest_ops *guest;
    void *guest_user;
};

struct fc_precopy;

/* 0, FC_ENOMEM or FC_ESYS; in_fd is closed in any case. */
int fc_precopy_start(const struct fc_precopy_config *config,
                     struct fc_precopy **precopy_r);

/* ---- for libxc's thread, in its callbacks ---- */

/* As libxc's precopy_policy: dirty_count is -1 after a round. Never WAIT. */
enum fc_policy_action fc_precopy_policy(struct fc_precopy *p,
                                        unsigned iteration, long dirty_count);
/* Before libxl is asked to suspend the guest: 0 when it may be. After that
 * the migration can no longer be aborted. */
int fc_precopy_before_suspend(struct fc_precopy *p);
/* The guest is suspended. */
void fc_precopy_suspended(struct fc_precopy *p);

/*
 * libxc has returned, `saved` says how; in_fd's writing end is *pipe_fd and is
 * closed here. Waits for the rest to be written and reports. 0 when the whole
 * stream was written.
 */
int fc_precopy_finish(struct fc_precopy *p, bool saved, int *pipe_fd);
void fc_precopy_free(struct fc_precopy *p);

/* ---- any thread ---- */

/* Ends the migration cleanly. False: too late, the guest is stopped. */
bool fc_precopy_abort(struct fc_precopy *p, const char *why);
/* Ends it also then: libxc fails and libxl resumes the guest. */
void fc_precopy_terminate(struct fc_precopy *p);

/* After fc_precopy_finish(): why it failed, or "". */
const char *fc_precopy_why(const struct fc_precopy *p);

#endif
