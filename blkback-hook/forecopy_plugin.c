/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbdkit-forecopy-plugin: an engine behind nbdkit. Volumes, map and control
 * socket are opened in get_ready, as root; threads start in after_fork, when
 * nbdkit has become the user it is to be.
 *
 * A request that is held back has no answer but the right one. nbdkit, told to
 * end, would answer it with an error, which a guest sees; so a thread watches
 * for that and, with requests held, ends the process instead: their
 * connection breaks, and whoever sent them sends them again to the next engine.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkengine.h"
#include "err.h"
#include "log.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define BLOCK_PREFERRED 4096
#define REQUEST_MAX (32u << 20)
#define WATCH_US 50000

static struct {
    struct fc_blkengine_config config;
    bool has_role, has_uuid, open, watching;
    char *volume, *map, *control;
    struct fc_blkengine engine;
    pthread_t watcher;
    _Atomic bool ending;
} plugin = { .config = { .block_bytes = FC_SHADOW_BLOCK_DEFAULT } };

static void log_line(void *user, enum fc_level level, const char *line)
{
    (void)user;
    if (level <= FC_LOG_WARN)
        nbdkit_error("%s", line);
    else
        nbdkit_debug("%s", line);
}

static void forecopy_load(void)
{
    fc_log_init("nbdkit-forecopy-plugin", FC_LOG_DEBUG);
    fc_log_set_sink(log_line, NULL);
}

/* ---- parameters -----------------------------------------------------------
 */

static int set_path(char **to, const char *value)
{
    free(*to);
    *to = nbdkit_absolute_path(value);
    return *to ? 0 : -1;
}

static int set_size(const char *key, const char *value, uint64_t min,
                    uint64_t max, uint64_t *to)
{
    int64_t v = nbdkit_parse_size(value);
    if (v < 0)
        return -1;
    if ((uint64_t)v < min || (uint64_t)v > max) {
        nbdkit_error("%s=%s: must be %llu to %llu bytes", key, value,
                     (unsigned long long)min, (unsigned long long)max);
        return -1;
    }
    *to = (uint64_t)v;
    return 0;
}

static int set_role(const char *value)
{
    int role = fc_blkengine_role_parse(value);
    if (role < 0) {
        nbdkit_error("role=%s: must be source, shadow or cache", value);
        return -1;
    }
    plugin.config.role = role;
    plugin.has_role = true;
    if (role == FC_ENGINE_SOURCE)
        plugin.config.owner = true;
    return 0;
}

static int set_vdev(const char *value)
{
    if (!*value || strlen(value) >= sizeof(plugin.config.vdev)) {
        nbdkit_error("vdev=%s: must be 1 to %zu characters", value,
                     sizeof(plugin.config.vdev) - 1);
        return -1;
    }
    strcpy(plugin.config.vdev, value);
    return 0;
}

static int set_block_size(const char *value)
{
    uint64_t v;
    if (set_size("block-size", value, FC_SHADOW_BLOCK_MIN, FC_SHADOW_BLOCK_MAX,
                 &v))
        return -1;
    if (v & (v - 1)) {
        nbdkit_error("block-size=%s: must be a power of 2", value);
        return -1;
    }
    plugin.config.block_bytes = (uint32_t)v;
    return 0;
}

static int owner_text = -1; /* `owner` may come before `role` */

static int forecopy_config(const char *key, const char *value)
{
    struct fc_blkengine_config *c = &plugin.config;
    if (!strcmp(key, "role"))
        return set_role(value);
    if (!strcmp(key, "volume"))
        return set_path(&plugin.volume, value);
    if (!strcmp(key, "map"))
        return set_path(&plugin.map, value);
    if (!strcmp(key, "control"))
        return set_path(&plugin.control, value);
    if (!strcmp(key, "vdev"))
        return set_vdev(value);
    if (!strcmp(key, "block-size"))
        return set_block_size(value);
    if (!strcmp(key, "size"))
        return set_size(key, value, FC_FRAME_SECTOR, INT64_MAX, &c->size);
    if (!strcmp(key, "budget"))
        return set_size(key, value, 0, INT64_MAX, &c->budget_bytes);
    if (!strcmp(key, "primary")) {
        c->primary = value; /* nbdkit keeps it */
        return 0;
    }
    if (!strcmp(key, "owner")) {
        owner_text = nbdkit_parse_bool(value);
        return owner_text < 0 ? -1 : 0;
    }
    if (!strcmp(key, "uuid")) {
        plugin.has_uuid = !fc_uuid_parse(value, c->uuid);
        if (!plugin.has_uuid)
            nbdkit_error("uuid=%s: not a UUID", value);
        return plugin.has_uuid ? 0 : -1;
    }
    nbdkit_error("unknown parameter %s", key);
    return -1;
}

static int forecopy_config_complete(void)
{
    struct fc_blkengine_config *c = &plugin.config;
    bool source = c->role == FC_ENGINE_SOURCE;
    const char *missing = !plugin.has_role         ? "role"
                          : !plugin.volume         ? "volume"
                          : !plugin.control        ? "control"
                          : !plugin.has_uuid       ? "uuid"
                          : !c->vdev[0]            ? "vdev"
                          : !source && !plugin.map ? "map"
                          : c->role == FC_ENGINE_CACHE && !c->primary
                              ? "primary"
                              : NULL;
    if (missing) {
        nbdkit_error("parameter %s is missing", missing);
        return -1;
    }
    if (owner_text >= 0)
        c->owner = owner_text;
    c->volume = plugin.volume;
    c->map = plugin.map;
    c->control = plugin.control;
    return 0;
}

