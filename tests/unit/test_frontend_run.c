/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "front_fake.h"

#include <sys/file.h>

#include "procscan.h"

#define SUMMARY                                                                \
    "{\"event\":\"summary\",\"success\":true,\"rounds\":2,"                    \
    "\"bytes_sent\":2048,\"bytes_plain\":8192,\"data_pages\":1,"               \
    "\"zero_pages\":2,\"reference_pages\":3,\"downtime_ms\":42}\n"

static char remote[PATH_MAX + 8];

/* The command line of a predictive migration with the fake remote command. */
static const char *predictive(const char *options)
{
    static char words[PATH_MAX + 128];
    snprintf(remote, sizeof(remote), "sh %s", fake_path("remote"));
    snprintf(words, sizeof(words), "xl|migrate|--predictive|-s|%s%s%s|web|h2",
             remote, *options ? "|" : "", options);
    return words;
}

static unsigned count_lines(const char *name)
{
    unsigned lines = 0;
    char *text = fake_read(name);
    for (char *p = text; *p; p++)
        lines += *p == '\n';
    free(text);
    return lines;
}

static void test_success(void **state)
{
    /* The session, the command line or the report of every predictive
     * migration would be wrong. */
    (void)state;
    char report[PATH_MAX + 32], rune[PATH_MAX * 2];
    snprintf(report, sizeof(report), "-p|--report|%s", fake_path("report"));
    fake_write("events",
               "{\"event\":\"progress\",\"phase\":\"precopy\"}\n"
               "{\"event\":\"mode\",\"mode\":\"predictive\"}\n"
               "not json\n"
               "{\"event\":\"suspended\"}\n" SUMMARY,
               0600);
    setenv("FAKE_RUNE", "1", 1);
    assert_int_equal(fake_run(predictive(report)), 0);

    snprintf(rune, sizeof(rune), "xl|migrate|-p|-s||web|exec '%s' --back-fd ",
             fake_path("forecopy-transport"));
    CHECK_IN("xl", rune);
    snprintf(rune, sizeof(rune),
             " -- sh -c 'exec %s h2 xl migrate-receive "
             "-p'\n",
             remote);
    CHECK_IN("xl", rune);
    snprintf(rune, sizeof(rune),
             " -- sh -c exec %s h2 xl migrate-receive "
             "-p\n",
             remote);
    CHECK_IN("transport-log", rune);
    CHECK_IN("session", "250 0 0 0 1 99999 30\n");
    CHECK_IN("requests", "\"domain\":\"" FAKE_UUID "\",\"host\":\"h2\"");
    CHECK_IN("requests",
             "h2 forecopy prepare --json --uuid " FAKE_UUID " --name web\n");
    CHECK_IN("requests", "\"success\":true");
    CHECK_IN("err", "forecopy: 2.0 KiB sent for 8.0 KiB in 2 rounds, ");
    CHECK_IN("err", "(forecast: 1.0 MiB, 900 ms)\n");
    CHECK_IN("err", "forecopy: downtime ");
    CHECK_IN("err", " (forecast: 50 ms)\n");
    assert_false(fake_has("err", "\r"));
    CHECK_IN("report", "\"exit_status\":0");
    CHECK_IN("report", "\"mode\":\"predictive\"");
    CHECK_IN("report", "\"bytes_sent\":2048");
    char *out = fake_read("out");
    assert_string_equal(out, "");
    free(out);
}

static void test_options_over_settings(void **state)
{
    /* What the command line says would be ignored. */
    (void)state;
    assert_int_equal(
        fake_run(predictive("--max-downtime|99|--deadline|7|"
                            "--at-deadline|abort|--fallback|fail|--no-stage")),
        0);
    CHECK_IN("session", "99 7 1 1 0 99999 30\n");
    CHECK_IN("requests", "\"no_stage\":true");
}

static void test_exit_status(void **state)
{
    /* A failed migration would look like a success, or be tried twice. */
    (void)state;
    fake_write("status", "3", 0600);
    fake_write("events",
               "{\"event\":\"failed\",\"fault\":\"stream\","
               "\"reason\":\"broken pipe\"}\n",
               0600);
    assert_int_equal(fake_run(predictive("--json")), 3);
    assert_int_equal(count_lines("xl"), 2);
    CHECK_IN("err", "forecopy: broken pipe\n");
    CHECK_IN("out", "\"exit_status\":3");
    CHECK_IN("requests", "\"success\":false");
}

