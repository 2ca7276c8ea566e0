/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest does by the hour would be forgotten, its hints missed, or the
 * forecast of a migration not follow them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "armed.h"
#include "ctl.h"
#include "err.h"
#include "predict.h"

#define HOUR 3600ull
#define WEEK (168 * HOUR)
#define START (4 * 24 * HOUR + 2700 * WEEK) /* a Monday */
#define PAGES 8192u
#define HINTS "/local/domain/7/data/forecopy/hints"

/* A little xenstore: path, value. */
static struct {
    char path[128], value[64];
} keys[40];
static unsigned key_count;

static void put_key(const char *path, const char *value)
{
    snprintf(keys[key_count].path, sizeof(keys[0].path), "%s", path);
    snprintf(keys[key_count++].value, sizeof(keys[0].value), "%s", value);
}

static char *read_key(void *user, const char *path)
{
    (void)user;
    for (unsigned i = 0; i < key_count; i++)
        if (!strcmp(keys[i].path, path))
            return strdup(keys[i].value);
    return NULL;
}

static char *list_keys(void *user, const char *path)
{
    size_t len = strlen(path), used = 0;
    char *names = calloc(1, sizeof(keys));
    (void)user;
    for (unsigned i = 0; names && i < key_count; i++)
        if (!strncmp(keys[i].path, path, len) && keys[i].path[len] == '/') {
            strcpy(names + used, keys[i].path + len + 1);
            used += strlen(names + used) + 1;
        }
    return names;
}

static const struct fc_xenwatch_ops watch = { .read = read_key,
                                              .list = list_keys };
static struct fc_dirtylog dlog = { .pfns = 1 << 18 };
static struct fc_sampler sampler = { .log = &dlog };
static struct fc_scorer scorer;
static struct fc_predict p;
static char dir[] = "/tmp/forecopy-predict-XXXXXX";
static struct fc_armed_db *db;

static void begin(void)
{
    const struct fc_predict_args args = {
        .uuid = { 1, 2, 3 },
        .domid = 7,
        .pages = PAGES,
        .scorer = &scorer,
        .db = db,
        .watch = &watch,
    };
    fc_predict_init(&p, &args, 0);
}

static void guest_writes(double rate)
{
    sampler.written_per_s = rate;
    for (unsigned i = 0; i < FC_CURVE_POINTS; i++) {
        sampler.curve.pages[i] = rate * (i + 1) / 4;
        sampler.curve.samples[i] = 20;
    }
}

static int set_up(void **state)
{
    (void)state;
    strcpy(strrchr(dir, '-') + 1, "XXXXXX");
    key_count = 0;
    sampler.paused = false;
    if (!mkdtemp(dir))
        return -1;
    int rc = fc_armed_db_open(dir, &db);
    if (!rc)
        rc = fc_scorer_init(&scorer, "mixture", PAGES);
    begin();
    return rc;
}

