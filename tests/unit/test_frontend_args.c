/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "err.h"
#include "frontend_args.h"

#define MAX_WORDS 32

/* Splits at '|', so that words may be empty or hold spaces. */
static int split(char *text, char **argv)
{
    int argc = 0;
    char *rest = text, *word;
    while ((word = strsep(&rest, "|"))) {
        assert_true(argc < MAX_WORDS - 1);
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return argc;
}

static char *join(const char **argv)
{
    char *text = strdup("");
    for (int i = 0; argv[i]; i++) {
        char *longer;
        assert_true(asprintf(&longer, "%s%s%s", text, i ? "|" : "", argv[i]) >=
                    0);
        free(text);
        text = longer;
    }
    return text;
}

static void test_classify(void **state)
{
    /* A command of xl's would be taken for ours, or ours passed by. */
    (void)state;
    static const struct {
        const char *words;
        enum fc_front_command want;
    } cases[] = {
        { "xl", FC_FRONT_OTHER },
        { "xl|list", FC_FRONT_OTHER },
        { "xl|migrate|d|h", FC_FRONT_OTHER },
        { "xl|migrate|--predictive|d|h", FC_FRONT_PREDICTIVE },
        { "xl|migrate|d|h|--predictive", FC_FRONT_PREDICTIVE },
        { "xl|-vvv|-t|migrate|d|--predictive|h", FC_FRONT_PREDICTIVE },
        { "xl|-vT|migrate|-ep|--predictive|d|h", FC_FRONT_PREDICTIVE },
        { "xl|migrate|-s|--predictive|d|h", FC_FRONT_OTHER },
        { "xl|migrate|-C|--predictive|d|h", FC_FRONT_OTHER },
        { "xl|migrate|-es|--predictive|d|h", FC_FRONT_OTHER },
        { "xl|migrate|-sssh|--predictive|d|h", FC_FRONT_PREDICTIVE },
        { "xl|migrate|--|--predictive|h", FC_FRONT_OTHER },
        { "xl|--predictive|migrate", FC_FRONT_OTHER },
        { "xl|-x|migrate|--predictive|d|h", FC_FRONT_OTHER },
        { "xl|remus|--predictive|d|h", FC_FRONT_OTHER },
        { "xl|mig|--predictive|d|h", FC_FRONT_OTHER },
        { "xl|migrate-receive", FC_FRONT_RECEIVE },
        { "xl|-t|migrate-receive|-e|-d", FC_FRONT_RECEIVE },
        { "xl|migrate-r", FC_FRONT_RECEIVE },
        { "xl|migrate-receiver", FC_FRONT_OTHER },
        { "xl|--|migrate-receive", FC_FRONT_RECEIVE },
        { "xl|create|--predictive", FC_FRONT_OTHER },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256], *argv[MAX_WORDS];
        struct fc_front_globals globals;
        snprintf(text, sizeof(text), "%s", cases[i].words);
        int argc = split(text, argv);
        if (fc_front_args_classify(argc, argv, &globals) != cases[i].want)
            fail_msg("%s", cases[i].words);
    }
}

/* The words with '|' parsed; what is written on `err` comes in `message`. */
static int parse(char *text, struct fc_front_args *args, char *message,
                 size_t size)
{
    static char *argv[MAX_WORDS];
    int argc = split(text, argv);
    FILE *err = fmemopen(message, size, "w");
    assert_non_null(err);
    int rc = fc_front_args_parse(argc, argv, args, err);
    fclose(err);
    return rc;
}

static void test_parse_all(void **state)
{
    /* An option would be lost, or take another's value. */
    (void)state;
    char text[] = "xl|-v|migrate|--max-downtime|250|-C|my.cfg|dom|--deadline="
                  "60|--at-deadline|abort|-ep|--fallback|fail|-s|ssh -4|"
                  "--no-stage|--predictive|--json|--report|out.json|--debug|"
                  "-D|--live|host|--dry-run";
    char message[256] = "";
    struct fc_front_args args;

    assert_int_equal(parse(text, &args, message, sizeof(message)), 0);
    assert_int_equal(args.max_downtime_ms, 250);
    assert_int_equal(args.deadline_s, 60);
    assert_int_equal(args.abort_at_deadline, 1);
    assert_int_equal(args.fail_when_plain, 1);
    assert_true(args.no_stage && args.dry_run && args.json);
    assert_false(args.help);
    assert_string_equal(args.report, "out.json");
    assert_string_equal(args.ssh, "ssh -4");
    assert_true(args.no_daemon && args.debug && args.pause);
    assert_string_equal(args.domain, "dom");
    assert_string_equal(args.host, "host");

    const char **argv = fc_front_plain_argv(&args);
    char *joined = join(argv);
    assert_string_equal(joined, "xl|-v|migrate|-C|my.cfg|-e|-p|--debug|-D|"
                                "--live|-s|ssh -4|dom|host");
    free(joined);
    free(argv);
}

