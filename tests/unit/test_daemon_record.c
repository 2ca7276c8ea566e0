/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A recording would take bits that a save needs, leave the log on, or give a
 * trace that says what the guest did not do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "client.h"
#include "daemon_kit.h"
#include "document.h"
#include "trace.h"

#define HOT 1000u
#define HOT_PAGES 40u
#define RECORD "{\"cmd\":\"record\",\"domain\":\"guest\",\"interval_ms\":50}"
#define STATUS "{\"cmd\":\"record-status\"}"
#define STOP "{\"cmd\":\"record-stop\"}"

static int sock = -1, file = -1;
static struct json_object *last; /* reply */

static int set_up(void **state)
{
    int rc = kit_guest_setup(state);
    file = memfd_create("trace", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    kit_start();
    sock = kit_connect();
    return rc || file < 0;
}

static int tear_down(void **state)
{
    json_object_put(last);
    last = NULL;
    fc_close(&sock);
    fc_close(&file);
    return kit_guest_teardown(state);
}

/* On the test's connection; the reply stays in `last`. */
static int ask(const char *request, int fd)
{
    struct json_object *o = json_tokener_parse(request);
    json_object_put(last);
    last = NULL;
    int rc = fc_ctl_call(sock, o, &fd, fd >= 0 ? 1 : 0, &last, NULL, 20000);
    json_object_put(o);
    return rc;
}

static int64_t number(const char *key)
{
    assert_int_equal(ask(STATUS, -1), 0);
    return fc_json_int(last, key, -1);
}

static bool is(const char *key)
{
    assert_int_equal(ask(STATUS, -1), 0);
    return fc_json_bool(last, key, 0);
}

static void work(void)
{
    for (uint64_t i = 0; i < HOT_PAGES; i++)
        kit_write(HOT + i, i + 7);
}

static bool log_on(void)
{
    kit_lock();
    bool on = world->domain[0].log_on;
    kit_unlock();
    return on;
}

static uint64_t cleans(void)
{
    kit_lock();
    uint64_t n = world->cleans;
    kit_unlock();
    return n;
}

static void ticks_go_on(void)
{
    int64_t before = number("pages");
    KIT_WAIT(number("pages") >= before + 2 * HOT_PAGES, work());
}

/* The trace is whole and has these and no other pages. */
static void check_trace(int64_t ticks, int64_t pages)
{
    struct fc_trace_problem problem;
    struct fc_trace_record t;
    struct fc_trace *trace;
    int64_t ticks_seen = 0, pages_seen = 0;
    lseek(file, 0, SEEK_SET);
    int rc =
        fc_trace_open_fd(fcntl(file, F_DUPFD_CLOEXEC, 0), &trace, &problem);
    assert_int_equal(rc, 0);
    assert_int_equal(fc_trace_head(trace)->units, KIT_PFNS);
    assert_true(fc_trace_head(trace)->start_s > 1600000000);
    while ((rc = fc_trace_next(trace, &t, &problem)) == 1) {
        ticks_seen += t.type == FC_TRACE_TICK;
        for (uint32_t i = 0; i < t.run_count; i++) {
            assert_true(t.run[i].first >= HOT);
            assert_true(t.run[i].first + t.run[i].count <= HOT + HOT_PAGES);
            pages_seen += (int64_t)t.run[i].count;
        }
    }
    assert_int_equal(rc, 0);
    assert_true(fc_trace_whole(trace));
    fc_trace_close(trace);
    if (ticks >= 0)
        assert_int_equal(ticks_seen, ticks);
    if (pages >= 0)
        assert_int_equal(pages_seen, pages);
}

static void stop_and_check(const char *reason)
{
    assert_int_equal(ask(STOP, -1), 0);
    assert_true(fc_json_bool(last, "ended", 0));
    assert_false(fc_json_bool(last, "failed", 1));
    assert_string_equal(fc_json_str(last, "reason", ""), reason);
    assert_int_equal(fc_json_int(last, "bytes", 0), lseek(file, 0, SEEK_END));
    check_trace(fc_json_int(last, "ticks", -1), fc_json_int(last, "pages", -1));
}

static void test_not_armed(void **state)
{
    (void)state;
    assert_int_equal(ask(RECORD, file), 0);
    assert_false(fc_json_bool(last, "armed", 1));
    assert_string_equal(fc_json_str(last, "name", ""), "guest");
    assert_true(log_on());
    ticks_go_on();
    stop_and_check("stopped");
    assert_int_equal(fc_json_int(last, "interruptions", -1), 0);
    assert_false(log_on());
    char *control = read_document("docs/formats/control.md");
    json_object_object_del(last, "ok");
    assert_documented(last, control, "`", "`");
    free(control);
    assert_int_equal(ask(STATUS, -1), FC_EINVAL);
}

/* Ends that nobody asked for leave a whole trace, and the log off. */
static void test_ends(void **state)
{
    (void)state;
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"guest\","
                         "\"seconds\":1}",
                         file),
                     0);
    KIT_WAIT(is("ended"), work());
    stop_and_check("the time is over");
    assert_false(log_on());

    assert_int_equal(ftruncate(file, 0), 0);
    lseek(file, 0, SEEK_SET);
    assert_int_equal(ask(RECORD, file), 0);
    ticks_go_on();
    fc_close(&sock);
    KIT_WAIT(!log_on(), );
    sock = kit_connect();
    KIT_WAIT(lseek(file, -8, SEEK_END) > 100, );
    assert_int_equal(ask("{\"cmd\":\"version\"}", -1), 0);
    check_trace(-1, -1);

    assert_int_equal(ftruncate(file, 0), 0);
    lseek(file, 0, SEEK_SET);
    KIT_WAIT(ask(RECORD, file) == 0, );
    ticks_go_on();
    kit_remove_domain(0);
    KIT_WAIT(is("ended"), );
    stop_and_check("the domain is gone");

    kit_add_domain(0, 7, "guest", FC_DOMAIN_PVH);
    assert_int_equal(ftruncate(file, 0), 0);
    lseek(file, 0, SEEK_SET);
    assert_int_equal(ask(RECORD, file), 0);
    ticks_go_on();
    assert_int_equal(kit_stop(), 0);
    check_trace(-1, -1);
    assert_false(log_on());
}

