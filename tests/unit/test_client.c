/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "client_kit.h"
#include "client_out.h"
#include "client_remote.h"

#define UUID "00112233-4455-6677-8899-aabbccddeeff"

/* Would break: an option is lost, or taken for an operand. */
static void command_lines_are_understood(void **state)
{
    (void)state;
    struct fc_client_args a;
    capture();
    assert_int_equal(parse("arm web1 b.example --rate 8M --channels 4 "
                           "--command rsh:%h:%u",
                           &a),
                     -1);
    assert_int_equal(a.verb, FC_VERB_ARM);
    assert_string_equal(a.operand[0], "web1");
    assert_string_equal(a.operand[1], "b.example");
    assert_int_equal(a.rate_bytes, 8 << 20);
    assert_int_equal(a.channels, 4);
    assert_string_equal(a.command, "rsh:%h:%u");
    assert_int_equal(parse("status -b -d 0.5 -i 3 --json web1", &a), -1);
    assert_true(a.batch && a.json && a.iterations == 3);
    assert_true(a.delay_s > 0.49 && a.delay_s < 0.51);
    assert_string_equal(a.operand[0], "web1");
    assert_int_equal(parse("status", &a), -1);
    assert_null(a.operand[0]);
    assert_int_equal(parse("prepare --json --uuid " UUID " --name web1", &a),
                     -1);
    assert_string_equal(a.uuid, UUID);
    assert_int_equal(parse("log -n 5 --level debug", &a), -1);
    assert_int_equal(a.lines, 5);
    assert_int_equal(parse("record web1 --disk", &a), -1);
    assert_string_equal(a.disk, "");
    assert_int_equal(parse("record --disk=xvda1 web1", &a), -1);
    assert_string_equal(a.disk, "xvda1");
    assert_string_equal(a.operand[0], "web1");
    assert_int_equal(parse("record web1 -o f --seconds 60 --interval 100 "
                           "--force",
                           &a),
                     -1);
    assert_int_equal(a.verb, FC_VERB_RECORD);
    assert_string_equal(a.output, "f");
    assert_int_equal(a.seconds, 60);
    assert_int_equal(a.interval_ms, 100);
    assert_true(a.force);
    assert_int_equal(parse("set scorer ewma web1", &a), -1);
    assert_string_equal(a.operand[2], "web1");
    release();
}

/* Would break: wrong usage is guessed at, or not told from a failure. */
static void wrong_usage_exits_with_2(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "frobnicate",
        "--frobnicate",
        "arm",
        "arm web1",
        "arm web1 b c",
        "arm web1 b --rate 8X",
        "arm web1 b --rate -1",
        "arm web1 b --rate 99999999T",
        "arm web1 b --channels 0",
        "arm web1 b --channels 17",
        "arm web1 b --rate",
        "status --frob",
        "status -d 0",
        "status -d nan",
        "status -i 0",
        "status -i 3x",
        "log --level loud",
        "log -n 0",
        "log -n 4000",
        "rank",
        "rank w --list shadow",
        "heatmap",
        "when w --hours 0",
        "when w --hours 169",
        "record",
        "record w --seconds 0",
        "record w --interval 49",
        "record w --interval 60001",
        "record w --disk=",
        "record w --disk=../etc",
        "record w --disk=abcdefghijklmnop",
        "receive",
        "receive web1",
        "prepare",
        ("prepare --uuid " UUID),
        "prepare --uuid x --name y",
        "set key",
        "version now",
    };
    struct fc_client_args a;
    for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        capture();
        assert_int_equal(parse(lines[i], &a), 2);
        captured();
        assert_int_equal(out_len, 0);
        assert_true(err_len > 0);
        release();
    }
}

/* Would break: --help of a subcommand names no option, or the dump that the
 * manual page is held against misses one. */
