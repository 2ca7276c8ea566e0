/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_XENWATCH_H
#define FC_XENWATCH_H

/*
 * What xenstore tells the daemon. Event loop thread only.
 */
#define FC_XENWATCH_CONFIG "/tool/forecopy/config"
#define FC_XENWATCH_DOMAINS "/tool/forecopy/domains"

enum fc_xenwatch_type {
    FC_XENWATCH_DOMAIN,  /* one was made or destroyed */
    FC_XENWATCH_SETTING, /* something at or below `path` changed */
};

struct fc_xenwatch_event {
    enum fc_xenwatch_type type;
    char path[256];
};

/* In xenwatch_xen.c; tests have their own. */
struct fc_xenwatch_ops {
    /* Readable when next() may have something; -1: never. */
    int (*fd)(void *user);

    /* 1 and an event, or 0. */
    int (*next)(void *user, struct fc_xenwatch_event *event_r);

    /* The value at `path` (the caller frees it), or NULL when there is none. */
    char *(*read)(void *user, const char *path);

    /* Names below `path`, separated by NULs and ended by an empty one (the
     * caller frees it), or NULL when there is nothing. */
    char *(*list)(void *user, const char *path);
};

#endif
