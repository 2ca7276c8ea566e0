/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "mixture_int.h"
#include "stretch.h"

/*
 * What goes out is the weighted mean of the scorers' chances, horizon by
 * horizon. Weights follow the log loss of each scorer over the labels of a
 * tick (exponential weights) with a fixed share of all weight dealt out anew
 * each time (Herbster and Warmuth, "Tracking the best expert", 1998), so that
 * one that was bad for an hour is back within seconds when the guest changes.
 * The loss of the mean is never far above that of the best scorer of late:
 * this is the guard. A regression on the scorers' opinions (stacking) was
 * tried beside it and ranked worse on recorded guests: it follows the labels
 * of late too well.
 *
 * A new phase is seen in the guest-wide rate (mixture_phase.c). All horizons
 * then move weight to the simple scorers at once, as labels for the long
 * horizons would tell only when the horizon has passed.
 */
#define ETA 6.0    /* weight falls by e for 1/ETA bits of loss in a tick */
#define SHARE 0.02 /* of all weight, dealt out evenly each tick */
#define LOSS_DECAY 0.98
#define SIMPLE_SHARE 0.8 /* what the simple scorers have after a new phase */
#define PHASE_LABELS 40  /* calls until a phase is no longer news */
#define LEAD 0.05        /* by which a new leader must lead to be reported */
#define LEADS 0.8f       /* the say of a scorer that orders better */
#define BLOCK 256u

static double of_bits(float p)
{
    p = p > FC_STRETCH_LEAST ? p : FC_STRETCH_LEAST;
    return -(double)log2f(p);
}

/* For those who ask, and to see whether another leads. */
static void make_shares(const struct fc_mixture *m,
                        struct fc_mixture_horizon *z)
{
    for (unsigned i = 0; i < m->scorers; i++)
        z->shares[i] = (float)z->pool[i];
    unsigned best = 0;
    for (unsigned i = 1; i < m->scorers; i++)
        if (z->shares[i] > z->shares[best])
            best = i;
    if (best != z->led_by &&
        z->shares[best] > z->shares[z->led_by] + (float)LEAD) {
        z->led_by = best;
        z->changed = z->changed || z->reason != FC_MIXTURE_START;
    }
}

int fc_mixture_create(const struct fc_mixture_config *config,
                      struct fc_mixture **m_r)
{
    if (!config->scorers || config->scorers > FC_MIXTURE_MAX_SCORERS ||
        !config->horizons || config->horizons > FC_MIXTURE_MAX_HORIZONS ||
        !config->names)
        return FC_EINVAL;
    struct fc_mixture *m = calloc(1, sizeof(*m));
    if (!m)
        return FC_ENOMEM;
    m->scorers = config->scorers;
    m->horizons = config->horizons;
    m->simple = config->simple & ((1u << config->scorers) - 1);
    m->names = config->names;
    fc_mixture_band_init(&m->band);
    for (unsigned h = 0; h < m->horizons; h++) {
        struct fc_mixture_horizon *z = &m->of[h];
        for (unsigned i = 0; i < m->scorers; i++)
            z->pool[i] = 1.0 / m->scorers;
        z->leader = m->scorers;
        z->late = config->late[h] < FC_MIXTURE_LATE ? config->late[h]
                                                    : FC_MIXTURE_LATE;
        if (config->by_order &&
            !(z->rank = calloc(m->scorers + 1, sizeof(*z->rank)))) {
            fc_mixture_destroy(m);
            return FC_ENOMEM;
        }
        make_shares(m, z);
    }
    *m_r = m;
    return 0;
}

void fc_mixture_destroy(struct fc_mixture *m)
{
    for (unsigned h = 0; m && h < m->horizons; h++)
        free(m->of[h].rank);
    free(m);
}

void fc_mixture_set_weights(struct fc_mixture *m, unsigned horizon,
                            const float *share)
{
    struct fc_mixture_horizon *z = &m->of[horizon];
    double sum = 0;
    for (unsigned i = 0; i < m->scorers; i++)
        sum += (double)share[i];
    if (!(sum > 0))
        return;
    for (unsigned i = 0; i < m->scorers; i++)
        z->pool[i] = (1 - SHARE) * (double)share[i] / sum + SHARE / m->scorers;
    make_shares(m, z);
}

