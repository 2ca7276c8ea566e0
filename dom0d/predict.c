/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "predict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "armed.h"
#include "err.h"
#include "log.h"

/*
 * The profile gets what the sampler has averaged, once a minute, and is written
 * to disk every ten: what a crash may cost is ten minutes of history.
 *
 * The guest's hints are looked at every few seconds rather than watched: a
 * guest that writes them in a loop then costs nothing.
 */
#define OBSERVE_MS 60000u
#define SAVE_MS 600000u
#define HINTS_MS 5000u
#define HINTS_LOOKED_AT (2 * FC_HINTS_MAX) /* keys, good ones or not */
#define HOUR_S 3600u
#define LIST_ROOM                                                              \
    8192u                 /* regions, 512 MiB: more than is staged in a second \
                           */
#define LEARNED_LISTS 30u /* seconds, about */
#define LIST_OLD_MS 30000u
/* Wrong at most twice as often as promised, at the low end of what was seen. */
#define LIST_SURE (1 - 2 * FC_PREDICT_RISK)
#define TRUST_MS 60000u /* between two lines in the log */
#define HEAT_SAMPLE 64u /* pages of a cell */
#define CURVE_KNOWN 2u  /* samples of a second that make a working set known */
#define CURVE_SURE 8u

_Static_assert(FC_PROFILE_AGES == FC_CURVE_POINTS,
               "profile and curve have the same ages");

static void take_profile(struct fc_predict *p)
{
    char why[120] = "";
    fc_profile_init(&p->profile);
    int rc = p->args.db ? fc_armed_db_profile(p->args.db, p->args.uuid,
                                              &p->profile, why, sizeof(why))
                        : FC_ENOENT;
    if (rc && rc != FC_ENOENT)
        fc_warn("a guest's profile begins anew, the one on disk cannot be "
                "used: %s",
                *why ? why : fc_strerror(rc));
}

/* What was learned of it before, here or where it came from. */
static void take_learned(struct fc_predict *p)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    char why[120] = "";
    bool came = false;
    if (!p->args.db || !fc_scorer_engine(p->args.scorer))
        return;
    int rc = fc_armed_db_learned(p->args.db, p->args.uuid, &bytes, &len, &came);
    if (!rc)
        rc = fc_scorer_engine_recall(p->args.scorer, bytes, len, why,
                                     sizeof(why));
    free(bytes);
    if (!rc)
        p->origin = came ? FC_PREDICT_CAME : FC_PREDICT_KEPT;
    if (rc && rc != FC_ENOENT)
        fc_warn("learning a guest begins with the weights that ship, what was "
                "learned cannot be used: %s",
                *why ? why : fc_strerror(rc));
}

/* A guest goes on without lists when there is no memory for them. */
static void open_lists(struct fc_predict *p)
{
    const struct fc_lists_config config = {
        .kind = FC_ENGINE_MEMORY,
        .tick_ms = FC_SCORER_TICK_MS,
        .horizon_ms = FC_SCORER_HORIZONS_MS,
        .room = LIST_ROOM,
        .risk = FC_PREDICT_RISK,
        .calm = FC_SCORER_LONG,
        .busy = FC_SCORER_SHORT,
    };
    if (!fc_scorer_engine(p->args.scorer))
        return;
    int rc = fc_lists_create(&config, &p->lists);
    if (rc)
        fc_warn("no ranked lists are made for a guest: %s", fc_strerror(rc));
}

void fc_predict_init(struct fc_predict *p, const struct fc_predict_args *args,
                     uint64_t now_ms)
{
    static const uint32_t horizon_ms[FC_HORIZONS] = FC_SCORER_HORIZONS_MS;
    memset(p, 0, sizeof(*p));
    p->args = *args;
    memcpy(p->horizon_ms, horizon_ms, sizeof(p->horizon_ms));
    p->observed_ms = p->saved_ms = p->listed_ms = now_ms;
    fc_hints_init(&p->hints);
    take_profile(p);
    take_learned(p);
    open_lists(p);
}

int fc_predict_learned(const struct fc_predict *p, uint8_t **bytes_r,
                       size_t *len_r)
{
    return fc_scorer_engine_keep(p->args.scorer, (uint64_t)time(NULL), bytes_r,
                                 len_r);
}

/* Nothing was learned before the lists were made a few times. */
static void save_learned(struct fc_predict *p)
{
    uint8_t *bytes = NULL;
    size_t len;
    if (!p->args.db || p->lists_made < LEARNED_LISTS ||
        !fc_scorer_engine(p->args.scorer))
        return;
    int rc = fc_predict_learned(p, &bytes, &len);
    if (!rc)
        rc = fc_armed_db_learned_put(p->args.db, p->args.uuid, bytes, len,
                                     (uint64_t)time(NULL), false);
    free(bytes);
    if (rc)
        fc_warn("cannot keep what was learned of a guest: %s", fc_strerror(rc));
}

