/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HELPER_H
#define FC_HELPER_H

#include <stdint.h>

#include "libxl_msgs.h"

/* What libxl gives the helper on its command line. */
struct fc_helper_args {
    int io_fd, back_fd; /* back_fd -1: none */
    uint32_t domid;
    uint32_t flags; /* save only */
    unsigned store_evtchn, store_domid, console_evtchn, console_domid;
    unsigned cbflags;
    unsigned stream_type; /* 0 plain, 1 remus, 2 colo */
};

/*
 * The helper's two tasks. Each does all of the conversation, `complete`
 * included, and returns the exit status.
 */
int fc_helper_save(const struct fc_helper_args *args, struct fc_libxl *libxl);
int fc_helper_restore(const struct fc_helper_args *args,
                      struct fc_libxl *libxl);

/* 0 when Xen's libraries are there, or 1. Touches no domain. */
int fc_helper_self_test(void);

#endif
