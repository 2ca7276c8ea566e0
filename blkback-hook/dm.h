/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DM_H
#define FC_DM_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A guest's disk as a device-mapper device whose table is one target over the
 * whole length: "linear" onto a device, or "error". The table is exchanged
 * under a running guest.
 *
 * Only devices of ours are touched: their names begin with FC_DM_PREFIX and
 * their device-mapper uuid with FC_DM_UUID.
 *
 * Results are 0 or an fc_err; a failure was logged by the function. Not for
 * use from two threads at once (libdevmapper has process-wide state).
 */
#define FC_DM_PREFIX "forecopy-"
#define FC_DM_UUID "FORECOPY-"
#define FC_DM_NAME_MAX 100 /* bytes; with the uuid's prefix below dm's 128 */
#define FC_DM_SECTOR 512u

struct fc_dm_state {
    bool exists, suspended, inactive_table, read_only;
    uint32_t major, minor;
    int32_t open_count;
    uint64_t sectors; /* of 512 bytes */
    char uuid[129];
    char target[17];  /* "linear", "error", other; "mixed": several */
    char params[200]; /* linear: "MAJOR:MINOR 0" */
};

struct fc_dm_device { /* a block device to map onto */
    uint32_t major, minor;
    uint64_t sectors;
    uint32_t logical_block; /* bytes */
    bool read_only;
    bool volatile_cache; /* needs flushes */
};

struct fc_dm_table {
    const char *target, *params;
    uint64_t sectors;
    bool read_only;
};

/*
 * What the kernel is asked for; each returns 0 or an fc_err and logs nothing
 * (FC_ESYS with errno; FC_EBUSY: in use; FC_ETIMEOUT: the bounded wait ran out
 * and the device is as it was).
 */
struct fc_dm_ops {
    int (*show)(void *user, const char *name, struct fc_dm_state *state);
    int (*device)(void *user, const char *path, struct fc_dm_device *device);
    /* The new device with its table live. */
    int (*create)(void *user, const char *name, const char *uuid,
                  const struct fc_dm_table *table);
    /* Into the inactive slot, which `resume` makes the live one. */
    int (*load)(void *user, const char *name, const struct fc_dm_table *table);
    int (*clear)(void *user, const char *name); /* the inactive slot */
    /* What is in flight ends; what comes later waits for `resume`. */
    int (*suspend)(void *user, const char *name, unsigned timeout_ms);
    int (*resume)(void *user, const char *name);
    int (*remove)(void *user, const char *name);
    void (*sleep_ms)(void *user, unsigned ms);
};

struct fc_dm {
    const struct fc_dm_ops *ops;
    void *user;
};

/* libdevmapper, without waiting for udev: the node in /dev/mapper is made here
 * when nobody else does. Sets libdevmapper up for the whole process. */
struct fc_dm fc_dm_kernel(void);

/* Is it a name that may be used? */
bool fc_dm_name_ok(const char *name);

/*
 * A linear device over all of `device`. One that is there already is left
 * alone when it is the same and is FC_EBUSY otherwise.
 */
int fc_dm_create(const struct fc_dm *dm, const char *name, const char *device);

/*
 * Exchanges the table: linear onto `device`, or the error target when it is
 * NULL. The length stays; a shorter device, or one with larger sectors, is
 * refused (FC_EINVAL), for the guest was told otherwise. A device that is
 * suspended already is resumed by this; what waited goes to the new table.
 * After a failure the old table is in force, and suspended only if it was.
 * Nothing happens when the table is the wanted one and not suspended.
 */
int fc_dm_swap(const struct fc_dm *dm, const char *name, const char *device,
               unsigned timeout_ms);

/* Drains what is in flight and holds what comes, without failing it, until
 * fc_dm_resume() or fc_dm_swap(). Both do nothing when it is so already. */
int fc_dm_suspend(const struct fc_dm *dm, const char *name,
                  unsigned timeout_ms);
int fc_dm_resume(const struct fc_dm *dm, const char *name);

/*
 * Removes it; one that is not there is no fault. While it is in use (blkback
 * lets go of a disk some time after the guest has) tries again for up to
 * `timeout_ms`, then FC_EBUSY.
 */
int fc_dm_remove(const struct fc_dm *dm, const char *name, unsigned timeout_ms);

/* FC_ENOENT when it is not there. */
int fc_dm_show(const struct fc_dm *dm, const char *name,
               struct fc_dm_state *state_r);

#endif
