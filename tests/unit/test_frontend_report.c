/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "document.h"
#include "frontend_report.h"
#include "status.h"

static void check_bytes(uint64_t bytes, const char *want)
{
    char text[64];
    assert_string_equal(fc_front_bytes(bytes, text, sizeof(text)), want);
}

static void check_time(uint64_t ms, const char *want)
{
    char text[64];
    assert_string_equal(fc_front_time(ms, text, sizeof(text)), want);
}

static void test_units(void **state)
{
    /* A figure would be read wrong by a factor. */
    (void)state;
    check_bytes(0, "0 B");
    check_bytes(1023, "1023 B");
    check_bytes(1024, "1.0 KiB");
    check_bytes(1024 * 1024 - 1, "1.0 MiB");
    check_bytes(134217728, "128.0 MiB");
    check_bytes(UINT64_MAX, "16.0 EiB");
    check_time(0, "0 ms");
    check_time(999, "999 ms");
    check_time(1000, "1.0 s");
    check_time(59999, "59.9 s");
    check_time(200000, "3 min 20 s");
}

static void check_progress(const char *json, unsigned width, const char *want)
{
    char text[256];
    struct json_object *event = json_tokener_parse(json);
    fc_front_progress(event, width, text, sizeof(text));
    assert_string_equal(text, want);
    json_object_put(event);
}

static void test_progress(void **state)
{
    /* The line would wrap and fill the terminal, or show nonsense. */
    (void)state;
    static const char full[] =
        "{\"event\":\"progress\",\"phase\":\"precopy\",\"round\":3,"
        "\"pages_left\":250,\"pages_total\":1000,\"rate_bps\":2097152,"
        "\"dirty_rate_pps\":120,\"eta_ms\":4200,"
        "\"downtime_estimate_ms\":140}";
    check_progress(full, 200,
                   "forecopy: precopy, round 3, 75%, 2.0 MiB/s, "
                   "dirtied 120 pages/s, 4.2 s left, downtime "
                   "about 140 ms");
    check_progress(full, 20, "forecopy: precopy, r");
    check_progress("{}", 200,
                   "forecopy: ?, round 0, 0%, 0 B/s, dirtied 0 "
                   "pages/s");
    check_progress("{\"phase\":\"a\\u001b[2J\",\"pages_left\":9,"
                   "\"pages_total\":3,\"round\":\"x\",\"rate_bps\":-5}",
                   200,
                   "forecopy: a?[2J, round 0, 0%, 0 B/s, dirtied 0 pages/s");
}

static char *forecast_text(const struct fc_front_forecast *f)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    fc_front_forecast_text(f, out);
    fclose(out);
    return text;
}