static void help_and_dump_come_from_one_table(void **state)
{
    (void)state;
    struct fc_client_args a;
    char dump[8192], verb[64], option[64], line[160], spelled[128];
    capture();
    assert_int_equal(parse("--dump-options", &a), 0);
    captured();
    snprintf(dump, sizeof(dump), "%s", out_text);
    release();
    assert_non_null(strstr(dump, "arm --rate\n"));
    assert_non_null(strstr(dump, "status -b\n"));
    unsigned seen = 0;
    for (char *at = dump; *at; at = strchr(at, '\n') + 1) {
        snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
        if (sscanf(line, "%63s %63s", verb, option) != 2)
            continue;
        seen++;
        capture();
        snprintf(spelled, sizeof(spelled), "%s --help",
                 strcmp(verb, "forecopy") ? verb : "");
        assert_int_equal(parse(spelled, &a), 0);
        captured();
        assert_non_null(strstr(out_text, option));
        assert_int_equal(err_len, 0);
        release();
    }
    assert_true(seen > 40);
    capture();
    assert_int_equal(parse("--version", &a), 0);
    captured();
    assert_string_equal(out_text, "forecopy " FC_VERSION "\n");
    release();
}

/* Would break: a rate is a thousand times what was asked for. */
static void sizes_take_suffixes(void **state)
{
    (void)state;
    assert_int_equal(fc_client_bytes_parse("0"), 0);
    assert_int_equal(fc_client_bytes_parse("1000"), 1000);
    assert_int_equal(fc_client_bytes_parse("3k"), 3072);
    assert_int_equal(fc_client_bytes_parse("3K"), 3072);
    assert_int_equal(fc_client_bytes_parse("2G"), 2ll << 30);
    assert_int_equal(fc_client_bytes_parse(""), -1);
    assert_int_equal(fc_client_bytes_parse("k"), -1);
    assert_int_equal(fc_client_bytes_parse("1kk"), -1);
    assert_int_equal(fc_client_bytes_parse(" 1"), -1);
    assert_int_equal(fc_client_bytes_parse("9223372036854775807k"), -1);
    assert_int_equal(fc_client_bytes_parse("99999999999999999999"), -1);
}

/* Would break: the daemon is asked for something else than the user said. */
static void requests_say_what_was_asked(void **state)
{
    (void)state;
    static const struct {
        const char *line, *request;
    } cases[] = {
        { "arm w h --rate 2k --channels 3 --command c",
          "{\"cmd\":\"arm\",\"domain\":\"w\",\"host\":\"h\","
          "\"rate_bytes\":2048,\"channels\":3,\"command\":\"c\"}\n" },
        { "arm w h", "{\"cmd\":\"arm\",\"domain\":\"w\",\"host\":\"h\"}\n" },
        { "disarm 7", "{\"cmd\":\"disarm\",\"domain\":\"7\"}\n" },
        { "status", "{\"cmd\":\"status\"}\n" },
        { "status w", "{\"cmd\":\"status\",\"domain\":\"w\"}\n" },
        { "stat", "{\"cmd\":\"stat\"}\n" },
        { "log", "{\"cmd\":\"log\",\"lines\":50}\n" },
        { "log -n 3 --level debug",
          "{\"cmd\":\"log\",\"lines\":3,\"level\":\"debug\"}\n" },
        { "set k v", "{\"cmd\":\"set\",\"key\":\"k\",\"value\":\"v\"}\n" },
        { "set k v w", "{\"cmd\":\"set\",\"key\":\"k\",\"value\":\"v\","
                       "\"domain\":\"w\"}\n" },
        { "get", "{\"cmd\":\"get\"}\n" },
        { "get k w", "{\"cmd\":\"get\",\"key\":\"k\",\"domain\":\"w\"}\n" },
        { "rank w", "{\"cmd\":\"rank\",\"domain\":\"w\",\"limit\":50}\n" },
        { "rank w --list delta -n 9",
          "{\"cmd\":\"rank\",\"domain\":\"w\",\"list\":\"delta\","
          "\"limit\":9}\n" },
        { "when w --hours 48",
          "{\"cmd\":\"when\",\"domain\":\"w\",\"hours\":48}\n" },
        { "prepare --uuid " UUID " --name w",
          "{\"cmd\":\"prepare\",\"uuid\":\"" UUID "\",\"name\":\"w\"}\n" },
        { "version", "{\"cmd\":\"version\"}\n/sys/hypervisor/version/major\n" },
    };
    static const struct answer yes[] = { { "cmd", 0, "{\"ok\":true}" }, { 0 } };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(run(cases[i].line, yes), 0);
        assert_string_equal(the_world.asked, cases[i].request);
        assert_int_equal(err_len, 0);
        release();
    }
}

