/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xendevicemodel.h>

#include "dirtylog_xen.h"
#include "err.h"

/*
 * Xen's side of the dirty log; the rules for using it are in dirtylog.c. CLEAN
 * and PEEK need memory that Xen may write to (a "hypercall buffer"): one is
 * kept, as large as the largest guest asked about. Event loop thread only.
 */
struct fc_dirtylog_xen {
    xc_interface *xch;
    xendevicemodel_handle *dmod;
    uint64_t *bits;
    xc_hypercall_buffer_t bits_buffer;
    size_t pages;
};

int fc_dirtylog_xen_new(struct xc_interface_core *xch,
                        struct fc_dirtylog_xen **xen_r)
{
    struct fc_dirtylog_xen *xen = calloc(1, sizeof(*xen));
    if (!xen)
        return FC_ENOMEM;
    xen->xch = xch;
    xen->dmod = xendevicemodel_open(NULL, 0);
    if (!xen->dmod) {
        free(xen);
        return FC_ESYS;
    }
    *xen_r = xen;
    return 0;
}

static void drop_buffer(struct fc_dirtylog_xen *xen)
{
    if (xen->bits)
        xc__hypercall_buffer_free_pages(xen->xch, &xen->bits_buffer,
                                        (int)xen->pages);
    xen->bits = NULL;
    xen->pages = 0;
}

void fc_dirtylog_xen_free(struct fc_dirtylog_xen *xen)
{
    if (!xen)
        return;
    drop_buffer(xen);
    xendevicemodel_close(xen->dmod);
    free(xen);
}

/* errno of a failed call to one of ours */
static int failed(void)
{
    switch (errno) {
    case ESRCH:
        return FC_ENODOM;
    case EOPNOTSUPP:
    case ENOSYS:
        return FC_ENOLOG;
    default:
        return FC_ESYS;
    }
}

static int log_size(void *user, uint32_t domid, uint64_t *pfns_r)
{
    struct fc_dirtylog_xen *xen = user;
    xen_pfn_t pfns;
    if (xc_domain_nr_gpfns(xen->xch, domid, &pfns) < 0)
        return failed();
    *pfns_r = pfns;
    return 0;
}

static int log_enable(void *user, uint32_t domid)
{
    struct fc_dirtylog_xen *xen = user;
    if (xc_shadow_control(xen->xch, domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY,
                          NULL, 0) < 0)
        return errno == EINVAL ? FC_EBUSY : failed();
    return 0;
}

static int log_disable(void *user, uint32_t domid)
{
    struct fc_dirtylog_xen *xen = user;
    if (xc_shadow_control(xen->xch, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) <
        0)
        return failed();
    return 0;
}

static int make_room(struct fc_dirtylog_xen *xen, size_t bytes)
{
    size_t pages = (bytes + XC_PAGE_SIZE - 1) / XC_PAGE_SIZE;
    if (pages <= xen->pages)
        return 0;
    drop_buffer(xen);
    memset(&xen->bits_buffer, 0, sizeof(xen->bits_buffer));
    xen->bits = xc__hypercall_buffer_alloc_pages(xen->xch, &xen->bits_buffer,
                                                 (int)pages);
    if (!xen->bits)
        return FC_ENOMEM;
    xen->pages = pages;
    return 0;
}

static int read_bits(struct fc_dirtylog_xen *xen, uint32_t domid, unsigned op,
                     uint64_t *bitmap, uint64_t pfns)
{
    size_t bytes = (pfns + 63) / 64 * 8;
    int rc = make_room(xen, bytes);
    if (rc)
        return rc;
    memset(xen->bits, 0, bytes);
    if (xc_logdirty_control(xen->xch, domid, op, &xen->bits_buffer, pfns, 0,
                            NULL) < 0)
        return failed();
    memcpy(bitmap, xen->bits, bytes);
    return 0;
}

static int log_clean(void *user, uint32_t domid, uint64_t *bitmap,
                     uint64_t pfns)
{
    return read_bits(user, domid, XEN_DOMCTL_SHADOW_OP_CLEAN, bitmap, pfns);
}

static int log_peek(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns)
{
    return read_bits(user, domid, XEN_DOMCTL_SHADOW_OP_PEEK, bitmap, pfns);
}

static int log_mark(void *user, uint32_t domid, const struct fc_pfn_run *runs,
                    unsigned count)
{
    struct fc_dirtylog_xen *xen = user;
    struct xen_dm_op_modified_memory_extent extents[FC_DIRTYLOG_RUNS];
    if (count > FC_DIRTYLOG_RUNS)
        return FC_EINVAL;
    memset(extents, 0, sizeof(extents));
    for (unsigned i = 0; i < count; i++) {
        extents[i].first_pfn = runs[i].first;
        extents[i].nr = runs[i].count;
    }
    if (xendevicemodel_modified_memory_bulk(xen->dmod, (domid_t)domid, extents,
                                            count) < 0)
        return failed();
    return 0;
}

const struct fc_dirtylog_ops fc_dirtylog_xen_ops = {
    .size = log_size,
    .enable = log_enable,
    .disable = log_disable,
    .clean = log_clean,
    .peek = log_peek,
    .mark = log_mark,
};
