/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_DATASET_H
#define FC_DATASET_H

#include "gru_train.h"
#include "replay.h"

/*
 * What a trace has to teach a GRU: the features of its regions at each of the
 * GRU's steps, and at some tick before the next one, with what came after that:
 * the read-out works at each tick with the state of the last step. One thread.
 */
struct fc_dataset {
    uint32_t inputs, rows, room, cap;
    uint64_t keep;  /* regions whose hash is at most this are kept */
    float *x;       /* [rows][inputs], at the step */
    float *now;     /* the same a little later, before the next step */
    uint8_t *label; /* from then on, bit i: touched within horizon i; bit 4 + i:
                       known */
    uint64_t *region; /* [rows] first page or extent */
    uint32_t step;    /* first row of the last step; rows by slot */
    /* rows by region and time, and where each region's begin in `order` */
    uint32_t *order, *start;
    uint32_t regions; /* `start` has one more */
};

/*
 * Plays the trace through an engine and notes its rows; of a trace with more
 * than `cap` rows, those of some of the regions, chosen by a hash. Errors as
 * fc_replay_open()'s and the engine's. Dispose of it either way.
 */
int fc_dataset_load(struct fc_dataset *d, const char *path, uint32_t step_ms,
                    const struct fc_replay_options *options, uint32_t cap,
                    struct fc_replay_info *info_r,
                    struct fc_trace_problem *problem);
void fc_dataset_dispose(struct fc_dataset *d);

/*
 * Copies a window of `steps` rows, chosen by the random numbers `pick`, as
 * column `column` of a batch of `columns` (its arrays, see fc_gru_batch). A
 * window that is shorter, or in its beginning stands for one that began long
 * before (`warm` steps), has labels of no weight there. The dataset has rows.
 */
void fc_dataset_window(const struct fc_dataset *d, const uint64_t pick[2],
                       uint32_t steps, uint32_t warm, uint32_t column,
                       uint32_t columns, float *x, float *now, float *label,
                       float *weight);

#endif
