/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BACKGROUND_H
#define FC_BACKGROUND_H

#include <stdbool.h>

/* What makes a process a daemon. Called from main, before threads start. */

/*
 * Goes to the background: the process that called it waits until the new one
 * is ready (or has ended) and exits 0 (or 1); the new one returns. 0 with a
 * descriptor for fc_background_ready(), or FC_ESYS.
 */
int fc_background_start(int *ready_r);
void fc_background_ready(int *ready);

/* Where the log goes: stderr in the foreground, as lines with priorities when
 * the journal reads stderr, else syslog. */
void fc_background_log(bool foreground);

/*
 * Makes `dir` (0700, root's) if need be and takes the lock file in it, which
 * then names this process. Returns its descriptor, to be kept open; FC_EBUSY
 * (another daemon runs), or FC_ESYS.
 */
int fc_background_lock(const char *dir, const char *file);

#endif
