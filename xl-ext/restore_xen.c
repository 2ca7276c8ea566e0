/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The restoring helper.
 *
 * On a plain stream the decoder is always in the way, because only the stream
 * itself says whether its sender proposes anything: an ordinary sender's
 * stream, or a saved file, passes it unchanged. A checkpointed stream (remus,
 * colo) never carries a proposal; libxc reads it from libxl's own file
 * descriptor, so that nothing can be read ahead of libxl's records between
 * checkpoints.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenguest.h>

#include "err.h"
#include "helper_xen.h"
#include "io.h"
#include "log.h"
#include "receiver.h"
#include "store_source.h"

struct restore {
    struct fc_helper helper; /* first */
    struct fc_store_source store;
    struct fc_receiver *receiver; /* NULL: libxc reads from io_fd */
    int pipe_fd;                  /* what libxc reads from then */
};

static int on_static_data_done(unsigned missing, void *data)
{
    struct restore *r = data;
    return fc_libxl_static_data_done(r->helper.libxl, missing);
}

static void on_restore_results(xen_pfn_t store_gfn, xen_pfn_t console_gfn,
                               void *data)
{
    struct restore *r = data;
    fc_libxl_restore_results(r->helper.libxl, store_gfn, console_gfn);
}

static void set_callbacks(struct restore *r, struct restore_callbacks *cb)
{
    const struct fc_helper *h = &r->helper;
    unsigned flags = h->args->cbflags;
    *cb = (struct restore_callbacks){
        .data = r,
        .suspend = fc_helper_callback(h, FC_LIBXL_SUSPEND),
        .postcopy = fc_helper_callback(h, FC_LIBXL_POSTCOPY),
        .checkpoint = fc_helper_callback(h, FC_LIBXL_CHECKPOINT),
        .wait_checkpoint = fc_helper_callback(h, FC_LIBXL_WAIT_CHECKPOINT),
    };
    if (fc_libxl_wants(flags, FC_LIBXL_STATIC_DATA_DONE))
        cb->static_data_done = on_static_data_done;
    if (fc_libxl_wants(flags, FC_LIBXL_RESTORE_RESULTS))
        cb->restore_results = on_restore_results;
}

/* A thread of the receiver. */
static void on_hello(void *user, const struct fc_hello *hello,
                     struct fc_page_source *source, uint64_t *held_r)
{
    struct restore *r = user;
    if (fc_store_source_open(&r->store, hello) < 0)
        return;
    *source = fc_store_source_pages(&r->store);
    *held_r = r->store.pages;
}

static int start_receiver(struct restore *r)
{
    int fds[2];
    int rc = fc_helper_pipe(fds);
    if (rc < 0)
        return rc;
    struct fc_receiver_config c = {
        .in_fd = r->helper.args->io_fd,
        .out_fd = fds[1],
        .back_fd = r->helper.args->back_fd,
        .hello = on_hello,
        .user = r,
    };
    rc = fc_receiver_start(&c, &r->receiver);
    if (rc < 0) {
        r->receiver = NULL;
        close(fds[0]);
        return rc;
    }
    r->pipe_fd = fds[0];
    return 0;
}

static void finish_receiver(struct restore *r, bool ok)
{
    if (!r->receiver)
        return;
    int saved = errno;
    const struct fc_decoder_counts *n = fc_receiver_counts(r->receiver);
    fc_receiver_finish(r->receiver, ok);
    if (*fc_receiver_why(r->receiver))
        fc_error("forecopy: %s", fc_receiver_why(r->receiver));
    else if (fc_receiver_agreed(r->receiver))
        fc_info("forecopy: %" PRIu64 " pages by reference, %" PRIu64
                " sent, %" PRIu64 " zero, %" PRIu64 " asked for again",
                n->ref, n->data, n->zero, n->missing);
    errno = saved;
}

static int restore_domain(struct restore *r)
{
    const struct fc_helper_args *a = r->helper.args;
    struct restore_callbacks cb;
    unsigned long store_gfn = 0, console_gfn = 0;
    set_callbacks(r, &cb);
    int rc =
        xc_domain_restore(r->helper.xch, r->receiver ? r->pipe_fd : a->io_fd,
                          a->domid, a->store_evtchn, &store_gfn, a->store_domid,
                          a->console_evtchn, &console_gfn, a->console_domid,
                          (xc_stream_type_t)a->stream_type, &cb, a->back_fd);
    finish_receiver(r, rc == 0);
    int saved = errno;
    fc_libxl_restore_results(r->helper.libxl, store_gfn, console_gfn);
    errno = saved;
    return rc;
}

int fc_helper_restore(const struct fc_helper_args *args, struct fc_libxl *libxl)
{
    struct restore r = { .pipe_fd = -1 };
    if (fc_helper_open(&r.helper, args, libxl) < 0)
        return 255;
    signal(SIGPIPE, SIG_IGN);
    /* Without the decoder an agreed stream cannot be read, but an ordinary
     * one can: its records of ours are optional until WELCOME. */
    if (args->stream_type == 0 && start_receiver(&r) < 0)
        fc_warn("forecopy: no decoder: %s; only plain streams can be restored",
                strerror(errno));
    int rc = restore_domain(&r);
    int errnoval = errno;
    fc_receiver_free(r.receiver);
    fc_store_source_dispose(&r.store);
    fc_close(&r.pipe_fd);
    return fc_helper_finish(&r.helper, rc, errnoval);
}
