/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "learned.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine_int.h"
#include "err.h"
#include "wire.h"

#define VERSION 1u
#define HEAD_BYTES 64u
#define TAIL_BYTES 8u
#define MAP_FLOATS 7u
#define MAP_MOST 100.0f
#define SUM_MOST 1e9f
#define LEARNED_BYTES                                                          \
    (FC_HORIZONS * 4u *                                                        \
     (FC_SCORERS * MAP_FLOATS + 2 * (FC_LR_DIM + FC_LEARNED_TRIANGLE)))

static const char magic[8] = "FCLEARN1";

__attribute__((format(printf, 3, 4))) static int
refuse(struct fc_model_problem *problem, int rc, const char *why, ...)
{
    va_list ap;
    va_start(ap, why);
    vsnprintf(problem->text, sizeof(problem->text), why, ap);
    va_end(ap);
    return rc;
}

/* ---- reading ------------------------------------------------------------ */

/* A number from `least` to `most`; else `r` goes bad. */
static float get_float(struct fc_reader *r, float least, float most)
{
    uint32_t bits = fc_get_u32(r);
    float f;
    memcpy(&f, &bits, sizeof(f));
    if (f >= least && f <= most)
        return f;
    r->bad = true;
    return 0;
}

static void get_map(struct fc_reader *r, struct fc_learned_map *m)
{
    m->slope = get_float(r, -MAP_MOST, MAP_MOST);
    m->shift = get_float(r, -MAP_MOST, MAP_MOST);
    for (unsigned i = 0; i < 3; i++)
        m->curve[i] = get_float(r, -SUM_MOST, SUM_MOST);
    m->calls = get_float(r, 0, SUM_MOST);
    m->share = get_float(r, 0, 1);
}

static void get_weights(struct fc_reader *r, struct fc_learned_weights *l)
{
    unsigned at = 0;
    for (unsigned k = 0; k < FC_LR_DIM; k++)
        l->w[k] = get_float(r, -FC_GRU_MAX_WEIGHT, FC_GRU_MAX_WEIGHT);
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        for (unsigned k = 0; k <= i; k++)
            l->h[at++] = get_float(r, k == i ? 0 : -SUM_MOST, SUM_MOST);
}

/* Up to the model file, whose length it returns. */
static int parse_head(const void *bytes, size_t len, struct fc_reader *r,
                      struct fc_learned *l, uint32_t *model_r,
                      struct fc_model_problem *problem)
{
    if (len > FC_LEARNED_MAX_BYTES)
        return refuse(problem, FC_ETOOBIG, "%zu bytes; at most %u", len,
                      FC_LEARNED_MAX_BYTES);
    if (len < HEAD_BYTES + TAIL_BYTES || memcmp(bytes, magic, sizeof(magic)))
        return refuse(problem, FC_EFORMAT, "byte 0: nothing that was learned");
    *r = fc_reader_of(bytes, len - TAIL_BYTES);
    fc_get_bytes(r, sizeof(magic));
    uint32_t version = fc_get_u32(r);
    if (version != VERSION)
        return refuse(problem, FC_EVERSION, "byte 8: version %u, not %u",
                      version, VERSION);
    if (fc_get_u32(r) != len)
        return refuse(problem, FC_EFORMAT, "byte 12: another length");
    if (XXH3_64bits(bytes, len - TAIL_BYTES) != fc_le_load(r->end, TAIL_BYTES))
        return refuse(problem, FC_ECHECK, "byte %zu: checksum does not match",
                      len - TAIL_BYTES);
    if (fc_get_u32(r) != FC_ENGINE_MEMORY)
        return refuse(problem, FC_EFORMAT, "byte 16: not of memory");
    l->tick_ms = fc_get_u32(r);
    if (!l->tick_ms)
        return refuse(problem, FC_EFORMAT, "byte 20: no time between looks");
    if (fc_get_u64(r) != fc_feature_hash())
        return refuse(problem, FC_EFORMAT, "byte 24: other features");
    if (fc_get_u32(r) != FC_SCORERS)
        return refuse(problem, FC_EFORMAT, "byte 32: other scorers");
    *model_r = fc_get_u32(r);
    l->written_s = fc_get_u64(r);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        l->horizon_ms[z] = fc_get_u32(r);
    if (*model_r > FC_LEARNED_MAX_BYTES ||
        len != HEAD_BYTES + *model_r + LEARNED_BYTES + TAIL_BYTES)
        return refuse(problem, FC_EFORMAT,
                      "byte 36: a model of %u bytes does not fit %zu", *model_r,
                      len);
    return 0;
}

int fc_learned_parse(const void *bytes, size_t len, struct fc_learned *l,
                     struct fc_model_problem *problem)
{
    struct fc_reader r = { 0 };
    uint32_t model = 0;

    memset(l, 0, sizeof(*l));
    int rc = parse_head(bytes, len, &r, l, &model, problem);
    if (!rc && model)
        rc = fc_model_parse(fc_get_bytes(&r, model), model, FC_ENGINE_MEMORY,
                            &l->model, problem);
    if (rc)
        return rc;
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        for (unsigned id = 0; id < FC_SCORERS; id++)
            get_map(&r, &l->map[z][id]);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        get_weights(&r, &l->lr[z]);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        get_weights(&r, &l->tuned[z]);
    if (!r.bad)
        return 0;
    fc_learned_dispose(l);
    return refuse(problem, FC_EFORMAT,
                  "after byte %u: a number that is out of range",
                  HEAD_BYTES + model);
}

