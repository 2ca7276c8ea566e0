/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HYDRATE_H
#define FC_HYDRATE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Filling a shadow ahead of the guest, while the disk is ours. Three tiers:
 * critical    the neighbourhood of what the guest has just missed: at once
 * predictive  what the order names, in its order: as the rate allows
 * background  the rest by address, as the rate allows, while the guest
 *             misses nothing (never for a cache)
 *
 * Many requests are under way at once: through libaio where the primary gives
 * a descriptor for it, by threads that wait for its `read` otherwise. A primary
 * that pushes (primary_ops.want) keeps the order itself and is only told of
 * the critical tier.
 *
 * Feedback: each miss costs the prediction credit and each prefetched block
 * that gets used earns it; the less credit, the wider a miss's neighbourhood.
 */
struct fc_shadow;
struct hydrate;

#define FC_HYDRATE_DEPTH 16u
#define FC_HYDRATE_DEPTH_MAX 64u

/* `depth` 0: FC_HYDRATE_DEPTH; at most FC_HYDRATE_DEPTH_MAX. FC_ENOMEM. */
int fc_hydrate_new(struct fc_shadow *s, unsigned depth, struct hydrate **h_r);
void fc_hydrate_free(struct hydrate *h); /* stopped, or NULL */

/* Threads. start: FC_ESYS (logged). stop: after the shadow's cancel. */
int fc_hydrate_start(struct hydrate *h);
void fc_hydrate_stop(struct hydrate *h);

/* The guest is about to wait for these. Any thread, no lock held. */
void fc_hydrate_missed(struct hydrate *h, uint32_t first, uint32_t count);

/* Something has changed: the state, the primary's reach. NULL is fine. */
void fc_hydrate_kick(struct hydrate *h);

int fc_hydrate_set_order(struct hydrate *h, const uint32_t *blocks,
                         size_t count);
void fc_hydrate_set_rate(struct hydrate *h, uint64_t bytes_ps);

#endif
