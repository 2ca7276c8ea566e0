/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FRONTEND_EXEC_H
#define FC_FRONTEND_EXEC_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Finding and running the programs of Xen and ours. One thread. */
#define FC_FRONT_SELF_TEST_MS 5000

/* The running hypervisor's release ("4.17") from `dir`
 * (/sys/hypervisor/version). 0 or FC_ENOENT. */
int fc_front_xen_version(const char *dir, char *version_r, size_t size);

/*
 * The real xl: FORECOPY_XL, else the running Xen's own, else Debian's wrapper
 * under the name that lets it explain what is wrong. Never fails.
 */
void fc_front_xl_path(char path[PATH_MAX]);

/* The save helper: LIBXL_SAVE_HELPER, else FORECOPY_HELPER, else ours beside
 * Xen's own. 0, or FC_ENOENT when there is none for the running Xen. */
int fc_front_helper_path(char path[PATH_MAX]);

/* Replaces this process by the real xl. Returns only the exit status for a
 * failure, after a line on standard error. */
int fc_front_exec_xl(const char *const *argv);

/*
 * Runs argv (found by PATH) with standard input from /dev/null. Standard
 * output and error go to `out` (NUL-terminated, what does not fit is dropped;
 * NULL: nowhere). Returns the exit status (128 + signal when killed),
 * FC_ETIMEOUT after `timeout_ms` (the program was ended) or FC_ESYS with errno.
 */
int fc_front_capture(const char *const *argv, int timeout_ms, char *out,
                     size_t size);

/* Whether `helper --self-test` succeeds in time. */
bool fc_front_self_test(const char *helper);

#endif