void fc_learned_dispose(struct fc_learned *l)
{
    fc_model_dispose(&l->model);
}

/* ---- writing ------------------------------------------------------------ */

static void put_float(struct fc_writer *w, double v, double least, double most)
{
    float f = (float)(isfinite(v) ? fmin(fmax(v, least), most) : 0);
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    fc_put_u32(w, bits);
}

static void put_maps(struct fc_writer *w, const struct fc_engine *e, unsigned z)
{
    float share[FC_SCORERS];
    fc_engine_weights(e, z, share);
    for (unsigned id = 0; id < FC_SCORERS; id++) {
        const struct fc_calibrate *c = &e->calibrate[id][z];
        put_float(w, (double)c->slope, -MAP_MOST, MAP_MOST);
        put_float(w, (double)c->shift, -MAP_MOST, MAP_MOST);
        for (unsigned i = 0; i < 3; i++)
            put_float(w, c->curve[i], -SUM_MOST, SUM_MOST);
        put_float(w, c->calls, 0, SUM_MOST);
        put_float(w, (double)share[id], 0, 1);
    }
}

static void put_weights(struct fc_writer *w, const struct fc_lr *lr, unsigned z)
{
    const double most = FC_GRU_MAX_WEIGHT;
    for (unsigned k = 0; k < FC_LR_DIM; k++)
        put_float(w, (double)lr->w[k][z], -most, most);
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        for (unsigned k = 0; k <= i; k++)
            put_float(w, lr->h[z][i][k], k == i ? 0 : -SUM_MOST, SUM_MOST);
}

int fc_learned_format(const struct fc_engine *e, const struct fc_model *model,
                      uint64_t written_s, uint8_t **bytes_r, size_t *len_r)
{
    uint8_t *file = NULL;
    size_t file_len = 0;
    if (e->config.kind != FC_ENGINE_MEMORY)
        return FC_EINVAL;
    int rc = model ? fc_model_format(model, &file, &file_len) : 0;
    size_t len = HEAD_BYTES + file_len + LEARNED_BYTES + TAIL_BYTES;
    uint8_t *bytes = rc ? NULL : malloc(len);
    if (!bytes) {
        free(file);
        return rc ? rc : FC_ENOMEM;
    }
    struct fc_writer w = fc_writer_of(bytes, len);
    fc_put_bytes(&w, magic, sizeof(magic));
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, (uint32_t)len);
    fc_put_u32(&w, e->config.kind);
    fc_put_u32(&w, e->config.tick_ms);
    fc_put_u64(&w, fc_feature_hash());
    fc_put_u32(&w, FC_SCORERS);
    fc_put_u32(&w, (uint32_t)file_len);
    fc_put_u64(&w, written_s);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        fc_put_u32(&w, e->config.horizon_ms[z]);
    if (file_len)
        fc_put_bytes(&w, file, file_len);
    free(file);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        put_maps(&w, e, z);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        put_weights(&w, &e->lr, z);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        put_weights(&w, &e->gru.tuned, z);
    fc_put_u64(&w, XXH3_64bits(bytes, len - TAIL_BYTES));
    *bytes_r = bytes;
    *len_r = len;
    return 0;
}

/* ---- going on from there ------------------------------------------------ */

static void take_weights(struct fc_lr *lr, unsigned z,
                         const struct fc_learned_weights *l)
{
    unsigned at = 0;
    for (unsigned k = 0; k < FC_LR_DIM; k++)
        lr->w[k][z] = l->w[k];
    for (unsigned i = 0; i < FC_LR_DIM; i++)
        for (unsigned k = 0; k <= i; k++)
            lr->h[z][i][k] = (double)l->h[at++];
}

static void take_maps(struct fc_engine *e, unsigned z,
                      const struct fc_learned_map *map)
{
    float share[FC_MIXTURE_MAX_SCORERS];
    for (unsigned id = 0; id < FC_SCORERS; id++) {
        struct fc_calibrate *c = &e->calibrate[id][z];
        c->slope = map[id].slope;
        c->shift = map[id].shift;
        for (unsigned i = 0; i < 3; i++)
            c->curve[i] = (double)map[id].curve[i];
        c->calls = (double)map[id].calls;
    }
    for (unsigned k = 0; k < e->nlive; k++)
        share[k] = map[e->live[k]].share;
    fc_mixture_set_weights(e->mixture, z, share);
}

int fc_learned_apply(const struct fc_learned *l, struct fc_engine *e)
{
    if (e->config.kind != FC_ENGINE_MEMORY || e->config.tick_ms != l->tick_ms)
        return FC_EINVAL;
    for (unsigned z = 0; z + 1 < FC_HORIZONS; z++)
        if (e->config.horizon_ms[z] != l->horizon_ms[z])
            return FC_EINVAL;
    if (l->model.gru) {
        int rc = fc_engine_set_gru(e, l->model.gru);
        if (rc)
            return rc;
    }
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        take_maps(e, z, l->map[z]);
        take_weights(&e->lr, z, &l->lr[z]);
        if (l->model.gru)
            take_weights(&e->gru.tuned, z, &l->tuned[z]);
    }
    return 0;
}
