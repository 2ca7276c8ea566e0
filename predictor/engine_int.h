/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ENGINE_INT_H
#define FC_ENGINE_INT_H

#include <stdbool.h>

#include "calibrate.h"
#include "engine.h"
#include "gaps.h"
#include "gru.h"
#include "guestwide.h"
#include "halflife.h"
#include "lr.h"
#include "mixture.h"
#include "regions.h"
#include "rows.h"
#include "samples.h"

/*
 * What the files of the engine share. No one else includes this.
 */

/* A list of slots that grows. */
struct fc_slots {
    uint32_t *at;
    uint32_t n, capacity;
};

/* The GRU's part: engine_gru.c. */
struct fc_engine_gru {
    struct fc_gru_model *model; /* NULL: absent, and the arrays with it */
    uint32_t step;              /* ticks between two steps of a region */
    uint32_t *place; /* [places], by slot: of its state, from 1; 0: none */
    uint32_t places;
    /* The states, `used` of `room`; free ones are chained by `stepped`. */
    uint32_t used, room, free;
    int16_t *h; /* [room][hidden], in 1 / FC_GRU_STATE_ONE */
    /* what the state alone says, as logits in 1 / FC_GRU_SAID_ONE */
    int16_t (*said)[FC_HORIZONS];
    uint32_t *stepped; /* tick of the last step */
    /* the model's read-out of the inputs, and the one that learns */
    float shipped[FC_LR_DIM][FC_HORIZONS];
    struct fc_lr tuned;
};
#define FC_GRU_STATE_ONE 32767.0f
#define FC_GRU_SAID_ONE 512.0f

/* Arrays for those who ask: engine_view.c. Made on first use. */
struct fc_engine_view {
    struct fc_region_ref *refs;
    float *x;
    float *p[FC_SCORERS][FC_HORIZONS];
    uint32_t refs_capacity, x_capacity, p_capacity;
    uint32_t p_tick;
    bool p_made;
};

/* What the mixture said against what came true, by tenths, decayed. */
struct fc_engine_bins {
    float said[10], hit[10];
    float all;
};

/* One block on its way through the scorers. */
#define FC_ENGINE_BLOCK FC_ROWS_MOST
struct fc_engine_work {
    float x[FC_ENGINE_BLOCK][FC_FEATURE_STRIDE];
    fc_rows_p raw[FC_SCORERS];
    fc_rows_p out;                            /* the mixture's */
    float base[FC_ENGINE_BLOCK][FC_HORIZONS]; /* what the GRU's states say */
    bool stepped[FC_ENGINE_BLOCK];            /* whether there is one */
    float calibrated[FC_SCORERS][FC_ENGINE_BLOCK];
};

struct fc_engine {
    struct fc_engine_config config;
    uint32_t now;      /* tick; begins at FC_ENGINE_EPOCH */
    int32_t behind_ms; /* time not yet counted in ticks */
    bool round;        /* something was fed since the last tick */
    struct fc_regions regions;
    struct fc_decay decay;
    struct fc_rows rows;
    struct fc_gaps gaps;
    struct fc_guestwide guest;
    struct fc_halflife halflife[FC_HORIZONS];
    struct fc_lr lr;
    struct fc_calibrate calibrate[FC_SCORERS][FC_HORIZONS];
    struct fc_engine_bins bins[FC_HORIZONS];
    uint32_t due_count[FC_HORIZONS]; /* samples learned from */
    struct fc_mixture *mixture;
    unsigned live[FC_SCORERS], nlive; /* scorers that there are: its own */
    const char *live_names[FC_SCORERS];
    struct fc_samples samples;
    struct fc_engine_gru gru;
    struct fc_engine_view view;
    float *score[FC_HORIZONS]; /* [slot] */
    uint32_t capacity;         /* of the arrays by slot */
    struct fc_slots touched, other, due;
    struct fc_engine_work *work;
    uint32_t born; /* regions made in this round */
    uint32_t hand; /* slot at which the search for idle ones goes on */
    uint32_t idle; /* ticks of quiet after which a region is dropped */
    uint64_t seed, ticks, labels;
    float idle_p[FC_HORIZONS]; /* chance of a region that is not active */
};

/* Room for all ticks that are looked back upon. */
#define FC_ENGINE_EPOCH (1u << 20)

/* Of some ms, at least one. */
uint32_t fc_engine_ticks(const struct fc_engine *e, uint32_t ms);

/* engine_feed.c. The first thing after a tick begins a round. */
void fc_engine_begin_round(struct fc_engine *e);
uint32_t fc_engine_idle_limit(const struct fc_engine *e);
int fc_engine_slots_add(struct fc_slots *s, uint32_t slot);

bool fc_engine_has(const struct fc_engine *e, enum fc_scorer_id id);
uint32_t fc_engine_random(struct fc_engine *e);

/* A mixture of the scorers that there are, which knows nothing yet. */
int fc_engine_mixture_new(struct fc_engine *e);

/* All scorers and the mixture for at most FC_ENGINE_BLOCK slots into `work`. */
void fc_engine_block(struct fc_engine *e, uint32_t n, const uint32_t *slot);

/* engine_learn.c: what has come true; what is to be asked later. */
/* How many samples of a horizon wait at the same time. */
uint32_t fc_engine_overlap(const struct fc_engine *e, unsigned z);
void fc_engine_learn(struct fc_engine *e);
void fc_engine_take_samples(struct fc_engine *e);
/* What a scorer's chances count for in the mixture: out[n] of raw[n]. */
void fc_engine_recalibrated(const struct fc_engine *e, unsigned id, unsigned z,
                            uint32_t n, const float *raw, float *out);
float fc_engine_error(const struct fc_engine *e, unsigned horizon);

/* engine_gru.c */
int fc_engine_gru_reserve(struct fc_engine *e, uint32_t capacity);
/* The slot's region is gone; the one in `from` takes its place (or is it). */
void fc_engine_gru_drop(struct fc_engine *e, uint32_t slot, uint32_t from);
void fc_engine_gru_step(struct fc_engine *e, uint32_t ticks);
/* Its chances for the n slots into `work`; where it has none, those of the
 * logistic regression, which are there already. */
void fc_engine_gru_p(struct fc_engine *e, uint32_t n, const uint32_t *slot);
void fc_engine_gru_dispose(struct fc_engine *e);
uint64_t fc_engine_gru_bytes(const struct fc_engine *e);

/* engine_view.c */
void fc_engine_view_dispose(struct fc_engine *e);
uint64_t fc_engine_view_bytes(const struct fc_engine *e);

#endif
