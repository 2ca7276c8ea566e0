/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tapdisk's side of its NBD connection, byte for byte as blktap's
 * drivers/block-nbd.c speaks it (read there; the words are its, the code is
 * not), against the server that is put before it.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "io.h"
#include "nbd_hello.h"

#define LONG_MS 60000 /* never reached, whatever the machine */
#define SIZE (3u << 20)
#define BLOCK 4096u

struct server {
    char dir[32], sock[64], pidfile[64];
    pid_t pid;
};

static int setup(void **state)
{
    static struct server s;

    *state = NULL;
    if (system("command -v nbdkit >/dev/null"))
        return 0;
    strcpy(s.dir, "/tmp/fc-tapdisk.XXXXXX");
    assert_non_null(mkdtemp(s.dir));
    snprintf(s.sock, sizeof(s.sock), "%s/sock", s.dir);
    snprintf(s.pidfile, sizeof(s.pidfile), "%s/pid", s.dir);
    s.pid = fork();
    if (s.pid == 0) {
        execlp("nbdkit", "nbdkit", "-o", "-f", "-U", s.sock, "-P", s.pidfile,
               "memory", "3M", NULL);
        _exit(127);
    }
    /* nbdkit writes its process id when it listens */
    for (int i = 0; i < 6000 && access(s.pidfile, F_OK); i++)
        usleep(10000);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct server *s = *state;

    if (!s)
        return 0;
    kill(s->pid, SIGTERM);
    waitpid(s->pid, NULL, 0);
    unlink(s->sock);
    unlink(s->pidfile);
    rmdir(s->dir);
    return 0;
}

static uint64_t be(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    while (bytes--)
        v = v << 8 | *p++;
    return v;
}

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
    while (bytes--)
        *p++ = (uint8_t)(v >> (8 * bytes));
}

/* What tapdisk wants before it says a word: 152 bytes. */
static int meet(const struct server *s)
{
    uint8_t raw[152];
    int fd = fc_nbd_connect(s->sock, LONG_MS);

    assert_true(fd >= 0);
    assert_int_equal(fc_read_exact(fd, raw, sizeof(raw)), 0);
    assert_memory_equal(raw, "NBDMAGIC", 8);
    assert_int_equal(be(raw + 8, 8), 0x00420281861253);
    assert_int_equal(be(raw + 16, 8), SIZE);
    assert_int_equal(be(raw + 24, 4) & 3, 1); /* flags are there; writable */
    return fd;
}

/* Requests are numbered in a text of seven characters and a NUL. */
static void ask(int fd, uint32_t type, int id, uint64_t from, const void *body)
{
    uint8_t raw[28];

    put(raw, 0x25609513, 4);
    put(raw + 4, type, 4);
    snprintf((char *)raw + 8, 8, "td%05x", (unsigned)id);
    put(raw + 16, from, 8);
    put(raw + 24, type == 2 ? 0 : BLOCK, 4);
    assert_int_equal(fc_write_all(fd, raw, sizeof(raw)), 0);
    if (body)
        assert_int_equal(fc_write_all(fd, body, BLOCK), 0);
}

/* The number of the request that the next reply is for; it is no error, after
 * which tapdisk would be dead. */
static int answered(int fd)
{
    uint8_t raw[16];

    assert_int_equal(fc_read_exact(fd, raw, sizeof(raw)), 0);
    assert_int_equal(be(raw, 4), 0x67446698);
    assert_int_equal(be(raw + 4, 4), 0);
    assert_memory_equal(raw + 8, "td", 2);
    assert_int_equal(raw[15], 0);
    return (int)strtol((const char *)raw + 10, NULL, 16);
}

/* Would break: tapdisk cannot open an engine, or loses its requests. */
static void serves_tapdisk(void **state)
{
    static uint8_t block[2][BLOCK], got[BLOCK];
    struct server *s = *state;

    if (!s) {
        print_message("nbdkit is not installed\n");
        skip();
    }
    int fd = meet(s);
    memset(block[0], 0xa5, BLOCK);
    memset(block[1], 0x5a, BLOCK);
    /* several at once, as it does; answers come in any order */
    ask(fd, 1, 0x10, 0, block[0]);
    ask(fd, 1, 0x11, SIZE - BLOCK, block[1]);
    assert_int_equal(answered(fd) + answered(fd), 0x21);
    for (int i = 0; i < 2; i++) {
        ask(fd, 0, 0xfffe, i ? SIZE - BLOCK : 0, NULL);
        assert_int_equal(answered(fd), 0xfffe);
        assert_int_equal(fc_read_exact(fd, got, BLOCK), 0);
        assert_memory_equal(got, block[i], BLOCK);
    }
    ask(fd, 2, 0x12, 0, NULL); /* goodbye: it waits for no answer */
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    while (read(fd, got, BLOCK) > 0)
        ;
    close(fd);

    /* a pause and an unpause are a new connection; what was written is there */
    fd = meet(s);
    ask(fd, 0, 1, SIZE - BLOCK, NULL);
    assert_int_equal(answered(fd), 1);
    assert_int_equal(fc_read_exact(fd, got, BLOCK), 0);
    assert_memory_equal(got, block[1], BLOCK);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(serves_tapdisk, setup, teardown),
    };
    return cmocka_run_group_tests_name("tapdisk_wire", tests, NULL, NULL);
}
