/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TAPDISK_H
#define FC_TAPDISK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A guest's disk served by tapdisk, where blktap is installed: another front
 * end to the same engine. Everything is asked of `tap-ctl`, found in PATH.
 *
 * An image is "aio:PATH" (a volume or file), "vhd:PATH", or "nbd:SOCKET": an
 * engine's socket, which nbdkit must serve with -o, since tapdisk speaks the
 * old style only. tapdisk's limits hold here:
 *  - it sends no flushes and no FUA, so what serves it must make each write
 *    durable before it answers;
 *  - a request that is not answered within 30 s counts as an error, so an
 *    outage can be held no longer than that;
 *  - after one error, or the end of the connection, it does not come back by
 *    itself; fc_tapdisk_swap() onto the same image brings it back;
 *  - its own NBD export answers a read that failed as if it had succeeded;
 *    only a guest's backend is to be put behind it, never a copier.
 *
 * Results are 0 or an fc_err, and a failure was logged: FC_ENOENT no tap-ctl,
 * FC_EPEER tap-ctl failed, FC_ETIMEOUT it did not end, FC_EFORMAT it said what
 * cannot be, FC_EINVAL the image's name. One thread.
 */
#define FC_TAPDISK_PATH_MAX 64

struct fc_tapdisk {
    long pid, minor;
};

bool fc_tapdisk_image_ok(const char *image);

/* A new tapdisk with the image open. After a failure nothing is left. */
int fc_tapdisk_attach(const char *image, bool read_only,
                      struct fc_tapdisk *tap_r);

/* The socket that the guest's backend (tapback) connects to. */
void fc_tapdisk_path(const struct fc_tapdisk *tap,
                     char path[FC_TAPDISK_PATH_MAX]);

/*
 * Exchanges the image: pause, which ends what is in flight and holds what
 * comes, and unpause onto the other. When that fails the old image is opened
 * again; when that fails too, tapdisk stays paused and the guest waits.
 */
int fc_tapdisk_swap(const struct fc_tapdisk *tap, const char *image);

/* Closes the image and ends tapdisk. */
int fc_tapdisk_detach(const struct fc_tapdisk *tap);

#endif
