/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PRIMARY_NBD_H
#define FC_PRIMARY_NBD_H

#include <stdbool.h>
#include <stdint.h>

#include "primary.h"

/*
 * A primary behind an NBD server, for a cache of a shared volume. A few
 * connections, each used by one request at a time; when one breaks, the primary
 * counts as unreachable until a thread of its own has connected again.
 */
struct fc_primary_nbd;

extern const struct fc_primary_ops fc_primary_nbd_ops; /* user: the primary */

/*
 * Connects to `uri` ("nbd+unix:///?socket=/run/x", "nbd://host/export"), which
 * must stay. 0, FC_ENOMEM, FC_EPEER (cannot be reached; logged).
 */
int fc_primary_nbd_open(const char *uri, struct fc_primary_nbd **p_r);
void fc_primary_nbd_close(struct fc_primary_nbd *p); /* NULL is fine */

uint64_t fc_primary_nbd_size(const struct fc_primary_nbd *p);

/* Starts the thread that connects again; `up` is called by it each time it
 * has. 0 or FC_ESYS. */
int fc_primary_nbd_start(struct fc_primary_nbd *p, void (*up)(void *user),
                         void *user);

bool fc_primary_nbd_reachable(struct fc_primary_nbd *p);

#endif