/* Weights for those that have an opinion; sum 1. */
struct live {
    unsigned n;
    unsigned scorer[FC_MIXTURE_MAX_SCORERS];
    float pool[FC_MIXTURE_MAX_SCORERS];
};

static void find_live(const struct fc_mixture *m, const double *pool,
                      const float *const *p, struct live *l)
{
    double sum = 0;
    l->n = 0;
    for (unsigned i = 0; i < m->scorers; i++)
        if (p[i]) {
            l->scorer[l->n++] = i;
            sum += pool[i];
        }
    for (unsigned k = 0; k < l->n; k++)
        l->pool[k] = (float)(pool[l->scorer[k]] / sum);
}

/* A leader by order has most of the say. */
static void follow_leader(const struct fc_mixture_horizon *z, struct live *l)
{
    for (unsigned k = 0; k < l->n; k++) {
        if (l->scorer[k] != z->leader)
            continue;
        for (unsigned j = 0; j < l->n; j++)
            l->pool[j] *= 1 - LEADS;
        l->pool[k] += LEADS;
        return;
    }
}

/* A block of at most BLOCK items; there is room for BLOCK in mean. Loops have
 * a fixed length and no branch, so that compilers vectorise them. */
static inline __attribute__((always_inline)) void
combine_any(const struct live *l, const float *const *p, uint32_t at,
            uint32_t n, float *restrict mean)
{
    float in[BLOCK];
    for (unsigned j = 0; j < BLOCK; j++)
        mean[j] = 0;
    for (unsigned k = 0; k < l->n; k++) {
        const float *x = p[l->scorer[k]] + at;
        float w = l->pool[k];
        if (n < BLOCK) {
            memset(in, 0, sizeof(in));
            memcpy(in, x, n * sizeof(*in));
            x = in;
        }
        for (unsigned j = 0; j < BLOCK; j++)
            mean[j] += w * fc_stretch_clip(x[j]);
    }
}

static void combine_plain(const struct live *l, const float *const *p,
                          uint32_t at, uint32_t n, float *mean)
{
    combine_any(l, p, at, n, mean);
}

#ifdef FC_STRETCH_AVX2
FC_STRETCH_AVX2
static void combine_avx2(const struct live *l, const float *const *p,
                         uint32_t at, uint32_t n, float *mean)
{
    combine_any(l, p, at, n, mean);
}
#endif

static void combine_block(const struct live *l, const float *const *p,
                          uint32_t at, uint32_t n, float *mean)
{
#ifdef FC_STRETCH_AVX2
    if (fc_stretch_avx2()) {
        combine_avx2(l, p, at, n, mean);
        return;
    }
#endif
    combine_plain(l, p, at, n, mean);
}

void fc_mixture_combine(const struct fc_mixture *m, unsigned horizon,
                        uint32_t n, const float *const *p, float *out)
{
    struct live live;
    float mean[BLOCK];
    find_live(m, m->of[horizon].pool, p, &live);
    follow_leader(&m->of[horizon], &live);
    for (uint32_t at = 0; at < n; at += BLOCK) {
        uint32_t some = n - at < BLOCK ? n - at : BLOCK;
        combine_block(&live, p, at, some, mean);
        memcpy(out + at, mean, some * sizeof(*out));
    }
}

/* Sums of log loss in bits: of each scorer, and of what goes out
 * ([scorers]). */
static void add_losses(const struct fc_mixture *m, const struct live *l,
                       const float *const *p, uint32_t at, uint32_t n,
                       const uint8_t *touched, const float *mean, double *loss)
{
    for (uint32_t j = 0; j < n; j++) {
        bool hit = touched[at + j];
        for (unsigned k = 0; k < l->n; k++) {
            float x = fc_stretch_clip(p[l->scorer[k]][at + j]);
            loss[l->scorer[k]] += of_bits(hit ? x : 1 - x);
        }
        loss[m->scorers] += of_bits(hit ? mean[j] : 1 - mean[j]);
    }
}