static void test_forecast(void **state)
{
    /* A dry run would promise what cannot be, or leave out the reason. */
    (void)state;
    struct fc_front_forecast f = {
        .host = "h2",
        .helper = "/x/helper",
        .max_downtime_ms = 300,
        .guest = json_tokener_parse(
            "{\"name\":\"web\",\"domid\":5,\"uuid\":\"u\",\"state\":\"steady\","
            "\"pages\":32768,\"staged_pages\":30000,\"valid_pages\":29000}"),
        .estimate = json_tokener_parse(
            "{\"bytes\":10485760,\"total_ms\":5300,\"downtime_ms\":140,"
            "\"confidence\":0.8,\"link_bps\":2097152,\"missing_pages\":2560,"
            "\"converges\":true,\"basis\":\"measured 12 s ago\"}"),
        .destination =
            json_tokener_parse("{\"version\":\"0.1.0\",\"protocol\":1,"
                               "\"helper\":\"/y/helper\","
                               "\"helper_works\":true}"),
    };
    char *text = forecast_text(&f);
    assert_string_equal(text,
                        "domain:          web (5, u)\n"
                        "destination:     h2, forecopy 0.1.0, protocol 1\n"
                        "save helper:     /x/helper\n"
                        "helper there:    /y/helper\n"
                        "staging:         steady\n"
                        "memory:          32768 pages (128.0 MiB)\n"
                        "staged:          30000 pages (117.2 MiB)\n"
                        "still valid:     29000 pages (113.3 MiB)\n"
                        "to send:         10.0 MiB over a link of 2.0 MiB/s\n"
                        "total time:      5.3 s\n"
                        "downtime:        140 ms (aim: at most 300 ms)\n"
                        "confidence:      80% (measured 12 s ago)\n"
                        "converges:       yes\n"
                        "missing:         2560 pages (10.0 MiB)\n"
                        "predictive:      possible\n");
    free(text);

    json_object_object_add(f.destination, "helper_works",
                           json_object_new_boolean(0));
    text = forecast_text(&f);
    assert_non_null(strstr(text, "helper there:    /y/helper, which fails its "
                                 "self-test\n"));
    free(text);
    json_object_object_add(f.destination, "helper", NULL);
    text = forecast_text(&f);
    assert_non_null(strstr(text, "helper there:    none\n"));
    free(text);
    json_object_object_del(f.destination, "helper_works");
    text = forecast_text(&f);
    assert_non_null(strstr(text, "helper there:    not known\n"));
    free(text);
    json_object_put(f.estimate);
    json_object_put(f.destination);
    f.estimate = f.destination = NULL;
    f.helper = NULL;
    f.reason = "h2 has no forecopy";

    text = forecast_text(&f);
    assert_non_null(strstr(text, "destination:     h2, without forecopy\n"));
    assert_non_null(strstr(text, "save helper:     none\n"));
    assert_non_null(strstr(text, "impossible: h2 has no forecopy\n"));
    free(text);

    struct json_object *j = fc_front_forecast_json(&f);
    assert_string_equal(
        json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN),
        "{\"possible\":false,\"reason\":\"h2 has no forecopy\","
        "\"host\":\"h2\",\"max_downtime_ms\":300,\"helper\":null,"
        "\"destination\":null,\"guest\":{\"name\":\"web\",\"domid\":5,"
        "\"uuid\":\"u\",\"state\":\"steady\",\"pages\":32768,"
        "\"staged_pages\":30000,\"valid_pages\":29000},\"estimate\":null}");
    json_object_put(j);
    json_object_put(f.guest);
}

static char *outcome_text(const struct fc_front_outcome *o)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    fc_front_outcome_text(o, out);
    fclose(out);
    return text;
}

static void test_outcome(void **state)
{
    /* What the migration cost would be told wrong, or not at all. */
    (void)state;
    struct fc_front_outcome o = {
        .domain = "web",
        .host = "h2",
        .uuid = "u",
        .mode = "predictive",
        .success = true,
        .finished = true,
        .elapsed_ms = 5000,
        .handover_ms = 800,
        .estimate = json_tokener_parse("{\"bytes\":10485760,"
                                       "\"total_ms\":5300,"
                                       "\"downtime_ms\":140}"),
        .summary =
            json_tokener_parse("{\"event\":\"summary\",\"mode\":\"plain\","
                               "\"reason\":\"low\",\"rounds\":3,\"bytes_sent\":"
                               "9437184,\"bytes_plain\":134217728,"
                               "\"data_pages\":2300,\"zero_pages\":8000,"
                               "\"reference_pages\":22000,\"skipped_pages\":40,"
                               "\"pulled_pages\":1,\"suspend_ms\":4}"),
    };
    char *text = outcome_text(&o);
    assert_string_equal(
        text, "forecopy: 9.0 MiB sent for 128.0 MiB in 3 rounds, 5.0 s in all "
              "(forecast: 10.0 MiB, 5.3 s)\n"
              "forecopy: pages: 2300 sent, 8000 zero, 22000 by reference, 40 "
              "skipped, 1 pulled\n"
              "forecopy: downtime 804 ms (forecast: 140 ms)\n");
    free(text);

    struct json_object *j = fc_front_outcome_json(&o);
    assert_string_equal(
        json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN),
        "{\"domain\":\"web\",\"uuid\":\"u\",\"host\":\"h2\","
        "\"mode\":\"predictive\",\"reason\":null,\"success\":true,"
        "\"exit_status\":0,\"interrupted\":false,\"retried\":false,"
        "\"elapsed_ms\":5000,\"handover_ms\":800,\"outage_ms\":804,"
        "\"forecast\":{"
        "\"bytes\":10485760,\"total_ms\":5300,\"downtime_ms\":140},"
        "\"stop_reason\":\"low\",\"rounds\":3,"
        "\"bytes_sent\":9437184,\"bytes_plain\":134217728,"
        "\"data_pages\":2300,\"zero_pages\":8000,"
        "\"reference_pages\":22000,\"skipped_pages\":40,"
        "\"pulled_pages\":1,\"suspend_ms\":4}");
    json_object_put(j);
    json_object_put(o.estimate);
    json_object_put(o.summary);

    o.estimate = o.summary = NULL;
    o.success = o.finished = false;
    o.reason = "no daemon";
    text = outcome_text(&o);
    assert_string_equal(text, "");
    free(text);
    j = fc_front_outcome_json(&o);
    assert_string_equal(
        json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN),
        "{\"domain\":\"web\",\"uuid\":\"u\",\"host\":\"h2\","
        "\"mode\":\"predictive\",\"reason\":\"no daemon\",\"success\":null,"
        "\"exit_status\":null,\"interrupted\":false,\"retried\":false,"
        "\"elapsed_ms\":5000,\"handover_ms\":800,\"outage_ms\":800,"
        "\"forecast\":null}");
    json_object_put(j);
}

