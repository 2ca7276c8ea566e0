/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ctl.h"
#include "err.h"
#include "io.h"

/* Would break: a client sends the daemon into deep recursion or past a line's
 * end. */
static void lines_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *line, *why;
    } cases[] = {
        { "{\"cmd\":\"version\"}", NULL },
        { "{}", NULL },
        { "{\"a\":[[[[[[1]]]]]]}", NULL },
        { "{\"a\":[[[[[[[[1]]]]]]]]}", "nested too deeply" },
        { "[1]", "not an object" },
        { "1", "incomplete JSON" },
        { "", "incomplete JSON" },
        { "{\"cmd\":", "incomplete JSON" },
        { "{} {}", "" },
        { "{}x", "" },
        { "{a:1}", "" },
        { "{\"a\":\"\xff\xfe\"}", "" },
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *why = "unset";
        struct json_object *o =
            fc_ctl_parse(cases[i].line, strlen(cases[i].line), &why);
        if (!cases[i].why) {
            assert_non_null(o);
            assert_null(why);
        } else {
            assert_null(o);
            assert_non_null(why);
            if (*cases[i].why)
                assert_string_equal(why, cases[i].why);
        }
        json_object_put(o);
    }
    assert_null(fc_ctl_parse("{\0}", 3, NULL));
}

/* Would break: a value of the wrong type crashes whoever asks for it. */
static void accessors_fall_back(void **state)
{
    (void)state;
    static const char text[] = "{\"s\":\"x\",\"i\":-7,\"d\":1.5,\"b\":true,"
                               "\"n\":null,\"a\":[],\"nan\":NaN}";
    struct json_object *o = fc_ctl_parse(text, strlen(text), NULL);
    static const char *const keys[] = { "s", "i", "d", "b", "n", "a", "none" };
    assert_non_null(o);
    for (unsigned i = 0; i < 7; i++) {
        assert_string_equal(fc_json_str(o, keys[i], "f"), i == 0 ? "x" : "f");
        assert_int_equal(fc_json_int(o, keys[i], 3), i == 1 ? -7 : 3);
        assert_int_equal(fc_json_bool(o, keys[i], 2), i == 3 ? 1 : 2);
    }
    assert_true(fc_json_double(o, "i", 0) < -6.9);
    assert_true(fc_json_double(o, "d", 0) > 1.4);
    assert_true(fc_json_double(o, "s", 4) > 3.9);
    assert_true(fc_json_double(o, "nan", 4) > 3.9);
    assert_string_equal(fc_json_str(NULL, "s", "f"), "f");
    json_object_put(o);
}

/* Would break: a refusal loses its reason on the way. */
static void codes_have_names(void **state)
{
    (void)state;
    assert_int_equal(fc_ctl_code("FC_ENODOM"), FC_ENODOM);
    assert_int_equal(fc_ctl_code("FC_ESYS"), FC_ESYS);
    assert_int_equal(fc_ctl_code("FC_EUNKNOWN"), FC_EPEER);
    assert_int_equal(fc_ctl_code(""), FC_EPEER);
}

struct server {
    int sock;
    pid_t pid;
};

/* A child that answers one request with these bytes in pieces, and descriptors
 * with the first. `expect`: what the request must be. */
static struct server serve(const char *expect, const char *answer, int nfds)
{
    int pair[2], fds[4] = { 0, 0, 0, 0 }, got[4], n = 0;
    char line[FC_CTL_MAX_LINE];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct server s = { .sock = pair[0], .pid = fork() };
    if (s.pid) {
        close(pair[1]);
        return s;
    }
    close(pair[0]);
    ssize_t r = fc_recv_fds(pair[1], line, sizeof(line), got, 4, &n);
    if (r != (ssize_t)strlen(expect) || memcmp(line, expect, (size_t)r))
        _exit(1);
    if (n && write(got[0], "hello", 5) != 5)
        _exit(2);
    for (size_t i = 0; i < strlen(answer); i += 7) {
        size_t len = strlen(answer + i);
        if (fc_send_fds(pair[1], answer + i, len < 7 ? len : 7, fds,
                        i ? 0 : nfds) < 0)
            break; /* the client has seen enough */
    }
    _exit(0);
}

static void served(struct server *s)
{
    int status;
    close(s->sock);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    assert_int_equal(status, 0);
}

static struct json_object *request(const char *cmd)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "cmd", json_object_new_string(cmd));
    return o;
}

static int call(struct server *s, struct json_object **reply_r, int *fds_r)
{
    struct json_object *o = request("x");
    int rc = fc_ctl_call(s->sock, o, NULL, 0, reply_r, fds_r, 3000);
    json_object_put(o);
    return rc;
}