static int tear_down(void **state)
{
    char command[100];
    (void)state;
    fc_predict_dispose(&p);
    fc_scorer_dispose(&scorer);
    fc_armed_db_close(db);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static double busy_nights(uint64_t wall_s)
{
    unsigned hour = (unsigned)(wall_s / HOUR % 24);
    return hour < 6 ? 12000 : 50;
}

/* A minute's worth at a time. */
static void live(uint64_t from_s, uint64_t to_s)
{
    for (uint64_t t = from_s; t < to_s; t += 60) {
        guest_writes(busy_nights(t));
        fc_predict_tick(&p, &sampler, "web", (t - START + 60) * 1000, t);
    }
}

static void test_forecast_follows_the_hours(void **state)
{
    struct fc_profile_window w[FC_PREDICT_HOURS];
    const struct fc_estimate_in in = { .pages = 1 << 18,
                                       .known = 1 << 18,
                                       .valid = (1 << 18) - 4000,
                                       .page_bytes = 2000,
                                       .link_bps = 50e6,
                                       .link_samples = 100,
                                       .page_us = 1,
                                       .page_us_learned = true,
                                       .fixed_ms = 50,
                                       .max_downtime_ms = 300,
                                       .max_rounds = 30 };
    int best;
    (void)state;
    uint64_t night = START + 7 * 24 * HOUR + 2 * HOUR;
    live(START, night + 1800);
    assert_int_equal(
        fc_predict_when(&p, &sampler, &in, night + 1800, 24, w, &best), 24);
    assert_int_equal(w[0].start_s, night + 1800);
    assert_int_equal(w[1].start_s, night + HOUR);
    assert_int_equal(w[23].start_s, night + 23 * HOUR);
    /* by day it is over sooner and with less */
    assert_true(w[10].total_ms < w[0].total_ms);
    assert_true(w[10].bytes < w[0].bytes);
    assert_true(w[10].downtime_ms <= w[0].downtime_ms);
    assert_true(best >= 4 && best < 22);
    assert_true(w[10].confidence > 0.1f && w[10].confidence <= 1);
    assert_int_equal(
        fc_predict_when(&p, &sampler, &in, night, 100000, w, &best),
        FC_PREDICT_HOURS);
}

static void test_kept_on_disk(void **state)
{
    struct fc_profile kept;
    (void)state;
    live(START, START + 3 * HOUR);
    fc_predict_dispose(&p);
    kept = p.profile;
    begin();
    assert_memory_equal(&p.profile, &kept, sizeof(kept));
    assert_true(p.profile.last_s >= START + 3 * HOUR - 120);
}

static void test_written_down_while_it_runs(void **state)
{
    struct fc_profile kept;
    char why[80];
    (void)state;
    live(START, START + HOUR);
    assert_int_equal(
        fc_armed_db_profile(db, p.args.uuid, &kept, why, sizeof(why)), 0);
    assert_true(kept.last_s >= START + HOUR - 700);
}

static void test_nothing_is_learned_while_blind(void **state)
{
    (void)state;
    sampler.paused = true;
    live(START, START + HOUR);
    assert_int_equal(p.profile.last_s, 0);
}

static void test_hints_of_the_guest(void **state)
{
    float f[FC_HINT_KINDS];
    (void)state;
    put_key(HINTS "/backup", "30 60");
    put_key("/local/domain/8/data/forecopy/hints/batch", "0");
    put_key(HINTS "/Bad Name", "0");
    put_key(HINTS "/batch", "soon");
    fc_predict_tick(&p, &sampler, "web", 10000, START);
    assert_int_equal(p.hints.count, 1);
    fc_hints_features(&p.hints, 45000, f);
    assert_float_equal(f[FC_HINT_BACKUP], 1, 0);
    key_count = 0;
    fc_predict_tick(&p, &sampler, "web", 20000, START);
    assert_int_equal(p.hints.count, 0);
}

static void test_many_hints_are_bounded(void **state)
{
    char path[64];
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        snprintf(path, sizeof(path), HINTS "/h%u", i);
        put_key(path, "5");
    }
    fc_predict_tick(&p, &sampler, "web", 10000, START);
    assert_int_equal(p.hints.count, FC_HINTS_MAX);
}

/* Pages 1600 to 1663 are written each second. */
static void live_with_log(unsigned seconds)
{
    static uint64_t bits[PAGES / 64];
    bits[25] = ~0ull;
    for (unsigned t = 1; t <= seconds; t++) {
        assert_int_equal(scorer.ops->update(scorer.state, bits, 1000), 0);
        sampler.scores++;
        fc_predict_tick(&p, &sampler, "web", t * 1000, START + t);
    }
}

static void test_lists_are_published(void **state)
{
    struct fc_rank_view v;
    char text[FC_PREDICT_METHOD];
    (void)state;
    live_with_log(60);
    fc_predict_tick(&p, &sampler, "web", 60010, START); /* nothing new */
    assert_int_equal(
        fc_rank_reader_look(fc_lists_reader(p.lists), FC_RANK_DELTA, &v), 0);
    assert_int_equal(v.tick, 60);
    assert_int_equal(v.time_ms, 60000);
    assert_int_equal(v.count, 4);
    assert_in_range(v.entries[0].first, 1600, 1663);
    assert_true(strlen(fc_predict_method(&p, text)) > 5);
}