#define forecopy_config_help                                                   \
    "role=source|shadow|cache  (required) What this engine is.\n"              \
    "volume=PATH               (required) Block device or file.\n"             \
    "control=PATH              (required) Control socket to listen on.\n"      \
    "uuid=UUID vdev=NAME       (required) The guest and its disk.\n"           \
    "map=PATH                  Map of the shadow or cache.\n"                  \
    "primary=URI|PATH          NBD server or storage that a cache is of.\n"    \
    "block-size=SIZE           4096 to 1M, a power of 2; default 64K.\n"       \
    "size=SIZE                 Of the disk; default: the volume's.\n"          \
    "budget=SIZE               Most that a cache may hold; default: all.\n"    \
    "owner=BOOL                See the manual page."

/* ---- life -----------------------------------------------------------------
 */

static int forecopy_get_ready(void)
{
    plugin.open = !fc_blkengine_open(&plugin.config, &plugin.engine);
    return plugin.open ? 0 : -1;
}

static void *watch(void *arg)
{
    (void)arg;
    while (!plugin.ending && nbdkit_nanosleep(0, WATCH_US * 1000) == 0)
        ;
    while (!plugin.ending) {
        if (fc_blkengine_held(&plugin.engine)) {
            fc_blkengine_sync(&plugin.engine);
            _exit(EXIT_SUCCESS);
        }
        usleep(WATCH_US);
    }
    return NULL;
}

static int forecopy_after_fork(void)
{
    if (fc_blkengine_start(&plugin.engine))
        return -1;
    if (pthread_create(&plugin.watcher, NULL, watch, NULL)) {
        nbdkit_error("cannot start a thread");
        return -1;
    }
    plugin.watching = true;
    return 0;
}

static void forecopy_unload(void)
{
    plugin.ending = true;
    if (plugin.watching)
        pthread_join(plugin.watcher, NULL);
    if (plugin.open)
        fc_blkengine_close(&plugin.engine);
    free(plugin.volume);
    free(plugin.map);
    free(plugin.control);
}

/* ---- connections ----------------------------------------------------------
 */

static void *forecopy_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t forecopy_get_size(void *handle)
{
    (void)handle;
    return (int64_t)plugin.engine.size;
}

/* All connections meet in one engine: a flush on one is for all of them. */
static int yes(void *handle)
{
    (void)handle;
    return 1;
}

static int forecopy_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int forecopy_block_size(void *handle, uint32_t *minimum,
                               uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = BLOCK_PREFERRED;
    *maximum = REQUEST_MAX;
    return 0;
}

/* ---- requests -------------------------------------------------------------
 */

static int result(const char *what, uint64_t offset, uint32_t count, int rc)
{
    if (!rc)
        return 0;
    int err = rc == FC_EINVAL         ? EINVAL
              : rc == FC_ECANCEL      ? ESHUTDOWN
              : rc == FC_EIO && errno ? errno
                                      : EIO;
    nbdkit_error("%s of %u bytes at %llu: %s: %s", what, count,
                 (unsigned long long)offset, fc_strerror(rc), strerror(err));
    nbdkit_set_error(err);
    return -1;
}

static int forecopy_pread(void *handle, void *buf, uint32_t count,
                          uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    errno = 0;
    return result("read", offset, count,
                  fc_blkengine_read(&plugin.engine, offset, buf, count));
}

static int forecopy_pwrite(void *handle, const void *buf, uint32_t count,
                           uint64_t offset, uint32_t flags)
{
    (void)handle;
    errno = 0;
    return result("write", offset, count,
                  fc_blkengine_write(&plugin.engine, offset, buf, count,
                                     flags & NBDKIT_FLAG_FUA));
}

static int forecopy_zero(void *handle, uint32_t count, uint64_t offset,
                         uint32_t flags)
{
    (void)handle;
    errno = 0;
    return result("zero", offset, count,
                  fc_blkengine_zero(&plugin.engine, offset, count,
                                    flags & NBDKIT_FLAG_MAY_TRIM,
                                    flags & NBDKIT_FLAG_FUA));
}

static int forecopy_trim(void *handle, uint32_t count, uint64_t offset,
                         uint32_t flags)
{
    (void)handle;
    errno = 0;
    return result("trim", offset, count,
                  fc_blkengine_trim(&plugin.engine, offset, count,
                                    flags & NBDKIT_FLAG_FUA));
}

static int forecopy_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    errno = 0;
    return result("flush", 0, 0, fc_blkengine_flush(&plugin.engine));
}

static struct nbdkit_plugin nbdkit = {
    .name = "forecopy",
    .longname = "forecopy's disk engines",
    .version = FC_VERSION,
    .load = forecopy_load,
    .unload = forecopy_unload,
    .config = forecopy_config,
    .config_complete = forecopy_config_complete,
    .config_help = forecopy_config_help,
    .get_ready = forecopy_get_ready,
    .after_fork = forecopy_after_fork,
    .open = forecopy_open,
    .get_size = forecopy_get_size,
    .block_size = forecopy_block_size,
    .can_write = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_multi_conn = yes,
    .can_fua = forecopy_can_fua,
    .pread = forecopy_pread,
    .pwrite = forecopy_pwrite,
    .zero = forecopy_zero,
    .trim = forecopy_trim,
    .flush = forecopy_flush,
};

NBDKIT_REGISTER_PLUGIN(nbdkit)
