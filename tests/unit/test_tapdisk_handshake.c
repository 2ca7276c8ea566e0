/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/un.h>

#include "engine_kit.h"

/*
 * What tapdisk's NBD client does on `nbd:SOCKET`, byte for byte: it takes the
 * old handshake (152 bytes, nothing is answered), sends plain reads and writes
 * with several under way, no flush and no FUA, and says goodbye.
 */
#define SIZE (1u << 20)

static char dir[64];
static struct engine engine;
static int sock = -1;

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    strcpy(dir, "/tmp/forecopy-tapdisk-XXXXXX");
    assert_non_null(mkdtemp(dir));
    engine_file(dir, "source.img", SIZE);
    engine_start(&engine, dir, "source", "-o", NULL);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    strcpy(addr.sun_path, engine.socket);
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fc_close(&sock);
    engine_end(&engine, SIGKILL);
    engine_clean(dir);
    return 0;
}

static void get(void *to, size_t len)
{
    uint8_t *p = to;
    while (len) {
        assert_int_equal(fc_wait_readable(sock, ENGINE_PATIENCE_MS), 1);
        ssize_t r = read(sock, p, len);
        assert_true(r > 0);
        p += r;
        len -= (size_t)r;
    }
}

/* magic, type, 8 bytes of handle, offset, length: all big-endian */
static void request(uint8_t type, uint8_t handle, uint32_t offset,
                    uint32_t length, const void *data)
{
    uint8_t r[28] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, type,
                      't',  'd',  'n',  'b',  0, 0, 0, handle };
    for (int i = 0; i < 4; i++) {
        r[20 + i] = (uint8_t)(offset >> (24 - 8 * i));
        r[24 + i] = (uint8_t)(length >> (24 - 8 * i));
    }
    assert_int_equal(fc_write_all(sock, r, sizeof(r)), 0);
    if (data)
        assert_int_equal(fc_write_all(sock, data, length), 0);
}

/* The handle's last byte of a reply without error. */
static uint8_t reply(void)
{
    static const uint8_t head[15] = { 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0,
                                      't',  'd',  'n',  'b',  0, 0, 0 };
    uint8_t r[16];
    get(r, sizeof(r));
    assert_memory_equal(r, head, sizeof(head));
    return r[15];
}

enum { READ = 0, WRITE = 1, DISCONNECT = 2 };

/* Would break: a guest on tapdisk has no disk. */
static void old_handshake_and_requests(void **state)
{
    (void)state;
    static const uint8_t magics[16] = { 'N',  'B',  'D',  'M',  'A',  'G',
                                        'I',  'C',  0x00, 0x00, 0x42, 0x02,
                                        0x81, 0x86, 0x12, 0x53 };
    static const uint8_t size[8] = { 0, 0, 0, 0, 0, 0x10, 0, 0 };
    static const uint8_t zeros[124];
    uint8_t hello[152], data[4][8192], back[8192];
    get(hello, sizeof(hello));
    assert_memory_equal(hello, magics, 16);
    assert_memory_equal(hello + 16, size, 8);
    assert_int_equal(hello[27] & 3, 1); /* flags: there are, not read-only */
    assert_memory_equal(hello + 28, zeros, 124);

    for (uint8_t i = 0; i < 4; i++) {
        memset(data[i], 0x11 * (i + 1), sizeof(data[i]));
        request(WRITE, i, i * 65536u + 512, sizeof(data[i]), data[i]);
    }
    unsigned seen = 0; /* they may come in any order */
    for (int i = 0; i < 4; i++)
        seen |= 1u << reply();
    assert_int_equal(seen, 15);
    for (uint8_t i = 0; i < 4; i++) {
        request(READ, 16 + i, i * 65536u + 512, sizeof(back), NULL);
        assert_int_equal(reply(), 16 + i);
        get(back, sizeof(back));
        assert_memory_equal(back, data[i], sizeof(back));
    }
    request(DISCONNECT, 0, 0, 0, NULL);
    assert_int_equal(fc_wait_readable(sock, ENGINE_PATIENCE_MS), 1);
    assert_int_equal(read(sock, back, 1), 0);

    /* the engine is there for the next one */
    assert_true(engine_number(&engine, "remaining_blocks") > 0);
    assert_int_equal(engine_number(&engine, "writes"), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(old_handshake_and_requests, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
