/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "err.h"
#include "procscan.h"

static char root[] = "/tmp/test-procscan-XXXXXX";

static void put(const char *pid, const char *name, const char *bytes,
                size_t len)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, pid);
    if (mkdir(path, 0700))
        assert_int_equal(errno, EEXIST);
    snprintf(path, sizeof(path), "%s/%s/%s", root, pid, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

#define CMDLINE(pid, words) put(pid, "cmdline", words, sizeof(words))
#define STAT(pid, text) put(pid, "stat", text, sizeof(text) - 1)

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(root))
        return -1;
    CMDLINE("1", "/sbin/init");
    put("2", "cmdline", "", 0);
    CMDLINE("77", "/usr/lib/xen-4.17/bin/libxl-save-helper\0--save-domain\0"
                  "9\0-1\0"
                  "12\0"
                  "1\0"
                  "136\0"
                  "0");
    CMDLINE("78", "/x/forecopy-save-helper\0--restore-domain\0"
                  "0\0"
                  "1\0"
                  "13\0"
                  "5");
    CMDLINE("79", "grep\0--save-domain\0"
                  "3");
    CMDLINE("80", "helper\0--save-domain\0"
                  "8\0"
                  "9\0"
                  "120\0"
                  "1");
    CMDLINE("self", "helper\0--save-domain\0"
                    "8\0"
                    "9\0"
                    "55\0"
                    "1");
    CMDLINE("90", "/usr/lib/forecopy/forecopy-transport\0--back-fd\0"
                  "5");
    STAT("90", "90 (forecopy-trans) S 40 40 1 0");
    CMDLINE("91", "forecopy-transport\0--back-fd\0"
                  "5");
    STAT("91", "91 (a) b) S 41 40 1 0");
    CMDLINE("92", "/bin/ssh\0forecopy-transport");
    STAT("92", "92 (ssh) S 42 40 1 0");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof(command), "rm -r '%s'", root);
    return system(command);
}

static void test_saver(void **state)
{
    /* Two savers of one guest at once would fight over its dirty log. */
    (void)state;
    assert_int_equal(fc_procscan_saver(root, 12), 77);
    assert_int_equal(fc_procscan_saver(root, 120), 80);
    assert_int_equal(fc_procscan_saver(root, 1), 0);
    assert_int_equal(fc_procscan_saver(root, 13), 0);
    assert_int_equal(fc_procscan_saver(root, 55), 0);
}

static void test_restorer(void **state)
{
    /* A guest still coming in would be taken for one to watch. */
    (void)state;
    assert_int_equal(fc_procscan_restorer(root, 13), 78);
    assert_int_equal(fc_procscan_restorer(root, 12), 0);
}

static void test_child(void **state)
{
    /* An interrupt would end the wrong process, or none. */
    (void)state;
    assert_int_equal(fc_procscan_child(root, 40, "forecopy-transport"), 90);
    assert_int_equal(fc_procscan_child(root, 41, "forecopy-transport"), 91);
    assert_int_equal(fc_procscan_child(root, 42, "forecopy-transport"), 0);
    assert_int_equal(fc_procscan_child(root, 1, "forecopy-transport"), 0);
}

static void test_unreadable(void **state)
{
    /* "Nobody is at work" would be claimed without having looked. */
    (void)state;
    assert_int_equal(fc_procscan_saver("/nonexistent/proc", 1), FC_ESYS);
    assert_int_equal(errno, ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saver),
        cmocka_unit_test(test_restorer),
        cmocka_unit_test(test_child),
        cmocka_unit_test(test_unreadable),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
