/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CLIENT_HELPER_H
#define FC_CLIENT_HELPER_H

#include "client.h"

/*
 * The save helper of this host, for the hypervisor that runs: what `xl` looks
 * for, and asks before it uses it.
 */
#define FC_CLIENT_XEN 32
#define FC_CLIENT_HELPER 128

/* "4.17" into `xen`. 0, or FC_ENOENT: no Xen runs, or it does not say. */
int fc_client_xen(const struct fc_client_world *world, char xen[FC_CLIENT_XEN]);

/*
 * Its path for that version of Xen. 0; FC_ENOENT: there is none; FC_EIO: it
 * fails its self-test.
 */
int fc_client_helper(const struct fc_client_world *world, const char *xen,
                     char path[FC_CLIENT_HELPER]);

#endif