static void test_defaults(void **state)
{
    /* Settings would be overridden by options nobody gave. */
    (void)state;
    char text[] = "xl|migrate|--predictive|d|h", message[256] = "";
    struct fc_front_args args;

    assert_int_equal(parse(text, &args, message, sizeof(message)), 0);
    assert_int_equal(args.max_downtime_ms, -1);
    assert_int_equal(args.deadline_s, -1);
    assert_int_equal(args.abort_at_deadline, -1);
    assert_int_equal(args.fail_when_plain, -1);
    assert_string_equal(args.ssh, "ssh");
    assert_null(args.report);

    const char **argv = fc_front_plain_argv(&args);
    char *joined = join(argv);
    assert_string_equal(joined, "xl|migrate|d|h");
    free(joined);
    free(argv);
}

static void test_usage_errors(void **state)
{
    /* A wrong option would migrate a guest in a way nobody asked for. */
    (void)state;
    static const struct {
        const char *words, *says;
    } cases[] = {
        { "xl|migrate|--predictive|d", "got 1 operands" },
        { "xl|migrate|--predictive|d|h|x", "got 3 operands" },
        { "xl|migrate|--predictive|--max-downtime|0|d|h", "--max-downtime" },
        { "xl|migrate|--predictive|--max-downtime|1s|d|h", "\"1s\"" },
        { "xl|migrate|--predictive|--max-downtime|d|h", "\"d\"" },
        { "xl|migrate|--predictive|--deadline|-1|d|h", "--deadline" },
        { "xl|migrate|--predictive|--deadline|86401|d|h", "86400" },
        { "xl|migrate|--predictive|--at-deadline|kill|d|h", "\"kill\"" },
        { "xl|migrate|--predictive|--fallback|no|d|h", "\"no\"" },
        { "xl|migrate|--predictive|--frobnicate|d|h", "unknown" },
        { "xl|migrate|--predictive|-z|d|h", "unknown" },
        { "xl|migrate|--predictive|d|h|--report", "needs an argument" },
        { "xl|migrate|--predictive|d|h|-C", "needs an argument" },
        { "xl|migrate|--predictive|--de|d|h", "ambiguous" },
        { "xl|migrate|--predictive|--lazy-disks|d|h",
          "--lazy-disks needs --with-disks" },
        { "xl|migrate|--predictive|--complete-disks|d|h",
          "--complete-disks needs --with-disks" },
        { "xl|migrate|--predictive|--overwrite-disk|d|h",
          "--overwrite-disk needs --with-disks" },
        { "xl|migrate|--predictive|--with-disks|--lazy-disks|"
          "--complete-disks|d|h",
          "exclude each other" },
        { "xl|migrate|--predictive|--with-disks|-s||d|h", "needs a host" },
        { "xl|migrate|--predictive|--with-disks|-C|x|d|h",
          "--with-disks and -C" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256], message[256] = "";
        struct fc_front_args args;
        snprintf(text, sizeof(text), "%s", cases[i].words);
        assert_int_equal(parse(text, &args, message, sizeof(message)),
                         FC_EINVAL);
        if (!strstr(message, cases[i].says) ||
            strncmp(message, "forecopy: ", 10))
            fail_msg("%s: %s", cases[i].words, message);
    }
}

static void test_disks(void **state)
{
    /* A guest would leave its disks behind, or take them unasked. */
    (void)state;
    static const struct {
        const char *words;
        bool with, lazy, overwrite;
    } cases[] = {
        { "xl|migrate|--predictive|d|h", false, false, false },
        { "xl|migrate|--predictive|--with-disks|d|h", true, false, false },
        { "xl|migrate|--predictive|--with-disks|--complete-disks|d|h", true,
          false, false },
        { "xl|migrate|--lazy-disks|--predictive|--with-disks|d|h", true, true,
          false },
        { "xl|migrate|--predictive|d|h|--overwrite-disk|--with-disks", true,
          false, true },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256], message[256] = "";
        struct fc_front_args args;
        snprintf(text, sizeof(text), "%s", cases[i].words);
        assert_int_equal(parse(text, &args, message, sizeof(message)), 0);
        assert_int_equal(args.with_disks, cases[i].with);
        assert_int_equal(args.lazy_disks, cases[i].lazy);
        assert_int_equal(args.overwrite_disk, cases[i].overwrite);
    }
}

