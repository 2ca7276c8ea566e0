/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CHILD_H
#define FC_CHILD_H

#include <stdint.h>
#include <sys/types.h>

struct event_base;

/*
 * Child processes of the daemon: started in process groups of their own, with
 * default signals and no descriptors but the three they are given, and waited
 * for when SIGCHLD comes. Event loop thread only.
 */
struct fc_children;

/* Called once when the child has ended; `status` as waitpid(2) has it. */
typedef void fc_child_ended(void *user, pid_t pid, int status);

/* Takes SIGCHLD of `base`. 0, FC_ENOMEM or FC_ESYS. */
int fc_children_new(struct event_base *base, struct fc_children **children_r);

/* Forgets all children; it ends none. */
void fc_children_free(struct fc_children *c);

/*
 * Runs `argv` (found in PATH) with standard input and output `in`, `out` and
 * error `err` (each stays the caller's; -1: /dev/null). Returns the pid or
 * FC_ESYS.
 */
pid_t fc_children_run(struct fc_children *c, const char *const *argv, int in,
                      int out, int err, fc_child_ended *ended, void *user);

/* Watches a child started by other means. 0 or FC_ENOMEM. */
int fc_children_watch(struct fc_children *c, pid_t pid, fc_child_ended *ended,
                      void *user);

/* The child goes on being waited for, but nobody is told. */
void fc_children_forget(struct fc_children *c, pid_t pid);

/* SIGTERM to the child's process group, SIGKILL when it has not ended 3 s
 * later. `ended` is still called. */
void fc_children_end(struct fc_children *c, pid_t pid);

#endif
