/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dirtylog.h"

#include <errno.h>
#include <string.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "procscan.h"

/*
 * Sharing the dirty log
 *
 * Xen keeps one dirty log for each guest and knows no owner of it. A save or
 * migration (xl, virsh, remus, anything that runs libxc) switches it on, sends
 * all memory, and from then on sends what CLEAN hands it. If we took the bits
 * of a page by a CLEAN of ours in the midst of that, the save would never
 * learn that the page changed, and the guest would wake up with an old page: a
 * guest corrupted in silence. All rules here follow from that.
 *
 *  1. Before every ENABLE, OFF, CLEAN and PEEK we look for a helper process
 *     that saves this domain (procscan.h). If there is one we do nothing. libxl
 *     runs every save in such a helper, with the domain's number among its
 *     arguments. A scan that cannot be made counts as "there is one".
 *
 *  2. A helper may start between that look and our CLEAN, so after each CLEAN
 *     we look again, and if one has appeared we mark every page we took as
 *     written once more, at once. The save then sees them in its next round.
 *     Why that is in time: the helper started after our first look, a
 *     moment ago, and has to send all of the guest's memory before it
 *     takes bits for the last time. To keep it a moment, a look that took
 *     longer than LOOK_MS (we did not get the CPU) is not relied on.
 *
 *  3. PEEK changes nothing, yet Xen answers EBUSY to an operation that meets
 *     another one half done; a save whose ENABLE meets our PEEK would fail. A
 *     helper needs longer from its start to its ENABLE than a PEEK lasts, so
 *     looking first is enough.
 *
 *  4. OFF pulls the log from under a save that began after the look. Then we
 *     look again, and if there is one, switch it on again and mark all memory
 *     as written: more than the save needs, never less. It is in its first pass
 *     over memory and has not asked for bits yet.
 *
 *  5. libxc switches the log off and on when a save starts and off when it
 *     ends. After a save was seen the log is no longer ours (`on` is false)
 *     until an ENABLE by rule 1; the caller must treat everything as unseen in
 *     between. A save that came and went between two looks leaves the log off,
 *     and Xen then reads as "nothing was written". So before each read we mark
 *     one page, the canary, as written: when its bit does not come back, either
 *     the log is off or that page is gone, and ENABLE tells which.
 *
 *  6. While migrate-begin holds the guest nothing is done at all.
 */
#define LOOK_MS 100u
#define LOOKS 4
#define RUN_PAGES (1u << 20)

/* Rule 1. 0: nobody saves this domain; FC_EBUSY: somebody does. */
static int look(const struct fc_dirtylog *log)
{
    pid_t pid = fc_procscan_saver(log->proc_root, log->domid);
    if (pid < 0) {
        fc_warn("cannot look through %s for saves of domain %u: %s; "
                "leaving its dirty log alone",
                log->proc_root, log->domid, strerror(errno));
        return FC_EBUSY;
    }
    return pid > 0 ? FC_EBUSY : 0;
}

/* A look that is still fresh when it returns; FC_ETIMEOUT when the machine is
 * too busy for one. */
static int fresh_look(const struct fc_dirtylog *log)
{
    for (int i = 0; i < LOOKS; i++) {
        uint64_t start = fc_now_ms();
        int rc = look(log);
        if (rc || fc_now_ms() - start <= LOOK_MS)
            return rc;
    }
    return FC_ETIMEOUT;
}

int fc_dirtylog_init(struct fc_dirtylog *log, const struct fc_dirtylog_ops *ops,
                     void *user, const char *proc_root, uint32_t domid)
{
    memset(log, 0, sizeof(*log));
    log->ops = ops;
    log->user = user;
    log->proc_root = proc_root;
    log->domid = domid;
    log->canary = 1;
    int rc = ops->size(user, domid, &log->pfns);
    if (rc)
        return rc;
    if (log->pfns < 2)
        return FC_ENODOM;
    return log->pfns > FC_DIRTYLOG_MAX_PFNS ? FC_ELIMIT : 0;
}

/* Marks the pages whose bits are set, all of them when `bitmap` is NULL. Xen
 * does not let the guest's highest page be marked; a save reads that one last
 * of all in its first pass, so after our CLEAN. */
static int give_back(const struct fc_dirtylog *log, const uint64_t *bitmap)
{
    struct fc_pfn_run runs[FC_DIRTYLOG_RUNS];
    unsigned count = 0;
    uint64_t end = log->pfns ? log->pfns - 1 : 0;

    for (uint64_t pfn = 0; pfn < end; pfn++) {
        if (bitmap && !bitmap[pfn / 64]) {
            pfn |= 63;
            continue;
        }
        if (bitmap && !(bitmap[pfn / 64] >> pfn % 64 & 1))
            continue;
        struct fc_pfn_run *last = count ? &runs[count - 1] : NULL;
        if (last && last->first + last->count == pfn &&
            last->count < RUN_PAGES) {
            last->count++;
            continue;
        }
        if (count == FC_DIRTYLOG_RUNS) {
            int rc = log->ops->mark(log->user, log->domid, runs, count);
            if (rc)
                return rc;
            count = 0;
        }
        runs[count++] = (struct fc_pfn_run){ pfn, 1 };
    }
    return count ? log->ops->mark(log->user, log->domid, runs, count) : 0;
}