static void test_help_needs_no_operands(void **state)
{
    /* `xl migrate --predictive -h` would complain instead of helping. */
    (void)state;
    char text[] = "xl|migrate|--predictive|-h", message[256] = "";
    struct fc_front_args args;
    assert_int_equal(parse(text, &args, message, sizeof(message)), 0);
    assert_true(args.help);
}

static void check_rune(const char *words, bool tty, const char *want)
{
    char text[256], message[256] = "";
    struct fc_front_args args;
    snprintf(text, sizeof(text), "%s", words);
    assert_int_equal(parse(text, &args, message, sizeof(message)), 0);
    char *rune = fc_front_rune(&args, tty);
    assert_string_equal(rune, want);
    free(rune);
}

static void test_rune(void **state)
{
    /* The receiver would be started otherwise than xl starts it. */
    (void)state;
    check_rune("xl|migrate|--predictive|d|h", false,
               "exec ssh h xl migrate-receive");
    check_rune("xl|migrate|--predictive|d|h", true,
               "exec ssh h xl -t migrate-receive");
    check_rune("xl|-t|migrate|--predictive|d|h", false,
               "exec ssh h xl -t migrate-receive");
    check_rune("xl|-vv|-T|migrate|--predictive|-F|-p|--debug|d|h", false,
               "exec ssh h xl -T -vv migrate-receive -e -d -p");
    check_rune("xl|-vvvvvvv|migrate|--predictive|-s|ssh -p 22|d|root@h", true,
               "exec ssh -p 22 root@h xl -t -vvvv migrate-receive");
    check_rune("xl|-v|migrate|--predictive|-s||d|nc h 99", true, "nc h 99");
}

/* What sh(1) makes of the quoted text must be the text. */
static void check_quote(const char *text)
{
    char *quoted = fc_front_quote(text), *command, got[256];
    assert_true(asprintf(&command, "printf %%s %s", quoted) >= 0);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(got, 1, sizeof(got) - 1, f);
    got[n] = '\0';
    assert_int_equal(pclose(f), 0);
    assert_string_equal(got, text);
    free(command);
    free(quoted);
}

static void test_quote(void **state)
{
    /* A host or a name with a quote in it would run as a command. */
    (void)state;
    check_quote("");
    check_quote("plain");
    check_quote("it's");
    check_quote("''");
    check_quote("a b\n$(reboot)`id`\\\"*?;|&<>#!~");
}

static void test_session_argv(void **state)
{
    /* xl would not run our transport, or the transport not the rune. */
    (void)state;
    char text[] = "xl|-v|migrate|--predictive|-p|-s|sh -c 'echo $1'|d|h";
    char message[256] = "", *word;
    struct fc_front_args args;
    assert_int_equal(parse(text, &args, message, sizeof(message)), 0);

    char *rune = fc_front_rune(&args, false);
    const char **argv =
        fc_front_session_argv(&args, "/x/transport", 9, rune, &word);
    char *joined = join(argv);
    assert_string_equal(
        joined,
        "xl|-v|migrate|-p|-s||d|exec '/x/transport' --back-fd 9 -- sh -c "
        "'exec sh -c '\\''echo $1'\\'' h xl -v migrate-receive -p'");
    free(joined);
    free(argv);
    free(word);
    free(rune);
}

static void test_remote(void **state)
{
    /* A domain's name would be run by the destination's shell. */
    (void)state;
    char text[] = "xl|migrate|--predictive|d|h", message[256] = "";
    struct fc_front_args args;
    assert_int_equal(parse(text, &args, message, sizeof(message)), 0);

    char *command = fc_front_remote(&args, "version --json", NULL);
    assert_string_equal(command, "exec ssh h forecopy version --json");
    free(command);
    command = fc_front_remote(&args, "prepare", "web-1.example");
    assert_string_equal(command,
                        "exec ssh h forecopy prepare --name web-1.example");
    free(command);

    /* once through the local shell, once through the remote one */
    args.ssh = "sh -c 'shift 4; eval printf %s \"$*\"' x";
    command = fc_front_remote(&args, "prepare", "a'b $(id);c");
    FILE *f = popen(command, "r");
    char got[64];
    size_t n = fread(got, 1, sizeof(got) - 1, f);
    got[n] = '\0';
    assert_int_equal(pclose(f), 0);
    assert_string_equal(got, "a'b $(id);c");
    free(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classify),
        cmocka_unit_test(test_parse_all),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_usage_errors),
        cmocka_unit_test(test_disks),
        cmocka_unit_test(test_help_needs_no_operands),
        cmocka_unit_test(test_rune),
        cmocka_unit_test(test_quote),
        cmocka_unit_test(test_session_argv),
        cmocka_unit_test(test_remote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
