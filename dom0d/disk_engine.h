/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DISK_ENGINE_H
#define FC_DISK_ENGINE_H

#include <json-c/json.h>
#include <sys/types.h>

#include "child.h"
#include "disk_id.h"

struct event_base;
struct fc_blocktrace;

/*
 * One disk's engine: an nbdkit with forecopy's plugin, a child of the daemon's
 * that outlives it. It is spoken to over its control socket
 * (docs/formats/engine-control.md), a connection for each request. When it dies
 * it is started anew, and the kernel's nbd device is connected to it again.
 * Event loop thread only.
 */

/* What all disks share; strings are kept, not copied. */
struct fc_disk_env {
    struct event_base *base;
    struct fc_children *children;
    const char *run_dir;   /* has UUID-VDEV/ of each disk */
    const char *state_dir; /* databases and maps */
    const char *nbdkit, *plugin;
    const char *tool; /* forecopy-block */
    uid_t uid;        /* of engines; 0: they stay as they are */
    gid_t gid;
    struct fc_blocktrace
        *trace; /* what the predictor knows of disks; or NULL */
};

/* A file of the disk's in the run directory; `leaf` "": the directory. */
void fc_disk_run_path(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *leaf,
                      char out[FC_DISK_PATH]);
/* Makes the disk's directory. 0 or FC_ESYS. */
int fc_disk_run_make(const struct fc_disk_env *env,
                     const struct fc_disk_id *id);
/* The first line of such a file. 0, FC_ENOENT or FC_EIO. */
int fc_disk_run_read(const struct fc_disk_env *env, const struct fc_disk_id *id,
                     const char *leaf, char out[FC_DISK_PATH]);
/* Writes such a file by renaming (text NULL: removes it). 0 or FC_ESYS. */
int fc_disk_run_write(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *leaf,
                      const char *text);
/* Whether another disk of a guest here is attached from this volume. */
bool fc_disk_run_uses(const struct fc_disk_env *env,
                      const struct fc_disk_id *id, const char *volume);
/* The device mapper's name of the guest's disk. */
#define FC_DISK_DM (sizeof("forecopy-") + FC_DISK_ID_TEXT)
void fc_disk_dm_name(const struct fc_disk_id *id, char out[FC_DISK_DM]);

struct fc_disk_engine_spec {
    struct fc_disk_id id;
    const char *role; /* "source", "shadow"; a constant */
    char volume[FC_DISK_PATH];
    char map[FC_DISK_PATH]; /* "": none */
    uint64_t size;          /* 0: the volume's */
    uint32_t block_bytes;
    bool owner;
};

struct fc_disk_engine;

struct fc_disk_engine_events {
    /* It answers; `again`: after it had died. Its state began anew then. */
    void (*up)(void *user, bool again);
    /* It has died and is being started anew; or it cannot be started at
     * first (`last`): nothing more will come. */
    void (*down)(void *user, const char *why, bool last);
};

/*
 * Starts the engine, or takes over one that answers at the control socket
 * already. Events come later, not from within. 0, FC_ENOMEM or FC_ESYS.
 */
int fc_disk_engine_new(const struct fc_disk_env *env,
                       const struct fc_disk_engine_spec *spec,
                       const struct fc_disk_engine_events *events, void *user,
                       struct fc_disk_engine **engine_r);

bool fc_disk_engine_is_up(const struct fc_disk_engine *e);

/* Whether it is to be started as the owner when it has died. */
void fc_disk_engine_set_owner(struct fc_disk_engine *e, bool owner);

/* The kernel's device that is connected to it ("": none), to be connected again
 * after it has died. */
void fc_disk_engine_set_device(struct fc_disk_engine *e, const char *device);

/* Whether its process was started by this daemon, and not found. */
bool fc_disk_engine_was_started(const struct fc_disk_engine *e);

/* Kills the process; one that comes up anew takes its place, and down() and
 * up() tell of it. What the guest has asked of it waits meanwhile. */
void fc_disk_engine_restart(struct fc_disk_engine *e);

/* Where it serves NBD. */
const char *fc_disk_engine_socket(const struct fc_disk_engine *e);

/*
 * `rc` 0 with the reply (the engine's, valid during the call) and a descriptor
 * that came with it (-1: none; closed after the call unless taken by
 * *fd = -1); else the code it gave, FC_EDAEMON or FC_ETIMEOUT with a sentence.
 */
typedef void fc_disk_engine_answer(void *user, int rc,
                                   struct json_object *reply, int *fd,
                                   const char *why);

/*
 * One request; takes over `request` and, when it returns 0, has sent the
 * descriptors, which stay the caller's. `answer` comes later, not from within,
 * and not at all once the engine is freed or ended. 0, FC_EDAEMON, FC_ENOMEM.
 */
int fc_disk_engine_call(struct fc_disk_engine *e, struct json_object *request,
                        const int *fds, int nfds, unsigned timeout_ms,
                        fc_disk_engine_answer *answer, void *user);

/* {"cmd":NAME} */
struct json_object *fc_disk_engine_request(const char *name);

/* Ends the process and frees the engine; `ended` (may be NULL) is called when
 * the process is no more, maybe from within. */
void fc_disk_engine_end(struct fc_disk_engine *e, void (*ended)(void *user),
                        void *user);

/* Frees it and leaves the process alone. */
void fc_disk_engine_leave(struct fc_disk_engine *e);

#endif
