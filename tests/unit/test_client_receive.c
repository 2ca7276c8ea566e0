/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <signal.h>
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

#include "channel.h"
#include "client.h"
#include "err.h"
#include "io.h"

#define UUID "00112233-4455-6677-8899-aabbccddeeff"
#define WAIT_MS 10000

static char dir[] = "/tmp/fc-receive-XXXXXX";
static char path[64];

static int listen_here(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    strcpy(addr.sun_path, path);
    unlink(path);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s >= 0);
    assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(s, 1), 0);
    return s;
}

/* `forecopy receive` in a child whose input and output is the channel. */
static pid_t start(int *channel_r)
{
    struct fc_client_args args = { .verb = FC_VERB_RECEIVE,
                                   .operand = { UUID } };
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                     0);
    pid_t pid = fork();
    if (!pid) {
        FILE *err = fopen("/dev/null", "w");
        struct fc_client_task c = { .args = &args, .err = err };
        dup2(pair[1], 0);
        dup2(pair[1], 1);
        close(pair[0]);
        close(pair[1]);
        _exit(fc_client_receive(&c));
    }
    close(pair[1]);
    *channel_r = pair[0];
    return pid;
}

static int status_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Takes the request with its two descriptors; the connection. */
static int accept_request(int server, int fds[2])
{
    char line[512];
    int n;
    assert_int_equal(fc_wait_readable(server, WAIT_MS), 1);
    int s = accept(server, NULL, NULL);
    assert_true(s >= 0);
    ssize_t r = fc_recv_fds(s, line, sizeof(line) - 1, fds, 2, &n);
    assert_true(r > 0);
    line[r] = '\0';
    assert_string_equal(line, "{\"cmd\":\"receive\",\"uuid\":\"" UUID "\"}\n");
    assert_int_equal(n, 2);
    return s;
}

static void expect_error_frame(int channel, const char *part)
{
    uint8_t raw[FC_CHANNEL_HEADER], body[FC_CHANNEL_MAX_TEXT];
    char text[FC_CHANNEL_MAX_TEXT + 1];
    struct fc_channel_head head;
    assert_int_equal(fc_wait_readable(channel, WAIT_MS), 1);
    assert_int_equal(fc_read_exact(channel, raw, sizeof(raw)), 0);
    assert_int_equal(fc_channel_head_parse(raw, &head), 0);
    assert_int_equal(head.type, FC_CHANNEL_ERROR);
    assert_int_equal(fc_read_exact(channel, body, head.length), 0);
    assert_int_equal(fc_channel_check(&head, body), 0);
    assert_int_equal(
        fc_channel_text_parse(FC_CHANNEL_ERROR, body, head.length, NULL, text),
        0);
    assert_non_null(strstr(text, part));
    assert_int_equal(fc_read_exact(channel, raw, 1), FC_EEOF);
}

/* Would break: ssh ends while the keeper still serves, or the channel does not
 * end when the keeper closes it. */
static void channel_is_handed_over(void **state)
{
    (void)state;
    int server = listen_here(), channel, fds[2];
    char text[8];
    pid_t pid = start(&channel);
    int s = accept_request(server, fds);
    assert_int_equal(fc_write_all(channel, "ping", 4), 0);
    assert_int_equal(fc_read_exact(fds[0], text, 4), 0);
    assert_int_equal(fc_write_all(s, "{\"ok\":true}\n", 12), 0);
    assert_int_equal(fc_write_all(fds[1], "pong", 4), 0);
    assert_int_equal(fc_read_exact(channel, text, 4), 0);
    assert_memory_equal(text, "pong", 4);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(fc_wait_readable(channel, WAIT_MS), 1);
    assert_int_equal(read(channel, text, 1), 0);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    close(s);
    assert_int_equal(status_of(pid), 0);
    close(channel);
    close(server);
}

/* Would break: a source is not told why its channel was refused. */
static void refusal_goes_to_the_source(void **state)
{
    (void)state;
    static const char no[] =
        "{\"ok\":false,\"code\":\"FC_ELIMIT\",\"error\":\"store is full\"}\n";
    int server = listen_here(), channel, fds[2];
    pid_t pid = start(&channel);
    int s = accept_request(server, fds);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(fc_write_all(s, no, sizeof(no) - 1), 0);
    expect_error_frame(channel, "store is full");
    assert_int_equal(status_of(pid), 1);
    close(s);
    close(channel);
    close(server);
    unlink(path);

    pid = start(&channel);
    expect_error_frame(channel, "forecopyd does not answer");
    assert_int_equal(status_of(pid), 1);
    close(channel);
}

/* Would break: doctor hangs on a host that does not answer, or misreads how a
 * command ended. */
static void commands_end_in_time(void **state)
{
    (void)state;
    const struct fc_client_world *w = &fc_client_real_world;
    char text[16];
    assert_int_equal(
        w->run(NULL, "echo hello; exit 3", WAIT_MS, text, sizeof(text)), 3);
    assert_string_equal(text, "hello\n");
    assert_int_equal(w->run(NULL, "kill -9 $$", WAIT_MS, text, sizeof(text)),
                     137);
    assert_int_equal(w->run(NULL, "seq 100000", WAIT_MS, text, sizeof(text)),
                     0);
    assert_int_equal(strlen(text), sizeof(text) - 1);
    assert_int_equal(w->run(NULL, "cat", WAIT_MS, text, sizeof(text)), 0);
    uint64_t begin = fc_now_ms();
    assert_int_equal(
        w->run(NULL, "sleep 60 & sleep 60; echo x", 200, text, sizeof(text)),
        FC_ETIMEOUT);
    assert_true(fc_now_ms() - begin < WAIT_MS);
    assert_int_equal(w->read(NULL, "/proc/self/comm", text, sizeof(text)), 0);
    assert_true(strlen(text) > 0);
    assert_int_equal(w->read(NULL, "/nonexistent", text, sizeof(text)), FC_EIO);
    assert_true(w->executable(NULL, "/bin/sh"));
    assert_false(w->executable(NULL, "/etc/passwd"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(channel_is_handed_over),
        cmocka_unit_test(refusal_goes_to_the_source),
        cmocka_unit_test(commands_end_in_time),
    };
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/sock", dir);
    setenv("FORECOPY_SOCKET", path, 1);
    signal(SIGPIPE, SIG_IGN);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    rmdir(dir);
    return rc;
}
