/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "back.h"
#include "err.h"
#include "io.h"
#include "transport.h"

struct feed {
    int fd;
    const uint8_t *bytes;
    size_t len;
};

static void *feed_main(void *user)
{
    struct feed *f = user;
    for (size_t at = 0; at < f->len;) {
        size_t n = 1 + at % 700;
        n = n < f->len - at ? n : f->len - at;
        fc_write_all(f->fd, f->bytes + at, n);
        at += n;
    }
    close(f->fd);
    return NULL;
}

struct sink {
    int fd;
    uint8_t bytes[300000];
    size_t len;
};

static void *sink_main(void *user)
{
    struct sink *s = user;
    ssize_t n;
    while ((n = read(s->fd, s->bytes + s->len, sizeof(s->bytes) - s->len)) > 0)
        s->len += (size_t)n;
    return NULL;
}

static size_t add_frames(uint8_t *p)
{
    size_t len = 0;
    struct fc_back_frame f = { .type = FC_BACK_ACK };
    for (unsigned i = 0; i < 1000; i++) {
        f.value = i;
        len += (size_t)fc_back_encode(&f, p + len, 64);
    }
    f.type = FC_BACK_DONE;
    return len + (size_t)fc_back_encode(&f, p + len, 64);
}

/* xl would get frames, or the helper xl's words, or either would get only a
 * part of its own. */
static void test_relay(void **state)
{
    (void)state;
    static struct sink out, back;
    static uint8_t in[200000], frames[64000];
    int from[2], to[2], sock[2];
    pthread_t threads[3];
    size_t nframes = add_frames(frames), len = 0;
    memcpy(in, "hell\n", 5);
    len = 5;
    memcpy(in + len, frames, nframes);
    len += nframes;
    for (unsigned i = 0; i < 100000; i++)
        in[len++] = (uint8_t)(i % 251);
    assert_int_equal(pipe(from), 0);
    assert_int_equal(pipe(to), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
    struct feed feed = { from[1], in, len };
    out.fd = to[0];
    back.fd = sock[1];
    pthread_create(&threads[0], NULL, feed_main, &feed);
    pthread_create(&threads[1], NULL, sink_main, &out);
    pthread_create(&threads[2], NULL, sink_main, &back);
    assert_int_equal(fc_transport_relay(from[0], to[1], sock[0], NULL, NULL),
                     0);
    close(to[1]);
    close(sock[0]);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(back.len, nframes);
    assert_memory_equal(back.bytes, frames, nframes);
    assert_int_equal(out.len, 100005);
    assert_memory_equal(out.bytes, "hell\n", 5);
    assert_memory_equal(out.bytes + 5, in + 5 + nframes, 100000);
    close(from[0]);
    close(to[0]);
    close(sock[1]);
}

/* A helper that has ended would take xl's own conversation with it. */
static void test_helper_gone(void **state)
{
    (void)state;
    static struct sink out;
    static uint8_t in[64100];
    int from[2], to[2], sock[2];
    pthread_t threads[2];
    size_t len = add_frames(in);
    memcpy(in + len, "ready", 5);
    len += 5;
    assert_int_equal(pipe(from), 0);
    assert_int_equal(pipe(to), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
    close(sock[1]);
    struct feed feed = { from[1], in, len };
    out.fd = to[0];
    pthread_create(&threads[0], NULL, feed_main, &feed);
    pthread_create(&threads[1], NULL, sink_main, &out);
    assert_int_equal(fc_transport_relay(from[0], to[1], sock[0], NULL, NULL),
                     0);
    close(to[1]);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(out.len, 5);
    assert_memory_equal(out.bytes, "ready", 5);
    close(from[0]);
    close(to[0]);
    close(sock[0]);
}

/* A transport whose xl is gone would go on for ever. */
static void test_xl_gone(void **state)
{
    (void)state;
    static uint8_t in[100000];
    int from[2], to[2], sock[2];
    pthread_t thread;
    memset(in, 'x', sizeof(in));
    assert_int_equal(pipe(from), 0);
    assert_int_equal(pipe(to), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
    close(to[0]);
    struct feed feed = { from[1], in, sizeof(in) };
    pthread_create(&thread, NULL, feed_main, &feed);
    assert_int_equal(fc_transport_relay(from[0], to[1], sock[0], NULL, NULL),
                     FC_EIO);
    close(from[0]);
    pthread_join(thread, NULL);
    close(to[1]);
    close(sock[0]);
    close(sock[1]);
}

/* The program as a whole: streams in, statuses and signals through. */
static void test_program(void **state)
{
    (void)state;
    static const struct {
        const char *command;
        int status;
        const char *out;
    } cases[] = {
        { "cat; exit 3", 3, "stream" },
        { "exit 0", 0, "" },
        { "kill -KILL $$", 128 + SIGKILL, "" },
        { "printf '\\000FCB\\006\\000\\000\\000'; cat", 0, "stream" },
        /* descriptors of xl's must not reach the command or stay with us */
        { "ls /proc/self/fd | wc -w | tr -d '\\n'", 0, "4" },
    };
    const char *build = getenv("FC_BUILD");
    char program[300];
    snprintf(program, sizeof(program), "%s/forecopy-transport",
             build ? build : "build");
    if (access(program, X_OK))
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int in[2], out[2], sock[2], status;
        char number[16], got[64] = "";
        assert_int_equal(pipe(in), 0);
        assert_int_equal(pipe(out), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
        snprintf(number, sizeof(number), "%d", sock[0]);
        pid_t pid = fork();
        if (pid == 0) {
            dup2(in[0], 0);
            dup2(out[1], 1);
            close(in[1]);
            close(out[0]);
            execl(program, program, "--back-fd", number, "--", "sh", "-c",
                  cases[i].command, (char *)NULL);
            _exit(99);
        }
        close(in[0]);
        close(out[1]);
        close(sock[0]);
        assert_int_equal(fc_write_all(in[1], "stream", 6), 0);
        close(in[1]);
        size_t len = 0;
        ssize_t n;
        while ((n = read(out[0], got + len, sizeof(got) - 1 - len)) > 0)
            len += (size_t)n;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), cases[i].status);
        assert_string_equal(got, cases[i].out);
        char frame[32];
        n = recv(sock[1], frame, sizeof(frame), MSG_DONTWAIT);
        assert_int_equal(n, i == 3 ? 8 : 0);
        close(out[0]);
        close(sock[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relay),
        cmocka_unit_test(test_helper_gone),
        cmocka_unit_test(test_xl_gone),
        cmocka_unit_test(test_program),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
