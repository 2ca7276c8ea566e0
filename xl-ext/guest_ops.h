/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GUEST_OPS_H
#define FC_GUEST_OPS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What the sending side needs of the guest besides libxc's stream. Xen's
 * implementation is guest_xen.c; tests have a model. read() and peek() may be
 * called from different threads, but each by one thread at a time.
 */
struct fc_guest_ops {
    /* Length of the physical map in pages. */
    uint64_t (*pages)(void *user);
    /*
     * Copies `count` pages, at most 255, as they are now. has[i] is false
     * where the guest has no page. 0, or an error when one that exists cannot
     * be read.
     */
    int (*read)(void *user, const uint64_t *pfns, unsigned count,
                uint8_t *pages, bool *has);
    /*
     * The dirty log as it stands, without cleaning it. The bitmap is valid
     * until the next call. Must not run while libxc cleans or ends the log:
     * Xen would fail one of the two. 0 or an error.
     */
    int (*peek)(void *user, const uint64_t **bitmap_r, uint64_t *bits_r,
                uint64_t *dirty_r);
};

#endif
