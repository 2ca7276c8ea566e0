/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The trace of a disk would miss requests, have some twice, or hide that some
 * were not seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "blockbatch.h"
#include "blocktrace.h"
#include "daemon_kit.h"
#include "document.h"
#include "trace.h"

/*
 * forecopy-block is played by a script: its n-th call says what batches.n
 * holds, and at the end of its input what tail.n holds.
 */
#define SECTORS 4096u
#define RECORD                                                                 \
    "{\"cmd\":\"record\",\"domain\":\"guest\",\"disk\":\"\",\"seconds\":3600}"
#define STATUS "{\"cmd\":\"record-status\"}"
#define STOP "{\"cmd\":\"record-stop\"}"

static int sock = -1, file = -1;
static struct json_object *last; /* reply */
static uint64_t begin_us;        /* of the requests' time */
static uint8_t frame[FC_BLOCKBATCH_FRAME];

static void add_backend(const char *name, const char *device)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/bus", kit_sys);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/bus/xen-backend", kit_sys);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices", kit_sys);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices/%s", kit_sys,
             name);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices/%s/%s", kit_sys,
             name, "physical_device");
    kit_file(path, device, strlen(device));
}

static void remove_backend(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices/%s/%s", kit_sys,
             name, "physical_device");
    unlink(path);
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices/%s", kit_sys,
             name);
    rmdir(path);
}

static FILE *open_file(const char *name, unsigned call)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s.%u", kit_dir, name, call);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    return f;
}

static void put(FILE *f, size_t len)
{
    assert_true(len > 0);
    assert_int_equal(fwrite(frame, 1, len, f), len);
}

/* One request: `at` microseconds after the beginning. */
static void put_request(FILE *f, uint32_t device, uint64_t lost, uint64_t at,
                        uint64_t sector, enum fc_blockbatch_op op)
{
    const struct fc_blockbatch_request q = { begin_us + at, sector, 8, op };
    put(f, fc_blockbatch_put_requests(frame, device, lost, 1, &q));
}

/* What the n-th child says at its start, and the file for more. */
static FILE *make_start(unsigned call, uint32_t devices)
{
    struct fc_blockbatch_start start = { .extent_bytes = FC_BLOCKTRACE_EXTENT,
                                         .interval_ms = FC_BLOCKTRACE_TICK_MS,
                                         .means = FC_BLOCKBATCH_TRACEFS,
                                         .requests = true,
                                         .devices = devices };
    for (uint32_t i = 0; i < devices; i++)
        start.device[i] = (struct fc_blockbatch_device){ 254, 10 + i, SECTORS };
    FILE *f = open_file("batches", call);
    put(f, fc_blockbatch_put_start(frame, &start));
    return f;
}

