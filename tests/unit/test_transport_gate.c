/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest would be handed over without its disks, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "back.h"
#include "err.h"
#include "io.h"
#include "transport.h"
#include "transport_gate.h"

#define BANNER "xl migration receiver ready, send binary domain data.\n"
#define READY "domain received, ready to unpause"
#define REPORT "my copy unpause results are as follows"
/* as xl writes them: the banner without its zero byte, the rest with it */
static const char talk[] = BANNER READY "\0" REPORT "\0\0";
#define BANNER_LEN (sizeof(BANNER) - 1)
#define READY_END (BANNER_LEN + sizeof(READY))
#define TALK_LEN (sizeof(talk) - 1)

struct seen {
    struct fc_gate gate;
    char out[256];
    size_t len, len_at_flip;
    unsigned flips;
    int answer;
};

static void pass(void *user, const void *bytes, size_t len)
{
    struct seen *s = user;
    assert_true(s->len + len <= sizeof(s->out));
    memcpy(s->out + s->len, bytes, len);
    s->len += len;
}

static int flip(void *user)
{
    struct seen *s = user;
    s->flips++;
    s->len_at_flip = s->len;
    return s->answer;
}

static void start(struct seen *s, int answer)
{
    *s = (struct seen){ .answer = answer };
    s->gate.pass = pass;
    s->gate.flip = flip;
    s->gate.user = s;
}

static void check_all_through(const struct seen *s)
{
    assert_int_equal(s->flips, 1);
    assert_int_equal(s->len_at_flip, BANNER_LEN);
    assert_int_equal(s->len, TALK_LEN);
    assert_memory_equal(s->out, talk, TALK_LEN);
}

static void test_split_anywhere(void **state)
{
    /* A message that comes in two pieces would slip through. */
    (void)state;
    struct seen s;
    for (size_t at = 0; at <= TALK_LEN; at++) {
        start(&s, 0);
        assert_int_equal(fc_gate_feed(&s.gate, talk, at), 0);
        assert_int_equal(s.flips, at >= READY_END);
        if (at < READY_END)
            assert_true(s.len <= BANNER_LEN);
        assert_int_equal(fc_gate_feed(&s.gate, talk + at, TALK_LEN - at), 0);
        check_all_through(&s);
    }
    start(&s, 0);
    for (size_t at = 0; at < TALK_LEN; at++)
        assert_int_equal(fc_gate_feed(&s.gate, talk + at, 1), 0);
    check_all_through(&s);
}

static void test_refused(void **state)
{
    /* xl would start the guest over there, its disks still here. */
    (void)state;
    for (size_t at = 0; at <= TALK_LEN; at++) {
        struct seen s;
        start(&s, FC_EPEER);
        fc_gate_feed(&s.gate, talk, at);
        assert_int_equal(fc_gate_feed(&s.gate, talk + at, TALK_LEN - at),
                         at < TALK_LEN || at >= READY_END ? FC_EPEER : 0);
        assert_int_equal(fc_gate_feed(&s.gate, talk, TALK_LEN), FC_EPEER);
        assert_int_equal(s.flips, 1);
        assert_int_equal(s.len, BANNER_LEN);
    }
}

static void test_other_words(void **state)
{
    /* An xl that speaks otherwise would agree with its like behind the gate's
     * back. */
    (void)state;
    for (size_t at = 0; at < READY_END; at++) {
        char text[TALK_LEN];
        struct seen s;
        memcpy(text, talk, TALK_LEN);
        text[at] ^= 1;
        start(&s, 0);
        assert_int_equal(fc_gate_feed(&s.gate, text, TALK_LEN), FC_EFORMAT);
        assert_int_equal(fc_gate_feed(&s.gate, talk, TALK_LEN), FC_EFORMAT);
        assert_int_equal(s.flips, 0);
        assert_int_equal(s.len, at < BANNER_LEN ? at : BANNER_LEN);
        assert_memory_equal(s.out, talk, s.len);
    }
}

