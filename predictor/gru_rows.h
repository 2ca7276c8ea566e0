/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GRU_ROWS_H
#define FC_GRU_ROWS_H

#include <string.h>

#include "gru_kernel.h"

#define FC_GRU_MAX_ROWS 8u

/* A step of a fixed number of regions. */
typedef void fc_gru_rows_fn(const struct fc_gru_model *m, const float *x,
                            float *h, float *logits);

/* Steps `n` regions `rows` at a time; the rest goes through a padded copy. */
static inline void fc_gru_each_rows(const struct fc_gru_model *m, uint32_t n,
                                    uint32_t rows, fc_gru_rows_fn *step,
                                    const float *x, float *h, float *logits)
{
    float xs[FC_GRU_MAX_ROWS * FC_GRU_MAX_INPUTS];
    float hs[FC_GRU_MAX_ROWS * FC_GRU_MAX_HIDDEN];
    float ls[FC_GRU_MAX_ROWS * FC_GRU_OUTPUTS];
    size_t inputs = m->shape.inputs, hidden = m->shape.hidden;

    for (; n >= rows; n -= rows) {
        step(m, x, h, logits);
        x += rows * inputs;
        h += rows * hidden;
        logits += rows * FC_GRU_OUTPUTS;
    }
    if (n == 0)
        return;
    memset(xs, 0, rows * inputs * sizeof(*xs));
    memset(hs, 0, rows * hidden * sizeof(*hs));
    memcpy(xs, x, n * inputs * sizeof(*xs));
    memcpy(hs, h, n * hidden * sizeof(*hs));
    step(m, xs, hs, ls);
    memcpy(h, hs, n * hidden * sizeof(*hs));
    memcpy(logits, ls, n * FC_GRU_OUTPUTS * sizeof(*ls));
}

#endif
