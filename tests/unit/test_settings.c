/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "config.h"
#include "err.h"
#include "log.h"
#include "settings.h"

static struct fc_settings host, guest;
static char why[FC_SETTING_WHY];
static char logged[8192];

static void sink(void *user, enum fc_level level, const char *line)
{
    (void)user;
    (void)level;
    size_t used = strlen(logged);
    snprintf(logged + used, sizeof(logged) - used, "%s\n", line);
}

static int setup(void **state)
{
    (void)state;
    fc_settings_init(&host, NULL);
    fc_settings_init(&guest, &host);
    fc_log_set_sink(sink, NULL);
    logged[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fc_settings_dispose(&guest);
    fc_settings_dispose(&host);
    return 0;
}

static int set(struct fc_settings *s, enum fc_setting_source source,
               const char *key, const char *value)
{
    return fc_settings_set(s, source, key, value, why);
}

static int parse(const char *text)
{
    logged[0] = '\0';
    return fc_config_parse(&host, "test.conf", text, strlen(text));
}

/* The default of every key must be a value that the key takes. */
static void test_defaults(void **state)
{
    (void)state;
    struct json_object *all = fc_settings_json(&host, NULL);
    json_object_object_foreach(all, key, value)
    {
        if (json_object_is_type(value, json_type_double)) {
            char number[64];
            snprintf(number, sizeof(number), "%.6f",
                     json_object_get_double(value));
            assert_int_equal(set(&host, FC_SOURCE_CONTROL, key, number), 0);
        } else {
            assert_int_equal(set(&host, FC_SOURCE_CONTROL, key,
                                 json_object_get_string(value)),
                             0);
        }
    }
    json_object_put(all);
    assert_int_equal(fc_settings_u64(&guest, FC_SET_STAGE_RATE), 8 << 20);
    assert_true(fc_settings_double(&guest, FC_SET_LOG_SHARE) == 1.0);
    assert_string_equal(fc_settings_text(&guest, FC_SET_SCORER), "mixture");
}

/* Which of several values holds is a promise of the manual. */
static void test_order(void **state)
{
    (void)state;
    static const struct {
        bool of_guest;
        enum fc_setting_source source;
        const char *value;
    } steps[] = {
        { false, FC_SOURCE_FILE, "2" },    { false, FC_SOURCE_XENSTORE, "3" },
        { false, FC_SOURCE_CONTROL, "4" }, { true, FC_SOURCE_XENSTORE, "5" },
        { true, FC_SOURCE_CONTROL, "6" },
    };
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(set(steps[i].of_guest ? &guest : &host,
                             steps[i].source, "channels", steps[i].value),
                         0);
        assert_int_equal(fc_settings_u64(&guest, FC_SET_CHANNELS), i + 2);
    }
    assert_int_equal(fc_settings_u64(&host, FC_SET_CHANNELS), 4);
    for (unsigned i = 5; i-- > 0;) {
        fc_settings_unset(steps[i].of_guest ? &guest : &host, steps[i].source,
                          "channels");
        assert_int_equal(fc_settings_u64(&guest, FC_SET_CHANNELS), i + 1);
    }
}

/* Bad values must be refused and leave the old one. */
static void test_bad_values(void **state)
{
    static const struct {
        const char *key, *value;
    } bad[] = {
        { "channels", "" },
        { "channels", "0" },
        { "channels", "17" },
        { "channels", "-1" },
        { "channels", "1.5" },
        { "channels", "0x4" },
        { "channels", "nan" },
        { "channels", "inf" },
        { "channels", " 4" },
        { "channels", "4 " },
        { "channels", "4K" },
        { "channels", "999999999999999999999999999999" },
        { "channels", "1e400" },
        { "store_budget_bytes", "1" },
        { "store_budget_bytes", "16MB" },
        { "store_budget_bytes", "9999T" },
        { "log_share_percent", "99" },
        { "log_level", "loud" },
        { "scorer", "oracle" },
        { "channel_command", "" },
        { "channel_command", "ssh %x" },
        { "channel_command", "ssh %" },
        { "channel_command", "a\nb" },
    };
    (void)state;
    assert_int_equal(set(&host, FC_SOURCE_CONTROL, "channels", "4"), 0);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        why[0] = '\0';
        assert_int_equal(
            set(&host, FC_SOURCE_CONTROL, bad[i].key, bad[i].value), FC_EINVAL);
        assert_non_null(strstr(why, bad[i].key));
    }
    assert_int_equal(fc_settings_u64(&host, FC_SET_CHANNELS), 4);
    assert_int_equal(set(&host, FC_SOURCE_CONTROL, "nothing", "1"), FC_ENOENT);
    assert_int_equal(set(&guest, FC_SOURCE_CONTROL, "log_level", "info"),
                     FC_ENOENT);
}

