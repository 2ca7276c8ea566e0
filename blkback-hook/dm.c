/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dm.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "err.h"
#include "log.h"

#define RETRY_MS 100u

static int failed(int rc, const char *what, const char *name)
{
    fc_error("%s: cannot %s: %s", name, what,
             rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
    return rc;
}

bool fc_dm_name_ok(const char *name)
{
    size_t n = strlen(name);

    if (n <= strlen(FC_DM_PREFIX) || n > FC_DM_NAME_MAX ||
        strncmp(name, FC_DM_PREFIX, strlen(FC_DM_PREFIX)))
        return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return false;
    return true;
}

/* Reads the state of a device of ours; FC_ENOENT, not logged, when there is
 * none. */
static int look(const struct fc_dm *dm, const char *name,
                struct fc_dm_state *state)
{
    memset(state, 0, sizeof(*state));
    if (!fc_dm_name_ok(name)) {
        fc_error("%s: not a name of ours (" FC_DM_PREFIX "...)", name);
        return FC_EINVAL;
    }
    int rc = dm->ops->show(dm->user, name, state);
    if (rc)
        return failed(rc, "look at it", name);
    if (!state->exists)
        return FC_ENOENT;
    if (strncmp(state->uuid, FC_DM_UUID, strlen(FC_DM_UUID))) {
        fc_error("%s: was not made by forecopy (uuid \"%s\")", name,
                 state->uuid);
        return FC_EPERM;
    }
    return 0;
}

static int look_existing(const struct fc_dm *dm, const char *name,
                         struct fc_dm_state *state)
{
    int rc = look(dm, name, state);
    if (rc == FC_ENOENT)
        fc_error("%s: no such device", name);
    return rc;
}

int fc_dm_show(const struct fc_dm *dm, const char *name,
               struct fc_dm_state *state_r)
{
    return look_existing(dm, name, state_r);
}

static int look_at_device(const struct fc_dm *dm, const char *path,
                          struct fc_dm_device *device)
{
    int rc = dm->ops->device(dm->user, path, device);
    if (rc)
        return failed(rc, "use it as a block device", path);
    if (device->sectors == 0) {
        fc_error("%s: is empty", path);
        return FC_EINVAL;
    }
    return 0;
}

static bool same_table(const struct fc_dm_state *state,
                       const struct fc_dm_table *table)
{
    return !strcmp(state->target, table->target) &&
           !strcmp(state->params, table->params) &&
           state->sectors == table->sectors;
}

int fc_dm_create(const struct fc_dm *dm, const char *name, const char *path)
{
    struct fc_dm_state state;
    struct fc_dm_device device;
    char params[32], uuid[sizeof(FC_DM_UUID) + FC_DM_NAME_MAX];

    int rc = look(dm, name, &state);
    if (rc && rc != FC_ENOENT)
        return rc;
    int there = rc == 0;
    rc = look_at_device(dm, path, &device);
    if (rc)
        return rc;
    snprintf(params, sizeof(params), "%" PRIu32 ":%" PRIu32 " 0", device.major,
             device.minor);
    struct fc_dm_table table = { "linear", params, device.sectors,
                                 device.read_only };
    if (there) {
        if (same_table(&state, &table) && !state.suspended)
            return 0;
        fc_error("%s: is there already, over \"%s %s\"%s", name, state.target,
                 state.params, state.suspended ? ", suspended" : "");
        return FC_EBUSY;
    }
    snprintf(uuid, sizeof(uuid), FC_DM_UUID "%s", name + strlen(FC_DM_PREFIX));
    rc = dm->ops->create(dm->user, name, uuid, &table);
    return rc ? failed(rc, "create it", name) : 0;
}

/* May the guest's disk go on over that device? */
static int check_fit(const struct fc_dm *dm, const char *name,
                     const struct fc_dm_state *state, const char *path,
                     const struct fc_dm_device *device)
{
    struct fc_dm_device own;
    char node[32];

    if (device->major == state->major && device->minor == state->minor) {
        fc_error("%s: cannot be mapped onto itself", name);
        return FC_EINVAL;
    }
    if (device->sectors < state->sectors) {
        fc_error("%s: has %" PRIu64 " sectors, %s has only %" PRIu64, name,
                 state->sectors, path, device->sectors);
        return FC_EINVAL;
    }
    if (device->read_only && !state->read_only) {
        fc_error("%s: is writable, %s is read-only", name, path);
        return FC_EINVAL;
    }
    snprintf(node, sizeof(node), "/dev/dm-%" PRIu32, state->minor);
    int rc = dm->ops->device(dm->user, node, &own);
    if (rc)
        return failed(rc, "read its sector size", name);
    if (device->logical_block > own.logical_block) {
        fc_error("%s: has sectors of %" PRIu32 " bytes, %s of %" PRIu32, name,
                 own.logical_block, path, device->logical_block);
        return FC_EINVAL;
    }
    if (device->volatile_cache && !own.volatile_cache)
        fc_warn("%s: its writes are durable when they end and the guest sends "
                "no flushes; those to %s would need some",
                name, path);
    return 0;
}

/* Runs it again when it is suspended. An interrupted suspend undoes itself; one
 * that came about while it was being interrupted does not. */
static void let_run(const struct fc_dm *dm, const char *name)
{
    struct fc_dm_state state;

    if (look(dm, name, &state) || !state.suspended)
        return;
    int rc = dm->ops->resume(dm->user, name);
    if (rc)
        failed(rc, "let it run again", name);
}

/* Back to the table in force. The other one is dropped first: a resume would
 * put it in force. */
static void undo_swap(const struct fc_dm *dm, const char *name,
                      bool was_suspended)
{
    int rc = dm->ops->clear(dm->user, name);

    if (rc)
        failed(rc, "take its new table back", name);
    else if (!was_suspended)
        let_run(dm, name);
}

int fc_dm_swap(const struct fc_dm *dm, const char *name, const char *path,
               unsigned timeout_ms)
{
    struct fc_dm_state state;
    struct fc_dm_device device;
    char params[32] = "";

    int rc = look_existing(dm, name, &state);
    if (rc)
        return rc;
    struct fc_dm_table table = { path ? "linear" : "error", params,
                                 state.sectors, state.read_only };
    if (path) {
        rc = look_at_device(dm, path, &device);
        if (rc == 0)
            rc = check_fit(dm, name, &state, path, &device);
        if (rc)
            return rc;
        snprintf(params, sizeof(params), "%" PRIu32 ":%" PRIu32 " 0",
                 device.major, device.minor);
    }
    if (same_table(&state, &table))
        return state.suspended ? fc_dm_resume(dm, name) : 0;
    rc = dm->ops->load(dm->user, name, &table);
    if (rc)
        return failed(rc, "load its new table", name);
    if (!state.suspended) {
        rc = dm->ops->suspend(dm->user, name, timeout_ms);
        if (rc)
            failed(rc, "drain it", name);
    }
    if (rc == 0) {
        rc = dm->ops->resume(dm->user, name);
        if (rc == 0)
            return 0;
        failed(rc, "put its new table in force", name);
    }
    undo_swap(dm, name, state.suspended);
    return rc;
}

int fc_dm_suspend(const struct fc_dm *dm, const char *name, unsigned timeout_ms)
{
    struct fc_dm_state state;
    int rc = look_existing(dm, name, &state);

    if (rc || state.suspended)
        return rc;
    rc = dm->ops->suspend(dm->user, name, timeout_ms);
    if (rc) {
        failed(rc, "drain it", name);
        let_run(dm, name);
    }
    return rc;
}

int fc_dm_resume(const struct fc_dm *dm, const char *name)
{
    struct fc_dm_state state;
    int rc = look_existing(dm, name, &state);

    if (rc || !state.suspended)
        return rc;
    if (state.inactive_table) {
        /* else a table that some swap left behind would come into force */
        rc = dm->ops->clear(dm->user, name);
        if (rc)
            return failed(rc, "drop a table left over", name);
    }
    rc = dm->ops->resume(dm->user, name);
    return rc ? failed(rc, "resume it", name) : 0;
}

int fc_dm_remove(const struct fc_dm *dm, const char *name, unsigned timeout_ms)
{
    struct fc_dm_state state;

    for (unsigned waited = 0;; waited += RETRY_MS) {
        int rc = look(dm, name, &state);
        if (rc)
            return rc == FC_ENOENT ? 0 : rc;
        rc = state.open_count ? FC_EBUSY : dm->ops->remove(dm->user, name);
        if (rc == 0)
            return 0;
        if (rc != FC_EBUSY || waited >= timeout_ms) {
            failed(rc, "remove it", name);
            return rc;
        }
        dm->ops->sleep_ms(dm->user, RETRY_MS);
    }
}
