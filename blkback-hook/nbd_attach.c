/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nbd_attach.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/nbd-netlink.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "nbd_hello.h"

#define RETRY_MS 100u

static struct nl_msg *message_new(const struct fc_nbd *nbd, uint8_t command)
{
    struct nl_msg *m = nlmsg_alloc();

    if (m && !genlmsg_put(m, NL_AUTO_PORT, NL_AUTO_SEQ, nbd->family, 0, 0,
                          command, NBD_GENL_VERSION)) {
        nlmsg_free(m);
        m = NULL;
    }
    return m;
}

static int put_socket(struct nl_msg *m, int fd)
{
    struct nlattr *list = nla_nest_start(m, NBD_ATTR_SOCKETS);
    struct nlattr *item = list ? nla_nest_start(m, NBD_SOCK_ITEM) : NULL;

    if (!item || nla_put_u32(m, NBD_SOCK_FD, (uint32_t)fd))
        return FC_ENOMEM;
    nla_nest_end(m, item);
    nla_nest_end(m, list);
    return 0;
}

/* What CONNECT and RECONFIGURE say alike. The limits are said each time: a
 * device that somebody used before keeps that one's. */
static int put_connection(struct nl_msg *m, int fd)
{
    if (nla_put_u64(m, NBD_ATTR_TIMEOUT, 0) ||
        nla_put_u64(m, NBD_ATTR_DEAD_CONN_TIMEOUT, FC_NBD_DEAD_CONN_S) ||
        nla_put_string(m, NBD_ATTR_BACKEND_IDENTIFIER, FC_NBD_BACKEND))
        return FC_ENOMEM;
    return put_socket(m, fd);
}

static struct nl_msg *connect_message(const struct fc_nbd *nbd, int fd,
                                      uint64_t bytes, uint32_t block_size,
                                      uint16_t flags)
{
    struct nl_msg *m = message_new(nbd, NBD_CMD_CONNECT);

    if (m && (nla_put_u64(m, NBD_ATTR_SIZE_BYTES, bytes) ||
              nla_put_u64(m, NBD_ATTR_BLOCK_SIZE_BYTES, block_size) ||
              nla_put_u64(m, NBD_ATTR_SERVER_FLAGS, flags) ||
              put_connection(m, fd))) {
        nlmsg_free(m);
        m = NULL;
    }
    return m;
}

static struct nl_msg *reconfigure_message(const struct fc_nbd *nbd,
                                          uint32_t index, int fd)
{
    struct nl_msg *m = message_new(nbd, NBD_CMD_RECONFIGURE);

    if (m && (nla_put_u32(m, NBD_ATTR_INDEX, index) || put_connection(m, fd))) {
        nlmsg_free(m);
        m = NULL;
    }
    return m;
}

