/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LOGGER_XEN_H
#define FC_LOGGER_XEN_H

#include <xentoollog.h>

#include "libxl_msgs.h"

/* What libxc logs and its progress, on to libxl. Not to be destroyed by
 * xtl_logger_destroy(): it is the caller's storage. */
struct fc_logger {
    struct xentoollog_logger vtable; /* first */
    struct fc_libxl *libxl;
};

void fc_logger_init(struct fc_logger *logger, struct fc_libxl *libxl);

#endif
