/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_BENCH_FLIP_ORDER_H
#define FC_BENCH_FLIP_ORDER_H

#include "flip_load.h"
#include "flip_run.h"

/*
 * What an order is worth, reckoned without a link: the share, by block, of the
 * window's reads that find their block among those copied ahead, or read or
 * written earlier in the window.
 *
 * print: a line for the load's order beside what bounds it: order of address;
 * blocks read in the window, those read most first (no order does better); of
 * these only blocks, or only blocks of extents, that were ever used before the
 * hand-over, which are all that can be known of it.
 * compare: the same for orders made from a longer past and by smaller extents,
 * added to sums; done: their means.
 */
#define FLIP_ORDER_MADE 4u
struct flip_order_sums {
    unsigned windows, from[FLIP_ORDER_MADE];
    double demand, address, oracle, known;
    double share[FLIP_ORDER_MADE], used_first[FLIP_ORDER_MADE];
};
void flip_order_print(const struct flip_load *l, const struct flip_terms *t);
void flip_order_compare(struct flip_load *l, const struct flip_terms *t,
                        struct flip_order_sums *sums);
void flip_order_done(const char *name, const struct flip_order_sums *sums);

#endif