static void save(struct fc_predict *p, uint64_t now_ms)
{
    p->saved_ms = now_ms;
    save_learned(p);
    if (!p->unsaved || !p->args.db)
        return;
    p->unsaved = false;
    int rc = fc_armed_db_profile_put(p->args.db, p->args.uuid, &p->profile);
    if (rc)
        fc_warn("cannot write a guest's profile: %s", fc_strerror(rc));
}

void fc_predict_dispose(struct fc_predict *p)
{
    save(p, p->saved_ms);
    fc_lists_destroy(p->lists);
    p->lists = NULL;
}

void fc_predict_domain(struct fc_predict *p, const struct fc_domain *domain)
{
    /* Bytes come both ways together: half each is as good a guess as any. */
    p->rates.cpu = (float)(domain->cpu_percent / 100);
    p->rates.net_rx = p->rates.net_tx = (float)(domain->vif_bytes_ps / 2);
    p->rates.vbd_rd = p->rates.vbd_wr = (float)(domain->vbd_bytes_ps / 2);
}

void fc_predict_migration(struct fc_predict *p, uint64_t total_ms)
{
    uint32_t ms = fc_scorer_engine_migration(p->args.scorer, total_ms);
    if (!ms)
        return;
    p->horizon_ms[FC_SCORER_MIGRATION] = ms;
    if (p->lists)
        fc_lists_set_horizon(p->lists, FC_SCORER_MIGRATION, ms);
}

_Static_assert((unsigned)FC_HINTS == (unsigned)FC_HINT_KINDS,
               "a kind of hint is a number to the engine");

static void pass_rates(struct fc_predict *p, uint64_t now_ms, uint64_t wall_s)
{
    fc_hints_features(&p->hints, now_ms, p->rates.hint);
    p->rates.wall_s = wall_s;
    fc_scorer_engine_rates(p->args.scorer, &p->rates);
}

static enum fc_scorer_id leader_of(const struct fc_engine *engine,
                                   unsigned horizon)
{
    float share[FC_SCORERS];
    unsigned best = 0;
    fc_engine_weights(engine, horizon, share);
    for (unsigned id = 1; id < FC_SCORERS; id++)
        if (share[id] > share[best])
            best = id;
    return (enum fc_scorer_id)best;
}

/* The mixture says when there is another leader and not only a little more of
 * one; until its first word the leader is whoever is in front. */
static void note_trust(struct fc_predict *p, struct fc_engine *engine,
                       uint64_t now_ms)
{
    for (unsigned h = FC_SCORER_SHORT; h < FC_HORIZONS; h++) {
        struct fc_predict_trust *t = &p->trust[h];
        bool changed = fc_engine_changed(engine, h);
        if (!changed && t->changed_ms)
            continue;
        enum fc_scorer_id leader = leader_of(engine, h);
        if (changed) {
            t->before = t->leader;
            t->changed_ms = now_ms ? now_ms : 1;
            p->untold = p->untold || h == FC_SCORER_LONG;
        }
        t->leader = leader;
    }
}

/* Logs whom it trusts when that has changed, but not each of a quick
 * succession. */
static void tell_trust(struct fc_predict *p, const char *name, uint64_t now_ms)
{
    char text[FC_PREDICT_METHOD];
    if (now_ms - p->told_ms < TRUST_MS || !p->untold)
        return;
    p->untold = false;
    p->told_ms = now_ms;
    fc_info("%s: trusts %s", name, fc_predict_method(p, text));
}

/* The scorer has been fed: its engine has ticked. */
static void make_lists(struct fc_predict *p, const struct fc_sampler *sampler,
                       const char *name, uint64_t now_ms)
{
    struct fc_engine *engine = fc_scorer_engine(p->args.scorer);
    if (!p->lists || sampler->scores == p->scores)
        return;
    fc_lists_tick(p->lists, engine, (uint32_t)(now_ms - p->listed_ms), now_ms);
    p->scores = sampler->scores;
    p->lists_made++;
    p->listed_ms = now_ms;
    note_trust(p, engine, now_ms);
    tell_trust(p, name, now_ms);
}

bool fc_predict_load(const struct fc_sampler *s, struct fc_profile_load *load_r)
{
    *load_r = (struct fc_profile_load){ .rate = s->written_per_s };
    if (s->paused || s->curve.samples[2] < CURVE_KNOWN)
        return false;
    for (unsigned i = 0; i < FC_PROFILE_AGES; i++)
        load_r->pages[i] =
            fc_curve_at(&s->curve, fc_profile_age_ms[i], (double)s->log->pfns);
    return true;
}

static void observe(struct fc_predict *p, const struct fc_sampler *sampler,
                    uint64_t now_ms, uint64_t wall_s)
{
    struct fc_profile_load load;
    double seconds = (double)(now_ms - p->observed_ms) / 1000.0;
    p->observed_ms = now_ms;
    if (!fc_predict_load(sampler, &load))
        return;
    fc_profile_add(&p->profile, wall_s, seconds, &load);
    p->unsaved = true;
}

