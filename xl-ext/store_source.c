/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store_source.h"

#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "io.h"
#include "log.h"

/* Together well below the shortest time that a source waits for WELCOME by
 * default. */
#define CONNECT_MS 1000
#define REPLY_MS 3000

static bool has_token(const struct fc_hello *hello)
{
    static const uint8_t none[FC_TOKEN_BYTES];
    return memcmp(hello->token, none, sizeof(none)) != 0;
}

static struct json_object *make_request(const struct fc_hello *hello)
{
    char uuid[FC_UUID_TEXT], token[2 * FC_TOKEN_BYTES + 1];
    struct json_object *o = json_object_new_object();
    fc_uuid_format(hello->uuid, uuid);
    fc_hex_format(hello->token, sizeof(hello->token), token);
    json_object_object_add(o, "cmd", json_object_new_string("store-open"));
    json_object_object_add(o, "uuid", json_object_new_string(uuid));
    json_object_object_add(o, "token", json_object_new_string(token));
    json_object_object_add(o, "epoch", json_object_new_uint64(hello->epoch));
    return o;
}

/* The store's descriptor, or an error. */
static int ask_daemon(const struct fc_hello *hello, uint64_t *pages_r)
{
    struct json_object *request = NULL, *reply = NULL;
    int fds[FC_CTL_MAX_FDS] = { -1, -1 };
    int sock = fc_ctl_connect(NULL, CONNECT_MS);
    if (sock < 0)
        return sock;
    request = make_request(hello);
    int rc = fc_ctl_call(sock, request, NULL, 0, &reply, fds, REPLY_MS);
    if (rc == 0) {
        *pages_r = (uint64_t)fc_json_int(reply, "pages", 0);
        rc = fds[0] >= 0 ? fds[0] : FC_EFORMAT;
        fds[0] = -1;
    }
    for (int i = 0; i < FC_CTL_MAX_FDS; i++)
        fc_close(&fds[i]);
    json_object_put(reply);
    json_object_put(request);
    fc_close(&sock);
    return rc;
}

int fc_store_source_open(struct fc_store_source *s,
                         const struct fc_hello *hello)
{
    *s = (struct fc_store_source){ .open = 0 };
    if (!has_token(hello))
        return FC_ENOENT;
    int fd = ask_daemon(hello, &s->pages);
    int rc = fd < 0 ? fd : fc_store_view_open(fd, &s->view);
    fc_close(&fd);
    if (rc == 0 && s->view.epoch != hello->epoch) {
        fc_store_view_dispose(&s->view);
        rc = FC_ENOENT;
    }
    s->open = rc == 0;
    if (rc < 0)
        fc_warn("forecopy: the staged pages cannot be used: %s",
                fc_strerror(rc));
    return rc;
}

void fc_store_source_dispose(struct fc_store_source *s)
{
    if (s->open)
        fc_store_view_dispose(&s->view);
    s->open = 0;
}

static int get(void *user, struct fc_hash hash, void *page)
{
    struct fc_store_source *s = user;
    return fc_store_view_get(&s->view, hash, page);
}

struct fc_page_source fc_store_source_pages(struct fc_store_source *s)
{
    return (struct fc_page_source){ .get = s->open ? get : NULL, .user = s };
}
