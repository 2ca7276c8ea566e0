/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SAMPLES_H
#define FC_SAMPLES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

/*
 * What was said of a sample of regions, kept until the horizon has passed and
 * what came of it is known. Per horizon at most FC_SAMPLES_PENDING samples
 * wait, evenly apart. One thread.
 */
#define FC_SAMPLES_MOST 256u
#define FC_SAMPLES_PENDING 16u

struct fc_sample {
    uint32_t taken, due; /* ticks */
    uint32_t n;
    bool gru; /* whether the GRU had a say */
    uint32_t number[FC_SAMPLES_MOST];
    uint32_t quiet[FC_SAMPLES_MOST];
    int16_t x[FC_SAMPLES_MOST][FC_FEATURE_STRIDE]; /* in 1 / FC_SAMPLES_ONE */
    float raw[FC_SCORERS][FC_SAMPLES_MOST];        /* what each scorer said */
    float mixed[FC_SAMPLES_MOST];                  /* the mixture */
    float base[FC_SAMPLES_MOST]; /* what the GRU's state said; NAN: nothing */
};
/* Features are within -1 to 1, or little more: memory is half of what floats
 * would take, and their last bits do not matter. */
#define FC_SAMPLES_ONE 8192.0f
static inline int16_t fc_samples_fixed(float v)
{
    v *= FC_SAMPLES_ONE;
    v = v < INT16_MAX ? v : INT16_MAX;
    return (int16_t)(v > -INT16_MAX ? v : -INT16_MAX);
}

struct fc_samples {
    struct fc_sample *ring[FC_HORIZONS][FC_SAMPLES_PENDING];
    uint32_t first[FC_HORIZONS], waiting[FC_HORIZONS];
    uint32_t next[FC_HORIZONS]; /* tick from which one may be taken */
};

void fc_samples_init(struct fc_samples *s);
void fc_samples_dispose(struct fc_samples *s);

/* Whether it is time for a sample of this horizon. */
bool fc_samples_wanted(const struct fc_samples *s, unsigned horizon,
                       uint32_t now);

/* Room for one taken now that is due `ticks` later, or NULL: no memory. */
struct fc_sample *fc_samples_add(struct fc_samples *s, unsigned horizon,
                                 uint32_t now, uint32_t ticks);

/* The oldest one that is due, or NULL; valid until the next add. */
const struct fc_sample *fc_samples_due(struct fc_samples *s, unsigned horizon,
                                       uint32_t now);

/* Lets all go that wait: the horizon has changed. */
void fc_samples_forget(struct fc_samples *s, unsigned horizon);

uint64_t fc_samples_bytes(const struct fc_samples *s);

#endif
