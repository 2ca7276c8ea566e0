/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A window is run forward keeping, for each step, what its backward needs:
 * the gates after their functions, the recurrent share of the candidate and
 * the state. Then backward, with the gradient of the state (dh) carried from
 * step to step. For one step, with h the state before it:
 *
 *   da_n = dh * (1 - z) * (1 - n^2)        of the candidate before its tanh
 *   da_z = dh * (h - n) * z * (1 - z)
 *   da_r = da_n * gn * r * (1 - r)         gn = Un h + cn
 *   to the input's side   dgx = (da_r, da_z, da_n)
 *   to the state's side   dgh = (da_r, da_z, da_n * r)
 *   dh before the step    = dh * z + dgh times wh transposed
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "gru_train.h"
#include "matrix.h"

#define BETA1 0.9
#define BETA2 0.999
#define EPSILON 1e-8f

/* Where a step of the window is kept in `scratch`. */
struct tape {
    float *gx;     /* [steps][rows][3 hidden]; r, z, n after their functions */
    float *gn;     /* [steps][rows][hidden] */
    float *h;      /* [steps + 1][rows][hidden] */
    float *logits; /* [steps][rows][OUTPUTS], then their gradient */
    float *gh;     /* [rows][3 hidden], of the step at hand */
    float *dh;     /* [rows][hidden] */
    float *turned; /* wh as [3 hidden][hidden] */
    float *wo;     /* wo as [OUTPUTS][hidden] */
};

static size_t lay_tape(const struct fc_gru_trainer *t, struct tape *tape)
{
    size_t hidden = t->shape.hidden, rows = t->max_rows;
    size_t cells = (size_t)t->max_steps * rows;
    struct {
        float **part;
        size_t floats;
    } parts[] = {
        { &tape->gx, cells * 3 * hidden },
        { &tape->gn, cells * hidden },
        { &tape->h, (cells + rows) * hidden },
        { &tape->logits, cells * FC_GRU_OUTPUTS },
        { &tape->gh, rows * 3 * hidden },
        { &tape->dh, rows * hidden },
        { &tape->turned, 3 * hidden * hidden },
        { &tape->wo, FC_GRU_OUTPUTS * hidden },
    };
    size_t used = 0;
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        *parts[i].part = t->scratch ? t->scratch + used : NULL;
        used += parts[i].floats;
    }
    return used;
}

int fc_gru_trainer_init(struct fc_gru_trainer *t, struct fc_gru_shape shape,
                        const float *params, uint32_t max_steps,
                        uint32_t max_rows)
{
    struct tape tape;
    memset(t, 0, sizeof(*t));
    if (!fc_gru_shape_ok(shape) || max_steps == 0 || max_rows == 0 ||
        max_steps > 4096 || max_rows > 65536)
        return FC_EINVAL;
    t->shape = shape;
    t->at = fc_gru_offsets(shape);
    t->max_steps = max_steps;
    t->max_rows = max_rows;
    t->decay1 = t->decay2 = 1;
    t->params = calloc(4 * t->at.total, sizeof(float));
    t->scratch = calloc(lay_tape(t, &tape), sizeof(float));
    if (!t->params || !t->scratch) {
        fc_gru_trainer_dispose(t);
        return FC_ENOMEM;
    }
    t->grads = t->params + t->at.total;
    t->moment = t->grads + t->at.total;
    t->square = t->moment + t->at.total;
    memcpy(t->params, params, t->at.total * sizeof(float));
    return 0;
}

void fc_gru_trainer_dispose(struct fc_gru_trainer *t)
{
    free(t->params);
    free(t->scratch);
    memset(t, 0, sizeof(*t));
}

size_t fc_gru_trainer_bytes(const struct fc_gru_trainer *t)
{
    struct tape tape;
    return (4 * t->at.total + lay_tape(t, &tape)) * sizeof(float);
}

/* splitmix64 (Steele, Lea, Flood, OOPSLA 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void fc_gru_random_params(struct fc_gru_shape shape, uint64_t seed,
                          float *params)
{
    struct fc_gru_offsets at = fc_gru_offsets(shape);
    float bound = 1.0f / sqrtf((float)shape.hidden);

    for (size_t i = 0; i < at.total; i++) {
        float unit = (float)(next_random(&seed) >> 40) * 0x1p-24f;
        params[i] = i >= at.ws ? 0.0f : (2.0f * unit - 1.0f) * bound;
    }
}

/* ---- forward ------------------------------------------------------------ */

