/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest would be started on disks that are not its own, or its disks stay
 * held after a migration that failed. */
#include "front_fake.h"

#define ID "00112233445566778899aabbccddeeff"
#define BEGUN                                                                  \
    "{\"ok\":true,\"migration\":\"" ID "\",\"disks\":["                        \
    "{\"vdev\":\"xvda\",\"size\":1073741824,\"copy_bytes\":268435456,"         \
    "\"volume\":\"is created\"},"                                              \
    "{\"vdev\":\"xvdb\",\"size\":1073741824,\"copy_bytes\":0}]}\n"
#define STATUS(state, left, rest)                                              \
    "{\"ok\":true,\"state\":\"" state "\",\"total_bytes\":2147483648,"         \
    "\"remaining_bytes\":" left                                                \
    ",\"rate_bps\":2097152,\"dirty_bps\":1048576" rest "}\n"
#define PREPARING STATUS("preparing", "2147483648", "")
#define COPYING STATUS("copying", "1073741824", "")
#define CONVERGED STATUS("converged", "1048576", "")
#define LEASED(left)                                                           \
    STATUS("leased", left,                                                     \
           ",\"sent_bytes\":104857600,\"sent_blocks\":4096,"                   \
           "\"zero_bytes\":1073741824,\"fence_ms\":120")

static char remote[PATH_MAX + 8];

static const char *with_disks(const char *options)
{
    static char words[PATH_MAX + 128];
    snprintf(remote, sizeof(remote), "sh %s", fake_path("remote"));
    snprintf(words, sizeof(words),
             "xl|migrate|--predictive|--with-disks|-s|%s%s%s|web|h2", remote,
             *options ? "|" : "", options);
    return words;
}

static int setup(void **state)
{
    fake_setup(state);
    fake_write("reply-disk-begin", BEGUN, 0600);
    fake_write("reply-disk-status", CONVERGED LEASED("0"), 0600);
    fake_write("reply-disk-end", "{\"ok\":true}", 0600);
    return 0;
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

#define ENDED(success)                                                         \
    "{\"cmd\":\"disk-end\",\"migration\":\"" ID "\",\"success\":" success "}"

/* Not a migration of any kind; one line says why. */
static void check_refused(const char *options, const char *says, int line)
{
    int status = fake_run(with_disks(options));
    if (status != 1 || count_lines("xl"))
        fail_msg("line %d: status %d, xl was %srun", line, status,
                 count_lines("xl") ? "" : "not ");
    fake_check("err", says, line);
    fake_check("err",
               "; not migrating, the guest goes on here: its disks cannot go "
               "by plain xl\n",
               line);
}
#define REFUSED(options, says) check_refused(options, says, __LINE__)

static void test_success(void **state)
{
    /* The disks would not be asked for, or after the guest has gone. */
    (void)state;
    char report[PATH_MAX + 32];
    snprintf(report, sizeof(report), "--report|%s", fake_path("report"));
    fake_write("reply-disk-status", PREPARING COPYING CONVERGED LEASED("0"),
               0600);
    assert_int_equal(fake_run(with_disks(report)), 0);

    CHECK_IN("requests", "{\"cmd\":\"disk-begin\",\"domain\":\"" FAKE_UUID
                         "\",\"host\":\"h2\",\"mode\":\"complete\","
                         "\"overwrite\":false}\n");
    CHECK_IN("requests", ENDED("true"));
    CHECK_IN("environment", "disks=" ID " blocked=0\n");
    char *asked = fake_read("requests");
    const char *const order[] = {
        "h2 forecopy prepare", "disk-begin", "disk-status",
        "migrate-begin",       "disk-end",   "migrate-end"
    };
    char *at = asked;
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        at = strstr(at, order[i]);
        if (!at)
            fail_msg("no %s in its place: %s", order[i], asked);
    }
    free(asked);

    CHECK_IN("err", "forecopy: disks preparing, 0%, 2.0 GiB to go, 2.0 MiB/s, "
                    "written 1.0 MiB/s, 34 min 8 s left\n");
    CHECK_IN("err", "forecopy: disks copying, 50%, 1.0 GiB to go");
    CHECK_IN("err", "forecopy: disks converged, 99%");
    CHECK_IN("err", "forecopy: disks: 100.0 MiB sent for 2.0 GiB in 4096 "
                    "blocks, 1.0 GiB zero or never written, copied in ");
    CHECK_IN("err", ", held for the hand-over for 120 ms\n");
    assert_false(fake_has("err", "follow from here"));
    CHECK_IN("report", "\"mode\":\"complete\"");
    CHECK_IN("report", "\"outcome\":\"moved\"");
    CHECK_IN("report", "\"size_bytes\":2147483648");
    CHECK_IN("report", "\"sent_blocks\":4096");
    CHECK_IN("report", "\"fence_ms\":120");
}

