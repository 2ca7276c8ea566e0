/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xenstore.h>

#include "domains_xen.h"
#include "err.h"

#define BATCH 256u

static void take_info(const xc_domaininfo_t *info, struct fc_domain *dom)
{
    memset(dom, 0, sizeof(*dom));
    dom->domid = info->domain;
    memcpy(dom->uuid, info->handle, FC_UUID_BYTES);
    dom->type =
        info->flags & XEN_DOMINF_hvm_guest ? FC_DOMAIN_PVH : FC_DOMAIN_PV;
    dom->paused = info->flags & XEN_DOMINF_paused;
    dom->dying = info->flags & XEN_DOMINF_dying;
    dom->suspended = info->flags & XEN_DOMINF_shutdown &&
                     ((info->flags >> XEN_DOMINF_shutdownshift) &
                      XEN_DOMINF_shutdownmask) == SHUTDOWN_suspend;
    dom->cpu_ns = info->cpu_time;
    dom->pages = info->tot_pages;
    snprintf(dom->name, sizeof(dom->name), "domain-%u", dom->domid);
}

static int list(void *user, struct fc_domain *domains, unsigned cap)
{
    struct fc_domains_xen *x = user;
    xc_domaininfo_t *info = calloc(BATCH, sizeof(*info));
    unsigned count = 0;
    uint32_t first = 1;
    int n = -1;
    while (info && count < cap) {
        n = xc_domain_getinfolist(x->xch, first, BATCH, info);
        if (n <= 0)
            break;
        for (int i = 0; i < n && count < cap; i++)
            take_info(&info[i], &domains[count++]);
        first = info[n - 1].domain + 1u;
        if (n < (int)BATCH)
            break;
    }
    free(info);
    return n < 0 ? FC_ESYS : (int)count;
}

static char *read_key(void *user, const char *path)
{
    struct fc_domains_xen *x = user;
    unsigned len;
    return xs_read(x->xs, XBT_NULL, path, &len);
}

static int describe(void *user, struct fc_domain *dom)
{
    char path[64];
    snprintf(path, sizeof(path), "/local/domain/%u/name", dom->domid);
    char *name = read_key(user, path);
    if (!name)
        return errno == ENOENT ? FC_ENODOM : FC_ESYS;
    snprintf(dom->name, sizeof(dom->name), "%s", name);
    free(name);

    snprintf(path, sizeof(path), "/libxl/%u/type", dom->domid);
    char *type = read_key(user, path);
    if (type && dom->type != FC_DOMAIN_PV)
        dom->type = !strcmp(type, "hvm") ? FC_DOMAIN_HVM : FC_DOMAIN_PVH;
    free(type);
    return 0;
}

const struct fc_domains_ops fc_domains_xen_ops = {
    .list = list,
    .describe = describe,
};

static const struct {
    const char *path, *token;
    enum fc_xenwatch_type type;
} watches[] = {
    { "@introduceDomain", "introduce", FC_XENWATCH_DOMAIN },
    { "@releaseDomain", "release", FC_XENWATCH_DOMAIN },
    { FC_XENWATCH_CONFIG, "config", FC_XENWATCH_SETTING },
    { FC_XENWATCH_DOMAINS, "domains", FC_XENWATCH_SETTING },
};
#define WATCHES (sizeof(watches) / sizeof(watches[0]))

int fc_domains_xen_init(struct fc_domains_xen *x, struct xc_interface_core *xch,
                        struct xs_handle *xs)
{
    x->xch = xch;
    x->xs = xs;
    for (unsigned i = 0; i < WATCHES; i++)
        if (!xs_watch(xs, watches[i].path, watches[i].token))
            return FC_ESYS;
    return 0;
}

static int watch_fd(void *user)
{
    struct fc_domains_xen *x = user;
    return xs_fileno(x->xs);
}

static int watch_next(void *user, struct fc_xenwatch_event *event_r)
{
    struct fc_domains_xen *x = user;
    for (;;) {
        char **hit = xs_check_watch(x->xs);
        if (!hit)
            return 0;
        unsigned i = 0;
        while (i < WATCHES && strcmp(hit[XS_WATCH_TOKEN], watches[i].token))
            i++;
        if (i < WATCHES) {
            event_r->type = watches[i].type;
            snprintf(event_r->path, sizeof(event_r->path), "%s",
                     hit[XS_WATCH_PATH]);
        }
        free(hit);
        if (i < WATCHES)
            return 1;
    }
}

static char *list_keys(void *user, const char *path)
{
    struct fc_domains_xen *x = user;
    unsigned n;
    size_t bytes = 1, used = 0;
    char **names = xs_directory(x->xs, XBT_NULL, path, &n);
    if (!names)
        return NULL;
    for (unsigned i = 0; i < n; i++)
        bytes += strlen(names[i]) + 1;
    char *all = calloc(1, bytes);
    for (unsigned i = 0; all && i < n; i++) {
        size_t len = strlen(names[i]) + 1;
        memcpy(all + used, names[i], len);
        used += len;
    }
    free(names);
    return all;
}

const struct fc_xenwatch_ops fc_xenwatch_xen_ops = {
    .fd = watch_fd,
    .next = watch_next,
    .read = read_key,
    .list = list_keys,
};