static void fill_rows(size_t rows, size_t n, const float *row, float *to)
{
    for (size_t i = 0; i < rows; i++)
        memcpy(to + i * n, row, n * sizeof(*to));
}

static struct fc_matrix_view by_row(const float *at, size_t width)
{
    return (struct fc_matrix_view){ at, width, 1 };
}

static struct fc_matrix_view by_column(const float *at, size_t width)
{
    return (struct fc_matrix_view){ at, 1, width };
}

/* Gates of one step: gx in and out, h before and after. */
static void forward_gates(size_t rows, size_t hidden, float *gx,
                          const float *gh, float *gn, const float *h,
                          float *next)
{
    for (size_t i = 0; i < rows; i++, gx += 3 * hidden, gh += 3 * hidden) {
        float *r = gx, *z = gx + hidden, *n = gx + 2 * hidden;
        for (size_t j = 0; j < 2 * hidden; j++)
            gx[j] += gh[j];
        fc_matrix_sigmoid(2 * hidden, gx);
        memcpy(gn, gh + 2 * hidden, hidden * sizeof(*gn));
        for (size_t j = 0; j < hidden; j++)
            n[j] += r[j] * gn[j];
        fc_matrix_tanh(hidden, n);
        for (size_t j = 0; j < hidden; j++)
            next[j] = (1.0f - z[j]) * n[j] + z[j] * h[j];
        gn += hidden;
        h += hidden;
        next += hidden;
    }
}

static void forward(const struct fc_gru_trainer *t,
                    const struct fc_gru_batch *b, const struct tape *tape)
{
    size_t hidden = t->shape.hidden, inputs = t->shape.inputs;
    const float *p = t->params;

    if (b->h)
        memcpy(tape->h, b->h, b->rows * hidden * sizeof(float));
    else
        memset(tape->h, 0, b->rows * hidden * sizeof(float));
    for (size_t step = 0; step < b->steps; step++) {
        size_t cell = step * b->rows;
        const float *x = b->x + cell * inputs;
        const float *h = tape->h + cell * hidden;
        float *gx = tape->gx + cell * 3 * hidden;
        float *next = tape->h + (cell + b->rows) * hidden;
        float *logits = tape->logits + cell * FC_GRU_OUTPUTS;

        fill_rows(b->rows, 3 * hidden, p + t->at.bx, gx);
        fc_matrix_muladd(b->rows, inputs, 3 * hidden, by_row(x, inputs),
                         p + t->at.wx, gx);
        fill_rows(b->rows, 3 * hidden, p + t->at.bh, tape->gh);
        fc_matrix_muladd(b->rows, hidden, 3 * hidden, by_row(h, hidden),
                         p + t->at.wh, tape->gh);
        forward_gates(b->rows, hidden, gx, tape->gh, tape->gn + cell * hidden,
                      h, next);
        fill_rows(b->rows, FC_GRU_OUTPUTS, p + t->at.bo, logits);
        fc_matrix_muladd(b->rows, hidden, FC_GRU_OUTPUTS, by_row(next, hidden),
                         p + t->at.wo, logits);
        if (b->now)
            x = b->now + cell * inputs;
        fc_matrix_muladd(b->rows, inputs, FC_GRU_OUTPUTS, by_row(x, inputs),
                         p + t->at.ws, logits);
    }
}

/* ---- backward ----------------------------------------------------------- */

/* The loss; the logits become its gradient. */
static double loss_gradient(const struct fc_gru_batch *b, float *logits)
{
    size_t n = (size_t)b->steps * b->rows * FC_GRU_OUTPUTS;
    double loss = 0, total = 0;

    for (size_t i = 0; i < n; i++) {
        double l = logits[i];
        total += b->weight[i];
        if (b->weight[i] > 0)
            loss += b->weight[i] *
                    (fmax(l, 0) - l * b->label[i] + log1p(exp(-fabs(l))));
    }
    float scale = total > 0 ? (float)(1 / total) : 0.0f;
    fc_matrix_sigmoid(n, logits);
    for (size_t i = 0; i < n; i++)
        logits[i] = (logits[i] - b->label[i]) * b->weight[i] * scale;
    return total > 0 ? loss / total : 0;
}