/* Exponential weights and the fixed share, over those that had an opinion;
 * what the others weigh does not change. */
static void reweigh(struct fc_mixture_horizon *z, const struct live *l,
                    const double *loss)
{
    double had = 0, sum = 0, least = HUGE_VAL;
    for (unsigned k = 0; k < l->n; k++) {
        least = fmin(least, loss[l->scorer[k]]);
        had += z->pool[l->scorer[k]];
    }
    for (unsigned k = 0; k < l->n; k++) {
        unsigned i = l->scorer[k];
        z->pool[i] *= exp(-ETA * (loss[i] - least));
        sum += z->pool[i];
    }
    for (unsigned k = 0; k < l->n; k++) {
        unsigned i = l->scorer[k];
        z->pool[i] = had * ((1 - SHARE) * z->pool[i] / sum + SHARE / l->n);
    }
}

static void remember_losses(const struct fc_mixture *m,
                            struct fc_mixture_horizon *z, const float *const *p,
                            const double *loss)
{
    for (unsigned i = 0; i <= m->scorers; i++) {
        bool there = i == m->scorers || p[i];
        z->loss[i] = z->loss[i] * LOSS_DECAY + (there ? loss[i] : 0);
        z->losses[i] = z->losses[i] * LOSS_DECAY + (there ? 1 : 0);
    }
}

static void rank(const struct fc_mixture *m, struct fc_mixture_horizon *z,
                 uint32_t n, const float *const *p, const uint8_t *touched)
{
    /* the mean as it was said: with the weights of then, since when so many
     * calls have changed them */
    unsigned ago = z->late ? z->late - 1 : 0;
    ago = ago < z->calls ? ago : z->calls;
    const double *pool = z->pools[(z->calls - ago) % FC_MIXTURE_LATE];
    float mean[BLOCK];
    struct live live;
    find_live(m, ago ? pool : z->pool, p, &live);
    for (uint32_t at = 0; at < n; at += BLOCK) {
        uint32_t some = n - at < BLOCK ? n - at : BLOCK;
        combine_block(&live, p, at, some, mean);
        fc_mixture_rank_add(&z->rank[m->scorers], some, mean, touched + at);
    }
    memcpy(z->pools[z->calls++ % FC_MIXTURE_LATE], z->pool, sizeof(z->pool));
    for (unsigned i = 0; i < m->scorers; i++)
        if (p[i])
            fc_mixture_rank_add(&z->rank[i], n, p[i], touched);
    z->leader = fc_mixture_rank_leader(z->rank, m->scorers, z->leader);
    for (unsigned i = 0; i <= m->scorers; i++)
        fc_mixture_rank_fade(&z->rank[i]);
}

void fc_mixture_learn(struct fc_mixture *m, unsigned horizon, uint32_t n,
                      const float *const *p_then, const uint8_t *touched)
{
    struct fc_mixture_horizon *z = &m->of[horizon];
    double loss[FC_MIXTURE_MAX_SCORERS + 1] = { 0 };
    float mean[BLOCK];
    struct live live;
    find_live(m, z->pool, p_then, &live);
    if (!n || !live.n)
        return;
    for (uint32_t at = 0; at < n; at += BLOCK) {
        uint32_t some = n - at < BLOCK ? n - at : BLOCK;
        combine_block(&live, p_then, at, some, mean);
        add_losses(m, &live, p_then, at, some, touched, mean, loss);
    }
    if (z->rank)
        rank(m, z, n, p_then, touched);
    for (unsigned i = 0; i <= m->scorers; i++)
        loss[i] /= n;
    reweigh(z, &live, loss);
    remember_losses(m, z, p_then, loss);
    z->labels += n;
    if (z->reason == FC_MIXTURE_START ||
        (z->reason == FC_MIXTURE_PHASE && ++z->since_phase >= PHASE_LABELS)) {
        z->changed = z->changed || z->reason == FC_MIXTURE_PHASE;
        z->reason = FC_MIXTURE_SEEN;
    }
    make_shares(m, z);
}

/* Gives the simple scorers SIMPLE_SHARE, parted as they stand to each other,
 * with a floor so that the one that was worst so far can show itself. */