static void test_lazy(void **state)
{
    /* Somebody would switch the host off that still has half of the disks. */
    (void)state;
    fake_write("reply-disk-status", CONVERGED LEASED("3145728"), 0600);
    assert_int_equal(fake_run(with_disks("--lazy-disks|--overwrite-disk")), 0);
    CHECK_IN("requests", "\"mode\":\"lazy\",\"overwrite\":true}\n");
    CHECK_IN("err", "forecopy: 3.0 MiB of the disks follow from here: keep "
                    "this host and its forecopyd up until `forecopy disks "
                    "web` at h2 shows that all is there\n");
}

static void test_without(void **state)
{
    /* Migrations without disks would change. */
    (void)state;
    setenv("FORECOPY_DISK_MIGRATION", ID, 1);
    char words[PATH_MAX + 128];
    snprintf(words, sizeof(words), "xl|migrate|--predictive|-s|sh %s|web|h2",
             fake_path("remote"));
    assert_int_equal(fake_run(words), 0);
    unsetenv("FORECOPY_DISK_MIGRATION");
    assert_false(fake_has("requests", "disk-"));
    CHECK_IN("environment", "disks=none blocked=0\n");
    assert_false(fake_has("err", "disks"));
}

static void test_sparing(void **state)
{
    /* A log would fill with progress. */
    (void)state;
    fake_write("reply-disk-status",
               COPYING STATUS("copying", "1000000000", "")
                   STATUS("copying", "900000000", "")
                       STATUS("copying", "10000000", "") CONVERGED LEASED("0"),
               0600);
    assert_int_equal(fake_run(with_disks("")), 0);
    CHECK_IN("err", "disks copying, 50%");
    assert_false(fake_has("err", "disks copying, 53%"));
    assert_false(fake_has("err", "disks copying, 58%"));
    CHECK_IN("err", "disks copying, 99%");
    assert_int_equal(count_lines("err"), 4);
}

static void test_stalled(void **state)
{
    /* Nobody would see why nothing gets on. */
    (void)state;
    fake_write("reply-disk-status",
               COPYING STATUS("copying", "1073741824",
                              ",\"reason\":\"no\\u001b channel\"")
                   COPYING CONVERGED LEASED("0"),
               0600);
    assert_int_equal(fake_run(with_disks("")), 0);
    CHECK_IN("err", "disks copying, 50%, 1.0 GiB to go, 2.0 MiB/s, written "
                    "1.0 MiB/s, no? channel\n");
    assert_int_equal(count_lines("err"), 5);
}

static void test_terminal(void **state)
{
    /* It would not be seen. */
    (void)state;
    fake_write("reply-disk-status", COPYING CONVERGED LEASED("0"), 0600);
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master) | unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_int_equal(fake_wait(fake_start(with_disks(""), slave)), 0);

    char text[4096];
    ssize_t n = read(master, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "\rforecopy: disks copying, 50%, "));
    assert_non_null(strstr(text, "\033[K\r\rforecopy: disks converged"));
    assert_non_null(strstr(text, "\r\033[K"));
    close(slave);
    close(master);
}

