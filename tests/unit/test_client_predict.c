/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The predictor's lists, forecasts and pictures would be shown wrong, or a
 * daemon's odd answer would bring the client down. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "client_out.h"
#include "client_predict.h"
#include "ctl.h"

static char *out_text, *err_text;
static size_t out_len, err_len;
static struct fc_client_args args;
static struct fc_client_task task;

static int set_up(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    args = (struct fc_client_args){ .verb = FC_VERB_RANK };
    task = (struct fc_client_task){ .args = &args };
    task.out = open_memstream(&out_text, &out_len);
    task.err = open_memstream(&err_text, &err_len);
    return task.out && task.err ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    fclose(task.out);
    fclose(task.err);
    free(out_text);
    free(err_text);
    return 0;
}

static struct json_object *json(const char *text)
{
    const char *why;
    struct json_object *o = fc_ctl_parse(text, strlen(text), &why);
    assert_non_null(o);
    return o;
}

static const char *rank(const char *text)
{
    struct json_object *o = json(text);
    fc_client_show_rank(task.out, o);
    json_object_put(o);
    fflush(task.out);
    return out_text;
}

static const char *when(const char *text)
{
    struct json_object *o = json(text);
    fc_client_show_when(task.out, o);
    json_object_put(o);
    fflush(task.out);
    return out_text;
}

static int heatmap(const char *text)
{
    struct json_object *o = json(text);
    int status = fc_client_show_heatmap(&task, o);
    json_object_put(o);
    fflush(task.out);
    fflush(task.err);
    return status;
}

static void test_rank(void **state)
{
    (void)state;
    assert_string_equal(
        rank("{\"name\":\"web1\",\"list\":\"staging\",\"horizon_ms\":10000,"
             "\"most_p\":0.05,\"confidence\":0.93,\"chosen_from\":900,"
             "\"count\":2,\"method\":\"ewma 0.62, lr 0.31: by what was seen\","
             "\"regions\":[[512,16,0.00125,-1],[1024,16,0.02,340500]]}"),
        "web1, least likely first: 2 of 900 active regions, written within "
        "10 s by at most 5 %, confidence 93 %\n"
        "ewma 0.62, lr 0.31: by what was seen\n"
        "   ADDRESS(MiB) SIZE(kB)  CHANCE(%)    NEXT(s)\n"
        "          2.000       64     0.1250          -\n"
        "          4.000       64     2.0000      340.5\n");
}

static const char *status(const char *predictor)
{
    char text[2048];
    snprintf(text, sizeof(text),
             "{\"guests\":[{\"name\":\"web1\",\"predictor\":%s}]}", predictor);
    struct json_object *o = json(text), *guests = NULL;
    fflush(task.out);
    size_t before = out_len;
    assert_true(json_object_object_get_ex(o, "guests", &guests));
    fc_out_guests(task.out, guests);
    json_object_put(o);
    fflush(task.out);
    /* what comes below the guest's own line */
    const char *line = strchr(out_text + before, '\n');
    line = line ? strchr(line + 1, '\n') : NULL;
    assert_non_null(line);
    return line + 1;
}

static void test_status(void **state)
{
    (void)state;
    assert_string_equal(
        status("{\"origin\":\"came\",\"horizons\":["
               "{\"horizon_ms\":1000,\"trusts\":\"lr 0.62, ewma 0.2: by\","
               "\"changed_s_ago\":-1,\"before\":\"\",\"off_percent\":1.25},"
               "{\"horizon_ms\":10000,\"trusts\":\"ewma\\u001b 0.5\","
               "\"changed_s_ago\":340,\"before\":\"lr\",\"off_percent\":0}],"
               "\"promised_percent\":95,\"right_percent\":97.25,"
               "\"confidence\":0.914,\"judged\":900,\"adaptation\":{"
               "\"steps\":124,\"core_percent\":2.5,\"loss\":0.2315,"
               "\"gain\":-0.012}}"),
        "  within 1 s: lr 0.62, ewma 0.2: by; chances off by 1.2 %\n"
        "  within 10 s: ewma? 0.5; for 340 s, before that lr; chances off by "
        "0.0 %\n"
        "  lists: 95.0 % promised to stay clean, 97.2 % did, confidence 91 %\n"
        "  GRU: began with what came with the guest, 124 steps since, 2.5 % of "
        "a core, loss 0.2315, 0.0120 more than the weights that ship\n");
}