static void test_garbage(void **state)
{
    /* xl would resume the guest at the garbage while the disks go over at the
     * message that follows. */
    (void)state;
    enum { LOTS = 1 << 20 };
    char *text = malloc(LOTS);
    struct seen s;
    memset(text, 'd', LOTS);

    start(&s, 0);
    assert_int_equal(fc_gate_feed(&s.gate, text, LOTS), FC_EFORMAT);
    assert_int_equal(fc_gate_feed(&s.gate, talk, TALK_LEN), FC_EFORMAT);
    assert_int_equal(s.len, 0);

    /* likewise between the banner and the message: all d's begin like it */
    start(&s, 0);
    assert_int_equal(fc_gate_feed(&s.gate, BANNER, BANNER_LEN), 0);
    assert_int_equal(fc_gate_feed(&s.gate, text, LOTS), FC_EFORMAT);
    assert_int_equal(fc_gate_feed(&s.gate, READY, sizeof(READY)), FC_EFORMAT);
    assert_int_equal(s.len, BANNER_LEN);
    assert_int_equal(s.flips, 0);
    free(text);
}

/* ---- with frames, through the relay -------------------------------------- */

struct pipes {
    int from[2], to[2], back[2];
};

static int count_flip(void *user)
{
    unsigned *flips = user;
    ++*flips;
    return 0;
}

static size_t frame(uint8_t *out, enum fc_back_type type)
{
    struct fc_back_frame f = { .type = type, .value = 7 };
    return (size_t)fc_back_encode(&f, out, 64);
}

static void test_among_frames(void **state)
{
    /* Frames before the message would hide it. */
    (void)state;
    uint8_t in[600];
    size_t len = BANNER_LEN;
    memcpy(in, BANNER, len);
    for (int i = 0; i < 5; i++)
        len += frame(in + len, FC_BACK_ACK);
    for (int done = 0; done < 2; done++) {
        size_t all = len;
        if (done)
            all += frame(in + all, FC_BACK_DONE);
        memcpy(in + all, talk + BANNER_LEN, TALK_LEN - BANNER_LEN);
        all += TALK_LEN - BANNER_LEN;
        for (size_t at = 1; at < all; at++) {
            struct pipes p;
            char out[256];
            unsigned flips = 0;
            assert_int_equal(pipe(p.from) | pipe(p.to), 0);
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p.back), 0);
            pid_t writer = fork();
            if (!writer) {
                fc_write_all(p.from[1], in, at);
                sched_yield();
                fc_write_all(p.from[1], in + at, all - at);
                _exit(0);
            }
            close(p.from[1]);
            assert_int_equal(fc_transport_relay(p.from[0], p.to[1], p.back[0],
                                                count_flip, &flips),
                             0);
            assert_int_equal(flips, 1);
            assert_int_equal(read(p.to[0], out, sizeof(out)), TALK_LEN);
            assert_memory_equal(out, talk, TALK_LEN);
            waitpid(writer, NULL, 0);
            close(p.from[0]);
            close(p.to[0]);
            close(p.to[1]);
            close(p.back[0]);
            close(p.back[1]);
        }
    }
}

static void test_xl_gone(void **state)
{
    /* The disks would go over without a guest: xl has died meanwhile. */
    (void)state;
    struct pipes p;
    unsigned flips = 0;
    assert_int_equal(pipe(p.from) | pipe(p.to), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p.back), 0);
    fc_write_all(p.from[1], talk, BANNER_LEN);
    pid_t reader = fork();
    if (!reader) {
        char got[BANNER_LEN];
        close(p.to[1]);
        _exit(read(p.to[0], got, sizeof(got)) == (ssize_t)sizeof(got) ? 0 : 1);
    }
    close(p.to[0]);
    pid_t writer = fork();
    if (!writer) {
        int status;
        close(p.from[0]);
        close(p.to[1]);
        /* the message comes once the reader is gone */
        while (!kill(reader, 0))
            usleep(1000);
        status = fc_write_all(p.from[1], READY, sizeof(READY)) < 0;
        _exit(status);
    }
    close(p.from[1]);
    /* a parent has to collect the reader for kill() to see it gone */
    pid_t relay = fork();
    if (!relay) {
        int rc = fc_transport_relay(p.from[0], p.to[1], p.back[0], count_flip,
                                    &flips);
        _exit(rc == FC_EIO && !flips ? 0 : 1);
    }
    close(p.to[1]);
    close(p.from[0]);
    int status;
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_int_equal(status, 0);
    assert_int_equal(waitpid(relay, &status, 0), relay);
    assert_int_equal(status, 0);
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_int_equal(status, 0);
    close(p.back[0]);
    close(p.back[1]);
}

