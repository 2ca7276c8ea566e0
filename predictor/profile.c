/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "profile.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "err.h"

/*
 * Every observation goes to three cells: its hour of the week, its hour of the
 * day, and the one of all times. A cell is a weighted mean; a new visit (an
 * hour other than the last one it saw) first fades what is there, so that a
 * habit given up is forgotten within some weeks (days, for the hours of the
 * day).
 *
 * The forecast of an hour is a mean of the three cells and of what goes on
 * now. The more visits a cell had the more it weighs, and the special before
 * the general; what goes on now weighs much for this hour and little some
 * hours on.
 */
#define HOUR_S 3600u
#define FIRST_HOUR                                                             \
    (3u * 24u) /* the epoch was a Thursday; weeks begin Monday                 \
                */
#define MOST 1e15f
#define MOST_SECONDS 86400.0

#define KEEP_WEEK 0.75f /* of a cell, at a new visit */
#define KEEP_DAY 0.85f
#define KEEP_ALL 0.99f

#define WEIGHT_WEEK 3.0 /* a visit */
#define WEIGHT_DAY 1.0
#define WEIGHT_ALL 0.3 /* however many */
#define WEIGHT_NOW 6.0
#define NOW_HOURS 1.5 /* in which what goes on now loses weight by e */

#define SURE_WEIGHT 2.0 /* that makes a confidence of a half */
#define BETTER 0.9

const uint32_t fc_profile_age_ms[FC_PROFILE_AGES] = { 250,  500,  1000, 2000,
                                                      4000, 8000, 16000 };

void fc_profile_init(struct fc_profile *p)
{
    memset(p, 0, sizeof(*p));
}

static unsigned week_cell(uint64_t wall_s)
{
    return (unsigned)((wall_s / HOUR_S + FIRST_HOUR) % FC_PROFILE_WEEK);
}

static unsigned day_cell(uint64_t wall_s)
{
    return FC_PROFILE_WEEK + (unsigned)(wall_s / HOUR_S % FC_PROFILE_DAY);
}

#define ALL_CELL (FC_PROFILE_WEEK + FC_PROFILE_DAY)

static bool sensible(double x)
{
    return x >= 0 && x <= (double)MOST;
}

static bool load_is_sensible(const struct fc_profile_load *load)
{
    bool ok = sensible(load->rate);
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++)
        ok = ok && sensible(load->pages[i]);
    return ok;
}

static void add_to(struct fc_profile_cell *c, float keep, uint32_t hour,
                   double seconds, const struct fc_profile_load *load)
{
    if (c->seconds <= 0 || c->hour != hour) {
        c->seconds *= keep;
        c->visits = c->visits * keep + 1;
        c->hour = hour;
    }
    c->seconds += (float)seconds;
    float w = (float)seconds / c->seconds, rate = (float)load->rate;
    float square = fminf(rate * rate, MOST);
    c->rate += w * (rate - c->rate);
    c->square += w * (square - c->square);
    float least = 0;
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++) {
        c->pages[i] += w * ((float)load->pages[i] - c->pages[i]);
        c->pages[i] = least = fmaxf(c->pages[i], least);
    }
}

void fc_profile_add(struct fc_profile *p, uint64_t wall_s, double seconds,
                    const struct fc_profile_load *load)
{
    if (!(seconds > 0) || seconds > MOST_SECONDS || !load_is_sensible(load) ||
        wall_s / HOUR_S > UINT32_MAX)
        return;
    uint32_t hour = (uint32_t)(wall_s / HOUR_S);
    add_to(&p->cells[week_cell(wall_s)], KEEP_WEEK, hour, seconds, load);
    add_to(&p->cells[day_cell(wall_s)], KEEP_DAY, hour, seconds, load);
    add_to(&p->cells[ALL_CELL], KEEP_ALL, hour, seconds, load);
    p->last_s = wall_s;
}

