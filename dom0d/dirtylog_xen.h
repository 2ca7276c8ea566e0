/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DIRTYLOG_XEN_H
#define FC_DIRTYLOG_XEN_H

#include "dirtylog.h"

struct xc_interface_core;
struct fc_dirtylog_xen;

/* Xen's dirty log; `xch` stays the caller's. 0, FC_ENOMEM or FC_ESYS. */
int fc_dirtylog_xen_new(struct xc_interface_core *xch,
                        struct fc_dirtylog_xen **xen_r);
void fc_dirtylog_xen_free(struct fc_dirtylog_xen *xen);

/* `user` of these is a struct fc_dirtylog_xen. */
extern const struct fc_dirtylog_ops fc_dirtylog_xen_ops;

#endif
