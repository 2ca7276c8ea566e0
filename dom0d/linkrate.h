/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LINKRATE_H
#define FC_LINKRATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What the links to the hosts of the last migrations carried, for forecasts of
 * guests that are not staged there. Latest first; past the end the one used
 * longest ago goes. No locks: one thread.
 */
#define FC_LINKRATE_HOSTS 16u
#define FC_LINKRATE_NAME 256u

struct fc_linkrate {
    unsigned count;
    struct {
        char host[FC_LINKRATE_NAME];
        double bps;
    } of[FC_LINKRATE_HOSTS];
};

/* A migration to that host ("user@" is left out here and below) saw so many
 * bytes a second; 0 is ignored, and so is a name that is empty or too long. */
void fc_linkrate_learn(struct fc_linkrate *l, const char *host, double bps);

/* Bytes a second; 0: not known. */
double fc_linkrate_of(const struct fc_linkrate *l, const char *host);

/* As bytes: u32 version, u32 count, and for each u64 bytes a second, u16 length
 * and name. Length or FC_ETOOBIG; 0 or FC_EFORMAT, and then `l` is empty. */
#define FC_LINKRATE_BYTES (8u + FC_LINKRATE_HOSTS * (10u + FC_LINKRATE_NAME))
ssize_t fc_linkrate_encode(const struct fc_linkrate *l, void *out, size_t cap);
int fc_linkrate_decode(const void *buf, size_t len, struct fc_linkrate *l);

#endif
