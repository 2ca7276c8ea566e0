/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "err.h"
#include "io.h"
#include "nbd_hello.h"

#define LONG_MS 60000 /* never reached, whatever the machine */

/* A server's words, put together piece by piece. */
struct script {
    uint8_t bytes[65536];
    size_t n;
};

static void be(struct script *s, uint64_t v, unsigned bytes)
{
    while (bytes--)
        s->bytes[s->n++] = (uint8_t)(v >> (8 * bytes));
}

static void greeting(struct script *s)
{
    be(s, 0x4e42444d41474943, 8);
    be(s, 0x49484156454f5054, 8);
    be(s, 3, 2);
}

static void reply(struct script *s, uint32_t type, uint32_t len)
{
    be(s, 0x0003e889045565a9, 8);
    be(s, 7, 4);
    be(s, type, 4);
    be(s, len, 4);
}

static void export(struct script *s, uint64_t size, uint16_t flags)
{
    reply(s, 3, 12);
    be(s, 0, 2);
    be(s, size, 8);
    be(s, flags, 2);
}

static void blocks(struct script *s, uint32_t min, uint32_t max)
{
    reply(s, 3, 14);
    be(s, 3, 2);
    be(s, min, 4);
    be(s, 4096, 4);
    be(s, max, 4);
}

/* Says `s` and, unless `open`, closes; what came back is in `said`. */
static int play(const struct script *s, bool open, int timeout_ms,
                struct fc_nbd_export *e, struct script *said)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(fc_write_all(pair[1], s->bytes, s->n), 0);
    if (!open)
        assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
    int rc = fc_nbd_hello(pair[0], "", timeout_ms, e);
    close(pair[0]);
    if (said) {
        ssize_t n;
        while ((n = read(pair[1], said->bytes + said->n,
                         sizeof(said->bytes) - said->n)) > 0)
            said->n += (size_t)n;
    }
    close(pair[1]);
    return rc;
}

/* Would break: no engine can be attached. */
static void agrees_with_a_plain_server(void **state)
{
    (void)state;
    struct fc_nbd_export e;
    struct script s = { .n = 0 }, said = { .n = 0 }, wanted = { .n = 0 };

    greeting(&s);
    export(&s, 10 << 20, 0x16d);
    blocks(&s, 512, 32 << 20);
    reply(&s, 1, 0);
    assert_int_equal(play(&s, true, LONG_MS, &e, &said), 0);
    assert_int_equal(e.size, 10 << 20);
    assert_int_equal(e.flags, 0x16d);
    assert_int_equal(e.min_block, 512);
    assert_int_equal(e.max_block, 32 << 20);

    be(&wanted, 3, 4); /* fixed newstyle, no zeroes */
    be(&wanted, 0x49484156454f5054, 8);
    be(&wanted, 7, 4);
    be(&wanted, 4 + 0 + 4, 4);
    be(&wanted, 0, 4); /* the default export */
    be(&wanted, 1, 2);
    be(&wanted, 3, 2);
    assert_int_equal(said.n, wanted.n);
    assert_memory_equal(said.bytes, wanted.bytes, wanted.n);
}

/* Would break: what we do not know of makes an engine unusable. */
static void passes_over_what_it_did_not_ask(void **state)
{
    (void)state;
    struct fc_nbd_export e;
    struct script s = { .n = 0 };

    greeting(&s);
    reply(&s, 3, 6);
    be(&s, 1, 2); /* a name */
    be(&s, 0x6e616d65, 4);
    export(&s, 4096, 1);
    reply(&s, 1, 0);
    assert_int_equal(play(&s, true, LONG_MS, &e, NULL), 0);
    assert_int_equal(e.size, 4096);
    assert_int_equal(e.min_block, 0);
}

