/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HELPER_XEN_H
#define FC_HELPER_XEN_H

#include <xenctrl.h>

#include "helper.h"
#include "logger_xen.h"

/*
 * What saving and restoring share: the way to libxc and from libxc to libxl.
 * It is the first member of the struct that each gives libxc as its callbacks'
 * data. One thread.
 */
struct fc_helper {
    const struct fc_helper_args *args; /* the caller's */
    struct fc_libxl *libxl;            /* the caller's */
    struct fc_logger logger;
    xc_interface *xch;
};

/* 0, or FC_ESYS, logged. Then fc_helper_finish() must be called. */
int fc_helper_open(struct fc_helper *h, const struct fc_helper_args *args,
                   struct fc_libxl *libxl);

/* Tells libxl how it went, with errno when `rc` is not 0, and closes libxc.
 * Returns the helper's exit status. */
int fc_helper_finish(struct fc_helper *h, int rc, int errnoval);

/*
 * A pipe between libxc and us, as large as one may be made: the default size is
 * as right, only slower. 0 or FC_ESYS with errno.
 */
int fc_helper_pipe(int fds[2]);

/*
 * The callback that passes `m` on to libxl and its reply back: of
 * FC_LIBXL_SUSPEND, POSTCOPY, CHECKPOINT or WAIT_CHECKPOINT. NULL when libxl
 * does not want to be called.
 */
int (*fc_helper_callback(const struct fc_helper *h,
                         enum fc_libxl_message m))(void *data);

#endif