/* ---- before anything is begun -------------------------------------------- */

static void test_usage(void **state)
{
    (void)state;
    assert_int_equal(fake_run("xl|migrate|--predictive|--lazy-disks|web|h2"),
                     2);
    CHECK_IN("err", "forecopy: --lazy-disks needs --with-disks\n");
    assert_false(fake_has("requests", "cmd"));
    assert_int_equal(count_lines("xl"), 0);
}

static void test_no_daemon(void **state)
{
    /* xl would start the guest on whatever disk has that name over there. */
    (void)state;
    fake_daemon_stop();
    REFUSED("", "forecopy: forecopyd does not answer (");
    assert_int_equal(count_lines("err"), 1);
}

static void test_no_helper(void **state)
{
    (void)state;
    setenv("FAKE_SELF_TEST", "1", 1);
    REFUSED("", "fails its self-test");
    assert_false(fake_has("requests", "disk-begin"));
    assert_int_equal(count_lines("err"), 1);
}

static void test_destination_without(void **state)
{
    (void)state;
    fake_write("remote", "exit 127\n", 0700);
    REFUSED("", "forecopy: h2 has no forecopy; ");
    assert_false(fake_has("requests", "disk-begin"));
    assert_int_equal(count_lines("err"), 1);
}

static void test_begin_refused(void **state)
{
    (void)state;
    fake_write("reply-disk-begin",
               "{\"ok\":false,\"code\":\"FC_EPEER\",\"error\":\"h2: "
               "/dev/vg/web\\u001b holds something else\"}",
               0600);
    REFUSED("", "forecopy: forecopyd: h2: /dev/vg/web? holds something else");
    assert_false(fake_has("requests", "disk-status"));
    assert_int_equal(count_lines("err"), 1);
}

static void test_begin_nonsense(void **state)
{
    (void)state;
    static const char *const replies[] = {
        "{\"ok\":true,\"migration\":\"" ID "\"}",
        "{\"ok\":true,\"migration\":\"" ID "\",\"disks\":7}",
        "{\"ok\":true,\"migration\":\"" ID "\",\"disks\":[]}",
        "{\"ok\":true,\"disks\":[{}]}",
        "{\"ok\":true,\"disks\":[{}],\"migration\":\"" ID "0\"}",
        "{\"ok\":true,\"disks\":[{}],\"migration\":\"0011223344556677889"
        "9aabbccddeef \"}",
        "nonsense",
        "!close",
    };
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        fake_write("reply-disk-begin", replies[i], 0600);
        REFUSED("", "forecopy: forecopyd");
        assert_false(fake_has("requests", "disk-status"));
        assert_int_equal(count_lines("err"), 1);
    }
}

/* ---- while they are copied ----------------------------------------------- */

static void test_copy_failed(void **state)
{
    (void)state;
    fake_write("reply-disk-status",
               COPYING STATUS("failed", "5", ",\"reason\":\"h2: no space\""),
               0600);
    REFUSED("", "forecopy: copying the disks failed: h2: no space; ");
    CHECK_IN("requests", ENDED("false"));
    assert_false(fake_has("requests", "migrate-begin"));
}

static void test_copy_nonsense(void **state)
{
    /* Disks that are said to be gone already would be handed over. */
    (void)state;
    fake_write("reply-disk-status", LEASED("0"), 0600);
    REFUSED("", "says that the disks are \"leased\" before");
    CHECK_IN("requests", ENDED("false"));
    fake_write("reply-disk-status", "{\"ok\":true}", 0600);
    REFUSED("", "says that the disks are \"?\" before");
}

static void test_copy_daemon_dies(void **state)
{
    /* With its connection the daemon has let the disks go. */
    (void)state;
    fake_write("reply-disk-status", COPYING "!close\n" CONVERGED, 0600);
    REFUSED("", "forecopy: forecopyd does not answer; ");
    CHECK_IN("requests", ENDED("false"));

    unlink(fake_path("requests"));
    fake_write("reply-disk-status", COPYING "!die\n", 0600);
    REFUSED("", "forecopy: forecopyd does not answer; ");
    assert_int_equal(count_lines("err"), 2);
}

