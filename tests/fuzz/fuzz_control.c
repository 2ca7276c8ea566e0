/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control socket: any bytes parse to an object or a reason, every accessor
 * takes whatever it finds, and a client's bytes, however they fall into lines,
 * leave nothing behind. */
#include <event2/event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "ctl.h"
#include "err.h"
#include "io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visit(struct json_object *o)
{
    json_object_object_foreach(o, key, value)
    {
        if (!fc_json_str(o, key, ""))
            abort();
        fc_json_int(o, key, 0);
        fc_json_double(o, key, 0);
        fc_json_bool(o, key, 0);
        fc_ctl_code(fc_json_str(o, key, ""));
        if (json_object_is_type(value, json_type_object))
            visit(value);
    }
}

static void on_request(void *user, struct fc_client *client,
                       struct json_object *req, int fds[FC_CTL_MAX_FDS])
{
    (void)user;
    if (fds[0] >= 0)
        abort(); /* none was sent */
    visit(req);
    if (fc_json_bool(req, "bye", 0))
        fc_client_close(client);
    else if (fc_json_int(req, "n", 0) % 2)
        fc_client_fail(client, FC_EINVAL, "odd");
    else
        fc_client_reply(client, json_object_get(req), -1);
}

static void on_gone(void *user, struct fc_client *client)
{
    (void)user;
    (void)client;
}

static struct event_base *base;
static char dir[] = "/tmp/fc-fuzz-XXXXXX", path[64];

static void clean_up(void)
{
    unlink(path);
    rmdir(dir);
}

static struct fc_control *serve(void)
{
    static const struct fc_control_handler handler = { on_request, on_gone };
    struct fc_control *control;
    base = event_base_new();
    if (!base || !mkdtemp(dir))
        abort();
    snprintf(path, sizeof(path), "%s/sock", dir);
    if (fc_control_new(base, path, &handler, NULL, &control))
        abort();
    atexit(clean_up);
    return control;
}

/* The same bytes as a client's whole life. */
static void be_a_client(const uint8_t *data, size_t size)
{
    static struct fc_control *control;
    static char answers[65536];
    if (!control)
        control = serve();
    int s = fc_ctl_connect(path, 1000);
    if (s < 0 || fc_set_nonblock(s, 1))
        abort();
    event_base_loop(base, EVLOOP_NONBLOCK);
    while (size) {
        ssize_t r = send(s, data, size, MSG_NOSIGNAL);
        event_base_loop(base, EVLOOP_NONBLOCK);
        (void)!read(s, answers, sizeof(answers));
        if (r <= 0)
            break;
        data += r;
        size -= (size_t)r;
    }
    close(s);
    for (unsigned i = 0; fc_control_clients(control); i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (i > 10000)
            abort(); /* a client that is gone stays */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *why;
    size_t len;
    be_a_client(data, size);
    struct json_object *o = fc_ctl_parse((const char *)data, size, &why);
    if (!o != (why != NULL))
        abort();
    if (!o)
        return 0;
    visit(o);
    char *line = fc_ctl_line(o, FC_CTL_MAX_REPLY, &len);
    if (line && (memchr(line, '\n', len - 1) || line[len - 1] != '\n'))
        abort();
    free(line);
    json_object_put(o);
    return 0;
}