/* What the save helper tells at its end. */
static struct json_object *helper_summary(void)
{
    static const struct fc_summary nothing = { .mode = "plain", .reason = "" };
    char text[4096];
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    fc_status_summary(pair[0], &nothing);
    ssize_t n = recv(pair[1], text, sizeof(text) - 1, 0);
    assert_true(n > 0);
    text[n] = '\0';
    close(pair[0]);
    close(pair[1]);
    return json_tokener_parse(text);
}

static void test_documented(void **state)
{
    /* What a program reads would change or appear without the manual. */
    (void)state;
    char *man = read_document("docs/man/xl-migrate-predictive.8.pod");
    struct fc_front_outcome o = { .finished = true,
                                  .summary = helper_summary() };
    struct json_object *j = fc_front_outcome_json(&o);
    assert_true(json_object_object_get_ex(j, "pulled_pages", NULL));
    assert_documented(j, man, "B<", ">");
    json_object_put(j);
    json_object_put(o.summary);
    struct json_object *dry = json_tokener_parse(
        "{\"disks\":[{\"vdev\":\"xvda\",\"size\":1,\"copy_bytes\":1,"
        "\"target\":\"/x\",\"volume\":\"is created\"}]}");
    const struct fc_front_forecast f = { .host = "h2", .disks = dry };
    j = fc_front_forecast_json(&f);
    struct json_object *list;
    assert_true(json_object_object_get_ex(j, "disks", &list));
    assert_documented(j, man, "B<", ">");
    assert_documented(json_object_array_get_idx(list, 0), man, "B<", ">");
    json_object_put(j);
    json_object_put(dry);
    const struct fc_front_disk_facts facts = { .outcome = "moved" };
    j = fc_front_disks_json(&facts);
    assert_true(json_object_object_get_ex(j, "fence_ms", NULL));
    assert_documented(j, man, "B<", ">");
    json_object_put(j);
    free(man);
}

static void test_disks_progress(void **state)
{
    /* The line would wrap, or promise an end that never comes. */
    (void)state;
    static const struct {
        const char *status, *want;
        unsigned width;
    } cases[] = {
        { "{}", "forecopy: disks ?, 0%, 0 B to go, 0 B/s, written 0 B/s", 200 },
        { "{\"state\":\"copying\",\"total_bytes\":4096,"
          "\"remaining_bytes\":1024,\"rate_bps\":512,\"dirty_bps\":0}",
          "forecopy: disks copying, 75%, 1.0 KiB to go, 512 B/s, written "
          "0 B/s, 2.0 s left",
          200 },
        { "{\"state\":\"copying\",\"total_bytes\":4096,"
          "\"remaining_bytes\":1024,\"rate_bps\":512,\"dirty_bps\":512}",
          "forecopy: disks copying, 75%, 1.0 KiB to go, 512 B/s, written "
          "512 B/s",
          200 },
        { "{\"state\":\"\\u001b[2Jx\",\"total_bytes\":1,"
          "\"remaining_bytes\":-9}",
          "forecopy: disks ?[2Jx, 100%", 27 },
        { "{\"total_bytes\":1,\"remaining_bytes\":9}", "forecopy: disks ?, 0%",
          21 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        struct json_object *status = json_tokener_parse(cases[i].status);
        fc_front_disks_progress(status, cases[i].width, text, sizeof(text));
        assert_string_equal(text, cases[i].want);
        json_object_put(status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_forecast),
        cmocka_unit_test(test_outcome),
        cmocka_unit_test(test_documented),
        cmocka_unit_test(test_disks_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