/* ---- the program, and a daemon that answers as told ---------------------- */

#define ID "00112233445566778899aabbccddeeff"

struct daemon {
    char dir[64], sock[100], log[100];
    pid_t pid;
};

/* `answers`: one a connection, split at '|'; "!close" breaks it off, "!hang"
 * says nothing. The last one stays. */
static void daemon_main(int sock, const char *log, char *answers)
{
    for (;;) {
        char line[4096];
        size_t len = 0;
        int client = accept(sock, NULL, NULL);
        while (len < sizeof(line) - 1 && read(client, line + len, 1) == 1 &&
               line[len++] != '\n')
            ;
        FILE *f = fopen(log, "a");
        fprintf(f, "%.*s", (int)len, line);
        fclose(f);
        char *rest = strchr(answers, '|');
        size_t n = rest ? (size_t)(rest - answers) : strlen(answers);
        if (!strncmp(answers, "!hang", 5))
            pause();
        if (strncmp(answers, "!close", 6)) {
            fc_write_all(client, answers, n);
            fc_write_all(client, "\n", 1);
        }
        close(client);
        if (rest)
            answers = rest + 1;
    }
}

static void daemon_start(struct daemon *d, const char *answers)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    strcpy(d->dir, "/tmp/test-gate-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    snprintf(d->sock, sizeof(d->sock), "%s/sock", d->dir);
    snprintf(d->log, sizeof(d->log), "%s/log", d->dir);
    setenv("FORECOPY_SOCKET", d->sock, 1);
    d->pid = 0;
    if (!answers)
        return;
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", d->sock);
    assert_int_equal(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(sock, 8), 0);
    d->pid = fork();
    if (!d->pid)
        daemon_main(sock, d->log, strdup(answers));
    close(sock);
}

static unsigned daemon_stop(struct daemon *d)
{
    unsigned asked = 0;
    if (d->pid > 0) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, NULL, 0);
    }
    FILE *f = fopen(d->log, "r");
    char line[4096];
    while (f && fgets(line, sizeof(line), f)) {
        assert_non_null(strstr(line, "\"cmd\":\"disk-flip\""));
        assert_non_null(strstr(line, "\"migration\":\"" ID "\""));
        assert_non_null(strstr(line, "\"timeout_ms\":"));
        asked++;
    }
    if (f)
        fclose(f);
    unlink(d->log);
    unlink(d->sock);
    rmdir(d->dir);
    return asked;
}

static const char *program(void)
{
    static char path[300];
    const char *build = getenv("FC_BUILD");
    snprintf(path, sizeof(path), "%s/forecopy-transport",
             build ? build : "build");
    return path;
}

/* What a receiver says and then, if it may, hears from xl. */
#define RECEIVER                                                               \
    "printf '" BANNER "'; printf '" READY "\\000'; read go; printf '" REPORT   \
    "\\000\\000'"

struct result {
    int status;
    char out[256], err[1024];
    size_t len;
};

static size_t slurp(int fd, char *out, size_t size)
{
    size_t len = 0;
    ssize_t n;
    while (len < size && (n = read(fd, out + len, size - len)) > 0)
        len += (size_t)n;
    return len;
}

/* As xl: reads what comes; sees either all, or an end before the message, on
 * which it closes the stream. */