/* gx (r, z, n) becomes dgx, gh becomes dgh, dh loses what went to the gates. */
static void backward_gates(size_t rows, size_t hidden, float *gx, float *gh,
                           const float *gn, const float *h, float *dh)
{
    for (size_t i = 0; i < rows; i++) {
        float *gr = gx, *gz = gx + hidden, *gc = gx + 2 * hidden;
        for (size_t j = 0; j < hidden; j++) {
            float r = gr[j], z = gz[j], n = gc[j];
            float dn = dh[j] * (1.0f - z) * (1.0f - n * n);
            gr[j] = dn * gn[j] * r * (1.0f - r);
            gz[j] = dh[j] * (h[j] - n) * z * (1.0f - z);
            gc[j] = dn;
            gh[j] = gr[j];
            gh[hidden + j] = gz[j];
            gh[2 * hidden + j] = dn * r;
            dh[j] *= z;
        }
        gx += 3 * hidden, gh += 3 * hidden, gn += hidden, h += hidden;
        dh += hidden;
    }
}

static void turn(size_t rows, size_t n, const float *from, float *to)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j++)
            to[j * rows + i] = from[i * n + j];
}

static void backward_step(struct fc_gru_trainer *t,
                          const struct fc_gru_batch *b, const struct tape *tape,
                          size_t step)
{
    size_t hidden = t->shape.hidden, inputs = t->shape.inputs;
    size_t rows = b->rows, cell = step * rows;
    const float *x = b->x + cell * inputs, *h = tape->h + cell * hidden;
    const float *now = b->now ? b->now + cell * inputs : x;
    const float *next = h + rows * hidden;
    const float *dlogits = tape->logits + cell * FC_GRU_OUTPUTS;
    float *gx = tape->gx + cell * 3 * hidden, *g = t->grads;

    fc_matrix_muladd(hidden, rows, FC_GRU_OUTPUTS, by_column(next, hidden),
                     dlogits, g + t->at.wo);
    fc_matrix_muladd(inputs, rows, FC_GRU_OUTPUTS, by_column(now, inputs),
                     dlogits, g + t->at.ws);
    fc_matrix_add_rows(rows, FC_GRU_OUTPUTS, dlogits, g + t->at.bo);
    fc_matrix_muladd(rows, FC_GRU_OUTPUTS, hidden,
                     by_row(dlogits, FC_GRU_OUTPUTS), tape->wo, tape->dh);

    backward_gates(rows, hidden, gx, tape->gh, tape->gn + cell * hidden, h,
                   tape->dh);
    fc_matrix_muladd(inputs, rows, 3 * hidden, by_column(x, inputs), gx,
                     g + t->at.wx);
    fc_matrix_muladd(hidden, rows, 3 * hidden, by_column(h, hidden), tape->gh,
                     g + t->at.wh);
    fc_matrix_add_rows(rows, 3 * hidden, gx, g + t->at.bx);
    fc_matrix_add_rows(rows, 3 * hidden, tape->gh, g + t->at.bh);
    fc_matrix_muladd(rows, 3 * hidden, hidden, by_row(tape->gh, 3 * hidden),
                     tape->turned, tape->dh);
}

double fc_gru_trainer_gradient(struct fc_gru_trainer *t,
                               const struct fc_gru_batch *b)
{
    size_t hidden = t->shape.hidden;
    struct tape tape;

    lay_tape(t, &tape);
    forward(t, b, &tape);
    double loss = loss_gradient(b, tape.logits);
    memset(t->grads, 0, t->at.total * sizeof(float));
    memset(tape.dh, 0, b->rows * hidden * sizeof(float));
    turn(hidden, 3 * hidden, t->params + t->at.wh, tape.turned);
    turn(hidden, FC_GRU_OUTPUTS, t->params + t->at.wo, tape.wo);
    for (size_t step = b->steps; step-- > 0;)
        backward_step(t, b, &tape, step);
    return loss;
}

/* ---- Adam --------------------------------------------------------------- */

void fc_gru_trainer_update(struct fc_gru_trainer *t, float rate, float max_norm)
{
    double norm = 0;
    for (size_t i = 0; i < t->at.total; i++)
        norm += (double)t->grads[i] * t->grads[i];
    norm = sqrt(norm);
    if (!isfinite(norm))
        return;
    float scale = norm > max_norm ? (float)(max_norm / norm) : 1.0f;

    t->decay1 *= BETA1;
    t->decay2 *= BETA2;
    float fix1 = (float)(1 / (1 - t->decay1));
    float fix2 = (float)(1 / (1 - t->decay2));
    for (size_t i = 0; i < t->at.total; i++) {
        float g = t->grads[i] * scale;
        t->moment[i] = (float)BETA1 * t->moment[i] + (float)(1 - BETA1) * g;
        t->square[i] = (float)BETA2 * t->square[i] + (float)(1 - BETA2) * g * g;
        t->params[i] -=
            rate * t->moment[i] * fix1 / (sqrtf(t->square[i] * fix2) + EPSILON);
    }
}