enum what {
    BAD_MAGIC,
    OLD_STYLE,
    NOT_FIXED,
    BAD_REPLY_MAGIC,
    OTHER_OPTION,
    HUGE_REPLY,
    SHORT_EXPORT,
    LONG_EXPORT,
    EMPTY_EXPORT,
    BEYOND_SIGNED,
    NO_FLAGS,
    MIN_ZERO,
    MIN_ODD,
    MIN_HUGE,
    MAX_BELOW_MIN,
    INFO_OF_ONE_BYTE,
    ACK_WITH_BODY,
    ACK_ALONE,
    STRANGE_TYPE,
    ENDLESS,
    REFUSAL,
    LAST
};

static const int wanted[LAST] = {
    [BAD_MAGIC] = FC_EFORMAT,     [OLD_STYLE] = FC_EVERSION,
    [NOT_FIXED] = FC_EVERSION,    [BAD_REPLY_MAGIC] = FC_EFORMAT,
    [OTHER_OPTION] = FC_EFORMAT,  [HUGE_REPLY] = FC_ETOOBIG,
    [SHORT_EXPORT] = FC_EFORMAT,  [LONG_EXPORT] = FC_EFORMAT,
    [EMPTY_EXPORT] = FC_EFORMAT,  [BEYOND_SIGNED] = FC_EFORMAT,
    [NO_FLAGS] = FC_EFORMAT,      [MIN_ZERO] = FC_EFORMAT,
    [MIN_ODD] = FC_EFORMAT,       [MIN_HUGE] = FC_EFORMAT,
    [MAX_BELOW_MIN] = FC_EFORMAT, [INFO_OF_ONE_BYTE] = FC_EFORMAT,
    [ACK_WITH_BODY] = FC_EFORMAT, [ACK_ALONE] = FC_EFORMAT,
    [STRANGE_TYPE] = FC_EFORMAT,  [ENDLESS] = FC_ELIMIT,
    [REFUSAL] = FC_EPEER,
};

/* What stands after a good greeting; each is followed by a good end, so that
 * only the fault itself can be what is refused. */
static void fault(struct script *s, enum what what)
{
    switch (what) {
    case BAD_REPLY_MAGIC:
    case OTHER_OPTION:
        reply(s, 3, 12);
        s->bytes[s->n - (what == OTHER_OPTION ? 9 : 20)] ^= 1;
        break;
    case HUGE_REPLY:
        reply(s, 3, 0xfffffff0);
        break;
    case SHORT_EXPORT:
        reply(s, 3, 10);
        be(s, 0, 2);
        be(s, 4096, 8);
        break;
    case LONG_EXPORT:
        reply(s, 3, 16);
        be(s, 0, 2);
        be(s, 4096, 8);
        be(s, 1, 6);
        break;
    case EMPTY_EXPORT:
        export(s, 0, 1);
        break;
    case BEYOND_SIGNED:
        export(s, 1ull << 63, 1);
        break;
    case NO_FLAGS:
        export(s, 4096, 4);
        break;
    case MIN_ZERO:
        blocks(s, 0, 4096);
        break;
    case MIN_ODD:
        blocks(s, 513, 4096);
        break;
    case MIN_HUGE:
        blocks(s, 1 << 17, 1 << 20);
        break;
    case MAX_BELOW_MIN:
        blocks(s, 512, 256);
        break;
    case INFO_OF_ONE_BYTE:
        reply(s, 3, 1);
        be(s, 0, 1);
        break;
    case ACK_WITH_BODY:
        export(s, 4096, 1);
        reply(s, 1, 1);
        be(s, 0, 1);
        break;
    case ACK_ALONE:
        reply(s, 1, 0);
        break;
    case STRANGE_TYPE:
        reply(s, 2, 0);
        break;
    case ENDLESS:
        for (int i = 0; i < 100; i++)
            export(s, 4096, 1);
        break;
    case REFUSAL:
        reply(s, 0x80000006, 4);
        be(s, 0x1b5b324a, 4); /* clears a terminal, if it got there */
        break;
    default:
        break;
    }
}

