/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PRIMARY_FILE_H
#define FC_PRIMARY_FILE_H

#include "primary.h"

/*
 * A primary that this host can open itself: shared storage, as a block device
 * or a file. What this host has cached of it is dropped at opening, so that
 * what another host wrote before is seen; nobody else may write it while it is
 * open.
 *
 * Any error of the storage is FC_EPEER (logged): the shadow holds the request
 * and asks again, as it does for any primary that is out of reach.
 */
struct fc_primary_file;

/* 0; FC_ESYS, FC_EINVAL (another kind of file) or FC_ENOMEM, with errno. */
int fc_primary_file_open(const char *path, struct fc_primary_file **p_r);
void fc_primary_file_close(struct fc_primary_file *p); /* NULL is fine */

uint64_t fc_primary_file_size(const struct fc_primary_file *p);

/* `user` is the struct fc_primary_file. */
extern const struct fc_primary_ops fc_primary_file_ops;

#endif
