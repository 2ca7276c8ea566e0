/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "err.h"
#include "golden.h"
#include "io.h"
#include "libxl_msgs.h"

struct pipes {
    int out[2], in[2];
    struct fc_libxl libxl;
};

static void open_pipes(struct pipes *p)
{
    assert_int_equal(pipe(p->out), 0);
    assert_int_equal(pipe(p->in), 0);
    fc_libxl_init(&p->libxl, p->out[1], p->in[0]);
}

static void close_pipes(struct pipes *p)
{
    fc_libxl_dispose(&p->libxl);
    close(p->out[0]);
    close(p->out[1]);
    close(p->in[0]);
    close(p->in[1]);
}

static void reply(struct pipes *p, int value)
{
    assert_int_equal(write(p->in[1], &value, sizeof(value)), sizeof(value));
}

/* libxl would not understand us, and kill the migration. */
static void test_golden(void **state)
{
    (void)state;
    struct pipes p;
    uint8_t got[4096];
    open_pipes(&p);
    fc_libxl_log(&p.libxl, FC_LIBXL_WARN, -1, "xc", "text");
    fc_libxl_progress(&p.libxl, NULL, "doing", 3, 10);
    reply(&p, 1);
    assert_int_equal(fc_libxl_call(&p.libxl, FC_LIBXL_SUSPEND), 1);
    reply(&p, -2);
    assert_int_equal(fc_libxl_call(&p.libxl, FC_LIBXL_WAIT_CHECKPOINT), -2);
    reply(&p, 0);
    assert_int_equal(fc_libxl_switch_qemu_logdirty(&p.libxl, 9, 1), 0);
    reply(&p, 0);
    assert_int_equal(fc_libxl_static_data_done(&p.libxl, 3), 0);
    fc_libxl_restore_results(&p.libxl, 0x1122334455, 0x66778899aa);
    reply(&p, 0);
    assert_int_equal(fc_libxl_complete(&p.libxl, -1, 5), 0);
    ssize_t n = read(p.out[0], got, sizeof(got));
    assert_true(n > 0);
    assert_golden("libxl-messages", got, (size_t)n);
    close_pipes(&p);
}

/* The bits by which libxl says which callbacks it wants: a plain live save has
 * suspend and switch_qemu_logdirty. */
static void test_wants(void **state)
{
    (void)state;
    for (int m = 1; m <= 10; m++)
        assert_int_equal(fc_libxl_wants(136, (enum fc_libxl_message)m),
                         m == FC_LIBXL_SUSPEND ||
                             m == FC_LIBXL_SWITCH_QEMU_LOGDIRTY);
}

/* With libxl gone a callback would look like a success. */
static void test_libxl_gone(void **state)
{
    (void)state;
    struct pipes p;
    open_pipes(&p);
    close(p.in[1]);
    assert_int_equal(fc_libxl_call(&p.libxl, FC_LIBXL_SUSPEND), 0);
    assert_int_equal(fc_libxl_switch_qemu_logdirty(&p.libxl, 1, 1), -1);
    assert_int_equal(fc_libxl_static_data_done(&p.libxl, 0), -1);
    assert_int_equal(fc_libxl_complete(&p.libxl, 0, 0), FC_EIO);
    p.in[1] = dup(1);
    close_pipes(&p);

    open_pipes(&p);
    close(p.out[0]);
    p.out[0] = dup(1);
    fc_libxl_log(&p.libxl, 1, -1, "a", "b");
    assert_int_equal(fc_libxl_call(&p.libxl, FC_LIBXL_SUSPEND), 0);
    close_pipes(&p);
}

static void *log_much(void *user)
{
    char text[200];
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < 500; i++)
        fc_libxl_log(user, 1, -1, "context", text);
    return NULL;
}

/* Messages of two threads would be mixed up. */
static void test_threads(void **state)
{
    (void)state;
    struct pipes p;
    pthread_t threads[3];
    open_pipes(&p);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, log_much, &p.libxl);
    for (int i = 0; i < 1500; i++) {
        uint16_t len, number;
        uint8_t body[4096];
        assert_int_equal(fc_read_exact(p.out[0], &len, 2), 0);
        assert_int_equal(len, 2 + 4 + 4 + 4 + 8 + 4 + 200);
        assert_int_equal(fc_read_exact(p.out[0], body, len), 0);
        memcpy(&number, body, 2);
        assert_int_equal(number, FC_LIBXL_LOG);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    close_pipes(&p);
}

/* A long line would overrun the message. */
static void test_long_text(void **state)
{
    (void)state;
    struct pipes p;
    char *text = malloc(100000);
    uint16_t len;
    uint8_t body[8192];
    memset(text, 'x', 99999);
    text[99999] = '\0';
    open_pipes(&p);
    fc_libxl_log(&p.libxl, 1, -1, text, text);
    assert_int_equal(fc_read_exact(p.out[0], &len, 2), 0);
    assert_true(len < sizeof(body));
    assert_int_equal(fc_read_exact(p.out[0], body, len), 0);
    assert_int_equal(body[len - 1], 0);
    close_pipes(&p);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_wants),
        cmocka_unit_test(test_libxl_gone), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_long_text),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
