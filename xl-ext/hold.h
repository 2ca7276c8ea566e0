/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HOLD_H
#define FC_HOLD_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How long a round is held back before its first page is sent: until the guest
 * dirties far fewer pages than can be sent. Those it writes all the time then
 * show in the log and are dropped from the round, where otherwise the first of
 * them would go in vain. Plain arithmetic; any thread.
 */
struct fc_hold {
    uint64_t rate; /* pages a second that can be sent */
    uint64_t start_ms, most_ms, seen_ms, seen_pages;
};

#define FC_HOLD_MS 3000u /* at most; and no longer than sending would take */

/* The log has just been cleaned. False: send at once (`rate` 0: not known). */
bool fc_hold_begin(struct fc_hold *h, uint64_t rate, uint64_t round_pages,
                   uint64_t now_ms);

/* The log shows `dirty` pages now. Whether to look again. */
bool fc_hold_more(struct fc_hold *h, uint64_t dirty, uint64_t now_ms);

#endif