static void test_copy_interrupted(void **state)
{
    /* ^C would kill us without a word, or do nothing. */
    (void)state;
    fake_write("reply-disk-status", COPYING "!mark " COPYING, 0600);
    pid_t pid = fake_start(with_disks(""), -1);
    fake_wait_mark();
    kill(pid, SIGINT);
    assert_int_equal(fake_wait(pid), 130);
    CHECK_IN("err", "forecopy: stopping; the guest goes on here\n");
    CHECK_IN("requests", ENDED("false"));
    assert_int_equal(count_lines("xl"), 0);
}

static void test_deadline(void **state)
{
    /* A guest that writes faster than the link would never end; or be stopped
     * for hours. 1 GiB is left at 2 MiB/s. */
    (void)state;
    fake_write("reply-disk-status", COPYING, 0600);
    REFUSED("--deadline|1", "forecopy: deadline: 1.0 GiB of the disks are "
                            "still to be copied; ");
    CHECK_IN("requests", ENDED("false"));
    REFUSED("--deadline|1|--at-deadline|abort|--lazy-disks",
            "forecopy: deadline: ");

    assert_int_equal(fake_run(with_disks("--deadline|1|--lazy-disks")), 0);
    CHECK_IN("err", "forecopy: deadline: going on with 1.0 GiB of the disks "
                    "still to copy\n");
    CHECK_IN("session", "250 1 0 0 1 ");
    fake_write("reply-disk-status", STATUS("copying", "4194304", ""), 0600);
    assert_int_equal(fake_run(with_disks("--deadline|1")), 0);
    CHECK_IN("err", "going on with 4.0 MiB");
}

static void test_begin_memory_refused(void **state)
{
    /* The disks would stay in the engine's hands. */
    (void)state;
    fake_write("reply-migrate-begin",
               "{\"ok\":false,\"code\":\"FC_ENOLOG\",\"error\":\"no log\"}",
               0600);
    REFUSED("", "forecopy: forecopyd: no log; ");
    CHECK_IN("requests", ENDED("false"));

    unlink(fake_path("requests"));
    fake_write("reply-migrate-begin",
               "{\"ok\":false,\"code\":\"FC_EBUSY\",\"error\":\"migrating\"}",
               0600);
    assert_int_equal(fake_run(with_disks("")), 1);
    CHECK_IN("requests", ENDED("false"));
    assert_int_equal(count_lines("xl"), 0);
}

/* ---- while and after xl runs --------------------------------------------- */

static void test_xl_fails(void **state)
{
    /* The disks would not come back with the guest. */
    (void)state;
    fake_write("status", "3", 0600);
    fake_write("reply-disk-status", CONVERGED CONVERGED, 0600);
    assert_int_equal(fake_run(with_disks("--json")), 3);
    CHECK_IN("requests", ENDED("false"));
    CHECK_IN("out", "\"outcome\":\"kept\"");

    /* resumed after the disks were handed over: its name says that it is
     * here */
    unlink(fake_path("requests"));
    fake_write("reply-disk-status", CONVERGED LEASED("0"), 0600);
    assert_int_equal(fake_run(with_disks("")), 3);
    CHECK_IN("requests", ENDED("false"));
}

