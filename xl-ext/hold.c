/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hold.h"

#define SHARE 4u      /* until it dirties a 4th of what can be sent */
#define FEW_PAGES 50u /* are sent at once */

bool fc_hold_begin(struct fc_hold *h, uint64_t rate, uint64_t round_pages,
                   uint64_t now_ms)
{
    *h =
        (struct fc_hold){ .rate = rate, .start_ms = now_ms, .seen_ms = now_ms };
    if (!rate || round_pages < FEW_PAGES)
        return false;
    double send_ms = (double)round_pages * 1000.0 / (double)rate;
    h->most_ms = send_ms > FC_HOLD_MS ? FC_HOLD_MS : (uint64_t)send_ms;
    return h->most_ms > 0;
}

bool fc_hold_more(struct fc_hold *h, uint64_t dirty, uint64_t now_ms)
{
    double new_pages =
        dirty > h->seen_pages ? (double)(dirty - h->seen_pages) : 0;
    double could_send = (double)h->rate * (double)(now_ms - h->seen_ms) / 1000;
    h->seen_pages = dirty;
    h->seen_ms = now_ms;
    return new_pages * SHARE > could_send && now_ms - h->start_ms < h->most_ms;
}
