/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "control.h"
#include "err.h"
#include "io.h"

static char dir[64], path[96];
static struct event_base *base;
static struct fc_control *control;
static struct fc_client *waiting; /* a request that is not answered yet */
static int gone_count, got_fd;

/* echo: the same back; later: no answer yet; fd: one of its descriptors back;
 * big: a long reply; close: the end. */
static void request(void *user, struct fc_client *client,
                    struct json_object *req, int fds[FC_CTL_MAX_FDS])
{
    const char *cmd = fc_json_str(req, "cmd", "");
    (void)user;
    got_fd = fds[0];
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "n",
                           json_object_new_int64(fc_json_int(req, "n", 0)));
    if (!strcmp(cmd, "later")) {
        json_object_put(o);
        waiting = client;
    } else if (!strcmp(cmd, "fd")) {
        fc_client_reply(client, o, fds[1]);
        fds[1] = -1;
    } else if (!strcmp(cmd, "big")) {
        char *text = malloc(900001);
        memset(text, 'x', 900000);
        text[900000] = '\0';
        json_object_object_add(o, "text", json_object_new_string(text));
        free(text);
        fc_client_reply(client, o, -1);
    } else if (!strcmp(cmd, "huge")) {
        char *text = malloc(2000001);
        memset(text, 'x', 2000000);
        text[2000000] = '\0';
        json_object_object_add(o, "text", json_object_new_string(text));
        free(text);
        fc_client_reply(client, o, -1);
    } else if (!strcmp(cmd, "close")) {
        fc_client_reply(client, o, -1);
        fc_client_close(client);
    } else if (!strcmp(cmd, "tag")) {
        fc_client_set_tag(client, 42);
        fc_client_reply(client, o, -1);
    } else {
        fc_client_reply(client, o, -1);
    }
}

static void gone(void *user, struct fc_client *client)
{
    (void)user;
    if (client == waiting)
        waiting = NULL;
    gone_count++;
}

static const struct fc_control_handler handler = { request, gone };

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/fc-ctl-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/sock", dir);
    base = event_base_new();
    waiting = NULL;
    gone_count = 0;
    return fc_control_new(base, path, &handler, NULL, &control);
}

static int teardown(void **state)
{
    (void)state;
    fc_control_free(control);
    event_base_free(base);
    assert_int_equal(access(path, F_OK), -1);
    return rmdir(dir);
}

static void spin(void)
{
    const struct timeval tv = { 0, 20000 };
    event_base_loopexit(base, &tv);
    event_base_dispatch(base);
}

static int dial(void)
{
    int sock = fc_ctl_connect(path, 1000);
    assert_true(sock >= 0);
    fc_set_nonblock(sock, 1);
    return sock;
}

/* What the server has said, or "EOF". */
static const char *hear(int sock)
{
    static char text[4096];
    spin();
    ssize_t r = read(sock, text, sizeof(text) - 1);
    if (r == 0 || (r < 0 && errno == ECONNRESET))
        return "EOF";
    text[r > 0 ? r : 0] = '\0';
    return text;
}

static void say(int sock, const char *text)
{
    assert_int_equal(write(sock, text, strlen(text)), strlen(text));
}

/* One line in, one line out, in order, however the bytes arrive. */
static void test_lines(void **state)
{
    int sock = dial();
    (void)state;
    say(sock, "{\"cmd\":\"ec");
    assert_string_equal(hear(sock), "");
    say(sock, "ho\",\"n\":1}\n{\"cmd\":\"echo\",\"n\":2}\n{\"cmd\"");
    const char *text = hear(sock);
    char *first = strstr(text, "\"n\":1"), *second = strstr(text, "\"n\":2");
    assert_non_null(first);
    assert_non_null(second);
    assert_true(first < second);
    say(sock, ":\"echo\",\"n\":3}\n");
    assert_non_null(strstr(hear(sock), "\"n\":3"));
    say(sock, "nonsense\n");
    assert_non_null(strstr(hear(sock), "FC_EFORMAT"));
    say(sock, "{\"cmd\":\"echo\",\"n\":4}\n"); /* the connection lives */
    assert_non_null(strstr(hear(sock), "\"n\":4"));
    close(sock);
    spin();
    assert_int_equal(gone_count, 1);
    assert_int_equal(fc_control_clients(control), 0);
}