static void test_xl_breaks_off(void **state)
{
    /* The disks would be taken from a guest that runs over there. */
    (void)state;
    char *here = fake_read("reply-status"), away[1024];
    char *name = strstr(here, "\"web\"");
    assert_non_null(name);
    snprintf(away, sizeof(away), "%s\n%.*s\"web--migratedaway\"%s", here,
             (int)(name - here), here, name + 5);
    fake_write("reply-status", away, 0600);
    free(here);
    fake_write("status", "1", 0600);
    assert_int_equal(fake_run(with_disks("--json")), 1);
    CHECK_IN("requests", "\"success\":false,\"unknown\":true}");
    CHECK_IN("err", "forecopy: xl broke off after the disks were handed over "
                    "to h2, and they stay handed over; ");
    CHECK_IN("out", "\"outcome\":\"unknown\"");

    /* likewise when only the lease's acknowledgement is missing */
    fake_write("reply-disk-status",
               CONVERGED STATUS("failed", "0", ",\"passed\":true"), 0600);
    unlink(fake_path("requests"));
    assert_int_equal(fake_run(with_disks("")), 1);
    CHECK_IN("requests", "\"success\":false,\"unknown\":true}");

    /* not handed over: they are here whatever the name */
    unlink(fake_path("requests"));
    fake_write("reply-disk-status", CONVERGED CONVERGED, 0600);
    assert_int_equal(fake_run(with_disks("")), 1);
    CHECK_IN("requests", ENDED("false"));
}

static void test_not_retried(void **state)
{
    /* A fault of the helper's would send the guest without its disks. */
    (void)state;
    fake_write("status", "1", 0600);
    fake_write("reply-disk-status", CONVERGED CONVERGED, 0600);
    fake_write("events",
               "{\"event\":\"failed\",\"fault\":\"ours\","
               "\"reason\":\"out of memory\"}\n",
               0600);
    assert_int_equal(fake_run(with_disks("")), 1);
    assert_int_equal(count_lines("xl"), 2);
    CHECK_IN("requests", ENDED("false"));
}

static void test_daemon_restarted(void **state)
{
    /* A daemon that was started again would not learn how it ended. */
    (void)state;
    fake_write("reply-disk-status", CONVERGED "!close\n" LEASED("0"), 0600);
    assert_int_equal(fake_run(with_disks("")), 0);
    CHECK_IN("requests", ENDED("true"));
    CHECK_IN("err", "forecopy: disks: 100.0 MiB sent");
}

static void test_daemon_gone(void **state)
{
    /* Nobody would say that nothing is known. */
    (void)state;
    fake_write("reply-disk-status", CONVERGED "!die\n", 0600);
    fake_write("status", "1", 0600);
    assert_int_equal(fake_run(with_disks("")), 1);
    CHECK_IN("err", "forecopy: who has the disks is not known: forecopyd does "
                    "not answer");
    CHECK_IN("err", "the end of the disks' migration could not be told: ");
}

static void test_interrupted_late(void **state)
{
    /* A late ^C would leave disk-end unsaid. */
    (void)state;
    fake_write("events", "{\"event\":\"suspended\"}\n!mark\n!pause\n", 0600);
    pid_t pid = fake_start(with_disks(""), -1);
    fake_wait_mark();
    kill(pid, SIGTERM);
    assert_int_equal(fake_wait(pid), 0);
    CHECK_IN("err", "forecopy: too late to stop");
    CHECK_IN("requests", ENDED("true"));
}

/* With the real transport, and a receiver that says what xl's does. */
static int run_with_transport(void)
{
    char program[PATH_MAX], before[PATH_MAX];
    const char *build = getenv("FC_BUILD");
    snprintf(program, sizeof(program), "%s/forecopy-transport",
             build ? build : "build");
    if (access(program, X_OK))
        skip();
    fake_write("remote",
               "case \"$*\" in *migrate-receive*)\n"
               "printf 'xl migration receiver ready, send binary domain "
               "data.\\n'\n"
               "printf 'domain received, ready to unpause\\000' ;;\n"
               "*) echo '{\"ok\":true,\"protocol\":1}' ;; esac\n",
               0700);
    snprintf(before, sizeof(before), "%s", getenv("FORECOPY_TRANSPORT"));
    setenv("FORECOPY_TRANSPORT", program, 1);
    setenv("FAKE_RUNE", "1", 1);
    int status = fake_run(with_disks(""));
    setenv("FORECOPY_TRANSPORT", before, 1);
    return status;
}

