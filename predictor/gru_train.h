/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_GRU_TRAIN_H
#define FC_GRU_TRAIN_H

#include "gru.h"

/*
 * Training of a GRU: backpropagation through a window of steps, truncated at
 * the window's start, and Adam (Kingma and Ba, ICLR 2015; beta .9 and .999,
 * epsilon 1e-8). Bit for bit the same on every x86 (matrix.h). One thread.
 */
struct fc_gru_trainer {
    struct fc_gru_shape shape;
    struct fc_gru_offsets at;
    uint32_t max_steps, max_rows;
    float *params, *grads; /* [at.total], the order of gru.h */
    float *moment, *square;
    double decay1, decay2; /* beta1, beta2 to the number of updates */
    float *scratch;
};

/*
 * Windows of `rows` regions, all of `steps` steps; the caller's memory. A label
 * counts with its weight; weight 0 is a label that is not known.
 */
struct fc_gru_batch {
    uint32_t steps, rows;
    const float *x;      /* [steps][rows][inputs] */
    const float *now;    /* likewise, for the read-out; NULL: the same */
    const float *label;  /* [steps][rows][OUTPUTS], 0 to 1 */
    const float *weight; /* [steps][rows][OUTPUTS], at least 0 */
    const float *h;      /* [rows][hidden] before the first step; NULL: zeros */
};

/* Starts from `params` (at.total floats, copied). 0, FC_EINVAL or FC_ENOMEM. */
int fc_gru_trainer_init(struct fc_gru_trainer *t, struct fc_gru_shape shape,
                        const float *params, uint32_t max_steps,
                        uint32_t max_rows);
void fc_gru_trainer_dispose(struct fc_gru_trainer *t);
/* Memory beside the struct itself. */
size_t fc_gru_trainer_bytes(const struct fc_gru_trainer *t);

/* Fresh parameters for a shape: uniform within 1 / sqrt(hidden) of 0, the
 * read-out of the inputs 0; the same for the same seed. */
void fc_gru_random_params(struct fc_gru_shape shape, uint64_t seed,
                          float *params);

/*
 * Replaces `grads` by the gradient of the batch's loss, which it returns:
 * cross entropy in nats, the mean by weight. A batch of no weight: 0 and no
 * gradient. The batch must be within the trainer's maxima.
 */
double fc_gru_trainer_gradient(struct fc_gru_trainer *t,
                               const struct fc_gru_batch *batch);

/* One update by `grads`, scaled down to a norm of `max_norm` if larger. */
void fc_gru_trainer_update(struct fc_gru_trainer *t, float rate,
                           float max_norm);

#endif
