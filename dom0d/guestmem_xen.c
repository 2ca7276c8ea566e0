/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

#include "err.h"
#include "guestmem.h"
#include "page.h"

static int mem_open(void *user, void **handle_r)
{
    (void)user;
    xenforeignmemory_handle *fmem = xenforeignmemory_open(NULL, 0);
    if (!fmem)
        return FC_ESYS;
    *handle_r = fmem;
    return 0;
}

static void mem_close(void *handle)
{
    xenforeignmemory_close(handle);
}

static int mem_copy(void *handle, uint32_t domid, const uint64_t *pfns,
                    unsigned count, uint8_t *pages, uint8_t *good)
{
    xen_pfn_t list[FC_GUESTMEM_PAGES] = { 0 };
    int err[FC_GUESTMEM_PAGES];
    if (!count || count > FC_GUESTMEM_PAGES)
        return FC_EINVAL;
    for (unsigned i = 0; i < count; i++) {
        list[i] = pfns[i];
        err[i] = 0;
    }
    uint8_t *map =
        xenforeignmemory_map(handle, domid, PROT_READ, count, list, err);
    if (!map)
        return errno == ESRCH ? FC_ENODOM : FC_ESYS;
    for (unsigned i = 0; i < count; i++) {
        good[i] = !err[i];
        if (good[i])
            memcpy(pages + (size_t)i * FC_PAGE_SIZE,
                   map + (size_t)i * FC_PAGE_SIZE, FC_PAGE_SIZE);
    }
    xenforeignmemory_unmap(handle, map, count);
    return 0;
}

const struct fc_guestmem_ops fc_guestmem_xen_ops = {
    .open = mem_open,
    .close = mem_close,
    .copy = mem_copy,
};
