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

#define SETTINGS                                                               \
    "{\"ok\":true,\"settings\":{\"channel_command\":"                          \
    "\"fc-rsh %h forecopy receive %u\"}}"
#define GUEST(more)                                                            \
    "{\"ok\":true,\"guests\":[{\"name\":\"web1\",\"pages\":32768," more "}]}"

static const struct answer well[] = {
    { "/proc/xen/capabilities", 0, "control_d\n" },
    { "version/major", 0, "4\n" },
    { "version/minor", 0, "17\n" },
    { "/usr/lib/xen-4.17/bin/forecopy-save-helper", 0, "" },
    { "xl migrate --predictive", 0, "--predictive\n--max-downtime\n" },
    { "/usr/sbin/xl.xen", 0, "" },
    { "fc-rsh b forecopy version --json", 0,
      "Welcome to b\n{\"ok\":true,\"version\":\"0.1.0\",\"protocol\":1,"
      "\"xen\":\"4.17\"}\n" },
    { "fc-rsh b xl info free_memory", 0, "512\n" },
    { "fc-rsh b forecopy get store_budget_bytes --json", 0,
      "{\"ok\":true,\"settings\":{\"store_budget_bytes\":\"1G\"}}\n" },
    { "fc-rsh b cat /proc/meminfo", 0,
      "MemTotal: 9 kB\nMemAvailable:    2097152 kB\n" },
    { "\"version\"", 0,
      "{\"ok\":true,\"version\":\"" FC_VERSION "\",\"xen\":\"4.17\"}" },
    { "\"status\"", 0,
      GUEST("\"type\":\"pvh\",\"armed\":true,\"state\":\"steady\"") },
    { "\"get\"", 0, SETTINGS },
    { 0 }
};

/* Would break: a host in order is called faulty. */
static void doctor_finds_nothing_where_all_is_well(void **state)
{
    (void)state;
    assert_int_equal(run("doctor web1 b", well), 0);
    assert_null(strstr(out_text, "FAULT"));
    assert_null(strstr(out_text, "note"));
    assert_non_null(strstr(out_text, "\n0 faults\n"));
    assert_non_null(strstr(out_text, "b has 512 MiB free"));
    release();
    assert_int_equal(run("doctor --json web1 b", well), 0);
    struct json_object *o = fc_ctl_parse(out_text, strcspn(out_text, "\n"),
                                         NULL),
                       *checks;
    assert_int_equal(fc_json_bool(o, "ok", 0), 1);
    assert_true(json_object_object_get_ex(o, "checks", &checks));
    assert_true(json_object_array_length(checks) >= 9);
    json_object_put(o);
    release();
    assert_int_equal(run("doctor", well), 0);
    assert_null(strstr(the_world.asked, "fc-rsh"));
    release();
}

/* Would break: a fault is not found, or found without what to do about it. */
static void doctor_finds_each_fault(void **state)
{
    (void)state;
    static const struct {
        struct answer instead;
        int status;
        const char *found;
    } cases[] = {
        { { "/proc/xen/capabilities", 0, "" }, 1, "not dom0" },
        { { "version/major", FC_EIO, "" }, 1, "hypervisor's version" },
        { { "forecopy-save-helper --self-test", 127, "" },
          1,
          "fails its self-test" },
        { { "/usr/lib/xen-4.17", 1, "" }, 1, "is missing" },
        { { "xl migrate --predictive", 2, "" }, 1, "not forecopy's" },
        { { "/usr/sbin/xl.xen", 1, "" }, 1, "xl.xen" },
        { { "\"version\"", FC_EDAEMON, NULL }, 1, "does not answer" },
        { { "\"version\"", 0, "{\"ok\":true,\"version\":\"0.0.1\"}" },
          1,
          "is version 0.0.1" },
        { { "\"version\"", 0,
            "{\"ok\":true,\"version\":\"" FC_VERSION "\",\"xen\":\"4.20\"}" },
          1,
          "is for Xen 4.20" },
        { { "\"status\"", FC_ENODOM,
            "{\"ok\":false,\"error\":\"no such domain\"}" },
          1,
          "no such domain" },
        { { "\"status\"", 0, GUEST("\"type\":\"pv\"") }, 1, "PV guest" },
        { { "\"status\"", 0,
            GUEST("\"state\":\"refused\",\"reason\":\"no log\"") },
          1,
          "no log" },
        { { "\"status\"", 0, GUEST("\"type\":\"hvm\"") }, 0, "starts cold" },
        { { "fc-rsh b forecopy version", 255, "" }, 1, "without a password" },
        { { "fc-rsh b forecopy version", 127, "" }, 1, "has no forecopy" },
        { { "fc-rsh b forecopy version", 1, "" }, 1, "status 1" },
        { { "fc-rsh b forecopy version", FC_ETIMEOUT, "" },
          1,
          "did not answer" },
        { { "fc-rsh b forecopy version", 0, "hello\n" }, 1, "not forecopy's" },
        { { "fc-rsh b forecopy version", 0, "{\"protocol\":2}\n" },
          1,
          "speaks protocol 2" },
        { { "fc-rsh b forecopy version", 0,
            "{\"protocol\":1,\"xen\":\"4.14\"}\n" },
          0,
          "no way back" },
        { { "fc-rsh b forecopy version", 0,
            "{\"protocol\":1,\"xen\":\"4.17\",\"helper_works\":false}\n" },
          1,
          "helper at b is missing" },
        { { "xl info free_memory", 0, "100\n" }, 0, "100 MiB free" },
        { { "store_budget_bytes", 0, "{\"settings\":{}}" }, 1, "does not say" },
        { { "store_budget_bytes", 0,
            "{\"settings\":{\"store_budget_bytes\":16777216}}" },
          0,
          "allows 16 MiB" },
        { { "cat /proc/meminfo", 0, "MemAvailable: 1024 kB\n" },
          0,
          "has 1 MiB left" },
        { { "\"get\"", 0, "{\"settings\":{\"channel_command\":\"nc %h\"}}" },
          1,
          "not understood" },
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer answers[2 + sizeof(well) / sizeof(well[0])];
        answers[0] = cases[i].instead;
        memcpy(answers + 1, well, sizeof(well));
        int status = run("doctor web1 b", answers);
        if (status != cases[i].status || !strstr(out_text, cases[i].found))
            fail_msg("case %u (%s): %d\n%s", i, cases[i].found, status,
                     out_text);
        assert_non_null(strstr(out_text, "-> "));
        release();
    }
    assert_int_equal(run("doctor web1 -- -oProxyCommand=x", well), 1);
    assert_non_null(strstr(out_text, "no name of a host"));
    release();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doctor_finds_nothing_where_all_is_well),
        cmocka_unit_test(doctor_finds_each_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