/* Not a bit may be taken from another's save. */
static void test_another_save(void **state)
{
    static const char words[] = "libxl-save-helper\0--save-domain\0"
                                "9\0"
                                "10\0"
                                "5\0"
                                "0";
    (void)state;
    assert_int_equal(ask(RECORD, file), 0);
    ticks_go_on();
    kit_process(4242, words, sizeof(words));
    KIT_WAIT(is("blind"), work());
    uint64_t taken = cleans();
    int64_t ticks = number("ticks");
    for (int i = 0; i < 30; i++) {
        work();
        usleep(50000);
    }
    assert_int_equal(cleans(), taken);
    assert_int_equal(number("ticks"), ticks);
    kit_process_ends(4242);
    ticks_go_on();
    stop_and_check("stopped");
    assert_int_equal(fc_json_int(last, "interruptions", -1), 1);
    assert_false(log_on());
}

static void test_migration(void **state)
{
    struct json_object *reply = NULL;
    (void)state;
    assert_int_equal(ask(RECORD, file), 0);
    ticks_go_on();
    int mover = kit_connect();
    assert_int_equal(
        kit_call_fd(mover, &reply, NULL,
                    "{\"cmd\":\"migrate-begin\",\"domain\":\"guest\"}"),
        0);
    json_object_put(reply);
    KIT_WAIT(is("blind"), work());
    uint64_t taken = cleans();
    int64_t ticks = number("ticks");
    for (int i = 0; i < 10; i++) {
        work();
        usleep(50000);
    }
    assert_int_equal(cleans(), taken);
    assert_int_equal(number("ticks"), ticks);
    close(mover);
    ticks_go_on();
    assert_int_equal(number("interruptions"), 1);

    /* stopped in the midst of one: the log is left to it until it ends */
    mover = kit_connect();
    assert_int_equal(
        kit_call_fd(mover, &reply, NULL,
                    "{\"cmd\":\"migrate-begin\",\"domain\":\"guest\"}"),
        0);
    json_object_put(reply);
    stop_and_check("stopped");
    usleep(200000);
    assert_true(log_on());
    close(mover);
    KIT_WAIT(!log_on(), );
}

/* Two samplers of one log would take each other's bits. */
static void test_armed(void **state)
{
    (void)state;
    assert_int_equal(ask(RECORD, file), 0);
    ticks_go_on();
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    ticks_go_on();
    assert_int_equal(number("interruptions"), 1);
    assert_int_equal(kit_ask("{\"cmd\":\"disarm\",\"domain\":\"guest\"}", NULL),
                     0);
    ticks_go_on();
    assert_int_equal(number("interruptions"), 2);
    assert_int_equal(kit_ask(kit_arm_request, NULL), 0);
    ticks_go_on();
    stop_and_check("stopped");
    assert_true(log_on()); /* the armed guest's */

    assert_int_equal(ftruncate(file, 0), 0);
    lseek(file, 0, SEEK_SET);
    assert_int_equal(ask(RECORD, file), 0);
    assert_true(fc_json_bool(last, "armed", 0));
    assert_int_equal(fc_json_int(last, "interval_ms", 0), 1000);
    KIT_WAIT(number("ticks") >= 2, work());
    stop_and_check("stopped");
    assert_int_equal(fc_json_int(last, "interruptions", -1), 0);
    assert_int_equal(kit_ask("{\"cmd\":\"disarm\",\"domain\":\"guest\"}", NULL),
                     0);
    assert_false(log_on());
}

