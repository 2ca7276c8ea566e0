/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "front_fake.h"

static char *expect_helper(const char *helper)
{
    static char line[PATH_MAX + 32];
    snprintf(line, sizeof(line), "helper=%s tty=0 session=0\n", helper);
    return line;
}

static void test_others_untouched(void **state)
{
    /* Everyday xl commands would behave otherwise than Xen's own. */
    (void)state;
    fake_write("plain-status", "7", 0600);
    assert_int_equal(fake_run("/usr/sbin/xl|-vv|list|-l||a b"), 7);
    CHECK_IN("xl", "xl|-vv|list|-l||a b\n");
    CHECK_IN("xl", expect_helper("none"));
    assert_false(fake_has("requests", "cmd"));

    char *err = fake_read("err");
    assert_string_equal(err, "");
    free(err);
}

static void test_plain_migrate_untouched(void **state)
{
    /* A plain migrate would be turned into something nobody asked for. */
    (void)state;
    assert_int_equal(fake_run("xl|migrate|--dry-run|-s||d|h"), 0);
    CHECK_IN("xl", "xl|migrate|--dry-run|-s||d|h\n");
    CHECK_IN("xl", expect_helper("none"));
    assert_false(fake_has("requests", "cmd"));
}

static void test_death_by_signal(void **state)
{
    /* Scripts would not see that xl was killed. */
    (void)state;
    setenv("FAKE_SIGNAL", "9", 1);
    assert_int_equal(fake_run("xl|list"), 128 + SIGKILL);
}

static void test_terminal(void **state)
{
    /* `xl console` and `xl create -c` would lose their terminal. */
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master) | unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    assert_int_equal(fake_wait(fake_start("xl|console|d", slave)), 0);
    CHECK_IN("xl", "tty=1");
    close(slave);
    close(master);
}

static void test_no_real_xl(void **state)
{
    /* The shell's own exit codes for a missing program would be lost. */
    (void)state;
    char *xl = strdup(getenv("FORECOPY_XL"));
    setenv("FORECOPY_XL", "/nonexistent/xl", 1);
    assert_int_equal(fake_run("xl|list"), 127);
    CHECK_IN("err", "forecopy: cannot run Xen's xl (/nonexistent/xl)");
    setenv("FORECOPY_XL", xl, 1);
    free(xl);
}

static void test_receive(void **state)
{
    /* The destination would restore without our helper, or with a broken
     * one. */
    (void)state;
    assert_int_equal(fake_run("xl|-t|migrate-receive|-e|-p"), 0);
    CHECK_IN("xl", "xl|-t|migrate-receive|-e|-p\n");
    CHECK_IN("xl", expect_helper(getenv("FORECOPY_HELPER")));
    char *out = fake_read("out"), *err = fake_read("err");
    assert_string_equal(out, "");
    assert_string_equal(err, "");
    free(out);
    free(err);
}

static void test_receive_broken_helper(void **state)
{
    /* A helper that cannot run would fail every incoming migration. */
    (void)state;
    setenv("FAKE_SELF_TEST", "3", 1);
    assert_int_equal(fake_run("xl|migrate-receive"), 0);
    CHECK_IN("xl", expect_helper("none"));
    CHECK_IN("err", "fails its self-test; receiving as plain xl");
}

static void test_receive_users_helper(void **state)
{
    /* The user's own choice of a helper would be overridden. */
    (void)state;
    setenv("LIBXL_SAVE_HELPER", "/my/helper", 1);
    assert_int_equal(fake_run("xl|migrate-receive"), 0);
    CHECK_IN("xl", expect_helper("/my/helper"));
}

int main(int argc, char **argv)
{
    fake_role(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_others_untouched, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_plain_migrate_untouched,
                                        fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_death_by_signal, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_terminal, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_no_real_xl, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_receive, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_receive_broken_helper, fake_setup,
                                        fake_teardown),
        cmocka_unit_test_setup_teardown(test_receive_users_helper, fake_setup,
                                        fake_teardown),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, fake_group_teardown);
}
