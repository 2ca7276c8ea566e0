/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fc_dm_ops over libdevmapper.
 *
 * udev is not waited for: a dom0 may run none, and a wait inside a swap would
 * hold the guest's I/O. Its rules are told to leave the device alone, since
 * what is on it is the guest's: dom0 must neither probe it nor activate the
 * volume groups it finds there.
 */
#include <errno.h>
#include <libdevmapper.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <time.h>

#include "dm.h"
#include "err.h"
#include "io.h"
#include "log.h"

#define DM_LOG_ERROR 3 /* libdevmapper's levels are syslog's, and flags */
#define DM_LOG_LEVEL 7

#define UDEV_FLAGS                                                             \
    (DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | DM_UDEV_DISABLE_DISK_RULES_FLAG |  \
     DM_UDEV_DISABLE_OTHER_RULES_FLAG)

__attribute__((format(printf, 5, 6))) static void take_log(int level,
                                                           const char *file,
                                                           int line, int number,
                                                           const char *fmt, ...)
{
    va_list ap;

    (void)file;
    (void)line;
    (void)number;
    va_start(ap, fmt);
    fc_vlog((level & DM_LOG_LEVEL) <= DM_LOG_ERROR ? FC_LOG_WARN : FC_LOG_DEBUG,
            fmt, ap);
    va_end(ap);
}

/* NULL with errno; without the driver in the kernel there are no tasks. */
static struct dm_task *task_new(int type, const char *name)
{
    struct dm_task *task = dm_task_create(type);

    if (!task) {
        errno = ENODEV;
        return NULL;
    }
    if (!dm_task_set_name(task, name)) {
        dm_task_destroy(task);
        errno = ENOMEM;
        return NULL;
    }
    return task;
}

/* Runs it and keeps the errno of the ioctl; the task stays the caller's. */
static int task_run(struct dm_task *task)
{
    if (dm_task_run(task))
        return 0;
    errno = dm_task_get_errno(task);
    return errno == EBUSY ? FC_EBUSY : FC_ESYS;
}

static int simple(int type, const char *name)
{
    uint32_t cookie = 0;
    struct dm_task *task = task_new(type, name);

    if (!task)
        return FC_ESYS;
    int rc = FC_ENOMEM;
    /* no semaphore comes of it, only the flags for udev's rules */
    if (type != DM_DEVICE_RESUME && type != DM_DEVICE_REMOVE)
        rc = task_run(task);
    else if (dm_task_set_cookie(task, &cookie, UDEV_FLAGS))
        rc = task_run(task);
    dm_task_destroy(task);
    dm_task_update_nodes();
    return rc;
}

static int add_table(struct dm_task *task, const struct fc_dm_table *table)
{
    if (!dm_task_add_target(task, 0, table->sectors, table->target,
                            table->params) ||
        (table->read_only && !dm_task_set_ro(task)))
        return FC_ENOMEM;
    return 0;
}

static int op_create(void *user, const char *name, const char *uuid,
                     const struct fc_dm_table *table)
{
    uint32_t cookie = 0;
    struct dm_task *task = task_new(DM_DEVICE_CREATE, name);
    (void)user;

    if (!task)
        return FC_ESYS;
    int rc = FC_ENOMEM;
    if (add_table(task, table) == 0 && dm_task_set_uuid(task, uuid) &&
        dm_task_set_add_node(task, DM_ADD_NODE_ON_CREATE) &&
        dm_task_set_cookie(task, &cookie, UDEV_FLAGS))
        rc = task_run(task);
    dm_task_destroy(task);
    dm_task_update_nodes();
    return rc;
}

static int op_load(void *user, const char *name,
                   const struct fc_dm_table *table)
{
    struct dm_task *task = task_new(DM_DEVICE_RELOAD, name);
    (void)user;

    if (!task)
        return FC_ESYS;
    int rc = add_table(task, table);
    if (rc == 0)
        rc = task_run(task);
    dm_task_destroy(task);
    return rc;
}

static int op_clear(void *user, const char *name)
{
    (void)user;
    return simple(DM_DEVICE_CLEAR, name);
}

static int op_resume(void *user, const char *name)
{
    (void)user;
    return simple(DM_DEVICE_RESUME, name);
}

static int op_remove(void *user, const char *name)
{
    (void)user;
    return simple(DM_DEVICE_REMOVE, name);
}

static void wake(int signal)
{
    (void)signal;
}

/* The suspend waits in the kernel for what is in flight, interruptibly: a
 * signal bounds it. It repeats, in case the first comes before the ioctl. */