static void test_refusals(void **state)
{
    struct json_object *reply = NULL;
    int ends[2], mover = kit_connect();
    (void)state;
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"old\"}", file),
                     FC_ENOLOG);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "PV guest"));
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"none\"}", file),
                     FC_ENODOM);
    assert_int_equal(ask(RECORD, -1), FC_EINVAL);
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"guest\","
                         "\"interval_ms\":49}",
                         file),
                     FC_EINVAL);
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"guest\","
                         "\"seconds\":99999999}",
                         file),
                     FC_EINVAL);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(ask(RECORD, ends[1]), FC_EINVAL);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "regular"));
    assert_false(log_on());
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(ask(STOP, -1), FC_EINVAL);
    assert_int_equal(
        kit_call_fd(mover, &reply, NULL,
                    "{\"cmd\":\"migrate-begin\",\"domain\":\"guest\"}"),
        0);
    json_object_put(reply);
    assert_int_equal(ask(RECORD, file), FC_EBUSY);
    close(mover);
    KIT_WAIT(ask(RECORD, file) == 0, );
    assert_int_equal(ask(RECORD, file), FC_EBUSY);
    stop_and_check("stopped");
}

static void test_full_file(void **state)
{
    (void)state;
    assert_int_equal(fcntl(file, F_ADD_SEALS, F_SEAL_GROW), 0);
    assert_int_equal(ask(RECORD, file), 0);
    KIT_WAIT(is("ended") && is("failed"), work());
    assert_false(log_on());
    assert_int_equal(ask(STOP, -1), 0);
    assert_true(fc_json_bool(last, "failed", 0));
    assert_non_null(
        strstr(fc_json_str(last, "reason", ""), "cannot write the file"));
}

/* The client in a process of its own, in kit_dir; its output in out. */
static pid_t start_client(const char *line)
{
    char text[256], *argv[16];
    int argc = 1;
    argv[0] = text;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    snprintf(text, sizeof(text), "%s", line);
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " "))
        argv[argc++] = w;
    argv[argc] = NULL;
    struct fc_client_args args;
    if (chdir(kit_dir))
        _exit(99);
    FILE *out = fopen("out", "w"), *err = fopen("err", "w");
    struct fc_client_task task = { .args = &args, .out = out, .err = err };
    int status = fc_client_args_parse(argc, argv, &args, out, err);
    if (status < 0)
        status = fc_client_record(&task);
    fclose(out);
    fclose(err);
    _exit(status);
}

static int status_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

static const char *printed(const char *name)
{
    static char text[1024];
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", kit_dir, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    return text;
}

static void open_recorded(const char *name)
{
    char path[512];
    fc_close(&file);
    snprintf(path, sizeof(path), "%s/%s", kit_dir, name);
    file = open(path, O_RDWR | O_CLOEXEC);
    assert_true(file >= 0);
}

/* ^C must end in a whole trace, and a file that is there must not be lost. */
static void test_client(void **state)
{
    char name[128];
    long long ticks;
    (void)state;
    pid_t pid = start_client("record 5 --interval 50");
    KIT_WAIT(log_on(), );
    uint64_t before = cleans();
    KIT_WAIT(cleans() > before + 3, work());
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(status_of(pid), 0);
    assert_int_equal(
        sscanf(printed("out"), "%127[^:]: %lld ticks,", name, &ticks), 2);
    assert_non_null(strstr(printed("out"), "the log was not interrupted\n"));
    assert_true(!strncmp(name, "guest-20", 8) &&
                !strcmp(name + strlen(name) - 4, ".fct"));
    assert_true(strlen(name) == strlen("guest-YYYYMMDDTHHMMSS.fct"));
    open_recorded(name);
    check_trace(ticks, -1);
    assert_false(log_on());

    char line[200];
    snprintf(line, sizeof(line), "record guest --seconds 1 -o %s", name);
    assert_int_equal(status_of(start_client(line)), 1);
    assert_non_null(strstr(printed("err"), "--force"));
    check_trace(ticks, -1); /* as it was */
    snprintf(line, sizeof(line),
             "record guest --json --seconds 1 --force -o %s", name);
    pid = start_client(line);
    assert_int_equal(status_of(pid), 0);
    struct json_object *o = json_tokener_parse(printed("out"));
    assert_string_equal(fc_json_str(o, "file", ""), name);
    check_trace(fc_json_int(o, "ticks", -1), fc_json_int(o, "pages", -1));
    json_object_put(o);

    /* nothing is left of one that could not begin */
    assert_int_equal(status_of(start_client("record old -o pv.fct")), 1);
    assert_non_null(strstr(printed("err"), "PV guest"));
    snprintf(line, sizeof(line), "%s/pv.fct", kit_dir);
    assert_int_equal(access(line, F_OK), -1);
    assert_int_equal(
        status_of(start_client("record guest --force -o /dev/null")), 1);
    assert_non_null(strstr(printed("err"), "not a regular file"));

    /* the daemon's end is told, and the trace is whole all the same */
    pid = start_client("record guest --interval 50 -o last.fct");
    KIT_WAIT(log_on(), );
    assert_int_equal(kit_stop(), 0);
    assert_int_equal(status_of(pid), 1);
    open_recorded("last.fct");
    check_trace(-1, -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_not_armed), TEST(test_ends),   TEST(test_another_save),
        TEST(test_migration), TEST(test_armed),  TEST(test_refusals),
        TEST(test_full_file), TEST(test_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
