/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest behind fc_guest_ops, for PVH and HVM: pages are addressed by pfn,
 * which is what the hypervisor takes.
 *
 * A pfn without a page (ballooned out, past the end of the map) cannot be
 * mapped: the hypervisor says EINVAL. That is believed when it says so again
 * a little later; every other error is one, because answering "no page" for a
 * page that is there would lose it.
 */
#include "guest_xen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

#include "err.h"
#include "log.h"
#include "page.h"

#define MAX_PAGES 255u
#define TRIES 3u
#define BETWEEN_TRIES_US 2000

struct fc_guest_xen {
    xc_interface *xch;
    xenforeignmemory_handle *fmem;
    uint32_t domid;
    xen_pfn_t pages;
    xc_hypercall_buffer_t bitmap;
    int bitmap_pages;
};

static int alloc_bitmap(struct fc_guest_xen *g)
{
    DECLARE_HYPERCALL_BUFFER_SHADOW(uint64_t, bits, &g->bitmap);
    size_t bytes = ((size_t)g->pages + 63) / 64 * 8;
    g->bitmap_pages = (int)((bytes + XC_PAGE_SIZE - 1) / XC_PAGE_SIZE);
    bits = xc_hypercall_buffer_alloc_pages(g->xch, bits, g->bitmap_pages);
    if (!bits)
        g->bitmap_pages = 0;
    return bits ? 0 : FC_ENOMEM;
}

int fc_guest_xen_open(uint32_t domid, struct fc_guest_xen **guest_r)
{
    struct fc_guest_xen *g = calloc(1, sizeof(*g));
    int rc = FC_ENOMEM;
    if (!g)
        goto out;
    g->domid = domid;
    g->xch = xc_interface_open(NULL, NULL, 0);
    g->fmem = xenforeignmemory_open(NULL, 0);
    rc = FC_ESYS;
    if (!g->xch || !g->fmem || xc_domain_nr_gpfns(g->xch, domid, &g->pages) < 0)
        goto out;
    rc = alloc_bitmap(g);
out:
    if (rc < 0) {
        fc_warn("forecopy: domain %u cannot be opened: %s (%s)", domid,
                fc_strerror(rc), strerror(errno));
        fc_guest_xen_free(g);
        return rc;
    }
    *guest_r = g;
    return 0;
}

void fc_guest_xen_free(struct fc_guest_xen *g)
{
    if (!g)
        return;
    if (g->bitmap_pages) {
        DECLARE_HYPERCALL_BUFFER_SHADOW(uint64_t, bits, &g->bitmap);
        xc_hypercall_buffer_free_pages(g->xch, bits, g->bitmap_pages);
    }
    if (g->fmem)
        xenforeignmemory_close(g->fmem);
    if (g->xch)
        xc_interface_close(g->xch);
    free(g);
}

void fc_guest_xen_log_off(struct fc_guest_xen *g)
{
    /* Fails when it is off already, which is what is wanted. */
    xc_shadow_control(g->xch, g->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
}

static uint64_t guest_pages(void *user)
{
    return ((struct fc_guest_xen *)user)->pages;
}

/* Indices of the pages that are still to be copied. */
struct wanted {
    unsigned count;
    unsigned index[MAX_PAGES];
};

/*
 * Maps and copies what is wanted and leaves in `w` what could not be mapped
 * because there is no page. 0, or an error for any other failure.
 */
static int copy_pages(struct fc_guest_xen *g, const uint64_t *pfns,
                      struct wanted *w, uint8_t *pages, bool *has)
{
    xen_pfn_t gfns[MAX_PAGES];
    int errors[MAX_PAGES], rc = 0;
    unsigned count = w->count;
    if (!count)
        return 0;
    for (unsigned i = 0; i < count; i++)
        gfns[i] = pfns[w->index[i]];
    const uint8_t *map =
        xenforeignmemory_map(g->fmem, g->domid, PROT_READ, count, gfns, errors);
    if (!map)
        return FC_ESYS;
    w->count = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned at = w->index[i];
        if (!errors[i]) {
            memcpy(pages + (size_t)at * FC_PAGE_SIZE,
                   map + (size_t)i * FC_PAGE_SIZE, FC_PAGE_SIZE);
            has[at] = true;
        } else if (errors[i] == -EINVAL || errors[i] == -ENOENT) {
            w->index[w->count++] = at;
        } else {
            errno = -errors[i];
            rc = FC_ESYS;
        }
    }
    xenforeignmemory_unmap(g->fmem, (void *)(uintptr_t)map, count);
    return rc;
}

static int guest_read(void *user, const uint64_t *pfns, unsigned count,
                      uint8_t *pages, bool *has)
{
    struct fc_guest_xen *g = user;
    struct wanted w = { 0 };
    if (count > MAX_PAGES)
        return FC_EINVAL;
    for (unsigned i = 0; i < count; i++) {
        has[i] = false;
        if (pfns[i] < g->pages)
            w.index[w.count++] = i;
    }
    for (unsigned tries = 0; w.count && tries < TRIES; tries++) {
        int rc = copy_pages(g, pfns, &w, pages, has);
        if (rc < 0)
            return rc;
        if (w.count && tries + 1 < TRIES)
            usleep(BETWEEN_TRIES_US);
    }
    return 0;
}

static int guest_peek(void *user, const uint64_t **bitmap_r, uint64_t *bits_r,
                      uint64_t *dirty_r)
{
    struct fc_guest_xen *g = user;
    xc_shadow_op_stats_t stats = { 0 };
    DECLARE_HYPERCALL_BUFFER_SHADOW(uint64_t, bits, &g->bitmap);
    long long n =
        xc_logdirty_control(g->xch, g->domid, XEN_DOMCTL_SHADOW_OP_PEEK,
                            &g->bitmap, (unsigned long)g->pages, 0, &stats);
    if (n < 0)
        return FC_ESYS;
    *bitmap_r = bits;
    *bits_r = (uint64_t)n < g->pages ? (uint64_t)n : g->pages;
    *dirty_r = stats.dirty_count;
    return 0;
}

const struct fc_guest_ops fc_guest_xen_ops = {
    .pages = guest_pages,
    .read = guest_read,
    .peek = guest_peek,
};