/* Would break: a refusal is silent, or a program that reads JSON gets none. */
static void failures_are_told(void **state)
{
    (void)state;
    static const struct answer nobody[] = { { 0 } };
    static const struct answer no[] = {
        { "", FC_ENODOM,
          "{\"ok\":false,\"code\":\"FC_ENODOM\",\"error\":\"no \\u001bw\"}" },
        { 0 }
    };
    assert_int_equal(run("status", nobody), 1);
    assert_non_null(strstr(err_text, "forecopyd does not answer"));
    assert_int_equal(out_len, 0);
    release();
    assert_int_equal(run("disarm w", no), 1);
    assert_string_equal(err_text, "forecopy: no ?w\n");
    release();
    assert_int_equal(run("version --json", nobody), 1);
    assert_non_null(strstr(out_text, "\"ok\":false"));
    assert_non_null(strstr(out_text, "FC_EDAEMON"));
    assert_non_null(strstr(out_text, "client_version"));
    release();
    assert_int_equal(run("status --json -i 5", no), 1);
    assert_non_null(strstr(out_text, "FC_ENODOM"));
    assert_null(strstr(strchr(out_text, '\n') + 1, "FC_ENODOM"));
    release();
}

static const char two_guests[] =
    "{\"ok\":true,\"guests\":[{\"name\":\"web1\",\"state\":\"steady\","
    "\"type\":\"pvh\",\"armed\":true,\"cpu_percent\":12.34,\"pages\":32768,"
    "\"staged_percent\":91.5,\"valid_percent\":88,\"staged_bytes\":52428800,"
    "\"rate_bytes\":8388608,\"dirty_rate_pps\":41.7,"
    "\"log_share_percent\":0.9,\"vif_bytes_ps\":2000,\"vbd_bytes_ps\":0,"
    "\"estimate\":{\"bytes\":1048576,\"total_ms\":1200,\"downtime_ms\":80},"
    "\"host\":\"b.example\"},{\"name\":\"a-guest-with-a-long-name\","
    "\"state\":\"refused\",\"type\":\"pv\",\"reason\":\"PV\\nguest\","
    "\"pages\":\"many\"}]}";

/* Would break: a column moves, loses its unit, or a guest's name can forge
 * lines of the table. */
static void table_is_as_it_was(void **state)
{
    (void)state;
    static const struct answer answers[] = { { "status", 0, two_guests },
                                             { 0 } };
    assert_int_equal(run("status", answers), 0);
    assert_string_equal(
        out_text,
        "         NAME      STATE TYPE CPU(%)     PAGES STAGED(%) VALID(%)"
        " SENT(MiB) RATE(kB/s) DIRTY(p/s) LOG(%) VIF(kB/s) VBD(kB/s)"
        " EST(MiB) TIME(ms) DOWN(ms) HOST\n"
        "         web1     steady  pvh   12.3     32768      91.5     88.0"
        "      50.0       8389         42    0.9         2         0"
        "      1.0     1200       80 b.example\n"
        " a-guest-with-a-long-name    refused   pv      -         -         -"
        "        -         -          -          -      -         -         -"
        "        -        -        -    -  PV?guest\n");
    release();
    assert_int_equal(run("status -b -d 0.01 -i 3", answers), 0);
    unsigned lines = 0;
    for (const char *p = out_text; *p; p++)
        lines += *p == '\n';
    assert_int_equal(lines, 9);
    release();
}