/* A request that takes its time must hold back the next, and nobody else. */
static void test_later(void **state)
{
    int slow = dial(), quick = dial();
    (void)state;
    say(slow, "{\"cmd\":\"later\"}\n{\"cmd\":\"echo\",\"n\":7}\n");
    assert_string_equal(hear(slow), "");
    say(quick, "{\"cmd\":\"echo\",\"n\":1}\n");
    assert_non_null(strstr(hear(quick), "\"n\":1"));
    assert_non_null(waiting);
    fc_client_fail(waiting, FC_EBUSY, "not %s", "now");
    const char *text = hear(slow);
    assert_non_null(strstr(text, "FC_EBUSY"));
    assert_non_null(strstr(text, "not now"));
    assert_non_null(strstr(text, "\"n\":7"));
    /* one that leaves before its answer */
    say(slow, "{\"cmd\":\"later\"}\n");
    spin();
    assert_non_null(waiting);
    close(slow);
    spin();
    assert_null(waiting);
    close(quick);
}

/* Descriptors go with their line, both ways, and none is lost. */
static void test_descriptors(void **state)
{
    int sock = dial(), fds[2], back[2], n, pair[2];
    char text[256], byte;
    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pipe(pair), 0);
    int give[2] = { pair[0], fds[1] };
    static const char line[] = "{\"cmd\":\"fd\"}\n";
    assert_true(fc_send_fds(sock, line, strlen(line), give, 2) > 0);
    spin();
    assert_true(got_fd >= 0);
    assert_true(fc_recv_fds(sock, text, sizeof(text), back, 2, &n) > 0);
    assert_int_equal(n, 1);
    assert_int_equal(write(back[0], "!", 1), 1);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    close(back[0]);
    /* the server kept none */
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 0);
    say(sock, "{\"cmd\":\"echo\"}\n");
    spin();
    assert_int_equal(got_fd, -1);
    close(fds[0]);
    close(pair[0]);
    close(pair[1]);
    close(sock);
}

/* No client may make the server grow, or others wait. */
static void test_limits(void **state)
{
    static char junk[FC_CTL_MAX_LINE + 1];
    int socks[FC_CONTROL_CLIENTS + 1];
    (void)state;
    int sock = dial();
    memset(junk, 'a', sizeof(junk));
    ssize_t sent = write(sock, junk, sizeof(junk));
    assert_true(sent > 0);
    assert_string_equal(hear(sock), "EOF");
    close(sock);
    for (unsigned i = 0; i <= FC_CONTROL_CLIENTS; i++) {
        socks[i] = dial();
        spin();
    }
    assert_int_equal(fc_control_clients(control), FC_CONTROL_CLIENTS);
    assert_string_equal(hear(socks[FC_CONTROL_CLIENTS]), "EOF");
    for (unsigned i = 0; i <= FC_CONTROL_CLIENTS; i++)
        close(socks[i]);
    spin();
    assert_int_equal(fc_control_clients(control), 0);
}

/* A reply longer than a socket's buffer arrives whole; one beyond the limit
 * costs the connection. */
static void test_long_replies(void **state)
{
    int sock = dial();
    size_t total = 0;
    char buf[65536];
    (void)state;
    say(sock, "{\"cmd\":\"big\"}\n{\"cmd\":\"echo\",\"n\":8}\n");
    for (int i = 0; i < 100; i++) {
        const struct timeval tv = { 0, 2000 };
        event_base_loopexit(base, &tv);
        event_base_dispatch(base);
        ssize_t r = read(sock, buf, sizeof(buf));
        total += r > 0 ? (size_t)r : 0;
    }
    assert_true(total > 900000 && total < 900200);
    say(sock, "{\"cmd\":\"huge\"}\n");
    assert_string_equal(hear(sock), "EOF");
    close(sock);
}

/* Ending a connection from our side, and finding clients by their tags. */
static void test_close(void **state)
{
    int sock = dial();
    (void)state;
    say(sock, "{\"cmd\":\"tag\"}\n");
    assert_non_null(strstr(hear(sock), "true"));
    struct fc_client *c = fc_control_by_tag(control, 42);
    assert_non_null(c);
    assert_null(fc_control_by_tag(control, 43));
    fc_client_close(c);
    assert_string_equal(hear(sock), "EOF");
    close(sock);
    sock = dial();
    say(sock, "{\"cmd\":\"close\",\"n\":5}\n{\"cmd\":\"echo\"}\n");
    spin();
    assert_non_null(strstr(hear(sock), "\"n\":5"));
    assert_string_equal(hear(sock), "EOF");
    close(sock);
}

/* Two servers at one path would split the clients; a dead one's socket must
 * not keep the next from starting. */
static void test_path(void **state)
{
    struct fc_control *second;
    struct stat st;
    (void)state;
    assert_int_equal(fc_control_new(base, path, &handler, NULL, &second),
                     FC_EBUSY);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    fc_control_free(control);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    strcpy(addr.sun_path, path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(dead);
    assert_int_equal(fc_control_new(base, path, &handler, NULL, &control), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lines),  TEST(test_later),        TEST(test_descriptors),
        TEST(test_limits), TEST(test_long_replies), TEST(test_close),
        TEST(test_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
