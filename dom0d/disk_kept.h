/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_KEPT_H
#define FC_DISK_KEPT_H

#include "disk_engine.h"
#include "lease.h"

/*
 * What a reboot of this host must not lose: that it serves a disk which was
 * handed over before all of it was at the destination. The run directory is
 * gone then; a copy of the disk's state.json in the state directory is not.
 * Event loop thread only.
 */

/* Copies state.json, durably. 0 or FC_ESYS with errno. */
int fc_disk_kept_put(const struct fc_disk_env *env,
                     const struct fc_disk_id *id);

/* Nobody needs this host any more for the disk. */
void fc_disk_kept_drop(const struct fc_disk_env *env,
                       const struct fc_disk_id *id);

/*
 * Makes the run directories of all such disks anew that are not there, and
 * holds the disks, so that no guest gets them here. What the leases do not bear
 * out is dropped.
 */
void fc_disk_kept_restore(const struct fc_disk_env *env,
                          struct fc_lease_db *leases);

#endif
