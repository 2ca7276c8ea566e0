/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A keeper that is lied to, and what it could do if it were taken over. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "keeper_kit.h"

static const uint8_t other[FC_UUID_BYTES] = { 3, 2, 1 };

/* Would break: one guest's source writes into another guest's store. */
static void wrong_guest_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1);
    say_hello(a, other, 0);
    expect_text(a, FC_CHANNEL_ERROR, 0, "another guest");
    close(a);
    until(&f, f.status.last_error == FC_EPERM);
    assert_int_equal(stop(&f), 0);
}

/* Would break: one bad frame takes the keeper, or another channel, down. */
static void malformed_frames_end_their_channel(void **state)
{
    (void)state;
    static const char *const whys[] = {
        "not a frame",    "unknown version",
        "too long",       "check",
        "before HELLO",   "a second HELLO",
        "direction",      "",
        "malformed DROP", "too long for its",
        "malformed BYE",  "malformed PING",
        "not data",       "no protocol version",
    };
    struct fixture f;
    start(&f, 4 * MIB, 60000, 0);
    int good = attach(&f, 100);
    greet(good, 0);
    put(good, 1, 0, 10, -1);
    assert_int_equal(stored(good, 1, 10, NULL), 0);
    for (unsigned i = 0; i < sizeof(whys) / sizeof(whys[0]); i++) {
        uint8_t raw[FC_CHANNEL_HEADER + 2048] = { 0 };
        enum fc_channel_type type = FC_CHANNEL_PING;
        uint32_t len = 8;
        int s = attach(&f, i);
        if (i > 4 && i != 13)
            greet(s, 1);
        if (i == 5)
            say_hello(s, guest, 1);
        if (i == 6)
            type = FC_CHANNEL_STORED;
        if (i == 7)
            type = FC_CHANNEL_PUT;
        if (i == 8)
            type = FC_CHANNEL_DROP, len = 7;
        if (i == 9)
            len = 2000;
        if (i == 10)
            type = FC_CHANNEL_BYE, len = 1;
        if (i == 11)
            len = 9;
        if (i == 12) {
            struct fc_batch_item zero = { .kind = FC_BATCH_ZERO };
            type = FC_CHANNEL_PUT;
            len = 8 + (uint32_t)fc_batch_encode(&zero, 1, raw + 24, 2000);
        }
        if (i == 13) {
            struct fc_channel_hello h = { .highest = 9, .lowest = 2 };
            type = FC_CHANNEL_HELLO;
            len = (uint32_t)fc_channel_hello_make(&h, raw + 16, 2000);
        }
        fc_channel_head_make(raw, type, raw + 16, len);
        if (i == 0)
            raw[0] = 'X';
        if (i == 1)
            raw[4] = 9;
        if (i == 2)
            raw[11] = 0x7f;
        if (i == 3) {
            greet(s, 1);
            raw[12] ^= 1;
        }
        if (i != 5)
            (void)!write(s, raw, FC_CHANNEL_HEADER + len);
        expect_text(s, FC_CHANNEL_ERROR, 0, whys[i]);
        close(s);
    }
    put(good, 2, 10, 10, -1);
    assert_int_equal(stored(good, 2, 10, NULL), 0);
    close(good);
    assert_int_equal(stop(&f), 0);
}

/* Would break: a page damaged on the way is staged, or costs its whole PUT. */
static void damaged_page_is_refused_alone(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1);
    greet(a, 0);
    put(a, 1, 40, 10, -1);
    assert_int_equal(stored(a, 1, 10, NULL), 0);
    put(a, 2, 100, 10, 4);
    assert_int_equal(stored(a, 2, 10, NULL), 1);
    assert_int_equal(fc_le_load(body + 16, 8), 104);
    assert_true(held(&f, 103));
    assert_false(held(&f, 104));
    until(&f, f.status.pfns == 19);
    uint8_t drop[16];
    fc_le_store(drop, 40, 8);
    fc_le_store(drop + 8, 7777, 8);
    send_frame(a, FC_CHANNEL_DROP, drop, 16);
    until(&f, f.status.pfns == 18);
    assert_false(held(&f, 40));
    close(a);
    assert_int_equal(stop(&f), 0);
}

/* Would break: a source that never reads makes the keeper grow. */
static void slow_reader_is_not_read(void **state)
{
    (void)state;
    struct fixture f;
    unsigned sent = 0;
    start(&f, 4 * MIB, 60000, 1500);
    int a = attach(&f, 1), b = attach(&f, 2);
    greet(a, 0);
    greet(b, 1);
    uint8_t frame[FC_CHANNEL_HEADER + 8] = { 0 };
    fc_channel_head_make(frame, FC_CHANNEL_PING, frame + 16, 8);
    fc_set_nonblock(a, 1);
    while (sent < 1000000 && fc_wait_writable(a, 300) == 1)
        for (unsigned i = 0; i < 100; i++)
            sent += write(a, frame, sizeof(frame)) == (ssize_t)sizeof(frame);
    assert_true(sent < 1000000); /* it stopped taking them */
    put(b, 1, 0, 10, -1);
    assert_int_equal(stored(b, 1, 10, NULL), 0);
    until(&f, f.nclosed >= 1 && f.closed[0] == 1);
    assert_non_null(strstr(f.log, "reads nothing"));
    close(a);
    close(b);
    assert_int_equal(stop(&f), 0);
}