static void test_killed(void **state)
{
    /* That xl was killed would be taken for an ordinary failure. */
    (void)state;
    setenv("FAKE_SIGNAL", "15", 1);
    fake_write("events", "", 0600);
    assert_int_equal(fake_run(predictive("")), 0); /* it ignores SIGTERM */
    setenv("FAKE_SIGNAL", "9", 1);
    assert_int_equal(fake_run(predictive("")), 128 + SIGKILL);
}

static void check_plain(const char *line)
{
    char words[PATH_MAX + 128];
    assert_int_equal(fake_run(predictive("-C|x.cfg")), 0);
    CHECK_IN("err", line);
    assert_int_equal(count_lines("err"), 1);
    snprintf(words, sizeof(words),
             "xl|migrate|-C|x.cfg|-s|%s|web|h2\nhelper="
             "none tty=0 session=0\n",
             remote);
    CHECK_IN("xl", words);

    unlink(fake_path("xl"));
    assert_int_equal(fake_run(predictive("--fallback|fail")), 1);
    CHECK_IN("err", "not migrating (--fallback fail)\n");
    assert_int_equal(count_lines("xl"), 0);
}

static void test_no_daemon(void **state)
{
    /* A stopped daemon would keep guests from being migrated. */
    (void)state;
    fake_daemon_stop();
    check_plain("forecopy: forecopyd does not answer (");
}

static void test_daemon_refuses(void **state)
{
    /* The same for a guest that the daemon cannot handle. */
    (void)state;
    fake_write("reply-migrate-begin",
               "{\"ok\":false,\"code\":\"FC_ENOLOG\","
               "\"error\":\"no dirty\\u001b log\"}",
               0600);
    check_plain("forecopy: forecopyd: no dirty? log; migrating as plain xl");
}

static void test_destination_without(void **state)
{
    /* The same for a destination without forecopy. */
    (void)state;
    fake_write("remote", "echo x: not found >&2\nexit 127\n", 0700);
    check_plain("forecopy: h2 has no forecopy; migrating as plain xl");
}

static void test_destination_too_old(void **state)
{
    /* The same for one that speaks an older protocol. */
    (void)state;
    fake_write("remote", "echo '{\"version\":\"0.0.1\",\"protocol\":0}'\n",
               0700);
    check_plain("forecopy: forecopy at h2 is too old (0.0.1, protocol 0)");
}

static void test_destination_daemon_down(void **state)
{
    /* The same for one whose daemon is down; its reason would be lost. */
    (void)state;
    fake_write("remote",
               "echo '{\"ok\":false,\"error\":\"no daemon\"}'\n"
               "exit 1\n",
               0700);
    check_plain("forecopy: forecopy at h2: no daemon; migrating");
    unlink(fake_path("xl"));
    fake_write("remote",
               "echo hello\necho 'forecopy: it is down' >&2\nexit 1\n", 0700);
    check_plain("forecopy: forecopy at h2: it is down; migrating");
}

static void test_broken_helper(void **state)
{
    /* The same for a helper that cannot run. */
    (void)state;
    setenv("FAKE_SELF_TEST", "1", 1);
    check_plain("fails its self-test; migrating as plain xl");
}

static void test_leftover(void **state)
{
    /* Nobody would learn that a domain was removed. */
    (void)state;
    fake_write("remote",
               "echo '{\"ok\":true,\"version\":\"1\",\"protocol\":1,"
               "\"removed\":7}'\n",
               0700);
    assert_int_equal(fake_run(predictive("")), 0);
    CHECK_IN("err", "forecopy: removed web--incoming (domain 7) at h2, left");

    fake_write("remote",
               "echo '{\"ok\":true,\"version\":\"1\",\"protocol\":1,"
               "\"removed\":0,\"reason\":\"it stays\"}'\n",
               0700);
    assert_int_equal(fake_run(predictive("")), 0);
    CHECK_IN("err", "forecopy: forecopy at h2: it stays\n");
}