const char *fc_profile_basis_name(enum fc_profile_basis basis)
{
    static const char *const names[] = {
        [FC_PROFILE_NOTHING] = "nothing seen yet",
        [FC_PROFILE_NOW] = "what goes on now",
        [FC_PROFILE_ALL] = "the mean of all that was seen",
        [FC_PROFILE_HOUR] = "this hour of other days",
        [FC_PROFILE_WEEKS] = "this hour of earlier weeks",
    };
    return names[basis];
}

/* Sums of the forecast under way. */
struct blend {
    double weight, rate, pages[FC_PROFILE_AGES];
    double most, spread; /* weight and spread of the part that has most */
    enum fc_profile_basis basis;
};

static void add_part(struct blend *b, enum fc_profile_basis basis,
                     double weight, double rate, double square,
                     const float *pages)
{
    if (weight <= 0)
        return;
    b->weight += weight;
    b->rate += weight * rate;
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++)
        b->pages[i] += weight * (double)pages[i];
    if (weight > b->most) {
        double variance = fmax(square - rate * rate, 0);
        b->most = weight;
        b->basis = basis;
        b->spread = rate > 0 ? sqrt(variance) / rate : 0;
    }
}

static void add_cell(struct blend *b, enum fc_profile_basis basis,
                     double weight, const struct fc_profile_cell *c)
{
    add_part(b, basis, c->seconds > 0 ? weight : 0, (double)c->rate,
             (double)c->square, c->pages);
}

static void add_now(struct blend *b, double hours,
                    const struct fc_profile_load *now)
{
    float pages[FC_PROFILE_AGES];
    if (!now || !load_is_sensible(now))
        return;
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++)
        pages[i] = (float)now->pages[i];
    double weight = WEIGHT_NOW * exp(-hours / NOW_HOURS);
    add_part(b, FC_PROFILE_NOW, weight, now->rate, now->rate * now->rate,
             pages);
}

void fc_profile_expect(const struct fc_profile *p, uint64_t now_s,
                       const struct fc_profile_load *now, uint64_t at_s,
                       struct fc_profile_forecast *forecast_r)
{
    const struct fc_profile_cell *week = &p->cells[week_cell(at_s)];
    const struct fc_profile_cell *day = &p->cells[day_cell(at_s)];
    const struct fc_profile_cell *all = &p->cells[ALL_CELL];
    double hours = at_s > now_s ? (double)(at_s - now_s) / HOUR_S : 0;
    struct blend b = { .basis = FC_PROFILE_NOTHING };

    add_now(&b, hours, now);
    add_cell(&b, FC_PROFILE_WEEKS, WEIGHT_WEEK * (double)week->visits, week);
    add_cell(&b, FC_PROFILE_HOUR, WEIGHT_DAY * (double)day->visits, day);
    add_cell(&b, FC_PROFILE_ALL, WEIGHT_ALL, all);
    *forecast_r = (struct fc_profile_forecast){ .basis = b.basis };
    if (b.weight <= 0)
        return;
    struct fc_profile_load *load = &forecast_r->load;
    load->rate = b.rate / b.weight;
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++)
        load->pages[i] = b.pages[i] / b.weight;
    forecast_r->spread = b.spread;
    forecast_r->confidence =
        (float)(b.weight / (b.weight + SURE_WEIGHT) / (1 + forecast_r->spread));
}

/* What a window costs, dearer when it is less sure. */
static double cost_of(const struct fc_profile_window *w, bool by_downtime)
{
    double cost = (double)(by_downtime ? w->downtime_ms : w->total_ms);
    return cost * (1.5 - 0.5 * (double)w->confidence);
}

int fc_profile_best(const struct fc_profile_window *windows, unsigned n)
{
    int best = -1;
    bool any = false;
    for (unsigned i = 0; i < n; i++)
        any = any || windows[i].converges;
    for (unsigned i = 0; i < n; i++) {
        if (windows[i].converges != any)
            continue;
        if (best < 0 ||
            cost_of(&windows[i], !any) < BETTER * cost_of(&windows[best], !any))
            best = (int)i;
    }
    return best;
}
