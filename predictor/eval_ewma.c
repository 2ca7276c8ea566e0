/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Plain moving averages, one for each half-life: what a learned scorer has to
 * beat. The engine's own EWMA picks its half-life as it goes; which one would
 * have been best is known only afterwards, and that one is the harder peer.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "eval.h"

int fc_eval_ewma_init(struct fc_eval_ewma *e)
{
    memset(e, 0, sizeof(*e));
    e->curve = calloc((size_t)FC_EVAL_HALF_LIVES * FC_EVAL_HORIZONS,
                      sizeof(*e->curve));
    return e->curve ? 0 : FC_ENOMEM;
}

void fc_eval_ewma_dispose(struct fc_eval_ewma *e)
{
    free(e->curve);
    free(e->value);
    memset(e, 0, sizeof(*e));
}

static int grow(struct fc_eval_ewma *e, uint32_t n)
{
    uint32_t room = n + n / 2 + 1024;
    size_t row = sizeof(float) * FC_EVAL_HALF_LIVES;
    float *value = realloc(e->value, room * row);
    if (!value)
        return FC_ENOMEM;
    memset(value + (size_t)e->room * FC_EVAL_HALF_LIVES, 0,
           (room - e->room) * row);
    e->value = value;
    e->room = room;
    return 0;
}

int fc_eval_ewma_tick(struct fc_eval_ewma *e, uint32_t n, const uint8_t *now)
{
    float step[FC_EVAL_HALF_LIVES];
    int rc = n > e->room ? grow(e, n) : 0;
    if (rc)
        return rc;
    for (unsigned k = 0; k < FC_EVAL_HALF_LIVES; k++)
        step[k] = 1 - exp2f(-1.0f / (float)(1u << k));
    for (uint32_t i = 0; i < n; i++) {
        float *v = e->value + (size_t)i * FC_EVAL_HALF_LIVES;
        float seen = now[i] ? 1 : 0;
        for (unsigned k = 0; k < FC_EVAL_HALF_LIVES; k++)
            v[k] += step[k] * (seen - v[k]);
    }
    return 0;
}

void fc_eval_ewma_judge(struct fc_eval_ewma *e, unsigned horizon, uint32_t n,
                        const uint8_t *touched)
{
    for (unsigned k = 0; k < FC_EVAL_HALF_LIVES; k++) {
        struct fc_curve *c = &e->curve[k * FC_EVAL_HORIZONS + horizon];
        for (uint32_t i = 0; i < n; i++)
            fc_curve_add(c, e->value[(size_t)i * FC_EVAL_HALF_LIVES + k],
                         touched[i]);
    }
}

double fc_eval_ewma_best(const struct fc_eval_ewma *e, unsigned horizon,
                         uint32_t *half_life_r)
{
    double best = 0;
    *half_life_r = 1;
    for (unsigned k = 0; k < FC_EVAL_HALF_LIVES; k++) {
        double v =
            fc_curve_precision(&e->curve[k * FC_EVAL_HORIZONS + horizon]);
        if (v > best) {
            best = v;
            *half_life_r = 1u << k;
        }
    }
    return best;
}