static void test_status_of_odd_answers(void **state)
{
    (void)state;
    assert_string_equal(status("7"), "");
    assert_string_equal(status("{\"horizons\":[3],\"adaptation\":[]}"),
                        "  within 0 s: -; chances off by 0.0 %\n"
                        "  GRU: began with the weights that ship, 0 steps "
                        "since, 0.0 % of a core\n");
}

static void test_status_without_adaptation(void **state)
{
    (void)state;
    assert_string_equal(
        status("{\"origin\":\"kept\",\"horizons\":[{\"horizon_ms\":1000,"
               "\"trusts\":\"lr 1\"}]}"),
        "  within 1 s: lr 1; chances off by 0.0 %\n"
        "  GRU: began with what was kept of it here, not adapted\n");
}

static void test_when(void **state)
{
    (void)state;
    assert_string_equal(
        when("{\"windows\":[{\"start_s\":1893459600,\"bytes\":52428800,"
             "\"total_ms\":4200,\"downtime_ms\":310,\"converges\":false,"
             "\"confidence\":0.8,\"basis\":\"what goes on now\"},"
             "{\"start_s\":1893463200,\"bytes\":10485760,\"total_ms\":1100,"
             "\"downtime_ms\":120,\"converges\":true,\"confidence\":0.4,"
             "\"basis\":\"this hour of other days\"}],\"best\":1}"),
        "  START      DATA(MiB)    TIME(s)   DOWN(ms) SURE(%)  BASIS\n"
        "  Tue 01:00       50.0        4.2        310      80  what goes on "
        "now; longer down than wanted\n"
        "* Tue 02:00       10.0        1.1        120      40  this hour of "
        "other days\n");
}

#define MAP                                                                    \
    "{\"name\":\"web\\u001b1\",\"pages\":4096,\"page_bytes\":4096,"            \
    "\"horizon_ms\":10000,\"heat\":[0,500,20000,1000000]}"

static void test_heatmap_as_text(void **state)
{
    (void)state;
    assert_int_equal(heatmap(MAP), 0);
    assert_non_null(strstr(out_text, "web?1: 16.0 MiB"));
    assert_non_null(strstr(out_text, "         0.0  .=@\n"));
}

static void test_heatmap_as_a_file(void **state)
{
    char path[] = "/tmp/forecopy-test-XXXXXX", start[64] = "";
    (void)state;
    close(mkstemp(path));
    args.output = path;
    assert_int_equal(heatmap(MAP), 0);
    assert_int_equal(out_len, 0);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(start, sizeof(start), f));
    assert_non_null(fgets(start, sizeof(start), f));
    fclose(f);
    unlink(path);
    assert_non_null(strstr(start, "<svg"));
    args.output = "/nowhere/at/all.svg";
    assert_int_equal(heatmap(MAP), 1);
    assert_non_null(strstr(err_text, "cannot write /nowhere/at/all.svg"));
}

static void test_odd_answers(void **state)
{
    static const char *const maps[] = {
        "{}",
        "{\"heat\":3,\"pages\":10,\"horizon_ms\":1,\"page_bytes\":1}",
        "{\"heat\":[],\"pages\":10,\"horizon_ms\":1,\"page_bytes\":1}",
        "{\"heat\":[1,2],\"pages\":1,\"horizon_ms\":1,\"page_bytes\":1}",
        "{\"heat\":[1],\"pages\":-5,\"horizon_ms\":1,\"page_bytes\":1}",
        "{\"heat\":[1],\"pages\":1,\"horizon_ms\":0,\"page_bytes\":1}",
        "{\"heat\":[1],\"pages\":1,\"horizon_ms\":1,\"page_bytes\":0}",
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
        assert_int_equal(heatmap(maps[i]), 1);
    assert_int_equal(heatmap("{\"heat\":[-1,1e99,\"x\",null],\"pages\":4,"
                             "\"horizon_ms\":1,\"page_bytes\":1}"),
                     0);
    rank("{\"regions\":[1,[2],[null,\"x\",{},[]]]}");
    assert_non_null(strstr(out_text, "ADDRESS"));
    when("{\"windows\":[3,{\"start_s\":9223372036854775807}],\"best\":\"x\"}");
    assert_non_null(strstr(out_text, "START"));
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_rank),
        T(test_status),
        T(test_status_of_odd_answers),
        T(test_status_without_adaptation),
        T(test_when),
        T(test_heatmap_as_text),
        T(test_heatmap_as_a_file),
        T(test_odd_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