/* Sizes with suffixes, fractions. */
static void test_numbers(void **state)
{
    (void)state;
    assert_int_equal(set(&host, FC_SOURCE_FILE, "store_budget_bytes", "2g"), 0);
    assert_int_equal(fc_settings_u64(&host, FC_SET_STORE_BUDGET), 2ull << 30);
    assert_int_equal(set(&host, FC_SOURCE_FILE, "window_bytes", "1.5M"), 0);
    assert_int_equal(fc_settings_u64(&host, FC_SET_WINDOW), 3 << 19);
    assert_int_equal(set(&host, FC_SOURCE_FILE, "stage_quiet_s", "0.25"), 0);
    assert_true(fc_settings_double(&host, FC_SET_STAGE_QUIET) == 0.25);
}

/* A shell reads the command: nothing of a host's name may mean more. */
static void test_command(void **state)
{
    char out[64];
    static const char *const bad[] = {
        "", "-oProxyCommand=x", "a;b", "a b", "$(id)", "a`b`", "a\nb", "h/../x"
    };
    (void)state;
    assert_int_equal(fc_settings_command("ssh %h f %u 100%%", "root@h-1.x", "U",
                                         out, sizeof(out)),
                     0);
    assert_string_equal(out, "ssh root@h-1.x f U 100%");
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(
            fc_settings_command("ssh %h", bad[i], "U", out, sizeof(out)),
            FC_EINVAL);
    assert_int_equal(fc_settings_command("%h%h%h%h", "a234567890123456", "U",
                                         out, sizeof(out)),
                     FC_ETOOBIG);
}

/* The file's grammar, and errors that name the line. */
static void test_file(void **state)
{
    (void)state;
    assert_int_equal(parse("# a comment\n"
                           "channels = 3\n"
                           "log_share_percent=\"2.5\"\n"
                           "channel_command = 'nc %h 1'\n"),
                     0);
    assert_int_equal(fc_settings_u64(&host, FC_SET_CHANNELS), 3);
    assert_true(fc_settings_double(&host, FC_SET_LOG_SHARE) == 2.5);
    assert_string_equal(fc_settings_text(&host, FC_SET_CHANNEL_COMMAND),
                        "nc %h 1");
    /* a bad value keeps the old one, a missing key loses it */
    assert_int_equal(parse("\nchannels = 99\n  nonsense = 1\n"
                           "window_bytes = [ \"1\" ]\n"),
                     3);
    assert_int_equal(fc_settings_u64(&host, FC_SET_CHANNELS), 3);
    assert_true(fc_settings_double(&host, FC_SET_LOG_SHARE) == 1.0);
    assert_non_null(strstr(logged, "test.conf:2: channels"));
    assert_non_null(strstr(logged, "test.conf:3: there is no setting"));
    assert_non_null(strstr(logged, "test.conf:4: window_bytes"));
    /* no grammar: nothing changes */
    assert_int_equal(parse("channels = 5\nthis is nothing = = \n"), FC_EFORMAT);
    assert_int_equal(fc_settings_u64(&host, FC_SET_CHANNELS), 3);
    assert_non_null(strstr(logged, "test.conf:2"));
    assert_int_equal(fc_config_parse(&host, "n", "a\0b", 3), FC_EFORMAT);
}

/* The file that is installed must read without complaint. */
static void test_installed_file(void **state)
{
    (void)state;
    assert_int_equal(fc_config_read(&host, "dom0d/forecopy.conf", 0), 0);
    assert_string_equal(logged, "");
    assert_int_equal(fc_config_read(&host, "/nonexistent", 1), 0);
    assert_int_equal(fc_config_read(&host, "/nonexistent", 0), FC_ESYS);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),       TEST(test_order),   TEST(test_bad_values),
        TEST(test_numbers),        TEST(test_command), TEST(test_file),
        TEST(test_installed_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