static void trust_simple(struct fc_mixture *m, struct fc_mixture_horizon *z)
{
    double simple = 0, rest = 0;
    unsigned n = (unsigned)__builtin_popcount(m->simple);
    for (unsigned i = 0; i < m->scorers; i++)
        *(m->simple >> i & 1 ? &simple : &rest) += z->pool[i];
    if (simple >= SIMPLE_SHARE)
        return;
    for (unsigned i = 0; i < m->scorers; i++)
        if (m->simple >> i & 1)
            z->pool[i] = SIMPLE_SHARE * (0.5 * z->pool[i] / simple + 0.5 / n);
        else
            z->pool[i] *= (1 - SIMPLE_SHARE) / rest;
    make_shares(m, z);
}

bool fc_mixture_phase(struct fc_mixture *m, float dirty_rate,
                      uint32_t elapsed_ms)
{
    if (!fc_mixture_band_left(&m->band, dirty_rate, elapsed_ms) || !m->simple)
        return false;
    for (unsigned h = 0; h < m->horizons; h++) {
        struct fc_mixture_horizon *z = &m->of[h];
        if (z->reason == FC_MIXTURE_START)
            continue;
        z->changed = z->changed || z->reason != FC_MIXTURE_PHASE;
        z->reason = FC_MIXTURE_PHASE;
        z->since_phase = 0;
        trust_simple(m, z);
    }
    return true;
}

const float *fc_mixture_weights(const struct fc_mixture *m, unsigned horizon)
{
    return m->of[horizon].shares;
}

static double mean_loss(const struct fc_mixture_horizon *z, unsigned i)
{
    return z->losses[i] > 0 ? z->loss[i] / z->losses[i] : 0;
}

void fc_mixture_look(const struct fc_mixture *m, unsigned horizon,
                     struct fc_mixture_view *view_r)
{
    const struct fc_mixture_horizon *z = &m->of[horizon];
    *view_r =
        (struct fc_mixture_view){ .labels = z->labels, .reason = z->reason };
    double best_loss = HUGE_VAL;
    for (unsigned i = 0; i < m->scorers; i++) {
        if (z->shares[i] > z->shares[view_r->best])
            view_r->best = i;
        if (z->losses[i] > 0)
            best_loss = fmin(best_loss, mean_loss(z, i));
    }
    view_r->share = z->shares[view_r->best];
    view_r->loss_bits = (float)mean_loss(z, m->scorers);
    view_r->best_loss_bits = best_loss < HUGE_VAL ? (float)best_loss : 0;
}

const char *fc_mixture_explain(const struct fc_mixture *m, unsigned horizon,
                               char *buf, size_t size)
{
    static const char *const reasons[] = {
        [FC_MIXTURE_START] = "nothing seen yet",
        [FC_MIXTURE_SEEN] = "by what was seen",
        [FC_MIXTURE_PHASE] = "new phase, the simple ones lead",
    };
    const struct fc_mixture_horizon *z = &m->of[horizon];
    struct fc_mixture_view v;
    fc_mixture_look(m, horizon, &v);
    unsigned second = v.best ? 0 : 1;
    for (unsigned i = 0; i < m->scorers; i++)
        if (i != v.best && z->shares[i] > z->shares[second])
            second = i;
    size_t used = (size_t)snprintf(buf, size, "%s %.2f", m->names[v.best],
                                   (double)v.share);
    if (m->scorers > 1 && used < size)
        used += (size_t)snprintf(buf + used, size - used, ", %s %.2f",
                                 m->names[second], (double)z->shares[second]);
    if (used < size)
        used += (size_t)snprintf(buf + used, size - used, ": %s",
                                 reasons[v.reason]);
    if (v.reason != FC_MIXTURE_START && used < size)
        snprintf(buf + used, size - used, ", %.3f bits, best alone %.3f",
                 (double)v.loss_bits, (double)v.best_loss_bits);
    return buf;
}

bool fc_mixture_changed(struct fc_mixture *m, unsigned horizon)
{
    bool changed = m->of[horizon].changed;
    m->of[horizon].changed = false;
    return changed;
}
