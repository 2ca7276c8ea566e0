/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper_xen.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "err.h"
#include "log.h"

#define PIPE_BYTES 1048576

int fc_helper_open(struct fc_helper *h, const struct fc_helper_args *args,
                   struct fc_libxl *libxl)
{
    h->args = args;
    h->libxl = libxl;
    fc_logger_init(&h->logger, libxl);
    h->xch = xc_interface_open(&h->logger.vtable, &h->logger.vtable, 0);
    if (h->xch)
        return 0;
    fc_error("xc_interface_open failed: %s", strerror(errno));
    return FC_ESYS;
}

int fc_helper_finish(struct fc_helper *h, int rc, int errnoval)
{
    int done = fc_libxl_complete(h->libxl, rc, rc ? errnoval : 0);
    xc_interface_close(h->xch);
    return done < 0 ? 254 : 0;
}

int fc_helper_pipe(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC) < 0)
        return FC_ESYS;
    fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    return 0;
}

static int call(void *data, enum fc_libxl_message m)
{
    struct fc_helper *h = data;
    return fc_libxl_call(h->libxl, m);
}

static int on_suspend(void *data)
{
    return call(data, FC_LIBXL_SUSPEND);
}

static int on_postcopy(void *data)
{
    return call(data, FC_LIBXL_POSTCOPY);
}

static int on_checkpoint(void *data)
{
    return call(data, FC_LIBXL_CHECKPOINT);
}

static int on_wait_checkpoint(void *data)
{
    return call(data, FC_LIBXL_WAIT_CHECKPOINT);
}

int (*fc_helper_callback(const struct fc_helper *h,
                         enum fc_libxl_message m))(void *data)
{
    if (!fc_libxl_wants(h->args->cbflags, m))
        return NULL;
    switch (m) {
    case FC_LIBXL_SUSPEND:
        return on_suspend;
    case FC_LIBXL_POSTCOPY:
        return on_postcopy;
    case FC_LIBXL_CHECKPOINT:
        return on_checkpoint;
    case FC_LIBXL_WAIT_CHECKPOINT:
        return on_wait_checkpoint;
    default:
        return NULL;
    }
}
