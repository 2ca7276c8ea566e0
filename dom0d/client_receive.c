/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "client.h"
#include "client_out.h"
#include "ctl.h"
#include "err.h"
#include "io.h"

/*
 * `forecopy receive`: the far end of a channel's command. It hands standard
 * input and output to the daemon, lets go of them itself (so that the keeper's
 * closing is the connection's end), and stays until the daemon closes its
 * connection: ssh ends when its command does.
 *
 * A failure is told twice: a line on standard error for whoever reads that, and
 * an ERROR frame on standard output for the source.
 */
#define CONNECT_MS 5000
#define REPLY_MS 20000

static void tell_source(const char *why)
{
    uint8_t frame[FC_CHANNEL_HEADER + FC_CHANNEL_MAX_TEXT];
    uint8_t *body = frame + FC_CHANNEL_HEADER;
    ssize_t len = fc_channel_text_make(FC_CHANNEL_ERROR, 0, why, body,
                                       FC_CHANNEL_MAX_TEXT);
    fc_channel_head_make(frame, FC_CHANNEL_ERROR, body, (uint32_t)len);
    /* A source that is gone need not be told. */
    (void)!fc_write_all(STDOUT_FILENO, frame, FC_CHANNEL_HEADER + (size_t)len);
}

static int let_go_of_channel(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(null, STDOUT_FILENO) < 0)
        return FC_ESYS;
    fc_close(&null);
    return 0;
}

/* Until the other end closes; it says nothing more. */
static void wait_for_end(int sock)
{
    char byte;
    ssize_t r;
    do
        r = read(sock, &byte, 1);
    while (r > 0 || (r < 0 && errno == EINTR));
}

int fc_client_receive(struct fc_client_task *c)
{
    static const int channel[2] = { STDIN_FILENO, STDOUT_FILENO };
    char why[FC_CLIENT_WHY] = "out of memory";
    struct json_object *reply = NULL, *request = NULL;
    int rc = FC_ENOMEM, sock = -1;
    bool disk = c->args->verb == FC_VERB_DISK_RECEIVE;

    if (isatty(STDIN_FILENO) || isatty(STDOUT_FILENO)) {
        fputs("forecopy: receive serves another host's forecopyd, not a "
              "terminal\n",
              c->err);
        return 1;
    }
    request = fc_client_request(disk ? "disk-receive" : "receive");
    if (!request)
        goto out;
    fc_client_add(request, "uuid", c->args->operand[0]);
    fc_client_add(request, "vdev", c->args->operand[1]);
    rc = sock = fc_ctl_connect(NULL, CONNECT_MS);
    if (sock >= 0)
        rc = fc_ctl_call(sock, request, channel, 2, &reply, NULL, REPLY_MS);
    if (rc) {
        fc_client_why(rc, reply, why);
        goto out;
    }
    rc = let_go_of_channel();
    if (rc)
        snprintf(why, sizeof(why), "/dev/null: %s", strerror(errno));
    else
        wait_for_end(sock);
out:
    if (rc) {
        if (!disk) /* the other channel has frames of its own */
            tell_source(why);
        fputs("forecopy: ", c->err);
        fc_out_text(c->err, why);
        putc('\n', c->err);
    }
    fc_close(&sock);
    json_object_put(reply);
    json_object_put(request);
    return rc ? 1 : 0;
}
