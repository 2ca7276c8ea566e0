/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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

#include "err.h"
#include "io.h"
#include "nbd_attach.h"

#define SIZE (8u << 20)
#define LONG_MS 60000 /* never reached, whatever the machine */
#define FLAGS 0x36du  /* flush, FUA, trim, zeroes and more, all writable */

/* ---- an engine: says the same to everybody, and reads until they go ---- */
struct engine {
    char dir[32], path[64];
    int listener;
    pthread_t thread;
    uint64_t size;
    uint16_t flags;
    uint32_t min_block;
};

static void be(uint8_t **p, uint64_t v, unsigned bytes)
{
    while (bytes--)
        *(*p)++ = (uint8_t)(v >> (8 * bytes));
}

static void reply(uint8_t **p, uint32_t type, uint32_t len)
{
    be(p, 0x0003e889045565a9, 8);
    be(p, 7, 4);
    be(p, type, 4);
    be(p, len, 4);
}

static void serve(const struct engine *e, int fd)
{
    uint8_t raw[256], *p = raw, sink[256];

    be(&p, 0x4e42444d41474943, 8);
    be(&p, 0x49484156454f5054, 8);
    be(&p, 3, 2);
    reply(&p, 3, 12);
    be(&p, 0, 2);
    be(&p, e->size, 8);
    be(&p, e->flags, 2);
    reply(&p, 3, 14);
    be(&p, 3, 2);
    be(&p, e->min_block, 4);
    be(&p, 65536, 4);
    be(&p, 32 << 20, 4);
    reply(&p, 1, 0);
    if (fc_write_all(fd, raw, (size_t)(p - raw)) == 0)
        while (read(fd, sink, sizeof(sink)) > 0)
            ;
    close(fd);
}

static void *engine_run(void *arg)
{
    struct engine *e = arg;
    int fd;

    while ((fd = accept(e->listener, NULL, NULL)) >= 0)
        serve(e, fd);
    return NULL;
}

static void engine_start(struct engine *e)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    *e = (struct engine){ .size = SIZE, .flags = FLAGS, .min_block = 1 };
    strcpy(e->dir, "/tmp/fc-attach.XXXXXX");
    assert_non_null(mkdtemp(e->dir));
    snprintf(e->path, sizeof(e->path), "%s/sock", e->dir);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", e->path);
    e->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(e->listener, (void *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(e->listener, 8), 0);
    assert_int_equal(pthread_create(&e->thread, NULL, engine_run, e), 0);
}

static void engine_stop(struct engine *e)
{
    shutdown(e->listener, SHUT_RDWR);
    pthread_join(e->thread, NULL);
    close(e->listener);
    unlink(e->path);
    rmdir(e->dir);
}

/* ---- a kernel: notes what a message says, and keeps the socket or not ---- */
struct fake {
    int asked[8], count; /* commands */
    uint64_t size, block, timeout, dead, flags;
    uint32_t index;
    char backend[64];
    bool was_socket;
    ino_t inode;
    int refuse; /* errno */
    int alive;  /* tries in which the old connection is not yet dead */
    unsigned slept_ms, timer_ms;
    struct fc_nbd_device device;
};

static uint64_t u64_of(struct nlattr *const *attr, int which)
{
    if (!attr[which])
        return UINT64_MAX;
    assert_int_equal(nla_len(attr[which]), 8);
    return nla_get_u64(attr[which]);
}

static void look_at_socket(struct fake *f, struct nlattr *list)
{
    struct nlattr *item = nla_data(list), *number;
    struct stat st;

    assert_int_equal(nla_type(item), NBD_SOCK_ITEM);
    assert_int_equal(nla_len(list), nla_total_size(nla_len(item)));
    number = nla_data(item);
    assert_int_equal(nla_type(number), NBD_SOCK_FD);
    assert_int_equal(fstat((int)nla_get_u32(number), &st), 0);
    f->was_socket = S_ISSOCK(st.st_mode);
    f->inode = st.st_ino;
}