static void make_tail(unsigned call, uint64_t lost)
{
    FILE *f = open_file("tail", call);
    put(f, fc_blockbatch_put_end(frame, lost, 0));
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    char script[512];
    kit_setup();
    snprintf(kit_sys, sizeof(kit_sys), "%s/sys", kit_dir);
    snprintf(kit_tool, sizeof(kit_tool), "%s/block", kit_dir);
    mkdir(kit_sys, 0700);
    snprintf(script, sizeof(script),
             "#!/bin/sh\ncd %s || exit 1\necho \"$*\" >>called\n"
             "n=$(wc -l <called)\ncat batches.$n || exit 1\ncat >in.$n\n"
             "cat tail.$n\n",
             kit_dir);
    kit_file(kit_tool, script, strlen(script));
    kit_add_domain(0, 7, "guest", FC_DOMAIN_PV);
    add_backend("vbd-7-51712", "fe:a\n");
    /* requests are after the recording's beginning, however slow this is */
    begin_us = fc_now_ns() / 1000 + 1800ull * 1000000;
    file = memfd_create("trace", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    kit_start();
    sock = kit_connect();
    return file < 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_object_put(last);
    last = NULL;
    fc_close(&sock);
    fc_close(&file);
    kit_teardown();
    return 0;
}

/* On the test's connection; the reply stays in `last`. */
static int ask(const char *request, int fd)
{
    struct json_object *o = json_tokener_parse(request);
    json_object_put(last);
    last = NULL;
    int rc = fc_ctl_call(sock, o, &fd, fd >= 0 ? 1 : 0, &last, NULL, 60000);
    json_object_put(o);
    return rc;
}

static int64_t number(const char *key)
{
    assert_int_equal(ask(STATUS, -1), 0);
    return fc_json_int(last, key, -1);
}

struct seen {
    unsigned count;
    uint64_t sector[8], time_us[8];
    enum fc_trace_type type[8];
};

/* The trace is whole; its requests. */
static struct seen read_trace(void)
{
    struct fc_trace_problem problem;
    struct fc_trace_record t;
    struct fc_trace *trace;
    struct seen s = { 0 };
    lseek(file, 0, SEEK_SET);
    int rc =
        fc_trace_open_fd(fcntl(file, F_DUPFD_CLOEXEC, 0), &trace, &problem);
    assert_int_equal(rc, 0);
    assert_int_equal(fc_trace_head(trace)->kind, FC_TRACE_BLOCK);
    assert_int_equal(fc_trace_head(trace)->unit_shift, 9);
    assert_int_equal(fc_trace_head(trace)->units, SECTORS);
    assert_true(fc_trace_head(trace)->start_s > 1600000000);
    while ((rc = fc_trace_next(trace, &t, &problem)) == 1) {
        assert_true(s.count < 8);
        assert_int_equal(t.run_count, 1);
        assert_int_equal(t.run[0].count, 8);
        s.sector[s.count] = t.run[0].first;
        s.time_us[s.count] = t.time_us;
        s.type[s.count++] = t.type;
    }
    assert_int_equal(rc, 0);
    assert_true(fc_trace_whole(trace));
    fc_trace_close(trace);
    return s;
}

static void assert_called(const char *word, bool there)
{
    char path[160], text[2048] = "";
    snprintf(path, sizeof(path), "%s/called", kit_dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char line[512];
    while (fgets(line, sizeof(line), f))
        snprintf(text, sizeof(text), "%s", line);
    fclose(f);
    if ((strstr(text, word) != NULL) != there)
        fail_msg("%s is%s in: %s", word, there ? " not" : "", text);
}

/* forecopy-eval takes it for a disk's, with so many requests. */
static void assert_evaluated(unsigned requests)
{
    char command[256], line[512] = "", kind[16] = "";
    unsigned found = 0;
    const char *build = getenv("FC_BUILD") ? getenv("FC_BUILD") : "build";
    snprintf(command, sizeof(command), "%s/forecopy-eval info /proc/%d/fd/%d",
             build, getpid(), file);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    /* a heading, then: name, kind, MiB, ticks, requests */
    for (unsigned i = 0; i < 2 && fgets(line, sizeof(line), p); i++)
        sscanf(line, "%*s %15s %*s %*s %u", kind, &found);
    if (pclose(p) || strcmp(kind, "block") || found != requests)
        fail_msg("%s: %s", command, line);
}

/* What the child has until it is told to end, and what it says then. */
static void test_whole(void **state)
{
    (void)state;
    FILE *f = make_start(1, 1);
    put_request(f, 0, 0, 0, 100, FC_BLOCKBATCH_READ);
    put_request(f, 0, 5, 10, 4088, FC_BLOCKBATCH_WRITE);
    fclose(f);
    f = open_file("tail", 1);
    put_request(f, 0, 5, 4000000, 0, FC_BLOCKBATCH_DISCARD);
    put_request(f, 0, 5, 3600000001ull, 8, FC_BLOCKBATCH_READ); /* too late */
    put(f, fc_blockbatch_put_end(frame, 6, 4));
    fclose(f);
    assert_int_equal(ask(RECORD, file), 0);
    assert_string_equal(fc_json_str(last, "vdev", ""), "xvda");
    assert_string_equal(fc_json_str(last, "method", ""), "tracefs");
    assert_called("--requests", true);
    KIT_WAIT(number("requests") == 2, );
    assert_int_equal(fc_json_int(last, "lost", -1), 5);
    assert_false(fc_json_bool(last, "blind", 1));
    assert_int_equal(ask(STOP, -1), 0);
    assert_true(fc_json_bool(last, "ended", 0));
    assert_false(fc_json_bool(last, "failed", 1));
    assert_int_equal(fc_json_int(last, "interruptions", -1), 0);
    assert_int_equal(fc_json_int(last, "requests", -1), 3);
    assert_int_equal(fc_json_int(last, "lost", -1), 6);
    assert_int_equal(fc_json_int(last, "bytes", 0), lseek(file, 0, SEEK_END));
    char *control = read_document("docs/formats/control.md");
    json_object_object_del(last, "ok");
    assert_documented(last, control, "`", "`");
    free(control);
    struct seen s = read_trace();
    assert_int_equal(s.count, 3);
    assert_int_equal(s.sector[0], 100);
    assert_int_equal(s.type[0], FC_TRACE_READ);
    assert_int_equal(s.sector[1], 4088);
    assert_int_equal(s.type[1], FC_TRACE_WRITE);
    assert_int_equal(s.time_us[1], s.time_us[0] + 10);
    assert_int_equal(s.sector[2], 0);
    assert_int_equal(s.type[2], FC_TRACE_DISCARD);
    assert_evaluated(3);
    assert_int_equal(ask(STATUS, -1), FC_EINVAL);
}

/* Another child goes on: what is older than the newest is not taken twice, and
 * the break is told. */
static void test_goes_on(void **state)
{
    (void)state;
    FILE *f = make_start(1, 1);
    put_request(f, 0, 0, 0, 100, FC_BLOCKBATCH_READ);
    put_request(f, 0, 1, 50, 200, FC_BLOCKBATCH_READ);
    fclose(f);
    make_tail(1, 1);
    f = make_start(2, 2);
    /* the new disk is first in the list, and not the one that is recorded */
    put_request(f, 0, 0, 60, 300, FC_BLOCKBATCH_READ);
    put_request(f, 1, 2, 40, 200, FC_BLOCKBATCH_READ);
    put_request(f, 1, 2, 70, 400, FC_BLOCKBATCH_WRITE);
    fclose(f);
    make_tail(2, 2);
    assert_int_equal(ask(RECORD, file), 0);
    KIT_WAIT(number("requests") == 2, );
    add_backend("vbd-7-51728", "fe:b\n");
    KIT_WAIT(number("requests") == 3, );
    KIT_WAIT(number("interruptions") == 1, );
    assert_int_equal(number("lost"), 1 + 2 + 1);
    KIT_WAIT(!fc_json_bool(last, "blind", 1), number("lost"));
    assert_int_equal(ask(STOP, -1), 0);
    assert_false(fc_json_bool(last, "failed", 1));
    struct seen s = read_trace();
    assert_int_equal(s.count, 3);
    assert_int_equal(s.sector[1], 200);
    assert_int_equal(s.sector[2], 400);
    assert_int_equal(s.time_us[2], s.time_us[0] + 70);
}

/* The disk's end, or the end of whoever asked, leaves a whole trace. */
static void test_ends(void **state)
{
    (void)state;
    FILE *f = make_start(1, 1);
    put_request(f, 0, 0, 0, 100, FC_BLOCKBATCH_READ);
    fclose(f);
    make_tail(1, 0);
    assert_int_equal(ask(RECORD, file), 0);
    KIT_WAIT(number("requests") == 1, );
    kit_remove_domain(0);
    KIT_WAIT(number("bytes") > 0 && fc_json_bool(last, "ended", 0), );
    assert_string_equal(fc_json_str(last, "reason", ""), "the domain is gone");
    assert_int_equal(ask(STOP, -1), 0);
    assert_int_equal(read_trace().count, 1);

    kit_add_domain(0, 7, "guest", FC_DOMAIN_PV);
    f = make_start(2, 1);
    put_request(f, 0, 0, 0, 100, FC_BLOCKBATCH_READ);
    fclose(f);
    make_tail(2, 0);
    assert_int_equal(ftruncate(file, 0), 0);
    lseek(file, 0, SEEK_SET);
    assert_int_equal(ask(RECORD, file), 0);
    KIT_WAIT(number("requests") == 1, );
    assert_int_equal(kit_stop(), 0);
    assert_int_equal(read_trace().count, 1);
}

/* What people see of it. */
static void test_client(void **state)
{
    char command[512], text[512] = "";
    const char *build = getenv("FC_BUILD") ? getenv("FC_BUILD") : "build";
    (void)state;
    begin_us = 0; /* before the recording began: at its beginning */
    FILE *f = make_start(1, 1);
    put_request(f, 0, 0, 1, 100, FC_BLOCKBATCH_READ);
    put_request(f, 0, 5, 2, 4088, FC_BLOCKBATCH_WRITE);
    fclose(f);
    make_tail(1, 5);
    snprintf(command, sizeof(command),
             "%s/forecopy record guest --disk=xvda --seconds 1 -o %s/disk.fct "
             "2>&1",
             build, kit_dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(text, 1, sizeof(text) - 1, p);
    text[n] = '\0';
    assert_int_equal(pclose(p), 0);
    if (!strstr(text, "disk.fct: 2 requests of xvda by tracefs, 0.0 s, ") ||
        !strstr(text, "; 5 events lost; tracing was not interrupted\n"))
        fail_msg("%s", text);
    snprintf(command, sizeof(command), "%s/disk.fct", kit_dir);
    fc_close(&file);
    file = open(command, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read_trace().count, 2);
}

static void test_refusals(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"guest\","
                         "\"disk\":\"xvdb\"}",
                         file),
                     FC_ENOENT);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "no disk xvdb"));
    add_backend("vbd-7-51728", "fe:b\n");
    assert_int_equal(ask(RECORD, file), FC_EINVAL);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "several"));
    remove_backend("vbd-7-51728");
    assert_int_equal(ask("{\"cmd\":\"record\",\"domain\":\"guest\","
                         "\"disk\":\"0123456789abcdef\"}",
                         file),
                     FC_EINVAL);
    /* there is no batches.1: the child cannot trace */
    assert_int_equal(ask(RECORD, file), FC_ESYS);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "cannot be traced"));
    assert_int_equal(ask(STATUS, -1), FC_EINVAL);
    assert_int_equal(kit_ask("{\"cmd\":\"set\",\"key\":\"block_trace\","
                             "\"value\":\"off\"}",
                             NULL),
                     0);
    assert_int_equal(ask(RECORD, file), FC_ENOENT);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "block_trace"));
    assert_int_equal(kit_ask("{\"cmd\":\"set\",\"key\":\"block_trace\","
                             "\"value\":\"auto\"}",
                             NULL),
                     0);
    fclose(make_start(2, 1));
    make_tail(2, 0);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(ask(RECORD, ends[1]), FC_EINVAL);
    assert_non_null(strstr(fc_json_str(last, "error", ""), "regular"));
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
