/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GRU_H
#define FC_GRU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A gated recurrent unit (Cho et al., EMNLP 2014, in the form that cuDNN and
 * PyTorch compute: the reset gate acts after the product) with a linear
 * read-out of the state and, past it, of the inputs:
 *
 *   r = sigmoid(Wr x + br + Ur h + cr)      z = sigmoid(Wz x + bz + Uz h + cz)
 *   n = tanh(Wn x + bn + r * (Un h + cn))   h' = (1 - z) * n + z * h
 *   logits = V h' + S x + d
 *
 * One model serves all regions of all guests; what a region has of its own is
 * its h. A logit is that of a write (of a disk: a read) within the horizon of
 * the same index.
 */
#define FC_GRU_OUTPUTS 4u
#define FC_GRU_MAX_INPUTS 256u
#define FC_GRU_LANES 16u      /* hidden is a multiple of it ... */
#define FC_GRU_MAX_HIDDEN 64u /* ... and at most this */
/* No trained weight comes near; sums of such stay finite. */
#define FC_GRU_MAX_WEIGHT 1000.0f

/*
 * All numbers of a model in one array, in this order, rows one after another:
 *   wx [inputs][3][hidden]   wh [hidden][3][hidden]   (gates r, z, n)
 *   bx [3][hidden]           bh [3][hidden]
 *   wo [hidden][OUTPUTS]     ws [inputs][OUTPUTS]     bo [OUTPUTS]
 */
struct fc_gru_shape {
    uint32_t inputs, hidden;
};

struct fc_gru_offsets {
    size_t wx, wh, bx, bh, wo, ws, bo, total;
};

/* What a model was made for, kept with it. */
struct fc_gru_purpose {
    uint32_t kind;          /* 0: memory, 1: disk (as enum fc_engine_kind) */
    uint64_t features_hash; /* of the table that the inputs follow */
    uint32_t step_ms;       /* between two steps of one region */
    uint32_t horizon_ms[FC_GRU_OUTPUTS];
};

/*
 * Immutable once made; any thread may use it while it holds a reference.
 * `packed` is the same numbers in the order of the kernels.
 */
struct fc_gru_model {
    struct fc_gru_shape shape;
    struct fc_gru_purpose purpose;
    float *params;
    float *packed;
    unsigned refs;
};

/* Whether there may be a model of this shape. */
bool fc_gru_shape_ok(struct fc_gru_shape shape);
struct fc_gru_offsets fc_gru_offsets(struct fc_gru_shape shape);

/*
 * A model with a copy of `params` (offsets.total floats), with one reference.
 * 0, FC_EINVAL (shape, or a number past FC_GRU_MAX_WEIGHT) or FC_ENOMEM.
 */
int fc_gru_model_new(struct fc_gru_shape shape,
                     const struct fc_gru_purpose *purpose, const float *params,
                     struct fc_gru_model **model_r);

/* Any thread. Unref of NULL does nothing; the last one frees. */
struct fc_gru_model *fc_gru_model_ref(struct fc_gru_model *model);
void fc_gru_model_unref(struct fc_gru_model *model);

/*
 * One step of `n` regions: x [n][inputs] in, h [n][hidden] read and replaced
 * (zeros for a region that is new), logits [n][FC_GRU_OUTPUTS] out. The arrays
 * must not overlap. Any thread. The kernel is the fastest the processor has;
 * all agree within 1e-5 of the scalar one.
 */
void fc_gru_step(const struct fc_gru_model *model, uint32_t n, const float *x,
                 float *h, float *logits);

/* The kernels one by one, for tests and benches: NULL past the last one;
 * fastest first, "scalar" last; only those which this processor can run. */
struct fc_gru_kernel {
    const char *name;
    void (*step)(const struct fc_gru_model *model, uint32_t n, const float *x,
                 float *h, float *logits);
};
const struct fc_gru_kernel *fc_gru_kernel_at(unsigned index);

#endif