static int op_request(void *user, struct nl_msg *message, uint32_t *index_r)
{
    struct nlattr *attr[NBD_ATTR_MAX + 1];
    struct fake *f = user;
    struct nlmsghdr *h = nlmsg_hdr(message);

    assert_int_equal(h->nlmsg_type, 77);
    f->asked[f->count++] = genlmsg_hdr(h)->cmd;
    assert_int_equal(genlmsg_parse(h, 0, attr, NBD_ATTR_MAX, NULL), 0);
    f->size = u64_of(attr, NBD_ATTR_SIZE_BYTES);
    f->block = u64_of(attr, NBD_ATTR_BLOCK_SIZE_BYTES);
    f->timeout = u64_of(attr, NBD_ATTR_TIMEOUT);
    f->dead = u64_of(attr, NBD_ATTR_DEAD_CONN_TIMEOUT);
    f->flags = u64_of(attr, NBD_ATTR_SERVER_FLAGS);
    f->index =
        attr[NBD_ATTR_INDEX] ? nla_get_u32(attr[NBD_ATTR_INDEX]) : UINT32_MAX;
    if (attr[NBD_ATTR_BACKEND_IDENTIFIER])
        snprintf(f->backend, sizeof(f->backend), "%s",
                 nla_get_string(attr[NBD_ATTR_BACKEND_IDENTIFIER]));
    if (attr[NBD_ATTR_SOCKETS])
        look_at_socket(f, attr[NBD_ATTR_SOCKETS]);
    if (f->refuse) {
        errno = f->refuse;
        return FC_ESYS;
    }
    f->timer_ms = 30000; /* as the driver does */
    if (index_r)
        *index_r = 5;
    return 0;
}

static void op_look(void *user, uint32_t index, struct fc_nbd_device *device)
{
    struct fake *f = user;
    if (index == 5)
        *device = f->device;
}

static int op_set_timer(void *user, uint32_t index, unsigned ms)
{
    struct fake *f = user;
    assert_int_equal(index, 5);
    f->timer_ms = ms;
    return 0;
}

static bool op_socket_held(void *user, ino_t inode)
{
    struct fake *f = user;
    assert_int_equal(inode, f->inode);
    return f->alive-- <= 0;
}

static void op_sleep(void *user, unsigned ms)
{
    ((struct fake *)user)->slept_ms += ms;
}

static const struct fc_nbd_ops ops = { op_request, op_look, op_set_timer,
                                       op_socket_held, op_sleep };

struct bench {
    struct engine engine;
    struct fake kernel;
    struct fc_nbd nbd;
    struct fc_nbd_request req;
};

static int setup(void **state)
{
    static struct bench b;

    engine_start(&b.engine);
    b.kernel = (struct fake){ .device = { true, true, SIZE, 512, "forecopy" } };
    b.nbd = (struct fc_nbd){ &ops, &b.kernel, 77 };
    b.req = (struct fc_nbd_request){ b.engine.path, "", 0, 512, LONG_MS };
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    engine_stop(&((struct bench *)*state)->engine);
    return 0;
}

/* Would break: an engine that is away for a while fails the guest's I/O, or
 * its flushes never arrive. */
static void connects_without_time_limits(void **state)
{
    struct bench *b = *state;
    struct fake *k = &b->kernel;
    uint32_t index = 0;

    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), 0);
    assert_int_equal(index, 5);
    assert_int_equal(k->count, 1);
    assert_int_equal(k->asked[0], NBD_CMD_CONNECT);
    assert_int_equal(k->index, UINT32_MAX); /* the kernel chooses */
    assert_int_equal(k->size, SIZE);
    assert_int_equal(k->block, 512);
    assert_int_equal(k->timeout, 0);
    assert_int_equal(k->dead, FC_NBD_DEAD_CONN_S);
    assert_int_equal(k->flags, FLAGS);
    assert_string_equal(k->backend, "forecopy");
    assert_true(k->was_socket);
    assert_int_equal(k->timer_ms, FC_NBD_LOOK_MS);

    b->req.bytes = SIZE / 2;
    b->req.block_size = 4096;
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), 0);
    assert_int_equal(k->size, SIZE / 2);
    assert_int_equal(k->block, 4096);
    k->refuse = EPERM;
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), FC_ESYS);
}