static void take_hint(struct fc_predict *p, const char *dir, const char *key,
                      const char *name, uint64_t now_ms)
{
    char path[FC_HINT_NAME + 64], why[120] = "";
    /* a name too long to be good needs no look at its value */
    if (strlen(key) >= FC_HINT_NAME)
        return;
    snprintf(path, sizeof(path), "%s/%s", dir, key);
    char *value = p->args.watch->read(p->args.watch_user, path);
    if (value &&
        fc_hints_set(&p->hints, key, value, now_ms, why, sizeof(why)) &&
        !p->hint_refused) {
        fc_info("%s: %s; bad hints of this guest are ignored", name, why);
        p->hint_refused = true;
    }
    free(value);
}

static void look_at_hints(struct fc_predict *p, const char *name,
                          uint64_t now_ms)
{
    char dir[64];
    snprintf(dir, sizeof(dir), "/local/domain/%u/data/forecopy/hints",
             p->args.domid);
    p->hints_ms = now_ms;
    char *names = p->args.watch->list(p->args.watch_user, dir);
    unsigned looked = 0;
    fc_hints_begin(&p->hints);
    for (const char *n = names; n && *n && looked < HINTS_LOOKED_AT;
         n += strlen(n) + 1, looked++)
        take_hint(p, dir, n, name, now_ms);
    fc_hints_end(&p->hints);
    free(names);
}

void fc_predict_tick(struct fc_predict *p, const struct fc_sampler *sampler,
                     const char *name, uint64_t now_ms, uint64_t wall_s)
{
    if (now_ms - p->observed_ms >= OBSERVE_MS)
        observe(p, sampler, now_ms, wall_s);
    if (now_ms - p->saved_ms >= SAVE_MS)
        save(p, now_ms);
    if (now_ms - p->hints_ms >= HINTS_MS)
        look_at_hints(p, name, now_ms);
    make_lists(p, sampler, name, now_ms);
    pass_rates(p, now_ms, wall_s);
}

static void make_window(const struct fc_profile_forecast *f,
                        const struct fc_estimate_in *in,
                        struct fc_profile_window *w)
{
    struct fc_curve curve;
    struct fc_estimate e;
    struct fc_estimate_in then = *in;
    for (unsigned i = 0; i < FC_CURVE_POINTS; i++) {
        curve.pages[i] = f->load.pages[i];
        curve.samples[i] = f->basis == FC_PROFILE_NOTHING ? 0 : CURVE_SURE;
    }
    then.curve = &curve;
    fc_estimate_run(&then, &e);
    w->bytes = e.bytes;
    w->total_ms = e.total_ms;
    w->downtime_ms = e.downtime_ms;
    w->converges = e.converges;
    w->confidence = f->confidence * (float)e.confidence;
    w->basis = f->basis;
}

unsigned fc_predict_when(const struct fc_predict *p,
                         const struct fc_sampler *sampler,
                         const struct fc_estimate_in *in, uint64_t wall_s,
                         unsigned hours, struct fc_profile_window *windows,
                         int *best_r)
{
    struct fc_profile_load load;
    const struct fc_profile_load *now =
        fc_predict_load(sampler, &load) ? &load : NULL;
    if (hours > FC_PREDICT_HOURS)
        hours = FC_PREDICT_HOURS;
    for (unsigned h = 0; h < hours; h++) {
        struct fc_profile_forecast f;
        uint64_t at_s = h ? (wall_s / HOUR_S + h) * HOUR_S : wall_s;
        fc_profile_expect(&p->profile, wall_s, now, at_s, &f);
        windows[h] = (struct fc_profile_window){ .start_s = at_s };
        make_window(&f, in, &windows[h]);
    }
    *best_r = fc_profile_best(windows, hours);
    return hours;
}

void fc_predict_heat(const struct fc_predict *p, uint32_t horizon_ms,
                     unsigned cells, struct fc_heatmap *map)
{
    const struct fc_scorer *s = p->args.scorer;
    fc_heatmap_init(map, p->args.pages, cells);
    for (unsigned c = 0; c < map->cells; c++) {
        uint64_t first = fc_heatmap_first(map, c);
        uint64_t n = fc_heatmap_first(map, c + 1) - first;
        uint64_t step = n / HEAT_SAMPLE + 1;
        double sum = 0, looked = 0;
        /* not always at the same place of a region */
        for (uint64_t at = c % step; at < n; at += step, looked++)
            sum += (double)s->ops->p_dirty(s->state, first + at, horizon_ms);
        map->heat[c] = looked > 0 ? (float)(sum / looked) : 0;
    }
}

float fc_predict_listed(const struct fc_predict *p, uint64_t now_ms)
{
    struct fc_rank_view v;
    if (!p->lists ||
        fc_rank_reader_look(fc_lists_reader(p->lists), FC_RANK_STAGING, &v))
        return -1;
    if (now_ms - v.time_ms > LIST_OLD_MS || v.confidence < LIST_SURE)
        return -1;
    return v.max_p;
}

const char *fc_predict_method(const struct fc_predict *p,
                              char text[FC_PREDICT_METHOD])
{
    const struct fc_engine *engine = fc_scorer_engine(p->args.scorer);
    text[0] = '\0';
    return engine ? fc_engine_explain(engine, FC_SCORER_LONG, text,
                                      FC_PREDICT_METHOD)
                  : p->args.scorer->ops->name;
}
