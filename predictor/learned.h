/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LEARNED_H
#define FC_LEARNED_H

#include "engine.h"
#include "lr.h"
#include "model.h"

/*
 * What an engine has learned of its guest, to be kept and sent along:
 * docs/formats/learned.md. Memory only. Any thread, but for the engine's own.
 */
#define FC_LEARNED_MAX_BYTES (256u << 10)
#define FC_LEARNED_TRIANGLE (FC_LR_DIM * (FC_LR_DIM + 1u) / 2)

struct fc_learned_map {
    float slope, shift, curve[3], calls, share;
};

struct fc_learned_weights {
    float w[FC_LR_DIM], h[FC_LEARNED_TRIANGLE];
};

struct fc_learned {
    uint32_t tick_ms, horizon_ms[FC_HORIZONS];
    uint64_t written_s;
    struct fc_model model; /* .gru NULL: none */
    struct fc_learned_map map[FC_HORIZONS][FC_SCORERS];
    struct fc_learned_weights lr[FC_HORIZONS], tuned[FC_HORIZONS];
};

/*
 * Reads it from bytes that may be hostile. 0, FC_EFORMAT, FC_EVERSION,
 * FC_ECHECK, FC_ETOOBIG or FC_ENOMEM, with `problem` filled in. Dispose of it
 * after success.
 */
int fc_learned_parse(const void *bytes, size_t len, struct fc_learned *l,
                     struct fc_model_problem *problem);
void fc_learned_dispose(struct fc_learned *l);

/* The bytes of what the engine has learned, to be freed by the caller. `model`
 * is what its GRU came from and NULL when it has none. 0, FC_EINVAL (a disk's
 * engine) or FC_ENOMEM. */
int fc_learned_format(const struct fc_engine *engine,
                      const struct fc_model *model, uint64_t written_s,
                      uint8_t **bytes_r, size_t *len_r);

/* An engine that has learned nothing yet goes on from there. 0, FC_EINVAL (an
 * engine of another kind) or FC_ENOMEM; then it is as it was. */
int fc_learned_apply(const struct fc_learned *l, struct fc_engine *engine);

#endif