/* Would break: a disk is cut short, or acknowledges what is not durable. */
static void refuses_an_engine_that_will_not_do(void **state)
{
    struct bench *b = *state;
    uint32_t index;

    b->req.bytes = SIZE + 512;
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), FC_EINVAL);
    b->req.bytes = SIZE - 100;
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), FC_EINVAL);
    b->req.bytes = 0;
    b->engine.min_block = 4096;
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), FC_EINVAL);
    b->engine.min_block = 1;
    b->engine.flags = 1; /* writable, no flush */
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), FC_EINVAL);
    b->req.socket = "/nonexistent/sock";
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), FC_ESYS);
    assert_int_equal(b->kernel.count, 0);
    b->req.socket = b->engine.path;
    b->engine.flags = 3; /* read-only */
    assert_int_equal(fc_nbd_attach(&b->nbd, &b->req, &index), 0);
}

/* Would break: after a crash of the engine its guest waits for ever, or a tool
 * reports success for a connection that the kernel dropped. */
static void offers_until_the_kernel_takes(void **state)
{
    struct bench *b = *state;
    struct fake *k = &b->kernel;

    k->alive = 2;
    assert_int_equal(fc_nbd_reattach(&b->nbd, 5, &b->req), 0);
    assert_int_equal(k->count, 3);
    assert_int_equal(k->asked[2], NBD_CMD_RECONFIGURE);
    assert_int_equal(k->index, 5);
    assert_int_equal(k->size, UINT64_MAX); /* stays */
    assert_int_equal(k->timeout, 0);
    assert_int_equal(k->dead, FC_NBD_DEAD_CONN_S);
    assert_string_equal(k->backend, "forecopy");
    assert_true(k->was_socket);
    assert_int_equal(k->slept_ms, 200);
    assert_int_equal(k->timer_ms, FC_NBD_LOOK_MS);

    k->alive = 1;
    k->count = 0;
    b->engine.size = SIZE - 512;
    assert_int_equal(fc_nbd_reattach(&b->nbd, 5, &b->req), FC_EINVAL);
    assert_int_equal(k->count, 0);
    b->engine.size = SIZE;
    b->req.timeout_ms = 0;
    assert_int_equal(fc_nbd_reattach(&b->nbd, 5, &b->req), FC_ETIMEOUT);
}

/* Would break: somebody's network disk is torn away. */
static void touches_only_its_own(void **state)
{
    struct bench *b = *state;
    struct fake *k = &b->kernel;

    assert_int_equal(fc_nbd_detach(&b->nbd, 5), 0);
    assert_int_equal(k->count, 1);
    assert_int_equal(k->asked[0], NBD_CMD_DISCONNECT);
    assert_int_equal(k->index, 5);
    k->count = 0;
    strcpy(k->device.backend, "backup");
    assert_int_equal(fc_nbd_detach(&b->nbd, 5), FC_EPERM);
    assert_int_equal(fc_nbd_reattach(&b->nbd, 5, &b->req), FC_EPERM);
    k->device.backend[0] = '\0';
    assert_int_equal(fc_nbd_detach(&b->nbd, 5), FC_EPERM);
    k->device.connected = false;
    assert_int_equal(fc_nbd_detach(&b->nbd, 5), 0);
    assert_int_equal(fc_nbd_detach(&b->nbd, 6), 0);
    assert_int_equal(fc_nbd_reattach(&b->nbd, 6, &b->req), FC_ENOENT);
    assert_int_equal(k->count, 0);
}

/* Would break: another device than the one named is meant. */
static void knows_a_device_by_its_name(void **state)
{
    (void)state;
    assert_int_equal(fc_nbd_index("/dev/nbd12"), 12);
    assert_int_equal(fc_nbd_index("nbd0"), 0);
    assert_int_equal(fc_nbd_index("/dev/nbd0p1"), -1);
    assert_int_equal(fc_nbd_index("/dev/nbd"), -1);
    assert_int_equal(fc_nbd_index("/dev/nbd-1"), -1);
    assert_int_equal(fc_nbd_index("/dev/nbd99999999999999999999"), -1);
    assert_int_equal(fc_nbd_index("/dev/sda"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connects_without_time_limits, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(refuses_an_engine_that_will_not_do,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(offers_until_the_kernel_takes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(touches_only_its_own, setup, teardown),
        cmocka_unit_test(knows_a_device_by_its_name),
    };
    return cmocka_run_group_tests_name("nbd_attach", tests, NULL, NULL);
}
