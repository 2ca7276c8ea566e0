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
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "io.h"
#include "log.h"
#include "store_source.h"

static const struct fc_hello hello_for_tests = {
    .highest = 1,
    .lowest = 1,
    .uuid = { 0x12, 0x34 },
    .token = { 0xaa, 0xbb },
    .epoch = 0, /* the store's, by the test */
};

/* A daemon that answers one request. */
struct daemon {
    int sock, store_fd;
    const char *reply;
    char request[4096];
};

static void *daemon_main(void *user)
{
    struct daemon *d = user;
    int s = accept(d->sock, NULL, NULL);
    ssize_t n = read(s, d->request, sizeof(d->request) - 1);
    assert_true(n > 0);
    fc_send_fds(s, d->reply, strlen(d->reply), &d->store_fd,
                d->store_fd >= 0 ? 1 : 0);
    /* until the client is through */
    fc_wait_readable(s, 5000);
    close(s);
    return NULL;
}

static char socket_dir[] = "/tmp/fc-source-XXXXXX";

static void listen_at(struct daemon *d, char *path, size_t size)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    snprintf(path, size, "%s/sock", socket_dir);
    unlink(path);
    strcpy(a.sun_path, path);
    d->sock = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(d->sock, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(d->sock, 1), 0);
    setenv("FORECOPY_SOCKET", path, 1);
}

/* Opens with that reply and descriptor. */
static int open_with(struct fc_store_source *s, const struct fc_hello *hello,
                     const char *reply, int store_fd, struct daemon *d)
{
    char path[100];
    pthread_t thread;
    *d = (struct daemon){ .reply = reply, .store_fd = store_fd };
    listen_at(d, path, sizeof(path));
    pthread_create(&thread, NULL, daemon_main, d);
    int rc = fc_store_source_open(s, hello);
    pthread_join(thread, NULL);
    close(d->sock);
    unlink(path);
    return rc;
}

static int new_store(struct fc_store **store_r)
{
    int fd = fc_store_file_new("test", FC_STORE_MIN_BYTES);
    assert_true(fd >= 0);
    assert_int_equal(fc_store_open(fd, FC_STORE_MIN_BYTES, store_r), 0);
    return fd;
}

/* Staged pages would lie at the destination unused. */
static void test_found(void **state)
{
    (void)state;
    struct fc_store *store;
    struct fc_store_source s;
    struct daemon d;
    uint8_t page[FC_PAGE_SIZE], got[FC_PAGE_SIZE];
    struct fc_hello hello = hello_for_tests;
    int fd = new_store(&store);
    memset(page, 7, sizeof(page));
    struct fc_hash hash = fc_page_hash(page);
    assert_int_equal(fc_store_put(store, 1, hash, page, NULL, NULL), 0);
    hello.epoch = fc_store_epoch(store);
    assert_int_equal(
        open_with(&s, &hello, "{\"ok\":true,\"pages\":1}\n", fd, &d), 0);
    assert_int_equal(s.pages, 1);
    struct fc_page_source p = fc_store_source_pages(&s);
    assert_non_null(p.get);
    assert_int_equal(p.get(p.user, hash, got), 0);
    assert_memory_equal(page, got, sizeof(page));
    hash.lo ^= 1;
    assert_true(p.get(p.user, hash, got) < 0);
    fc_store_source_dispose(&s);
    assert_null(fc_store_source_pages(&s).get);

    const char *why;
    struct json_object *o =
        fc_ctl_parse(d.request, strcspn(d.request, "\n"), &why);
    assert_non_null(o);
    assert_string_equal(fc_json_str(o, "cmd", ""), "store-open");
    assert_string_equal(fc_json_str(o, "uuid", ""),
                        "12340000-0000-0000-0000-000000000000");
    assert_string_equal(fc_json_str(o, "token", ""),
                        "aabb0000000000000000000000000000");
    struct json_object *epoch;
    assert_true(json_object_object_get_ex(o, "epoch", &epoch));
    assert_true(json_object_get_uint64(epoch) == hello.epoch);
    json_object_put(o);
    fc_store_free(store);
    close(fd);
}

/* A destination that is not prepared would fail the migration. */
static void test_not_found(void **state)
{
    (void)state;
    struct fc_store *store;
    struct fc_store_source s;
    struct daemon d;
    struct fc_hello hello = hello_for_tests;
    int fd = new_store(&store);
    hello.epoch = fc_store_epoch(store);
    assert_int_equal(
        open_with(&s, &hello,
                  "{\"ok\":false,\"code\":\"FC_ENOENT\",\"error\":\"no\"}\n",
                  -1, &d),
        FC_ENOENT);
    assert_null(fc_store_source_pages(&s).get);
    /* says yes and gives nothing */
    assert_true(open_with(&s, &hello, "{\"ok\":true}\n", -1, &d) < 0);
    /* gives what is no store */
    int other = fc_memfd_new("other", 4096);
    assert_true(open_with(&s, &hello, "{\"ok\":true}\n", other, &d) < 0);
    close(other);
    /* gives another one than was named */
    hello.epoch++;
    assert_int_equal(open_with(&s, &hello, "{\"ok\":true}\n", fd, &d),
                     FC_ENOENT);
    assert_null(fc_store_source_pages(&s).get);
    fc_store_source_dispose(&s);

    setenv("FORECOPY_SOCKET", "/nonexistent/socket", 1);
    assert_int_equal(fc_store_source_open(&s, &hello), FC_EDAEMON);
    /* nothing staged: nobody is asked */
    memset(hello.token, 0, sizeof(hello.token));
    assert_int_equal(fc_store_source_open(&s, &hello), FC_ENOENT);
    fc_store_free(store);
    close(fd);
}

static int make_dir(void **state)
{
    (void)state;
    fc_log_init("test", FC_LOG_ERROR);
    return mkdtemp(socket_dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(socket_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_not_found),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