/* Would break: connections beyond the bound hang instead of being told. */
static void channels_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    int s[FC_KEEPER_CHANNELS];
    start(&f, 4 * MIB, 60000, 0);
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++) {
        s[i] = attach(&f, i);
        greet(s[i], (uint16_t)i);
    }
    int more = attach(&f, 99);
    expect_text(more, FC_CHANNEL_ERROR, 0, "too many channels");
    close(more);
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        close(s[i]);
    until(&f, f.nclosed == FC_KEEPER_CHANNELS + 1);
    assert_int_equal(stop(&f), 0);
}

static void status_line(pid_t pid, const char *key, char *value, size_t cap)
{
    char path[64], line[256];
    size_t len = strlen(key);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    *value = '\0';
    while (fgets(line, sizeof(line), file))
        if (!strncmp(line, key, len))
            snprintf(value, cap, "%s", line + len + strspn(line + len, " \t"));
    fclose(file);
}

/* Would break: a hole in the parser of foreign bytes is a hole in dom0. */
static void keeper_has_no_privileges(void **state)
{
    (void)state;
    struct fixture f;
    char value[256], path[64], target[64];
    unsigned fds = 0;
    int leaked = open("/etc/passwd", O_RDONLY);
    start(&f, 4 * MIB, 60000, 0);
    int a = attach(&f, 1);
    greet(a, 0);
    status_line(f.pid, "Seccomp:", value, sizeof(value));
    assert_string_equal(value, "2\n");
    status_line(f.pid, "NoNewPrivs:", value, sizeof(value));
    assert_string_equal(value, "1\n");
    status_line(f.pid, "Name:", value, sizeof(value));
    assert_string_equal(value, "fc-keeper\n");
    if (geteuid() == 0) {
        status_line(f.pid, "Uid:", value, sizeof(value));
        assert_string_equal(value, "65534\t65534\t65534\t65534\n");
        status_line(f.pid, "Gid:", value, sizeof(value));
        assert_string_equal(value, "65534\t65534\t65534\t65534\n");
        status_line(f.pid, "Groups:", value, sizeof(value));
        assert_true(value[strspn(value, " \n")] == '\0');
        status_line(f.pid, "CapEff:", value, sizeof(value));
        assert_string_equal(value, "0000000000000000\n");
        for (int fd = 0; fd < 256; fd++) {
            snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)f.pid, fd);
            ssize_t n = readlink(path, target, sizeof(target) - 1);
            if (n < 0)
                continue;
            target[n] = '\0';
            fds++;
            assert_null(strstr(target, "passwd"));
        }
        assert_int_equal(fds, 7); /* 3 standard, socket, store, channel twice */
    }
    close(leaked);
    close(a);
    assert_int_equal(stop(&f), 0);
}

/* Would break: the privileged daemon trusts what a taken-over keeper says. */
static void packets_are_checked(void **state)
{
    (void)state;
    struct fc_keeper_event e = { .type = FC_KEEPER_STATUS }, back;
    struct fc_keeper_status status;
    uint8_t raw[FC_KEEPER_PACKET + 1] = { 0 };
    e.status.evicted = 77;
    e.status.last_error = FC_EFULL;
    e.status.ending = 1;
    size_t len = fc_keeper_event_make(&e, raw);
    for (size_t n = 0; n <= len + 1; n++)
        assert_int_equal(fc_keeper_status_parse(raw, n, &status),
                         n == len ? 0 : FC_EFORMAT);
    assert_int_equal(status.evicted, 77);
    assert_int_equal(status.last_error, FC_EFULL);
    assert_int_equal(status.ending, 1);
    raw[4] = 2;
    assert_int_equal(fc_keeper_status_parse(raw, len, &status), FC_EFORMAT);
    e.type = FC_KEEPER_LOG;
    e.log.level = 4;
    memset(e.log.text, 'x', FC_KEEPER_TEXT);
    e.log.text[FC_KEEPER_TEXT] = '\0';
    len = fc_keeper_event_make(&e, raw);
    assert_int_equal(fc_keeper_event_parse(raw, len, &back), 0);
    assert_string_equal(back.log.text, e.log.text);
    assert_int_equal(fc_keeper_event_parse(raw, len + 1, &back), FC_EFORMAT);
    assert_int_equal(fc_keeper_status_parse(raw, len, &status), FC_EFORMAT);
    raw[0] = 9;
    assert_int_equal(fc_keeper_event_parse(raw, len, &back), FC_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_guest_is_refused),
        cmocka_unit_test(malformed_frames_end_their_channel),
        cmocka_unit_test(damaged_page_is_refused_alone),
        cmocka_unit_test(slow_reader_is_not_read),
        cmocka_unit_test(channels_are_bounded),
        cmocka_unit_test(keeper_has_no_privileges),
        cmocka_unit_test(packets_are_checked),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
