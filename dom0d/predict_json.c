/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest's predictor is shown as. */
#include "adapt.h"
#include "ctl.h"
#include "predict.h"

static const char *const origin_names[] = {
    [FC_PREDICT_SHIPPED] = "shipped",
    [FC_PREDICT_KEPT] = "kept",
    [FC_PREDICT_CAME] = "came",
};

static struct json_object *horizon_json(const struct fc_predict *p,
                                        const struct fc_engine *engine,
                                        unsigned h, uint64_t now_ms)
{
    const struct fc_predict_trust *t = &p->trust[h];
    struct json_object *o = json_object_new_object();
    struct fc_engine_stats stats;
    char text[FC_PREDICT_METHOD];
    fc_engine_stats(engine, &stats);
    fc_json_put_int(o, "horizon_ms", p->horizon_ms[h]);
    fc_json_put_text(o, "trusts",
                     fc_engine_explain(engine, h, text, sizeof(text)));
    fc_json_put_int(o, "changed_s_ago",
                    t->changed_ms ? (int64_t)(now_ms - t->changed_ms) / 1000
                                  : -1);
    fc_json_put_text(o, "before",
                     t->changed_ms ? fc_scorer_name(t->before) : "");
    fc_json_put_double(o, "off_percent",
                       100 * (double)stats.calibration_error[h]);
    return o;
}

static void put_lists(struct json_object *o, const struct fc_predict *p,
                      uint64_t now_ms)
{
    struct fc_staleness_view v;
    fc_lists_look(p->lists, &v);
    fc_json_put_double(o, "promised_percent",
                       100 - 100 * (double)FC_PREDICT_RISK);
    fc_json_put_double(o, "right_percent",
                       v.labels ? 100 - 100 * (double)v.seen : 0);
    fc_json_put_double(o, "confidence", (double)v.confidence);
    fc_json_put_bool(o, "held", v.held);
    fc_json_put_int(o, "judged", (int64_t)v.labels);
    fc_json_put_bool(o, "used", fc_predict_listed(p, now_ms) >= 0);
}

static struct json_object *adaptation_json(const struct fc_adapt_stats *s)
{
    struct json_object *o = json_object_new_object();
    fc_json_put_int(o, "steps", (int64_t)s->updates);
    fc_json_put_double(o, "core_percent",
                       s->wall_s > 0 ? 100 * s->cpu_s / s->wall_s : 0);
    fc_json_put_double(o, "loss", s->loss);
    fc_json_put_double(o, "gain", s->gain);
    fc_json_put_int(o, "windows", (int64_t)s->offered);
    fc_json_put_int(o, "dropped", (int64_t)s->dropped);
    return o;
}

struct json_object *fc_predict_json(const struct fc_predict *p, uint64_t now_ms)
{
    const struct fc_engine *engine = fc_scorer_engine(p->args.scorer);
    struct json_object *o = json_object_new_object();
    struct json_object *horizons = json_object_new_array();
    struct fc_adapt_stats stats;
    fc_json_put_text(o, "origin", origin_names[p->origin]);
    for (unsigned h = FC_SCORER_SHORT; engine && h < FC_HORIZONS; h++)
        json_object_array_add(horizons, horizon_json(p, engine, h, now_ms));
    json_object_object_add(o, "horizons", horizons);
    if (p->lists)
        put_lists(o, p, now_ms);
    if (fc_scorer_engine_adapted(p->args.scorer, &stats))
        json_object_object_add(o, "adaptation", adaptation_json(&stats));
    return o;
}