/* Would break: the client takes half an answer, or none, for a whole one. */
static void replies_are_whole_lines(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int rc;
    } cases[] = {
        { "{\"ok\":true,\"pages\":5,\"more\":\"and more\"}\n", 0 },
        { "{\"ok\":false,\"code\":\"FC_ENODOM\",\"error\":\"none\"}\n",
          FC_ENODOM },
        { "{\"ok\":false,\"code\":\"FC_OK\",\"error\":\"odd\"}\n", FC_EPEER },
        { "{\"pages\":5}\n", FC_EPEER },
        { "{\"ok\":true}", FC_EDAEMON },
        { "", FC_EDAEMON },
        { "{\"ok\":true}\n{\"ok\":true}\n", FC_EFORMAT },
        { "what?\n", FC_EFORMAT },
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json_object *reply;
        struct server s = serve("{\"cmd\":\"x\"}\n", cases[i].answer, 0);
        assert_int_equal(call(&s, &reply, NULL), cases[i].rc);
        if (i == 0)
            assert_int_equal(fc_json_int(reply, "pages", 0), 5);
        if (i == 1)
            assert_string_equal(fc_json_str(reply, "error", ""), "none");
        json_object_put(reply);
        served(&s);
    }
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Would break: descriptors in either direction get lost or leak. */
static void descriptors_travel(void **state)
{
    (void)state;
    struct json_object *reply, *o = request("x");
    int p[2], fds[FC_CTL_MAX_FDS];
    char text[6] = "";
    unsigned before = open_fds();
    assert_int_equal(pipe(p), 0);
    struct server s = serve("{\"cmd\":\"x\"}\n", "{\"ok\":true}\n", 2);
    assert_int_equal(fc_ctl_call(s.sock, o, &p[1], 1, &reply, fds, 3000), 0);
    assert_int_equal(read(p[0], text, 5), 5);
    assert_string_equal(text, "hello");
    assert_true(fds[0] >= 0 && fds[1] >= 0);
    assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    json_object_put(reply);
    served(&s);
    close(fds[0]);
    close(fds[1]);

    s = serve("{\"cmd\":\"x\"}\n", "{\"ok\":true}\n", 4);
    assert_int_equal(fc_ctl_call(s.sock, o, NULL, 0, &reply, NULL, 3000), 0);
    json_object_put(reply);
    served(&s);
    close(p[0]);
    close(p[1]);
    assert_int_equal(open_fds(), before);
    json_object_put(o);
}

/* Would break: a hung daemon hangs every command. */
static void silence_ends_the_call(void **state)
{
    (void)state;
    struct json_object *reply, *o = request("x");
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(fc_ctl_call(pair[0], o, NULL, 0, &reply, NULL, 50),
                     FC_EDAEMON);
    assert_int_equal(errno, ETIMEDOUT);
    assert_null(reply);
    static char big[FC_CTL_MAX_LINE];
    memset(big, 'x', sizeof(big));
    json_object_object_add(o, "value",
                           json_object_new_string_len(big, sizeof(big)));
    assert_int_equal(fc_ctl_call(pair[0], o, NULL, 0, &reply, NULL, 50),
                     FC_ETOOBIG);
    json_object_put(o);
    close(pair[0]);
    close(pair[1]);
}

/* Would break: with no daemon a command waits instead of saying so. */
static void connecting_to_nobody_fails_at_once(void **state)
{
    (void)state;
    char dir[] = "/tmp/fc-ctl-XXXXXX", path[64], longer[200];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    uint64_t start = fc_now_ms();
    assert_int_equal(fc_ctl_connect(path, 60000), FC_EDAEMON);
    assert_int_equal(errno, ENOENT);
    assert_true(fc_now_ms() - start < 50000); /* it did not wait */
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(fc_ctl_connect(longer, 5000), FC_EDAEMON);

    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    strcpy(addr.sun_path, path);
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(server, 4), 0);
    setenv("FORECOPY_SOCKET", path, 1);
    int fd = fc_ctl_connect(NULL, 1000);
    assert_true(fd >= 0);
    assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
    close(fd);
    unsetenv("FORECOPY_SOCKET");
    close(server);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_checked),
        cmocka_unit_test(accessors_fall_back),
        cmocka_unit_test(codes_have_names),
        cmocka_unit_test(replies_are_whole_lines),
        cmocka_unit_test(descriptors_travel),
        cmocka_unit_test(silence_ends_the_call),
        cmocka_unit_test(connecting_to_nobody_fails_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
