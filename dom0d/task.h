/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TASK_H
#define FC_TASK_H

#include "child.h"

/*
 * A program that is run to its end with a text as its input, its output kept.
 * Event loop thread only.
 */
#define FC_TASK_OUTPUT 65536u /* more is refused to the program */

struct fc_task;

/*
 * Called once when the program has ended, never from within fc_task_run().
 * rc: 0 (exit status 0), FC_EPEER (another, or a signal) or FC_ETIMEOUT (it was
 * ended). `out` and `err` are what it wrote, NUL-terminated, valid during the
 * call.
 */
typedef void fc_task_done(void *user, int rc, int status, const char *out,
                          const char *err);

/* `argv` is looked for in PATH; `input` may be NULL. 0, FC_ENOMEM or FC_ESYS.
 */
int fc_task_run(struct event_base *base, struct fc_children *children,
                const char *const *argv, const char *input, unsigned timeout_ms,
                fc_task_done *done, void *user, struct fc_task **task_r);

/* Ends the program; `done` is still called, once it has ended. */
void fc_task_end(struct fc_task *t);

/* Frees it without a call of `done`; the program is left alone. */
void fc_task_leave(struct fc_task *t);

/* The last line of a text that is not empty, cut to fit, without control
 * characters. */
void fc_task_last_line(const char *text, char *line, size_t cap);

#endif
