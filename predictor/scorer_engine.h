/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SCORER_ENGINE_H
#define FC_SCORER_ENGINE_H

#include "engine.h"
#include "scorer.h"

/*
 * The engine as a scorer ("mixture"), fed from a dirty log that shows all
 * that was written since it was last cleaned. Besides scorer.h's contract:
 */
extern const struct fc_scorer_ops fc_scorer_mixture;

/* Horizons, ms: one, one and ten seconds, and how long a migration takes. */
#define FC_SCORER_TICK_MS 1000u
#define FC_SCORER_SHORT 1u /* their numbers in the engine */
#define FC_SCORER_LONG 2u
#define FC_SCORER_MIGRATION 3u
#define FC_SCORER_HORIZONS_MS                                                  \
    {                                                                          \
        FC_SCORER_TICK_MS, 1000, 10000, 60000                                  \
    }

/* The engine, or NULL when the scorer is another one. The scorer's. */
struct fc_engine *fc_scorer_engine(const struct fc_scorer *scorer);

/* What is known guest-wide, for the updates to come. Nothing happens when the
 * scorer has no engine. */
void fc_scorer_engine_rates(struct fc_scorer *scorer,
                            const struct fc_rates *rates);

/* How long a migration is expected to take; taken over when it has changed
 * much. Returns what holds; 0 without an engine. */
uint32_t fc_scorer_engine_migration(struct fc_scorer *scorer,
                                    uint64_t total_ms);

#endif
