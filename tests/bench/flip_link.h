/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_FLIP_LINK_H
#define FC_BENCH_FLIP_LINK_H

#include <stdint.h>

/*
 * A link of a given rate and delay between two stream sockets, both ways, by a
 * thread of its own. What is on the way is bounded: a sender soon waits.
 */
struct flip_link;

/* Takes both ends over; delay_us is that of one way. Dies of any error. */
struct flip_link *flip_link_new(int a, int b, uint64_t rate_bps,
                                uint64_t delay_us);
/* Cuts it. */
void flip_link_free(struct flip_link *l);

#endif
