/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine_int.h"

#include <math.h>
#include <string.h>

/*
 * The engine's learning. A sample of regions, uniform among the active ones,
 * is taken with its features and what each scorer said; when the horizon has
 * passed, all that learns is told what came of it. Mixture and recalibration
 * want the chances as they were said, and get them; they were recalibrated by
 * the maps of then, of which those of now are the better versions.
 *
 * Samples that wait at the same time share most of what comes of them: sixteen
 * of them are hardly more evidence than one. The maps therefore get a part of
 * each, all together as much as one, and the mixture every few of them whole.
 * The regression, which forgets slowly, gets all.
 */
#define ERROR_DECAY 0.99f

/* A region's last touch tells whether one came within the horizon: samples
 * are labelled in the tick in which they are due. A region that is gone was
 * idle for longer than any horizon that matters. */
static void label(const struct fc_engine *e, const struct fc_sample *s,
                  uint8_t *touched)
{
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t slot = fc_regions_find(&e->regions, s->number[i]);
        touched[i] = slot != FC_REGION_NONE && e->regions.all[slot].touches &&
                     (int32_t)(e->regions.last[slot] - s->taken) > 0;
    }
}

/*
 * The regression is fitted to the guest itself and follows a change sooner
 * than a map does; it is taken half way.
 */
void fc_engine_recalibrated(const struct fc_engine *e, unsigned id, unsigned z,
                            uint32_t n, const float *raw, float *out)
{
    fc_calibrate_apply(&e->calibrate[id][z], n, raw, out);
    for (uint32_t i = 0; id == FC_SCORER_LR && i < n; i++)
        out[i] = (out[i] + raw[i]) / 2;
}

uint32_t fc_engine_overlap(const struct fc_engine *e, unsigned z)
{
    uint32_t ticks = e->rows.horizon[z];
    return ticks < FC_SAMPLES_PENDING ? ticks : FC_SAMPLES_PENDING;
}

/* Every `step`-th label, from `from` on. */
static void recalibrate(struct fc_calibrate *c, const float *raw,
                        const uint8_t *touched, uint32_t n, uint32_t from,
                        uint32_t step)
{
    float p[FC_SAMPLES_MOST];
    uint8_t t[FC_SAMPLES_MOST];
    uint32_t m = 0;
    for (uint32_t i = from; i < n; i += step) {
        p[m] = raw[i];
        t[m++] = touched[i];
    }
    fc_calibrate_learn(c, m, p, t);
}

static void note_error(struct fc_engine_bins *b, const struct fc_sample *s,
                       const uint8_t *touched)
{
    b->all = b->all * ERROR_DECAY + (float)s->n;
    for (unsigned k = 0; k < 10; k++) {
        b->said[k] *= ERROR_DECAY;
        b->hit[k] *= ERROR_DECAY;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        unsigned k = s->mixed[i] < 1 ? (unsigned)(s->mixed[i] * 10) : 9;
        b->said[k] += s->mixed[i];
        b->hit[k] += touched[i] ? 1.0f : 0.0f;
    }
}

float fc_engine_error(const struct fc_engine *e, unsigned horizon)
{
    const struct fc_engine_bins *b = &e->bins[horizon];
    float off = 0;
    for (unsigned k = 0; k < 10; k++)
        off += b->said[k] > b->hit[k] ? b->said[k] - b->hit[k]
                                      : b->hit[k] - b->said[k];
    return b->all > 0 ? off / b->all : 0;
}

static void teach_mixture(struct fc_engine *e, unsigned z,
                          const struct fc_sample *s, const uint8_t *touched)
{
    float calibrated[FC_SCORERS][FC_SAMPLES_MOST];
    const float *p[FC_SCORERS];
    for (unsigned k = 0; k < e->nlive; k++) {
        unsigned id = e->live[k];
        p[k] = NULL;
        if (id >= FC_SCORER_GRU && !s->gru)
            continue; /* it was not there yet */
        fc_engine_recalibrated(e, id, z, s->n, s->raw[id], calibrated[id]);
        p[k] = calibrated[id];
    }
    fc_mixture_learn(e->mixture, z, s->n, p, touched);
}

/* The read-out of the GRU that learns: from regions whose state said
 * something. Their rows move together. */
static void tune(struct fc_engine *e, unsigned z, const struct fc_sample *s,
                 float x[][FC_FEATURE_STRIDE], const uint8_t *touched)
{
    float base[FC_SAMPLES_MOST];
    uint8_t some[FC_SAMPLES_MOST];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        if (isnan(s->base[i]))
            continue;
        if (n != i)
            memcpy(x[n], x[i], sizeof(x[n]));
        base[n] = s->base[i];
        some[n++] = touched[i];
    }
    if (n)
        fc_lr_learn(&e->gru.tuned, z, n, x[0], base, some);
}