/* Would break: lists come in another order each time. */
static void lists_are_sorted(void **state)
{
    (void)state;
    static const struct answer answers[] = {
        { "stat", 0, "{\"ok\":true,\"counters\":{\"b\":2,\"a\":1.5}}" },
        { "get", 0, "{\"ok\":true,\"settings\":{\"z\":\"x y\",\"k\":1}}" },
        { "set", 0, "{\"ok\":true,\"value\":\"9\"}" },
        { "log", 0, "{\"ok\":true,\"lines\":[\"one\",\"t\\u0007wo\",3]}" },
        { 0 }
    };
    assert_int_equal(run("stat", answers), 0);
    assert_string_equal(out_text, "a 1.5\nb 2\n");
    release();
    assert_int_equal(run("get", answers), 0);
    assert_string_equal(out_text, "k = 1\nz = x y\n");
    release();
    assert_int_equal(run("set k 8", answers), 0);
    assert_string_equal(out_text, "k = 9\n");
    release();
    assert_int_equal(run("log", answers), 0);
    assert_string_equal(out_text, "one\nt?wo\n\n");
    release();
    assert_int_equal(run("get --json", answers), 0);
    assert_string_equal(out_text,
                        "{\"ok\":true,\"settings\":{\"z\":\"x y\",\"k\":1}}\n");
    release();
}

/* Would break: a source that asks takes a helper for granted. */
static void version_says_whether_the_helper_works(void **state)
{
    (void)state;
    struct answer answers[] = {
        { "version/major", 0, "4\n" },
        { "version/minor", 0, "17\n" },
        { "forecopy-save-helper --self-test", 0, "" },
        { "/usr/lib/xen-4.17/bin/forecopy-save-helper", 0, "" },
        { "\"version\"", 0, "{\"ok\":true,\"version\":\"1\"}" },
        { 0 }
    };
    static const struct {
        unsigned which;
        int status;
        const char *json, *text;
    } cases[] = {
        { 2, 0, "bin/forecopy-save-helper\",\"helper_works\":true",
          "bin/forecopy-save-helper: works\n" },
        { 2, 127, "bin/forecopy-save-helper\",\"helper_works\":false",
          "bin/forecopy-save-helper: fails its self-test\n" },
        { 3, 1, "\"helper\":null,\"helper_works\":false",
          "for the running Xen: none\n" },
        { 0, FC_EIO, "\"helper\":null,\"helper_works\":false",
          "for the running Xen: none\n" },
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int before = answers[cases[i].which].rc;
        answers[cases[i].which].rc = cases[i].status;
        assert_int_equal(run("version --json", answers), 0);
        assert_non_null(strstr(out_text, cases[i].json));
        release();
        assert_int_equal(run("version", answers), 0);
        assert_non_null(strstr(out_text, cases[i].text));
        release();
        answers[cases[i].which].rc = before;
    }
}

/* Would break: a host's name becomes an option of ssh, or a shell command. */
static void remote_commands_are_safe(void **state)
{
    (void)state;
    struct fc_remote r;
    char command[FC_REMOTE_COMMAND], longer[2 * FC_REMOTE_COMMAND];
    fc_remote_init(&r);
    assert_int_equal(fc_remote_command(&r, "b.example", "x y", command), 0);
    assert_string_equal(command, "ssh -o BatchMode=yes b.example x y");
    assert_int_equal(fc_remote_command(&r, "-oProxyCommand=x", "x", command),
                     FC_EINVAL);
    assert_int_equal(fc_remote_command(&r, "", "x", command), FC_EINVAL);
    assert_int_equal(fc_remote_command(&r, "a;reboot", "x", command),
                     FC_EINVAL);
    assert_int_equal(fc_remote_use(&r, "nc %h 99"), FC_EFORMAT);
    assert_int_equal(
        fc_remote_use(&r, "rsh -x 5%% %h forecopy receive %u --to %h"), 0);
    assert_int_equal(fc_remote_command(&r, "root@::1", "v", command), 0);
    assert_string_equal(command, "rsh -x 5% root@::1 v --to root@::1");
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(fc_remote_command(&r, longer, "v", command), FC_ETOOBIG);
    assert_int_equal(fc_remote_command(&r, "h", longer, command), FC_ETOOBIG);
    assert_int_equal(fc_remote_use(&r, longer), FC_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_lines_are_understood),
        cmocka_unit_test(wrong_usage_exits_with_2),
        cmocka_unit_test(help_and_dump_come_from_one_table),
        cmocka_unit_test(sizes_take_suffixes),
        cmocka_unit_test(requests_say_what_was_asked),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(table_is_as_it_was),
        cmocka_unit_test(lists_are_sorted),
        cmocka_unit_test(version_says_whether_the_helper_works),
        cmocka_unit_test(remote_commands_are_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
