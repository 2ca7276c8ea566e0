/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GUEST_XEN_H
#define FC_GUEST_XEN_H

#include <stdint.h>

#include "guest_ops.h"

/* A guest of this host, by handles of its own: libxc's handle for the save
 * stays libxc's. No Xen type shows here. */
struct fc_guest_xen;

extern const struct fc_guest_ops fc_guest_xen_ops; /* user: the guest */

/* 0, FC_ENOMEM or FC_ESYS, logged. */
int fc_guest_xen_open(uint32_t domid, struct fc_guest_xen **guest_r);
void fc_guest_xen_free(struct fc_guest_xen *g);

/* After a failed save: makes sure that the dirty log is off, in case that
 * libxc's own order met a peek and was turned away. */
void fc_guest_xen_log_off(struct fc_guest_xen *g);

#endif
