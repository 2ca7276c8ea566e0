/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DIRTYLOG_H
#define FC_DIRTYLOG_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The dirty log of one guest, shared fairly with whoever saves that guest; the
 * reasoning is at the head of dirtylog.c. Event loop thread only.
 */

struct fc_pfn_run {
    uint64_t first;
    uint32_t count;
};
#define FC_DIRTYLOG_RUNS 256u

/* What Xen does, in dirtylog_xen.c; tests have their own. Bitmaps have one bit
 * a pfn, 64 a word, bit 0 lowest. Errors: FC_ENODOM, FC_ESYS with errno. */
struct fc_dirtylog_ops {
    /* Number of pfns of the guest's physical map. */
    int (*size)(void *user, uint32_t domid, uint64_t *pfns_r);
    /* Also FC_EBUSY (is on already, or a device passed through forbids it),
     * FC_ENOLOG (Xen cannot). */
    int (*enable)(void *user, uint32_t domid);
    int (*disable)(void *user, uint32_t domid);
    /* Takes the bits and clears them. With the log off: 0 and no bit set. */
    int (*clean)(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns);
    /* Reads them, likewise. */
    int (*peek)(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns);
    /* Marks pages as written, at most FC_DIRTYLOG_RUNS runs; pages that do not
     * exist are passed over. With the log off: 0 and nothing happens. */
    int (*mark)(void *user, uint32_t domid, const struct fc_pfn_run *runs,
                unsigned count);
};

/* Guests with a physical map beyond this (4 TiB) are refused. */
#define FC_DIRTYLOG_MAX_PFNS (1ull << 30)

struct fc_dirtylog {
    const struct fc_dirtylog_ops *ops;
    void *user;
    const char *proc_root;
    uint32_t domid;
    uint64_t pfns;
    uint64_t canary; /* a page whose bit shows whether the log is on */
    bool on;   /* we switched it on, and nobody else has touched it since */
    bool held; /* a migration of ours is under way: hands off */
};

/* Fills in, asks Xen for the size; does not switch anything on. 0, FC_ENODOM,
 * FC_ELIMIT (guest too large) or FC_ESYS. */
int fc_dirtylog_init(struct fc_dirtylog *log, const struct fc_dirtylog_ops *ops,
                     void *user, const char *proc_root, uint32_t domid);

/*
 * Switches it on, all bits clear. 0; FC_EBUSY (held, or another save is under
 * way: try later), FC_ENOLOG, FC_ENODOM, FC_ESYS.
 */
int fc_dirtylog_enable(struct fc_dirtylog *log);

/* Switches it off when it is ours. 0; FC_EBUSY (it is a save's now);
 * FC_ETIMEOUT (too busy to look: it stays on, until somebody else's save or the
 * next enable); FC_ENODOM; FC_ESYS. */
int fc_dirtylog_disable(struct fc_dirtylog *log);

/*
 * Takes the bits, or reads them (peek). `bitmap` holds log->pfns bits and is
 * valid after 0; the canary's own bit is always set. Otherwise:
 * FC_EBUSY    the bits are not ours now: held, or another save is under way,
 *             which owns the log from here on (`on` is false); bits taken were
 *             given back
 * FC_EINVAL   the log was off, so writes went unseen; when `on` is true it was
 *             switched on again just now
 * FC_ETIMEOUT the machine is too busy to look whether a save is under way;
 *             nothing was done, nothing has changed
 * FC_ENODOM, FC_ESYS
 */
int fc_dirtylog_clean(struct fc_dirtylog *log, uint64_t *bitmap);
int fc_dirtylog_peek(struct fc_dirtylog *log, uint64_t *bitmap);

#endif