static void run(const char *command, const char *migration, struct result *r)
{
    int in[2], out[2], err[2], sock[2];
    char number[16];
    memset(r, 0, sizeof(*r));
    assert_int_equal(pipe(in) | pipe(out) | pipe(err), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
    snprintf(number, sizeof(number), "%d", sock[0]);
    pid_t pid = fork();
    if (!pid) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        close(in[1]);
        if (migration)
            setenv("FORECOPY_DISK_MIGRATION", migration, 1);
        else
            unsetenv("FORECOPY_DISK_MIGRATION");
        execl(program(), program(), "--back-fd", number, "--", "sh", "-c",
              command, (char *)NULL);
        _exit(99);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    r->len = slurp(out[0], r->out,
                   READY_END < sizeof(r->out) ? READY_END : sizeof(r->out));
    if (r->len == READY_END)
        fc_write_all(in[1], "go\n", 3);
    close(in[1]);
    r->len += slurp(out[0], r->out + r->len, sizeof(r->out) - r->len);
    slurp(err[0], r->err, sizeof(r->err) - 1);
    assert_int_equal(waitpid(pid, &r->status, 0), pid);
    close(out[0]);
    close(err[0]);
    close(sock[0]);
    close(sock[1]);
}

static void check_run(const char *answers, const char *migration, bool through,
                      const char *says, int line)
{
    struct daemon d;
    struct result r;
    daemon_start(&d, answers);
    run(RECEIVER, migration, &r);
    daemon_stop(&d);
    if (through !=
        (r.len == TALK_LEN && WIFEXITED(r.status) && !WEXITSTATUS(r.status)))
        fail_msg("line %d: %zu bytes came, status %x: %s", line, r.len,
                 (unsigned)r.status, r.err);
    if (!through &&
        (r.len > BANNER_LEN || !WIFEXITED(r.status) || !WEXITSTATUS(r.status)))
        fail_msg("line %d: %zu bytes came, status %x", line, r.len,
                 (unsigned)r.status);
    if (!strstr(r.err, says))
        fail_msg("line %d: no \"%s\" in: %s", line, says, r.err);
}

#define RUN(answers, migration, through, says)                                 \
    check_run(answers, migration, through, says, __LINE__)

static void test_program(void **state)
{
    (void)state;
    if (access(program(), X_OK))
        skip();
    RUN("{\"ok\":true}", ID, true, "");
    /* nothing is asked without disks */
    RUN("{\"ok\":false}", NULL, true, "");
    RUN("{\"ok\":false,\"code\":\"FC_EPEER\",\"error\":\"xvda\\u001b: full\"}",
        ID, false,
        "forecopy: the disks were not handed over: forecopyd: xvda?: full; "
        "the guest stays here\n");
    RUN("not json", ID, false, "the guest stays here\n");
    RUN("{\"ok\":true}", "0011", false, "is not 32 hex digits");
    RUN("{\"ok\":true}", "", false, "is not 32 hex digits");
}

static void test_program_asks_again(void **state)
{
    /* A lost reply would be taken for a no, or for a yes. */
    (void)state;
    if (access(program(), X_OK))
        skip();
    RUN("!close|!close|{\"ok\":true}", ID, true, "");
    RUN("!close|{\"ok\":false,\"error\":\"too late\"}", ID, false, "too late");
}

static void test_program_no_daemon(void **state)
{
    /* The guest would stand still for ever. */
    (void)state;
    if (access(program(), X_OK))
        skip();
    setenv("FORECOPY_DISK_FLIP_MS", "300", 1);
    RUN(NULL, ID, false, "forecopyd does not answer");
    RUN("!close", ID, false, "forecopyd does not answer");
    RUN("!hang", ID, false, "forecopyd does not answer");
    unsetenv("FORECOPY_DISK_FLIP_MS");
}

static void test_program_garbage(void **state)
{
    /* More than xl reads would block the command for ever. */
    (void)state;
    struct daemon d;
    struct result r;
    if (access(program(), X_OK))
        skip();
    daemon_start(&d, "{\"ok\":true}");
    run("yes | head -c 3000000; " RECEIVER, ID, &r);
    assert_int_equal(daemon_stop(&d), 0);
    assert_int_equal(r.len, 0);
    assert_true(WIFEXITED(r.status) && WEXITSTATUS(r.status));
    assert_non_null(strstr(r.err, "is not what xl's receiver says"));
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_anywhere),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_other_words),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_among_frames),
        cmocka_unit_test(test_xl_gone),
        cmocka_unit_test(test_program),
        cmocka_unit_test(test_program_asks_again),
        cmocka_unit_test(test_program_no_daemon),
        cmocka_unit_test(test_program_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
