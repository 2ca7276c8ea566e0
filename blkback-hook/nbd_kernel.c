/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fc_nbd_ops over libnl and sysfs. */
#include <errno.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "err.h"
#include "log.h"
#include "nbd_attach.h"

struct exchange {
    uint32_t *index_r;
    int error; /* errno */
    bool done;
};

static int take_reply(struct nl_msg *m, void *arg)
{
    struct nlattr *attr[NBD_ATTR_MAX + 1];
    struct exchange *x = arg;

    if (x->index_r &&
        genlmsg_parse(nlmsg_hdr(m), 0, attr, NBD_ATTR_MAX, NULL) == 0 &&
        attr[NBD_ATTR_INDEX] && nla_len(attr[NBD_ATTR_INDEX]) >= 4)
        *x->index_r = nla_get_u32(attr[NBD_ATTR_INDEX]);
    return NL_OK;
}

static int take_ack(struct nl_msg *m, void *arg)
{
    (void)m;
    ((struct exchange *)arg)->done = true;
    return NL_STOP;
}

static int take_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *arg)
{
    struct exchange *x = arg;
    (void)from;
    x->error = -e->error;
    x->done = true;
    return NL_STOP;
}

static int op_request(void *user, struct nl_msg *message, uint32_t *index_r)
{
    struct nl_sock *sock = user;
    struct exchange x = { index_r, 0, false };
    struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
    const uint32_t none = UINT32_MAX;

    if (!cb)
        return FC_ENOMEM;
    if (index_r)
        *index_r = none;
    nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, take_reply, &x);
    nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, take_ack, &x);
    nl_cb_err(cb, NL_CB_CUSTOM, take_error, &x);
    int r = nl_send_auto(sock, message);
    while (r >= 0 && !x.done)
        r = nl_recvmsgs(sock, cb);
    nl_cb_put(cb);
    if (x.done && x.error == 0 && (!index_r || *index_r != none))
        return 0;
    errno = x.error ? x.error : EPROTO;
    return FC_ESYS;
}

static bool read_line(uint32_t index, const char *name, char *text, int size)
{
    char path[96];
    bool got = false;

    snprintf(path, sizeof(path), "/sys/block/nbd%u/%s", index, name);
    FILE *f = fopen(path, "re");
    if (f) {
        got = fgets(text, size, f);
        fclose(f);
    }
    if (got)
        text[strcspn(text, "\n")] = '\0';
    return got;
}

static void op_look(void *user, uint32_t index, struct fc_nbd_device *device)
{
    char text[64];
    (void)user;

    if (!read_line(index, "size", text, sizeof(text)))
        return;
    device->exists = true;
    device->bytes = strtoull(text, NULL, 10) * 512;
    if (read_line(index, "queue/logical_block_size", text, sizeof(text)))
        device->logical_block = (uint32_t)strtoul(text, NULL, 10);
    device->connected = read_line(index, "pid", text, sizeof(text));
    if (read_line(index, "backend", text, sizeof(text)))
        memcpy(device->backend, text, sizeof(device->backend));
}

static int op_set_timer(void *user, uint32_t index, unsigned ms)
{
    char path[64];
    (void)user;

    snprintf(path, sizeof(path), "/sys/block/nbd%u/queue/io_timeout", index);
    FILE *f = fopen(path, "we");
    if (!f)
        return FC_ESYS;
    int r = fprintf(f, "%u\n", ms);
    return fclose(f) || r < 0 ? FC_ESYS : 0;
}

/* The kernel's list has every socket that is open, by inode, with the path
 * last where there is one. */
static bool op_socket_held(void *user, ino_t inode)
{
    unsigned long number;
    char line[512];
    bool held = false;
    (void)user;

    FILE *f = fopen("/proc/net/unix", "re");
    if (!f) {
        fc_warn("/proc/net/unix: %s", strerror(errno));
        return false;
    }
    while (!held && fgets(line, sizeof(line), f))
        held = sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &number) == 1 &&
               number == inode;
    fclose(f);
    return held;
}

static void op_sleep(void *user, unsigned ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };
    (void)user;
    nanosleep(&t, NULL);
}

int fc_nbd_open(struct fc_nbd *nbd)
{
    static const struct fc_nbd_ops ops = {
        .request = op_request,
        .look = op_look,
        .set_timer = op_set_timer,
        .socket_held = op_socket_held,
        .sleep_ms = op_sleep,
    };
    struct nl_sock *sock = nl_socket_alloc();

    *nbd = (struct fc_nbd){ &ops, sock, -1 };
    if (!sock)
        return FC_ENOMEM;
    int r = genl_connect(sock);
    if (r == 0)
        r = nbd->family = genl_ctrl_resolve(sock, NBD_GENL_FAMILY_NAME);
    if (r >= 0)
        return 0;
    fc_error("the kernel's nbd driver is not there (modprobe nbd): %s",
             nl_geterror(r));
    return FC_ENOENT;
}

void fc_nbd_close(struct fc_nbd *nbd)
{
    if (nbd->user)
        nl_socket_free(nbd->user);
    nbd->user = NULL;
}
