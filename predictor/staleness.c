/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "staleness.h"

#include <math.h>

/*
 * Two loops. The inner one keeps, by chance said, how much was there and how
 * much of it was touched, and takes as threshold the chance below which the
 * touched share is `gain` times the risk. So far this is what would have held
 * the risk in the past. The outer one looks at the lists that were made with
 * it and turns the gain down when they showed more than the risk, up when less
 * (adaptive conformal inference: Gibbs and Candes 2021), on a logarithmic
 * scale. As labels come late by the horizon, its step is small in proportion,
 * or it would swing.
 *
 * However calm the past was, nothing is listed whose chance is said to be more
 * than BEYOND times the risk: such chances are those of a guest that has just
 * changed, of which the labels will tell only when the horizon has passed. And
 * the past that counts is short, as long as it takes to see the risk: what one
 * phase of a guest has taught says little about the next.
 *
 * Two more ways were tried on recorded guests and hold it worse: to make no
 * list while those of late were bad (they are made again when the good times
 * end), and to go on past a first bad chance to where the sums are good again
 * (most such lists are bad).
 */
#define LEAST_RISK 0.0001f
#define MOST_RISK 0.5f
#define STEPS_OCTAVE 4
#define BEYOND 4.0f
#define MEMORY_SEEN 5.0 /* calls of memory, at least: so many by the risk; */
#define MEMORY_HORIZONS 4.0 /* or so many horizons */
#define GAIN_STEP 0.3
#define GAIN_LEAST (1.0 / 32)
#define GAIN_MOST 2.0
#define WORST_SURPRISE 4.0 /* times the risk, of one list */
#define IMAGINED                                                               \
    4.0 /* weight with which a chance speaks for itself, a node                \
         */
#define HELD 2.0
#define SURE 2.0 /* standard errors */
#define TOP (FC_STALENESS_NODES - 1)

void fc_staleness_init(struct fc_staleness *s, float risk,
                       uint32_t horizon_ticks)
{
    *s = (struct fc_staleness){ .gain = 1, .delay = horizon_ticks };
    s->risk = fminf(fmaxf(risk, LEAST_RISK), MOST_RISK);
    double calls =
        fmax(MEMORY_SEEN / (double)s->risk, MEMORY_HORIZONS * horizon_ticks);
    s->memory = (float)(1 - 1 / calls);
    s->step = GAIN_STEP / (horizon_ticks + 20.0);
    s->threshold = s->risk;
}

static float chance_at(double node)
{
    return fc_squash((float)(node / STEPS_OCTAVE) - FC_STRETCH_OCTAVES);
}

static unsigned node_of(float p)
{
    float at = (fc_stretch(p) + FC_STRETCH_OCTAVES) * STEPS_OCTAVE;
    unsigned node = (unsigned)(at + 0.5f);
    return node < TOP ? node : TOP;
}

/* The chance up to which the touched share is the one wanted; a node's labels
 * count as if spread over its width. */
static float find_threshold(const struct fc_staleness *s)
{
    double want = s->risk * s->gain, seen = 0, stale = 0;
    for (unsigned i = 0; i <= TOP; i++) {
        if (s->seen[i] <= 0)
            continue;
        double weight = s->seen[i] + IMAGINED;
        double share = (s->stale[i] + IMAGINED * (double)chance_at(i)) / weight;
        double more = share * s->seen[i];
        if (stale + more > want * (seen + s->seen[i])) {
            double part = (want * seen - stale) / (more - want * s->seen[i]);
            return chance_at(i - 0.5 + fmax(part, 0));
        }
        seen += s->seen[i];
        stale += more;
    }
    return seen > 0 ? 1.0f : s->risk;
}

/* What one list of the past came to. */
static void judge(struct fc_staleness *s, double listed, double stale)
{
    double share = stale / listed;
    double off = fmin(share / s->risk, WORST_SURPRISE) - 1;
    s->gain *= exp(-s->step * off);
    s->gain = fmin(fmax(s->gain, GAIN_LEAST), GAIN_MOST);
    s->lists = s->lists * s->memory + 1;
    s->mean += (share - s->mean) / s->lists;
    s->square += (share * share - s->square) / s->lists;
}

void fc_staleness_learn(struct fc_staleness *s, uint32_t n, const float *p_then,
                        const uint8_t *touched, const uint32_t *pages,
                        float threshold_then)
{
    double listed = 0, listed_stale = 0;
    if (!n)
        return;
    for (unsigned i = 0; i <= TOP; i++) {
        s->seen[i] *= s->memory;
        s->stale[i] *= s->memory;
    }
    for (uint32_t j = 0; j < n; j++) {
        double weight = pages ? pages[j] : 1;
        double stale = touched[j] ? weight : 0;
        unsigned i = node_of(p_then[j]);
        s->seen[i] += weight;
        s->stale[i] += stale;
        if (p_then[j] <= threshold_then) {
            listed += weight;
            listed_stale += stale;
        }
    }
    s->labels += n;
    if (listed > 0)
        judge(s, listed, listed_stale);
    s->threshold = fminf(find_threshold(s), BEYOND * s->risk);
}

/* Share touched of the coldest tenth: what no threshold gets below. */
static double least_share(const struct fc_staleness *s)
{
    double all = 0, seen = 0, stale = 0;
    for (unsigned i = 0; i <= TOP; i++)
        all += s->seen[i];
    for (unsigned i = 0; i <= TOP && seen < all / 10; i++) {
        seen += s->seen[i];
        stale += s->stale[i];
    }
    return seen > 0 ? stale / seen : 0;
}

void fc_staleness_look(const struct fc_staleness *s,
                       struct fc_staleness_view *view_r)
{
    *view_r = (struct fc_staleness_view){ .threshold = s->threshold,
                                          .labels = s->labels };
    view_r->reachable = least_share(s) <= s->risk;
    if (s->lists <= 0)
        return;
    /* Lists whose time overlaps tell the same. */
    double apart = s->lists / (1.0 + s->delay);
    double spread = fmax(s->square - s->mean * s->mean, 0);
    double error = sqrt((spread + s->risk / 10.0) / fmax(apart, 1));
    view_r->seen = (float)s->mean;
    view_r->held = s->mean <= HELD * s->risk;
    view_r->confidence = (float)fmin(fmax(1 - s->mean - SURE * error, 0), 1);
}
