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

/* The share of a core that adapting the GRU to the guest may take from now on;
 * 0: it stays as it is. Nothing happens without an engine. */
void fc_scorer_engine_adapt(struct fc_scorer *scorer, float share);

/*
 * What was learned of the guest, in the form of docs/formats/learned.md. keep:
 * the bytes, to be freed by the caller; 0, FC_EINVAL (no engine) or FC_ENOMEM.
 * recall: before the first update only; 0, or as fc_learned_parse() and
 * FC_EINVAL (learned of another kind of engine), with what is wrong in `why`;
 * nothing has changed then.
 */
int fc_scorer_engine_keep(const struct fc_scorer *scorer, uint64_t written_s,
                          uint8_t **bytes_r, size_t *len_r);
int fc_scorer_engine_recall(struct fc_scorer *scorer, const void *bytes,
                            size_t len, char *why, size_t why_len);

/* What the adaptation has done so far; false: there is none. */
struct fc_adapt_stats;
bool fc_scorer_engine_adapted(const struct fc_scorer *scorer,
                              struct fc_adapt_stats *stats_r);

#endif