/* Rule 4, after our OFF met a save. */
static void undo_disable(struct fc_dirtylog *log)
{
    int rc = log->ops->enable(log->user, log->domid);
    if (rc == FC_EBUSY)
        return; /* the save has switched it on itself */
    if (!rc)
        rc = give_back(log, NULL);
    if (rc)
        fc_error("domain %u: a save began while its dirty log was being "
                 "switched off, and it could not be switched on again: %s; "
                 "that save will fail and the guest run on",
                 log->domid, fc_strerror(rc));
}

/* On, and nobody saves: left over from a daemon that died, or it watches an
 * emulated screen. Starts it anew, as libxc does; by rule 4. */
static int restart(struct fc_dirtylog *log)
{
    if (fresh_look(log))
        return FC_EBUSY;
    int rc = log->ops->disable(log->user, log->domid);
    if (rc)
        return rc;
    if (look(log)) {
        undo_disable(log);
        return FC_EBUSY;
    }
    rc = log->ops->enable(log->user, log->domid);
    if (rc == FC_EBUSY && !look(log))
        rc = FC_ENOLOG;
    return rc;
}

int fc_dirtylog_enable(struct fc_dirtylog *log)
{
    if (log->held)
        return FC_EBUSY;
    if (log->on)
        return 0;
    int rc = fresh_look(log);
    if (rc)
        return FC_EBUSY;
    rc = log->ops->enable(log->user, log->domid);
    if (rc == FC_EBUSY)
        rc = restart(log);
    if (rc)
        return rc;
    /* A save that began meanwhile switches it off and on for itself. */
    rc = look(log);
    log->on = !rc;
    return rc;
}

int fc_dirtylog_disable(struct fc_dirtylog *log)
{
    if (log->held)
        return FC_EBUSY;
    if (!log->on)
        return 0;
    int rc = fresh_look(log);
    if (rc) {
        log->on = false; /* rule 5: the save switches it off at its end */
        return rc;       /* and without a look it had better stay on */
    }
    rc = log->ops->disable(log->user, log->domid);
    log->on = false;
    if (!rc && look(log)) {
        undo_disable(log);
        rc = FC_EBUSY;
    }
    return rc;
}

/* Rules 1, 5 and 6 ahead of CLEAN and PEEK. */
static int begin_read(struct fc_dirtylog *log)
{
    if (log->held)
        return FC_EBUSY;
    int rc = fresh_look(log);
    if (rc) {
        log->on = log->on && rc == FC_ETIMEOUT;
        return rc;
    }
    if (!log->on)
        return FC_EINVAL;
    struct fc_pfn_run canary = { log->canary, 1 };
    /* A failure shows as a missing bit. */
    (void)log->ops->mark(log->user, log->domid, &canary, 1);
    return 0;
}

/* Rule 5, when the canary's bit is missing from what was read. */
static int find_out_if_off(struct fc_dirtylog *log, const uint64_t *bitmap)
{
    int rc = fresh_look(log);
    if (!rc)
        rc = log->ops->enable(log->user, log->domid);
    else
        log->on = false;
    if (rc == FC_EBUSY && log->on) {
        /* It is on: the page is gone. Take one that was just written. */
        uint64_t last = log->pfns > 1 ? log->pfns - 1 : 1;
        uint64_t next = (log->canary + 1) % last;
        for (uint64_t w = 0; w < log->pfns / 64; w++)
            if (bitmap[w]) {
                next = w * 64 + (unsigned)__builtin_ctzll(bitmap[w]);
                break;
            }
        log->canary = next;
        return 0;
    }
    if (rc) {
        log->on = false;
        return rc == FC_ETIMEOUT ? FC_EBUSY : rc;
    }
    if (look(log)) {
        log->on = false;
        return FC_EBUSY;
    }
    fc_info("domain %u: its dirty log had been switched off by another save; "
            "switched it on again",
            log->domid);
    return FC_EINVAL;
}

static int check_canary(struct fc_dirtylog *log, const uint64_t *bitmap)
{
    uint64_t bit = 1ull << log->canary % 64;
    return bitmap[log->canary / 64] & bit ? 0 : find_out_if_off(log, bitmap);
}

int fc_dirtylog_clean(struct fc_dirtylog *log, uint64_t *bitmap)
{
    int rc = begin_read(log);
    if (!rc)
        rc = log->ops->clean(log->user, log->domid, bitmap, log->pfns);
    if (rc)
        return rc;
    if (!look(log))
        return check_canary(log, bitmap);

    log->on = false;
    rc = give_back(log, bitmap);
    if (rc)
        fc_error("domain %u: a save began while its dirty log was being read, "
                 "and what was read could not be given back: %s; stop that "
                 "save, the copy it makes may be stale",
                 log->domid, fc_strerror(rc));
    else
        fc_info("domain %u: a save began while its dirty log was being read; "
                "gave back what was read",
                log->domid);
    return FC_EBUSY;
}

int fc_dirtylog_peek(struct fc_dirtylog *log, uint64_t *bitmap)
{
    int rc = begin_read(log);
    if (!rc)
        rc = log->ops->peek(log->user, log->domid, bitmap, log->pfns);
    return rc ? rc : check_canary(log, bitmap);
}