/* Would break: a list that nobody has seen kept decides what is staged first,
 * or one that keeps its promise does not; or one of long ago does. */
static void test_which_list_is_trusted(void **state)
{
    static uint64_t bits[PAGES / 64];
    unsigned t = 1;
    (void)state;
    memset(bits, 0xff, sizeof(bits));
    assert_true(fc_predict_listed(&p, 0) < 0);
    for (; t <= 120; t++) {
        assert_int_equal(scorer.ops->update(scorer.state, bits, 1000), 0);
        sampler.scores++;
        fc_predict_tick(&p, &sampler, "web", t * 1000, START + t);
        if (t == 5) {
            assert_true(fc_predict_listed(&p, t * 1000) < 0);
            memset(bits, 0, sizeof(bits) / 2);
        }
    }
    t--;
    float listed = fc_predict_listed(&p, t * 1000);
    assert_true(listed >= 0 && listed < 1);
    assert_true(fc_predict_listed(&p, t * 1000 + 60000) < 0);
}

static struct json_object *horizon(struct json_object *o, size_t i)
{
    struct json_object *list = NULL;
    assert_true(json_object_object_get_ex(o, "horizons", &list));
    assert_int_equal(json_object_array_length(list), 3);
    return json_object_array_get_idx(list, i);
}

/* Would break: nobody sees whom the predictor trusts, since when, and whether
 * its lists kept their promise. */
static void test_what_is_shown(void **state)
{
    struct json_object *o, *adaptation = NULL;
    (void)state;
    live_with_log(60);
    fc_predict_migration(&p, 400000);
    o = fc_predict_json(&p, 60000);
    assert_string_equal(fc_json_str(o, "origin", ""), "shipped");
    assert_int_equal(fc_json_int(horizon(o, 0), "horizon_ms", 0), 1000);
    assert_int_equal(fc_json_int(horizon(o, 1), "horizon_ms", 0), 10000);
    assert_int_equal(fc_json_int(horizon(o, 2), "horizon_ms", 0), 400000);
    assert_true(strlen(fc_json_str(horizon(o, 1), "trusts", "")) > 5);
    assert_float_equal(fc_json_double(o, "promised_percent", 0), 95, 1e-4);
    assert_true(fc_json_int(o, "judged", 0) > 0);
    assert_float_equal(fc_json_double(o, "right_percent", 0), 100, 1e-4);
    assert_false(json_object_object_get_ex(o, "adaptation", &adaptation));
    json_object_put(o);
    p.trust[FC_SCORER_LONG] = (struct fc_predict_trust){
        .leader = FC_SCORER_LR, .before = FC_SCORER_EWMA, .changed_ms = 20000
    };
    fc_scorer_engine_adapt(&scorer, 0.05f);
    o = fc_predict_json(&p, 60000);
    assert_int_equal(fc_json_int(horizon(o, 1), "changed_s_ago", 0), 40);
    assert_string_equal(fc_json_str(horizon(o, 1), "before", ""), "ewma");
    assert_true(json_object_object_get_ex(o, "adaptation", &adaptation));
    assert_int_equal(fc_json_int(adaptation, "steps", 9), 0);
    json_object_put(o);
}

static void begin_anew(void)
{
    fc_predict_dispose(&p);
    fc_scorer_dispose(&scorer);
    assert_int_equal(fc_scorer_init(&scorer, "mixture", PAGES), 0);
    begin();
}

/* Would break: what was learned elsewhere is taken for what was learned here.
 */