static void test_flip(void **state)
{
    /* The parts would not fit: the guest goes over without its disks, or never
     * does. */
    (void)state;
    fake_write("reply-disk-flip", "{\"ok\":true}", 0600);
    assert_int_equal(run_with_transport(), 0);
    CHECK_IN("requests",
             "{\"cmd\":\"disk-flip\",\"migration\":\"" ID "\",\"timeout_ms\":");
    CHECK_IN("out", "domain received, ready to unpause");
    CHECK_IN("requests", ENDED("true"));
}

static void test_flip_refused(void **state)
{
    (void)state;
    fake_write("reply-disk-flip", "{\"ok\":false,\"error\":\"no link\"}", 0600);
    fake_write("reply-disk-status", CONVERGED CONVERGED, 0600);
    assert_int_equal(run_with_transport(), 1);
    assert_false(fake_has("out", "domain received"));
    CHECK_IN("err", "forecopy: the disks were not handed over: forecopyd: no "
                    "link; the guest stays here\n");
    CHECK_IN("requests", ENDED("false"));
}

/* ---- dry run ---------------------------------------------------------------
 */

static void test_dry_run(void **state)
{
    /* A dry run would begin, or promise what is impossible. */
    (void)state;
    assert_int_equal(fake_run(with_disks("--dry-run")), 0);
    CHECK_IN("requests", "\"overwrite\":false,\"dry_run\":true}\n");
    CHECK_IN("out", "disk:            xvda, 1.0 GiB, 256.0 MiB to copy; "
                    "volume there: is created\n");
    CHECK_IN("out", "disk:            xvdb, 1.0 GiB, 0 B to copy; volume "
                    "there: not known\n");
    CHECK_IN("out", "disks:           256.0 MiB to copy, all of it before the "
                    "hand-over\n");
    assert_false(fake_has("requests", "disk-status"));
    assert_false(fake_has("requests", "disk-end"));
    assert_false(fake_has("requests", "prepare"));

    assert_int_equal(fake_run(with_disks("--dry-run|--json")), 0);
    CHECK_IN("out", "\"copy_bytes\":268435456");

    fake_write("reply-disk-begin",
               "{\"ok\":false,\"error\":\"web has no disk of ours\"}", 0600);
    assert_int_equal(fake_run(with_disks("--dry-run|--lazy-disks")), 1);
    CHECK_IN("out", "impossible: forecopyd: web has no disk of ours\n");
    assert_false(fake_has("out", "disks:  "));
    assert_int_equal(count_lines("xl"), 0);
}

#define WHOLE(test) cmocka_unit_test_setup_teardown(test, setup, fake_teardown)

int main(int argc, char **argv)
{
    fake_role(argc, argv);
    const struct CMUnitTest tests[] = {
        WHOLE(test_success),
        WHOLE(test_lazy),
        WHOLE(test_without),
        WHOLE(test_sparing),
        WHOLE(test_stalled),
        WHOLE(test_terminal),
        WHOLE(test_usage),
        WHOLE(test_no_daemon),
        WHOLE(test_no_helper),
        WHOLE(test_destination_without),
        WHOLE(test_begin_refused),
        WHOLE(test_begin_nonsense),
        WHOLE(test_copy_failed),
        WHOLE(test_copy_nonsense),
        WHOLE(test_copy_daemon_dies),
        WHOLE(test_copy_interrupted),
        WHOLE(test_deadline),
        WHOLE(test_begin_memory_refused),
        WHOLE(test_xl_fails),
        WHOLE(test_xl_breaks_off),
        WHOLE(test_not_retried),
        WHOLE(test_daemon_restarted),
        WHOLE(test_daemon_gone),
        WHOLE(test_interrupted_late),
        WHOLE(test_flip),
        WHOLE(test_flip_refused),
        WHOLE(test_dry_run),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, fake_group_teardown);
}
