/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GUESTMEM_H
#define FC_GUESTMEM_H

#include <stdint.h>

/*
 * Reading a guest's memory, in guestmem_xen.c; tests have their own. A handle
 * belongs to the thread that opened it.
 */
struct fc_guestmem_ops {
    /* 0, FC_ENOMEM or FC_ESYS. */
    int (*open)(void *user, void **handle_r);
    void (*close)(void *handle);

    /*
     * Copies `count` (at most FC_GUESTMEM_PAGES) pages, one after the other,
     * into `pages`; good[i] is 1 where there was one, 0 where not (a hole,
     * ballooned out). 0; FC_ENODOM or FC_ESYS when nothing could be read.
     */
    int (*copy)(void *handle, uint32_t domid, const uint64_t *pfns,
                unsigned count, uint8_t *pages, uint8_t *good);
};

#define FC_GUESTMEM_PAGES 256u

/* Xen's; `user` is not used. */
extern const struct fc_guestmem_ops fc_guestmem_xen_ops;

#endif
