/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DOMAINS_XEN_H
#define FC_DOMAINS_XEN_H

#include "domains.h"
#include "xenwatch.h"

struct xc_interface_core;
struct xs_handle;

/* Xen's domains and xenstore's watches; handles stay the caller's. */
struct fc_domains_xen {
    struct xc_interface_core *xch;
    struct xs_handle *xs;
};

/* Sets the watches. 0 or FC_ESYS. */
int fc_domains_xen_init(struct fc_domains_xen *x, struct xc_interface_core *xch,
                        struct xs_handle *xs);

/* `user` of both is a struct fc_domains_xen. */
extern const struct fc_domains_ops fc_domains_xen_ops;
extern const struct fc_xenwatch_ops fc_xenwatch_xen_ops;

#endif