static void test_busy(void **state)
{
    /* Two migrations of one guest at a time would tear it apart. */
    (void)state;
    int lock =
        open(fake_path("migrate-" FAKE_UUID ".lock"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(fake_run(predictive("")), 1);
    CHECK_IN("err", "another predictive migration of web is at work");
    close(lock);

    fake_write("reply-migrate-begin",
               "{\"ok\":false,\"code\":\"FC_EBUSY\","
               "\"error\":\"migrating\"}",
               0600);
    assert_int_equal(fake_run(predictive("")), 1);
    CHECK_IN("err", "forecopy: forecopyd: migrating\n");

    /* a plain save of the same domain, as its command line shows */
    char domid[16];
    snprintf(domid, sizeof(domid), "%u", fake_domid);
    pid_t saver = fork();
    if (!saver) {
        execl("/proc/self/exe", "idle", "--save-domain", "3", "4", domid, NULL);
        _exit(1);
    }
    for (int i = 0; i < 500 && !fc_procscan_saver("/proc", fake_domid); i++)
        usleep(20000);
    assert_int_equal(fake_run(predictive("")), 1);
    CHECK_IN("err", "another save or migration of web is at work (process ");
    kill(saver, SIGKILL);
    waitpid(saver, NULL, 0);
    assert_int_equal(count_lines("xl"), 0);
}

static void test_retry(void **state)
{
    /* A bug of our helper would fail a migration that xl can do. */
    (void)state;
    fake_write("status", "1", 0600);
    fake_write("events",
               "{\"event\":\"failed\",\"fault\":\"ours\","
               "\"reason\":\"out of memory\"}\n",
               0600);
    assert_int_equal(fake_run(predictive("")), 0);
    assert_int_equal(count_lines("xl"), 4);
    CHECK_IN("xl", "session=1\nxl|migrate|-s|");
    CHECK_IN("err", "once more as plain xl\n");

    /* but not with a guest that was suspended, or when it may not */
    unlink(fake_path("xl"));
    assert_int_equal(fake_run(predictive("--fallback|fail")), 1);
    assert_int_equal(count_lines("xl"), 2);
    fake_write("events",
               "{\"event\":\"suspended\"}\n"
               "{\"event\":\"failed\",\"fault\":\"ours\"}\n",
               0600);
    assert_int_equal(fake_run(predictive("")), 1);
    assert_int_equal(count_lines("xl"), 4);

    /* nor when the helper vanished without a word: nobody knows why */
    fake_write("events", "{\"event\":\"progress\"}\n", 0600);
    assert_int_equal(fake_run(predictive("")), 1);
    assert_int_equal(count_lines("xl"), 6);
}

static void test_in_band(void **state)
{
    /* A migration by a command of the user's own would ask a host that may
     * not exist. */
    (void)state;
    assert_int_equal(fake_run("xl|migrate|--predictive|-s||web|nc h2 9"), 0);
    assert_false(fake_has("requests", "prepare"));
    assert_false(fake_has("requests", "\"domain\":\"" FAKE_UUID "\",\"host\""));
    CHECK_IN("xl", " -- sh -c 'nc h2 9'\n");
}

static void test_in_band_plain(void **state)
{
    /* Nobody would learn that the receiver knows nothing of forecopy. */
    (void)state;
    fake_write("events",
               "{\"event\":\"mode\",\"mode\":\"plain\","
               "\"reason\":\"no answer\"}\n",
               0600);
    assert_int_equal(fake_run(predictive("")), 0);
    CHECK_IN("err", "forecopy: going on as a plain migration: no answer\n");
}

static void test_interrupt(void **state)
{
    /* ^C would leave the guest suspended, or not stop the migration. */
    (void)state;
    fake_write("events",
               "{\"event\":\"progress\"}\n!mark\n!abort\n"
               "{\"event\":\"failed\",\"fault\":\"user\","
               "\"reason\":\"asked to stop\"}\n",
               0600);
    fake_write("status", "1", 0600);
    pid_t pid = fake_start(predictive(""), -1);
    fake_wait_mark();
    kill(pid, SIGINT);
    assert_int_equal(fake_wait(pid), 130);
    CHECK_IN("err", "forecopy: stopping; the guest goes on here\n");
    CHECK_IN("requests", "\"interrupted\":true");
    assert_int_equal(count_lines("xl"), 2);
}

static void test_interrupt_too_late(void **state)
{
    /* A late ^C would claim to have stopped what was finished. */
    (void)state;
    fake_write("events", "{\"event\":\"suspended\"}\n!mark\n!await\n" SUMMARY,
               0600);
    pid_t pid = fake_start(predictive(""), -1);
    fake_wait_mark();
    sleep(1); /* it has read what came before the mark */
    kill(pid, SIGTERM);
    fake_wait_said("too late to stop");
    assert_int_equal(fake_wait(pid), 0);
    CHECK_IN("err", "forecopy: too late to stop");
    CHECK_IN("requests", "\"interrupted\":false");
}

static void test_interrupt_early(void **state)
{
    /* ^C while ssh asks for a password would do nothing. */
    (void)state;
    fake_write("forecopy-transport",
               "#!/bin/bash\ntouch $(dirname $0)/mark\n"
               "exec -a forecopy-transport sleep 60\n",
               0700);
    setenv("FAKE_RUNE", "1", 1);
    pid_t pid = fake_start(predictive(""), -1);
    fake_wait_mark();
    sleep(1); /* it has read what came before the mark */
    kill(pid, SIGINT);
    assert_int_equal(fake_wait(pid), 130);
    CHECK_IN("err", "forecopy: stopping; the guest goes on here\n");
}

static void test_progress_on_terminal(void **state)
{
    /* Progress would not be seen, or fill logs. */
    (void)state;
    fake_write("events",
               "{\"event\":\"progress\",\"phase\":\"precopy\","
               "\"round\":4}\n!pause\n",
               0600);
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master) | unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_int_equal(fake_wait(fake_start(predictive(""), slave)), 0);

    char text[4096];
    ssize_t n = read(master, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "\rforecopy: precopy, round 4, 0%"));
    assert_non_null(strstr(text, "\r\033[K"));
    CHECK_IN("xl", " xl -t migrate-receive'\n");
    close(slave);
    close(master);
}

