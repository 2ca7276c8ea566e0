/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GRU_KERNEL_H
#define FC_GRU_KERNEL_H

#include "gru.h"

/*
 * What the kernels share: the order of fc_gru_model.packed. Hidden units are
 * taken 16 at a time, so that one walk over the inputs of a few regions feeds
 * the three gates of a block from registers:
 *
 *   for each block of 16 units:
 *     [inputs][r 16, z 16, n 16]   [hidden][r 16, z 16, n 16]
 *     biases: r 16 (bx + bh), z 16 (bx + bh), n's bx 16, n's bh 16
 *   read-out: [OUTPUTS][hidden] [OUTPUTS][inputs, padded with zeros to 16]
 *   bias of the read-out [OUTPUTS]
 */
#define FC_GRU_ROW (3 * FC_GRU_LANES)

/* Gates saturate in float long before; keeps exp() finite. */
#define FC_GRU_CLAMP 40.0f

static inline size_t fc_gru_block_floats(struct fc_gru_shape s)
{
    return (size_t)(s.inputs + s.hidden) * FC_GRU_ROW + 4 * FC_GRU_LANES;
}

static inline size_t fc_gru_padded(size_t n)
{
    return (n + FC_GRU_LANES - 1) / FC_GRU_LANES * FC_GRU_LANES;
}

static inline size_t fc_gru_packed_floats(struct fc_gru_shape s)
{
    return s.hidden / FC_GRU_LANES * fc_gru_block_floats(s) +
           FC_GRU_OUTPUTS * (s.hidden + fc_gru_padded(s.inputs)) +
           FC_GRU_OUTPUTS;
}

/* The read-out's part of `packed`. */
static inline const float *fc_gru_readout(const struct fc_gru_model *m)
{
    return m->packed +
           m->shape.hidden / FC_GRU_LANES * fc_gru_block_floats(m->shape);
}

/* As fc_gru_step(), on any processor or on those with AVX2 and FMA, AVX-512F.
 */
void fc_gru_step_scalar(const struct fc_gru_model *model, uint32_t n,
                        const float *x, float *h, float *logits);
#if defined(__x86_64__)
void fc_gru_step_avx2(const struct fc_gru_model *model, uint32_t n,
                      const float *x, float *h, float *logits);
void fc_gru_step_avx512(const struct fc_gru_model *model, uint32_t n,
                        const float *x, float *h, float *logits);
#endif

#endif