static void test_what_it_began_with(void **state)
{
    uint8_t *bytes;
    size_t len;
    (void)state;
    begin_anew(); /* too soon to have learned */
    assert_int_equal(p.origin, FC_PREDICT_SHIPPED);
    live_with_log(60);
    assert_int_equal(fc_predict_learned(&p, &bytes, &len), 0);
    begin_anew();
    assert_int_equal(p.origin, FC_PREDICT_KEPT);
    assert_int_equal(
        fc_armed_db_learned_put(db, p.args.uuid, bytes, len, START, true), 0);
    begin_anew();
    assert_int_equal(p.origin, FC_PREDICT_CAME);
    live_with_log(60);
    begin_anew();
    assert_int_equal(p.origin, FC_PREDICT_KEPT);
    free(bytes);
}

static void test_heat(void **state)
{
    static struct fc_heatmap map;
    (void)state;
    live_with_log(60);
    fc_predict_heat(&p, 10000, 128, &map); /* 64 pages a cell */
    assert_int_equal(map.cells, 128);
    for (unsigned c = 0; c < map.cells; c++)
        if (c == 25)
            assert_true(map.heat[c] > 0.8f);
        else
            assert_true(map.heat[c] < 0.1f);
    fc_predict_heat(&p, 10000, 4, &map); /* sampled: one page in 33 */
    assert_true(map.heat[0] > 0.005f && map.heat[0] < 0.15f);
    assert_true(map.heat[3] < 0.02f);
}

static void test_rates_and_migration(void **state)
{
    const struct fc_domain domain = { .cpu_percent = 150,
                                      .vif_bytes_ps = 2e6,
                                      .vbd_bytes_ps = 4e6 };
    (void)state;
    put_key(HINTS "/checkpoint", "0 60");
    fc_predict_domain(&p, &domain);
    fc_predict_tick(&p, &sampler, "web", 10000, START);
    assert_float_equal(p.rates.cpu, 1.5f, 1e-6);
    assert_float_equal(p.rates.net_rx + p.rates.net_tx, 2e6f, 1);
    assert_float_equal(p.rates.hint[FC_HINT_CHECKPOINT], 1, 0);
    assert_int_equal(p.rates.wall_s, START);
    fc_predict_migration(&p, 400000);
    live_with_log(5);
    fc_predict_migration(&p, 20000);
    live_with_log(5);
}

static void test_another_scorer_has_no_lists(void **state)
{
    char text[FC_PREDICT_METHOD];
    (void)state;
    fc_predict_dispose(&p);
    fc_scorer_dispose(&scorer);
    assert_int_equal(fc_scorer_init(&scorer, "ewma", PAGES), 0);
    begin();
    live_with_log(20);
    assert_null(p.lists);
    assert_string_equal(fc_predict_method(&p, text), "ewma");
}

static void test_the_database(void **state)
{
    static struct fc_profile profile;
    static uint8_t old[FC_UUID_BYTES] = { 9 };
    char why[80];
    (void)state;
    assert_int_equal(fc_armed_db_profile(db, old, &profile, why, sizeof(why)),
                     FC_ENOENT);
    profile.last_s = START;
    assert_int_equal(fc_armed_db_profile_put(db, old, &profile), 0);
    profile.last_s = START + WEEK;
    assert_int_equal(fc_armed_db_profile_put(db, p.args.uuid, &profile), 0);
    assert_int_equal(fc_armed_db_profile_prune(db, START + HOUR), 1);
    assert_int_equal(fc_armed_db_profile(db, old, &profile, why, sizeof(why)),
                     FC_ENOENT);
    assert_int_equal(
        fc_armed_db_profile(db, p.args.uuid, &profile, why, sizeof(why)), 0);
    assert_int_equal(profile.last_s, START + WEEK);
    /* nothing of it is taken for an armed guest */
    assert_int_equal(fc_armed_db_each(db, NULL, NULL), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_forecast_follows_the_hours),
        T(test_kept_on_disk),
        T(test_written_down_while_it_runs),
        T(test_nothing_is_learned_while_blind),
        T(test_hints_of_the_guest),
        T(test_many_hints_are_bounded),
        T(test_lists_are_published),
        T(test_which_list_is_trusted),
        T(test_what_is_shown),
        T(test_what_it_began_with),
        T(test_heat),
        T(test_rates_and_migration),
        T(test_another_scorer_has_no_lists),
        T(test_the_database),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
