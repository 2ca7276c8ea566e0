/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_JAIL_H
#define FC_JAIL_H

#include <sys/types.h>

/*
 * What a child that reads another host's bytes gives up. Both functions are
 * for a freshly forked process with one thread; 0, or FC_ESYS with errno, and
 * then the process must end.
 */

/*
 * Default signals (SIGPIPE ignored), standard input and output to /dev/null,
 * the `count` descriptors of `keep` moved to 3, 4, ... (the array is updated)
 * and all others closed; name; user and group when root; no new privileges,
 * no core, few descriptors.
 */
int fc_jail_drop(int *keep, unsigned count, const char *name, uid_t uid,
                 gid_t gid);

/*
 * From here on only reading, writing, descriptor passing, waiting, memory and
 * the clock; fallocate(2) on `store_fd` alone; anything else kills.
 */
int fc_jail_seal(int store_fd);

#endif
