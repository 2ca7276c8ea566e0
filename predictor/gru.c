/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models, the scalar step and the choice of a kernel. The scalar step works on
 * the parameters as they are filed and with libm's functions: it is what the
 * others are held against, and all that a processor without AVX2 gets.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "gru.h"
#include "gru_kernel.h"

bool fc_gru_shape_ok(struct fc_gru_shape s)
{
    return s.inputs >= 1 && s.inputs <= FC_GRU_MAX_INPUTS && s.hidden >= 1 &&
           s.hidden <= FC_GRU_MAX_HIDDEN && s.hidden % FC_GRU_LANES == 0;
}

struct fc_gru_offsets fc_gru_offsets(struct fc_gru_shape s)
{
    struct fc_gru_offsets o = { 0 };
    size_t gates = 3 * (size_t)s.hidden;

    o.wh = o.wx + s.inputs * gates;
    o.bx = o.wh + s.hidden * gates;
    o.bh = o.bx + gates;
    o.wo = o.bh + gates;
    o.ws = o.wo + (size_t)s.hidden * FC_GRU_OUTPUTS;
    o.bo = o.ws + (size_t)s.inputs * FC_GRU_OUTPUTS;
    o.total = o.bo + FC_GRU_OUTPUTS;
    return o;
}

static float *pack_block(const struct fc_gru_model *m, unsigned block,
                         float *to)
{
    struct fc_gru_offsets o = fc_gru_offsets(m->shape);
    uint32_t hidden = m->shape.hidden;
    uint32_t rows = m->shape.inputs + hidden;
    size_t unit = (size_t)block * FC_GRU_LANES;

    /* wh follows wx with rows of the same length */
    for (uint32_t row = 0; row < rows; row++)
        for (unsigned gate = 0; gate < 3; gate++, to += FC_GRU_LANES)
            memcpy(to,
                   m->params + o.wx + ((size_t)row * 3 + gate) * hidden + unit,
                   FC_GRU_LANES * sizeof(*to));
    for (unsigned gate = 0; gate < 2; gate++)
        for (unsigned i = 0; i < FC_GRU_LANES; i++)
            *to++ = m->params[o.bx + gate * hidden + unit + i] +
                    m->params[o.bh + gate * hidden + unit + i];
    memcpy(to, m->params + o.bx + 2 * (size_t)hidden + unit,
           FC_GRU_LANES * sizeof(*to));
    to += FC_GRU_LANES;
    memcpy(to, m->params + o.bh + 2 * (size_t)hidden + unit,
           FC_GRU_LANES * sizeof(*to));
    return to + FC_GRU_LANES;
}

static void pack(struct fc_gru_model *m)
{
    struct fc_gru_offsets o = fc_gru_offsets(m->shape);
    uint32_t hidden = m->shape.hidden, inputs = m->shape.inputs;
    float *to = m->packed;

    for (unsigned block = 0; block < hidden / FC_GRU_LANES; block++)
        to = pack_block(m, block, to);
    for (unsigned out = 0; out < FC_GRU_OUTPUTS; out++)
        for (uint32_t i = 0; i < hidden; i++)
            *to++ = m->params[o.wo + (size_t)i * FC_GRU_OUTPUTS + out];
    for (unsigned out = 0; out < FC_GRU_OUTPUTS; out++)
        for (uint32_t i = 0; i < fc_gru_padded(inputs); i++)
            *to++ = i < inputs
                        ? m->params[o.ws + (size_t)i * FC_GRU_OUTPUTS + out]
                        : 0.0f;
    memcpy(to, m->params + o.bo, FC_GRU_OUTPUTS * sizeof(*to));
}

int fc_gru_model_new(struct fc_gru_shape shape,
                     const struct fc_gru_purpose *purpose, const float *params,
                     struct fc_gru_model **model_r)
{
    if (!fc_gru_shape_ok(shape))
        return FC_EINVAL;
    size_t total = fc_gru_offsets(shape).total;
    for (size_t i = 0; i < total; i++)
        if (!(fabsf(params[i]) <= FC_GRU_MAX_WEIGHT))
            return FC_EINVAL;

