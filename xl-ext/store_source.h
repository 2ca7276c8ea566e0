/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STORE_SOURCE_H
#define FC_STORE_SOURCE_H

#include "decoder.h"
#include "store.h"

/*
 * The local daemon's store of staged pages as a place where references are
 * looked up. Its lookups may run in any thread.
 */
struct fc_store_source {
    struct fc_store_view view;
    int open;
    uint64_t pages; /* held, as the daemon says */
};

/*
 * Asks the daemon for the store that `hello` names and shows the token for.
 * Bounded in time. 0, or an error (FC_EDAEMON: no daemon; FC_ENOENT: no such
 * store), with one log line; the migration goes on without references.
 */
int fc_store_source_open(struct fc_store_source *s,
                         const struct fc_hello *hello);
void fc_store_source_dispose(struct fc_store_source *s);

/* The source for fc_decoder_ops.hello; valid while open. */
struct fc_page_source fc_store_source_pages(struct fc_store_source *s);

#endif