static int op_suspend(void *user, const char *name, unsigned timeout_ms)
{
    struct sigaction act = { .sa_handler = wake }, old;
    struct itimerval timer = {
        { 0, 200000 }, { timeout_ms / 1000, timeout_ms % 1000 * 1000 }
    };
    struct itimerval off = { 0 };
    struct dm_task *task = task_new(DM_DEVICE_SUSPEND, name);
    (void)user;

    if (!task)
        return FC_ESYS;
    int rc = FC_ENOMEM;
    uint64_t start = fc_now_ms();
    /* nothing of dom0's is mounted on it, so there is nothing to freeze */
    if (dm_task_skip_lockfs(task)) {
        sigaction(SIGALRM, &act, &old);
        setitimer(ITIMER_REAL, &timer, NULL);
        rc = task_run(task);
        int saved = errno;
        setitimer(ITIMER_REAL, &off, NULL);
        sigaction(SIGALRM, &old, NULL);
        errno = saved;
        if (rc == FC_ESYS && errno == EINTR &&
            fc_now_ms() - start >= timeout_ms)
            rc = FC_ETIMEOUT;
    }
    dm_task_destroy(task);
    return rc;
}

static int read_table(const char *name, struct fc_dm_state *state)
{
    uint64_t start = 0, sectors = 0;
    char *target = NULL, *params = NULL;
    struct dm_task *task = task_new(DM_DEVICE_TABLE, name);

    if (!task)
        return FC_ESYS;
    int rc = task_run(task);
    if (rc == 0) {
        void *next =
            dm_get_next_target(task, NULL, &start, &sectors, &target, &params);
        state->sectors = sectors;
        snprintf(state->target, sizeof(state->target), "%s",
                 next     ? "mixed"
                 : target ? target
                          : "");
        snprintf(state->params, sizeof(state->params), "%s",
                 params ? params : "");
    }
    dm_task_destroy(task);
    return rc;
}

static int op_show(void *user, const char *name, struct fc_dm_state *state)
{
    struct dm_info info;
    struct dm_task *task = task_new(DM_DEVICE_INFO, name);
    (void)user;

    if (!task)
        return FC_ESYS;
    int rc = task_run(task);
    if (rc == 0 && !dm_task_get_info(task, &info))
        rc = FC_ENOMEM;
    if (rc == 0 && info.exists) {
        const char *uuid = dm_task_get_uuid(task);
        state->exists = true;
        state->suspended = info.suspended;
        state->inactive_table = info.inactive_table;
        state->read_only = info.read_only;
        state->major = info.major;
        state->minor = info.minor;
        state->open_count = info.open_count;
        snprintf(state->uuid, sizeof(state->uuid), "%s", uuid ? uuid : "");
    }
    dm_task_destroy(task);
    if (rc == 0 && state->exists)
        rc = read_table(name, state);
    return rc;
}

/*
 * One line of what sysfs says of a device; a partition has its disk's queue.
 * The device is not opened: that would have the kernel read a partition table
 * from it, for as long as whoever serves it takes.
 */
static bool read_attribute(const struct fc_dm_device *d, const char *name,
                           char *text, int size)
{
    static const char *const where[] = { "", "../" };
    char path[96];
    bool got = false;

    for (int i = 0; i < 2 && !got; i++) {
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s%s", d->major,
                 d->minor, where[i], name);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        got = fgets(text, size, f);
        fclose(f);
    }
    return got;
}

static bool read_number(const struct fc_dm_device *d, const char *name,
                        uint64_t *value_r)
{
    char text[32];

    if (!read_attribute(d, name, text, sizeof(text)))
        return false;
    *value_r = strtoull(text, NULL, 10);
    return true;
}

static int op_device(void *user, const char *path, struct fc_dm_device *device)
{
    uint64_t sectors, block, read_only;
    char cache[32] = "";
    struct stat st;
    (void)user;

    if (stat(path, &st))
        return FC_ESYS;
    if (!S_ISBLK(st.st_mode)) {
        errno = ENOTBLK;
        return FC_ESYS;
    }
    *device = (struct fc_dm_device){ .major = major(st.st_rdev),
                                     .minor = minor(st.st_rdev) };
    if (!read_number(device, "size", &sectors) ||
        !read_number(device, "ro", &read_only) ||
        !read_number(device, "queue/logical_block_size", &block)) {
        errno = ENXIO;
        return FC_ESYS;
    }
    device->sectors = sectors;
    device->logical_block = (uint32_t)block;
    device->read_only = read_only;
    device->volatile_cache =
        read_attribute(device, "queue/write_cache", cache, sizeof(cache)) &&
        !strncmp(cache, "write back", 10);
    return 0;
}

static void op_sleep(void *user, unsigned ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };
    (void)user;
    nanosleep(&t, NULL);
}

struct fc_dm fc_dm_kernel(void)
{
    static const struct fc_dm_ops ops = {
        .show = op_show,
        .device = op_device,
        .create = op_create,
        .load = op_load,
        .clear = op_clear,
        .suspend = op_suspend,
        .resume = op_resume,
        .remove = op_remove,
        .sleep_ms = op_sleep,
    };
    dm_log_with_errno_init(take_log);
    dm_udev_set_sync_support(0);
    /* without this it trusts a running udev to make the node */
    dm_udev_set_checking(0);
    return (struct fc_dm){ &ops, NULL };
}