static void learn_from(struct fc_engine *e, unsigned z,
                       const struct fc_sample *s)
{
    float x[FC_SAMPLES_MOST][FC_FEATURE_STRIDE];
    uint8_t touched[FC_SAMPLES_MOST];
    uint32_t together = fc_engine_overlap(e, z), count = e->due_count[z]++;
    label(e, s, touched);
    if (e->rows.horizon[z] == 1)
        fc_gaps_learn(&e->gaps, s->n, s->quiet, touched);
    if (e->config.features_only)
        return;
    note_error(&e->bins[z], s, touched);
    /* a disk's reads are too rare to let a sample go */
    if (e->rows.disk || count % ((together + 1) / 2) == 0)
        teach_mixture(e, z, s, touched);
    for (unsigned k = 0; k < e->nlive; k++) {
        unsigned id = e->live[k];
        if (id < FC_SCORER_GRU || s->gru)
            recalibrate(&e->calibrate[id][z], s->raw[id], touched, s->n,
                        count % together, together);
    }
    for (uint32_t i = 0; i < s->n; i++)
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
            x[i][k] = (float)s->x[i][k] / FC_SAMPLES_ONE;
    fc_lr_learn(&e->lr, z, s->n, x[0], NULL, touched);
    fc_halflife_learn(&e->halflife[z], s->n, x[0], touched);
    if (s->gru)
        tune(e, z, s, x, touched);
    e->rows.ewma[z] = e->halflife[z].best;
    e->labels += s->n;
}

void fc_engine_learn(struct fc_engine *e)
{
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        const struct fc_sample *s;
        while ((s = fc_samples_due(&e->samples, z, e->now)))
            if (s->n)
                learn_from(e, z, s);
    }
}

/* One slot of each of n even parts of all. */
static uint32_t choose(struct fc_engine *e, uint32_t *slot)
{
    uint32_t all = e->regions.n;
    uint32_t n = all < FC_SAMPLES_MOST ? all : FC_SAMPLES_MOST;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t from = (uint32_t)((uint64_t)all * i / n);
        uint32_t to = (uint32_t)((uint64_t)all * (i + 1) / n);
        slot[i] = from + fc_engine_random(e) % (to - from);
    }
    return n;
}

static void keep(const struct fc_engine *e, struct fc_sample *s, unsigned z,
                 uint32_t at, uint32_t n, const uint32_t *slot)
{
    const struct fc_engine_work *w = e->work;
    for (uint32_t i = 0; i < n; i++) {
        s->number[at + i] = e->regions.all[slot[i]].number;
        s->quiet[at + i] = e->now - e->regions.last[slot[i]];
    }
    s->gru = e->gru.model != NULL;
    s->n = at + n;
    if (e->config.features_only)
        return;
    for (uint32_t i = 0; i < n; i++) {
        s->base[at + i] = e->gru.model && w->stepped[i] ? w->base[i][z] : NAN;
        for (unsigned k = 0; k < FC_FEATURE_STRIDE; k++)
            s->x[at + i][k] = fc_samples_fixed(w->x[i][k]);
    }
    for (unsigned id = 0; id < FC_SCORERS; id++)
        memcpy(&s->raw[id][at], w->raw[id][z], n * sizeof(float));
    memcpy(&s->mixed[at], w->out[z], n * sizeof(float));
}

void fc_engine_take_samples(struct fc_engine *e)
{
    struct fc_sample *s[FC_HORIZONS] = { NULL };
    uint32_t slot[FC_SAMPLES_MOST];
    bool any = false;
    for (unsigned z = 0; z < FC_HORIZONS && e->regions.n; z++)
        if (fc_samples_wanted(&e->samples, z, e->now)) {
            s[z] = fc_samples_add(&e->samples, z, e->now, e->rows.horizon[z]);
            any = any || s[z];
        }
    if (!any)
        return;
    uint32_t n = choose(e, slot);
    for (uint32_t at = 0; at < n; at += FC_ENGINE_BLOCK) {
        uint32_t some = n - at < FC_ENGINE_BLOCK ? n - at : FC_ENGINE_BLOCK;
        if (!e->config.features_only)
            fc_engine_block(e, some, slot + at);
        for (unsigned z = 0; z < FC_HORIZONS; z++)
            if (s[z])
                keep(e, s[z], z, at, some, slot + at);
    }
}