    struct fc_gru_model *m = calloc(1, sizeof(*m));
    size_t packed_bytes = fc_gru_packed_floats(shape) * sizeof(float);
    if (!m)
        return FC_ENOMEM;
    m->shape = shape;
    m->purpose = *purpose;
    m->refs = 1;
    m->params = malloc(total * sizeof(float));
    m->packed = aligned_alloc(64, (packed_bytes + 63) / 64 * 64);
    if (!m->params || !m->packed) {
        fc_gru_model_unref(m);
        return FC_ENOMEM;
    }
    memcpy(m->params, params, total * sizeof(float));
    pack(m);
    *model_r = m;
    return 0;
}

struct fc_gru_model *fc_gru_model_ref(struct fc_gru_model *m)
{
    __atomic_fetch_add(&m->refs, 1, __ATOMIC_RELAXED);
    return m;
}

void fc_gru_model_unref(struct fc_gru_model *m)
{
    if (!m || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    free(m->params);
    free(m->packed);
    free(m);
}

/* ---- the scalar step ---------------------------------------------------- */

static float sigmoid(float v)
{
    return 1.0f / (1.0f + expf(-v));
}

/* out [3 * hidden] = bias + in [n] times rows [n][3 * hidden] */
static void gates(const float *in, uint32_t n, const float *rows,
                  const float *bias, uint32_t hidden, float *out)
{
    memcpy(out, bias, 3 * (size_t)hidden * sizeof(*out));
    for (uint32_t k = 0; k < n; k++, rows += 3 * hidden)
        for (uint32_t j = 0; j < 3 * hidden; j++)
            out[j] += in[k] * rows[j];
}

static void step_one(const struct fc_gru_model *m,
                     const struct fc_gru_offsets *o, const float *x, float *h,
                     float *logits)
{
    float gx[3 * FC_GRU_MAX_HIDDEN], gh[3 * FC_GRU_MAX_HIDDEN];
    uint32_t hidden = m->shape.hidden, inputs = m->shape.inputs;
    const float *p = m->params;

    gates(x, inputs, p + o->wx, p + o->bx, hidden, gx);
    gates(h, hidden, p + o->wh, p + o->bh, hidden, gh);
    for (uint32_t i = 0; i < hidden; i++) {
        float r = sigmoid(gx[i] + gh[i]);
        float z = sigmoid(gx[hidden + i] + gh[hidden + i]);
        float n = tanhf(gx[2 * hidden + i] + r * gh[2 * hidden + i]);
        h[i] = (1.0f - z) * n + z * h[i];
    }
    for (unsigned out = 0; out < FC_GRU_OUTPUTS; out++) {
        float sum = p[o->bo + out];
        for (uint32_t i = 0; i < hidden; i++)
            sum += h[i] * p[o->wo + (size_t)i * FC_GRU_OUTPUTS + out];
        for (uint32_t i = 0; i < inputs; i++)
            sum += x[i] * p[o->ws + (size_t)i * FC_GRU_OUTPUTS + out];
        logits[out] = sum;
    }
}

void fc_gru_step_scalar(const struct fc_gru_model *m, uint32_t n,
                        const float *x, float *h, float *logits)
{
    struct fc_gru_offsets o = fc_gru_offsets(m->shape);
    for (uint32_t i = 0; i < n; i++)
        step_one(m, &o, x + (size_t)i * m->shape.inputs,
                 h + (size_t)i * m->shape.hidden,
                 logits + (size_t)i * FC_GRU_OUTPUTS);
}

/* ---- the choice --------------------------------------------------------- */

static const struct fc_gru_kernel kernels[] = {
#if defined(__x86_64__)
    { "avx512", fc_gru_step_avx512 },
    { "avx2", fc_gru_step_avx2 },
#endif
    { "scalar", fc_gru_step_scalar },
};
#define KERNELS (sizeof(kernels) / sizeof(kernels[0]))

const struct fc_gru_kernel *fc_gru_kernel_at(unsigned index)
{
    unsigned first = 0;
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        first = 2;
    else if (!__builtin_cpu_supports("avx512f"))
        first = 1;
#endif
    return index < KERNELS - first ? &kernels[first + index] : NULL;
}

void fc_gru_step(const struct fc_gru_model *model, uint32_t n, const float *x,
                 float *h, float *logits)
{
    fc_gru_kernel_at(0)->step(model, n, x, h, logits);
}