/* Would break: a server that lies gets a device, or brings us down. */
static void refuses_what_cannot_be(void **state)
{
    (void)state;
    struct fc_nbd_export e;

    for (int what = 0; what < LAST; what++) {
        struct script s = { .n = 0 };
        greeting(&s);
        if (what == BAD_MAGIC)
            s.bytes[0] ^= 1;
        if (what == OLD_STYLE)
            s.bytes[15] ^= 1;
        if (what == NOT_FIXED)
            s.bytes[17] = 2;
        fault(&s, (enum what)what);
        export(&s, 4096, 1);
        reply(&s, 1, 0);
        int rc = play(&s, true, LONG_MS, &e, NULL);
        if (rc != wanted[what])
            fail_msg("fault %d: %s, wanted %s", what, fc_errname(rc),
                     fc_errname(wanted[what]));
    }
}

/* Would break: a server that goes away in the middle is taken for good, or
 * waited for. */
static void notices_an_end_anywhere(void **state)
{
    (void)state;
    struct fc_nbd_export e;
    struct script s = { .n = 0 };

    greeting(&s);
    export(&s, 4096, 1);
    blocks(&s, 512, 4096);
    reply(&s, 1, 0);
    for (size_t all = s.n, n = 0; n < all; n++) {
        s.n = n;
        assert_int_equal(play(&s, false, LONG_MS, &e, NULL), FC_EEOF);
    }
}

/* Would break: a server that says nothing hangs the attachment. */
static void does_not_wait_for_ever(void **state)
{
    (void)state;
    struct fc_nbd_export e;
    struct script s = { .n = 0 };

    assert_int_equal(play(&s, true, 50, &e, NULL), FC_ETIMEOUT);
    greeting(&s);
    assert_int_equal(play(&s, true, 50, &e, NULL), FC_ETIMEOUT);
}

/* Would break: nbdkit itself, which serves the engine, is not understood. */
static void agrees_with_nbdkit(void **state)
{
    (void)state;
    char dir[] = "/tmp/fc-hello.XXXXXX", sock[64], pidfile[64];
    struct fc_nbd_export e;

    if (system("command -v nbdkit >/dev/null")) {
        print_message("nbdkit is not installed\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    snprintf(sock, sizeof(sock), "%s/sock", dir);
    snprintf(pidfile, sizeof(pidfile), "%s/pid", dir);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("nbdkit", "nbdkit", "-f", "-U", sock, "-P", pidfile, "memory",
               "3M", NULL);
        _exit(127);
    }
    /* nbdkit writes its process id when it listens */
    for (int i = 0; i < 6000 && access(pidfile, F_OK); i++)
        usleep(10000);
    int fd = fc_nbd_connect(sock, LONG_MS);
    assert_true(fd >= 0);
    int rc = fc_nbd_hello(fd, "", LONG_MS, &e);
    close(fd);
    int long_name = fc_nbd_connect(sock, LONG_MS);
    char name[FC_NBD_EXPORT_MAX + 2];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct fc_nbd_export unused;
    int too_long = fc_nbd_hello(long_name, name, LONG_MS, &unused);
    close(long_name);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    unlink(sock);
    unlink(pidfile);
    rmdir(dir);
    assert_int_equal(rc, 0);
    assert_int_equal(e.size, 3 << 20);
    assert_int_equal(e.flags & 0x7, FC_NBD_HAS_FLAGS | FC_NBD_SEND_FLUSH);
    assert_int_equal(too_long, FC_EINVAL);
}

/* Would break: a path that does not fit is cut and leads elsewhere. */
static void refuses_a_path_that_is_too_long(void **state)
{
    (void)state;
    char path[200];

    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_int_equal(fc_nbd_connect(path, LONG_MS), FC_ETOOBIG);
    assert_int_equal(fc_nbd_connect("/nonexistent/socket", LONG_MS), FC_ESYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_plain_server),
        cmocka_unit_test(passes_over_what_it_did_not_ask),
        cmocka_unit_test(refuses_what_cannot_be),
        cmocka_unit_test(notices_an_end_anywhere),
        cmocka_unit_test(does_not_wait_for_ever),
        cmocka_unit_test(agrees_with_nbdkit),
        cmocka_unit_test(refuses_a_path_that_is_too_long),
    };
    return cmocka_run_group_tests_name("nbd_hello", tests, NULL, NULL);
}