static int send_and_free(const struct fc_nbd *nbd, struct nl_msg *m,
                         uint32_t *index_r, const char *what)
{
    int rc = m ? nbd->ops->request(nbd->user, m, index_r) : FC_ENOMEM;

    if (rc)
        fc_error("nbd: cannot %s: %s", what,
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
    nlmsg_free(m);
    return rc;
}

int fc_nbd_index(const char *device)
{
    char *end;

    if (!strncmp(device, "/dev/", 5))
        device += 5;
    if (strncmp(device, "nbd", 3) || device[3] < '0' || device[3] > '9')
        return -1;
    errno = 0;
    long n = strtol(device + 3, &end, 10);
    return errno || *end || n > 0xfffff ? -1 : (int)n;
}

/* Is what the server offers enough for a device of *bytes (0: sets it)? */
static int check_export(const struct fc_nbd_request *req,
                        const struct fc_nbd_export *e, uint64_t *bytes)
{
    if (*bytes == 0)
        *bytes = e->size;
    if (e->size < *bytes) {
        fc_error("%s: has %" PRIu64 " bytes, %" PRIu64 " are wanted",
                 req->socket, e->size, *bytes);
        return FC_EINVAL;
    }
    if (*bytes % req->block_size) {
        fc_error("%s: %" PRIu64 " bytes are no whole sectors of %" PRIu32,
                 req->socket, *bytes, req->block_size);
        return FC_EINVAL;
    }
    if (e->min_block > req->block_size) {
        fc_error("%s: takes no blocks below %" PRIu32 " bytes", req->socket,
                 e->min_block);
        return FC_EINVAL;
    }
    if (!(e->flags & (FC_NBD_READ_ONLY | FC_NBD_SEND_FLUSH))) {
        fc_error("%s: cannot flush: the guest's writes would not be durable",
                 req->socket);
        return FC_EINVAL;
    }
    return 0;
}

/* After each message to the driver, which sets it back to its default. */
static void set_timer(const struct fc_nbd *nbd, uint32_t index)
{
    if (nbd->ops->set_timer(nbd->user, index, FC_NBD_LOOK_MS))
        fc_warn("nbd%" PRIu32 ": cannot set its timer: %s; after an outage "
                "of its engine requests may take 30 s more",
                index, strerror(errno));
}

/* A descriptor that has shaken hands. */
static int open_export(const struct fc_nbd_request *req, int timeout_ms,
                       struct fc_nbd_export *e)
{
    int fd = fc_nbd_connect(req->socket, timeout_ms);

    if (fd < 0) {
        fc_error("%s: cannot connect: %s", req->socket,
                 fd == FC_ESYS ? strerror(errno) : fc_strerror(fd));
        return fd;
    }
    int rc = fc_nbd_hello(fd, req->export, timeout_ms, e);
    if (rc)
        fc_close(&fd);
    return rc ? rc : fd;
}

int fc_nbd_attach(const struct fc_nbd *nbd, const struct fc_nbd_request *req,
                  uint32_t *index_r)
{
    struct fc_nbd_export e;
    uint64_t bytes = req->bytes;
    int fd = open_export(req, req->timeout_ms, &e);

    if (fd < 0)
        return fd;
    int rc = check_export(req, &e, &bytes);
    if (rc == 0)
        rc = send_and_free(
            nbd, connect_message(nbd, fd, bytes, req->block_size, e.flags),
            index_r, "connect a device");
    fc_close(&fd);
    if (rc == 0)
        set_timer(nbd, *index_r);
    return rc;
}

/* A device of ours, connected or with a dead connection. */
static int look_at_ours(const struct fc_nbd *nbd, uint32_t index,
                        struct fc_nbd_device *device)
{
    *device = (struct fc_nbd_device){ 0 };
    nbd->ops->look(nbd->user, index, device);
    if (!device->exists || !device->connected) {
        fc_error("nbd%" PRIu32 ": is not connected", index);
        return FC_ENOENT;
    }
    if (strcmp(device->backend, FC_NBD_BACKEND)) {
        fc_error("nbd%" PRIu32 ": was not connected by forecopy", index);
        return FC_EPERM;
    }
    return 0;
}

/* One try. 1: the kernel did not want the connection. */
static int offer(const struct fc_nbd *nbd, uint32_t index,
                 const struct fc_nbd_request *req, uint64_t bytes,
                 int timeout_ms)
{
    struct fc_nbd_export e;
    struct stat st = { 0 };
    int fd = open_export(req, timeout_ms, &e);

    if (fd < 0)
        return fd;
    int rc = check_export(req, &e, &bytes);
    if (rc == 0 && fstat(fd, &st))
        rc = FC_ESYS;
    if (rc == 0)
        rc = send_and_free(nbd, reconfigure_message(nbd, index, fd), NULL,
                           "reconnect the device");
    fc_close(&fd);
    if (rc)
        return rc;
    set_timer(nbd, index);
    return nbd->ops->socket_held(nbd->user, st.st_ino) ? 0 : 1;
}

int fc_nbd_reattach(const struct fc_nbd *nbd, uint32_t index,
                    const struct fc_nbd_request *req)
{
    uint64_t deadline_ms = fc_now_ms() + (uint64_t)req->timeout_ms;
    struct fc_nbd_device device;
    struct fc_nbd_request same = *req;

    int rc = look_at_ours(nbd, index, &device);
    if (rc)
        return rc;
    same.block_size = device.logical_block;
    for (;;) {
        uint64_t now = fc_now_ms();
        if (now >= deadline_ms) {
            fc_error("nbd%" PRIu32 ": its old connection is still alive",
                     index);
            return FC_ETIMEOUT;
        }
        rc = offer(nbd, index, &same, device.bytes, (int)(deadline_ms - now));
        if (rc <= 0)
            return rc;
        nbd->ops->sleep_ms(nbd->user, RETRY_MS);
    }
}

int fc_nbd_detach(const struct fc_nbd *nbd, uint32_t index)
{
    struct fc_nbd_device device = { 0 };

    nbd->ops->look(nbd->user, index, &device);
    if (!device.exists || !device.connected)
        return 0;
    int rc = look_at_ours(nbd, index, &device);
    if (rc)
        return rc;
    struct nl_msg *m = message_new(nbd, NBD_CMD_DISCONNECT);
    if (m && nla_put_u32(m, NBD_ATTR_INDEX, index)) {
        nlmsg_free(m);
        m = NULL;
    }
    return send_and_free(nbd, m, NULL, "disconnect the device");
}
