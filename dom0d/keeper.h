/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_KEEPER_H
#define FC_KEEPER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "io.h"
#include "session.h"

/*
 * Keeper: the unprivileged process at the destination that serves the channels
 * of one guest (docs/formats/channel.md) and writes its page store
 * (docs/formats/store.md). The daemon forks it, gives it channels, hears its
 * status and sees its end; it never reads a channel itself.
 *
 * The store lives exactly as long as its keeper: when the keeper ends, for
 * whatever reason, the daemon closes the store's descriptor, and a source that
 * comes again gets a new keeper, a new file and so a new epoch.
 */
#define FC_KEEPER_CHANNELS 16u

struct fc_keeper_args {
    int sock;     /* seqpacket socket to the daemon; set by fc_keeper_spawn */
    int store_fd; /* of fc_store_file_new(), writable, never opened before */
    uint8_t uuid[FC_UUID_BYTES];
    uint8_t token[FC_TOKEN_BYTES];
    uint64_t budget_bytes;
    uint64_t linger_ms; /* free the store after so long without a channel */
    uint64_t idle_ms;   /* close a channel silent for so long; 0: 120 s */
    uid_t uid;          /* to become when started as root */
    gid_t gid;
};

/*
 * Runs the keeper in the calling process until it is over and returns its exit
 * status: 0 when the store was freed or the daemon asked for the end, 1 on a
 * failure of its own. Drops every privilege and every descriptor but its own
 * first; call it in a fresh child only, and _exit with its result.
 */
int fc_keeper_run(const struct fc_keeper_args *args);

/*
 * Forks a keeper. Returns the daemon's end of its socket (close-on-exec,
 * non-blocking) or FC_ESYS. `args->sock` is ignored. The store's descriptor
 * stays the caller's too. Only from a thread that holds no lock.
 */
int fc_keeper_spawn(const struct fc_keeper_args *args, pid_t *pid_r);

/*
 * Hands a channel over: `in_fd` is read from, `out_fd` written to (they may be
 * the same). The caller's descriptors stay its own; close them. `id` comes
 * back in the CLOSED event. 0, FC_EBUSY (the keeper is behind: try again
 * later) or FC_EIO.
 */
int fc_keeper_give_channel(int sock, uint64_t id, int in_fd, int out_fd);

/* Commands; 0, FC_EBUSY or FC_EIO. */
int fc_keeper_set_budget(int sock, uint64_t budget_bytes); /* evicts to it */
int fc_keeper_shutdown(int sock); /* BYE 3 to the source, then exit */
int fc_keeper_free(int sock);     /* BYE 2 to the source, then exit */

enum fc_keeper_event_type {
    FC_KEEPER_STATUS = 1,
    FC_KEEPER_LOG = 2,
    FC_KEEPER_CLOSED = 3, /* the keeper let a channel go */
    FC_KEEPER_MODEL = 4,  /* a part of a MODEL frame's body */
};

/* At most ten a second, and one last before the keeper ends. */
struct fc_keeper_status {
    uint64_t epoch;
    uint64_t pfns;         /* pages mapped */
    uint64_t pages;        /* distinct contents */
    uint64_t stored_bytes; /* of these */
    uint64_t used_bytes;   /* of the budget */
    uint64_t budget_bytes;
    uint64_t puts, duplicates, evicted, refused;
    uint64_t received_bytes; /* over all channels */
    uint32_t channels;       /* open, after HELLO */
    int32_t last_error;      /* an fc_err, 0: none so far */
    uint8_t ending;          /* 1: freed, the keeper is about to exit */
};

#define FC_KEEPER_TEXT 256u
#define FC_KEEPER_PART 8192u /* bytes of a MODEL's body in one packet */

struct fc_keeper_event {
    enum fc_keeper_event_type type;
    union {
        struct fc_keeper_status status;
        struct {
            int level;                     /* enum fc_level */
            char text[FC_KEEPER_TEXT + 1]; /* unscrubbed: fc_log() scrubs */
        } log;
        struct {
            uint64_t id;
        } closed;
        struct {
            uint32_t total, at, len; /* at + len at most total */
            uint8_t bytes[FC_KEEPER_PART];
        } model;
    };
};

/* Longest packet from a keeper. */
#define FC_KEEPER_PACKET (512u + FC_KEEPER_PART)

/* One packet of a keeper, which is not trusted. 0 or FC_EFORMAT. */
int fc_keeper_event_parse(const void *packet, size_t len,
                          struct fc_keeper_event *event_r);

/* The same for a packet that must be a status. */
int fc_keeper_status_parse(const void *packet, size_t len,
                           struct fc_keeper_status *status_r);

/*
 * Reads one event from the daemon's end without waiting. 1; 0 when there is
 * none now; FC_EEOF when the keeper is gone; FC_EIO; FC_EFORMAT (skip it).
 */
int fc_keeper_event_read(int sock, struct fc_keeper_event *event_r);

#endif
