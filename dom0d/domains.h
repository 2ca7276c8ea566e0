/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DOMAINS_H
#define FC_DOMAINS_H

#include <stdbool.h>
#include <stdint.h>

#include "io.h"

/*
 * The domains of this host. Event loop thread only.
 */
enum fc_domain_type {
    FC_DOMAIN_PV,
    FC_DOMAIN_PVH,
    FC_DOMAIN_HVM,
};
const char *fc_domain_type_name(enum fc_domain_type type);

#define FC_DOMAIN_NAME 128u

struct fc_domain {
    uint32_t domid;
    uint8_t uuid[FC_UUID_BYTES];
    char name[FC_DOMAIN_NAME];
    enum fc_domain_type type;
    bool paused, dying;
    bool suspended;     /* by a save or migration that has not ended it yet */
    uint64_t cpu_ns;    /* ever */
    uint64_t pages;     /* at present */
    uint64_t vif_bytes; /* both ways, ever */
    uint64_t vbd_bytes;

    uint64_t counted_cpu_ns; /* inner: at the last count */
    bool counted;

    double cpu_percent; /* of one cpu, over the last second */
    double vif_bytes_ps, vbd_bytes_ps;
    bool seen; /* inner: in the scan under way */
};

/* Where they come from, in domains_xen.c; tests have their own. */
struct fc_domains_ops {
    /*
     * Fills in domid, uuid, type (pv or not), paused, dying, suspended, cpu_ns,
     * pages of all but domain 0, at most `cap`. Returns their number or
     * FC_ESYS.
     */
    int (*list)(void *user, struct fc_domain *domains, unsigned cap);

    /* Fills in name and type of one that is new or may have been renamed.
     * 0, FC_ENODOM or FC_ESYS. */
    int (*describe)(void *user, struct fc_domain *domain);
};

#define FC_DOMAINS_MAX 4096u

struct fc_domains {
    const struct fc_domains_ops *ops;
    void *user;
    const char *sys_root; /* "/sys"; tests have their own */
    struct fc_domain *list, *scan;
    unsigned count;
    uint64_t counted_ms, described_ms;

    /* Called from within fc_domains_scan(); may be NULL. */
    void (*came)(void *arg, const struct fc_domain *domain);
    void (*gone)(void *arg, const struct fc_domain *domain);
    void *arg;
};

/* 0 or FC_ENOMEM. */
int fc_domains_init(struct fc_domains *d, const struct fc_domains_ops *ops,
                    void *user, const char *sys_root);
void fc_domains_dispose(struct fc_domains *d);

/* Looks who is there, and what they are called. 0 or FC_ESYS. */
int fc_domains_scan(struct fc_domains *d);

/* Looks and brings the counters and what they give a second up to date; names
 * only every 5 s, but of suspended ones each time. 0 or FC_ESYS. */
int fc_domains_count(struct fc_domains *d, uint64_t now_ms);

/* By uuid, domid or name, in this order of preference; NULL when there is none
 * (or none at that domid any more). */
const struct fc_domain *fc_domains_find(const struct fc_domains *d,
                                        const char *what);
const struct fc_domain *fc_domains_by_uuid(const struct fc_domains *d,
                                           const uint8_t *uuid);

#endif