static void test_dry_run(void **state)
{
    /* A dry run would change something, or answer wrong. */
    (void)state;
    assert_int_equal(fake_run(predictive("--dry-run")), 0);
    CHECK_IN("out", "to send:         1.0 MiB over a link of 1.0 MiB/s\n");
    CHECK_IN("out", "downtime:        50 ms (aim: at most 250 ms)\n");
    CHECK_IN("out", "h2, forecopy 9.9, protocol 1\n");
    assert_false(fake_has("requests", "migrate-begin"));
    assert_false(fake_has("requests", "prepare"));

    CHECK_IN("out", "helper there:    not known\n");

    fake_write("remote",
               "echo '{\"ok\":true,\"version\":\"9\",\"protocol\":1,"
               "\"helper\":\"/y\",\"helper_works\":false}'\n",
               0700);
    assert_int_equal(fake_run(predictive("--dry-run")), 1);
    CHECK_IN("out", "helper there:    /y, which fails its self-test\n");
    CHECK_IN("out", "impossible: the save helper at h2 is missing or fails");

    fake_write("remote", "exit 127\n", 0700);
    assert_int_equal(fake_run(predictive("--dry-run|--json")), 1);
    CHECK_IN("out", "\"possible\":false");
    CHECK_IN("out", "\"reason\":\"h2 has no forecopy\"");
    assert_int_equal(count_lines("xl"), 0);
}

static void test_usage(void **state)
{
    /* Wrong usage would migrate. */
    (void)state;
    assert_int_equal(fake_run("xl|migrate|--predictive|web"), 2);
    assert_int_equal(count_lines("xl"), 0);
    assert_int_equal(fake_run("xl|migrate|--predictive|--help"), 0);
    CHECK_IN("out", "--max-downtime MS");
    CHECK_IN("xl", "xl|migrate|--help\n");
    assert_int_equal(fake_run("xl|migrate|--predictive|--dump-options"), 0);
    CHECK_IN("out", "--predictive\n--max-downtime\n");
}

#define WHOLE(test)                                                            \
    cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)

int main(int argc, char **argv)
{
    fake_role(argc, argv);
    const struct CMUnitTest tests[] = {
        WHOLE(test_success),
        WHOLE(test_options_over_settings),
        WHOLE(test_exit_status),
        WHOLE(test_killed),
        WHOLE(test_no_daemon),
        WHOLE(test_daemon_refuses),
        WHOLE(test_destination_without),
        WHOLE(test_destination_too_old),
        WHOLE(test_destination_daemon_down),
        WHOLE(test_broken_helper),
        WHOLE(test_leftover),
        WHOLE(test_busy),
        WHOLE(test_retry),
        WHOLE(test_in_band),
        WHOLE(test_in_band_plain),
        WHOLE(test_interrupt),
        WHOLE(test_interrupt_too_late),
        WHOLE(test_interrupt_early),
        WHOLE(test_progress_on_terminal),
        WHOLE(test_dry_run),
        WHOLE(test_usage),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, fake_group_teardown);
}
