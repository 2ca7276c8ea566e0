/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keepers.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "err.h"
#include "io.h"
#include "log.h"
#include "store.h"

/*
 * A store's file is as large as the whole budget, which costs nothing, and the
 * keeper's share of it changes as keepers come and go: each has budget / n.
 *
 * A keeper is a process that parses what another host sends and may be taken
 * over by it. What it says is therefore counted and logged, but decides
 * nothing: the token is the daemon's own, its end is seen from its socket and
 * its pid, and it can do no worse than spoil the store of the guest that its
 * source stages, which is checked by hash when it is read.
 */
#define EVENTS_AT_ONCE 64

struct keeper {
    struct fc_keepers *all;
    uint8_t uuid[FC_UUID_BYTES];
    uint8_t token[FC_TOKEN_BYTES];
    uint64_t epoch;
    pid_t pid;
    int sock, store_fd;
    bool ending;
    struct event *event;
    struct fc_keeper_status status;
    uint64_t channel[FC_KEEPER_CHANNELS]; /* ids given to it; 0: none */
    uint8_t *model; /* of a MODEL so far; NULL: none is coming */
    uint32_t model_total, model_have;
    struct keeper *next;
};

struct fc_keepers {
    struct fc_keepers_args args;
    struct keeper *first;
    unsigned count;
    uint64_t next_id;
};

int fc_keepers_new(const struct fc_keepers_args *args,
                   struct fc_keepers **keepers_r)
{
    struct fc_keepers *k = calloc(1, sizeof(*k));
    if (!k)
        return FC_ENOMEM;
    k->args = *args;
    k->next_id = 1;
    *keepers_r = k;
    return 0;
}

static uint64_t share_of(const struct fc_keepers *k, unsigned count)
{
    uint64_t share = k->args.budget_bytes / (count ? count : 1);
    return share > FC_STORE_MIN_BYTES ? share : FC_STORE_MIN_BYTES;
}

static void share_out(struct fc_keepers *k)
{
    for (struct keeper *one = k->first; one; one = one->next)
        if (!one->ending &&
            fc_keeper_set_budget(one->sock, share_of(k, k->count)))
            fc_warn("cannot tell a keeper its share of the memory");
}

/* Frees a keeper that is out of the list. */
static void dispose(struct keeper *one)
{
    if (one->event)
        event_free(one->event);
    fc_close(&one->sock);
    fc_close(&one->store_fd);
    free(one->model);
    free(one);
}

static void unlink_keeper(struct keeper *one)
{
    struct fc_keepers *k = one->all;
    for (struct keeper **at = &k->first; *at; at = &(*at)->next)
        if (*at == one) {
            *at = one->next;
            k->count--;
            return;
        }
}

static void channel_closed(struct keeper *one, uint64_t id)
{
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        if (id && one->channel[i] == id) {
            one->channel[i] = 0;
            one->all->args.closed(one->all->args.user, id);
            return;
        }
}

/* The keeper is gone: so are its channels and its store. */
static void over(struct keeper *one)
{
    struct fc_keepers *k = one->all;
    char uuid[FC_UUID_TEXT];
    fc_uuid_format(one->uuid, uuid);
    fc_info("the keeper of %s has ended; its store is freed", uuid);
    unlink_keeper(one);
    fc_children_forget(k->args.children, one->pid);
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        channel_closed(one, one->channel[i]);
    dispose(one);
    share_out(k);
}

static void on_ended(void *user, pid_t pid, int status)
{
    (void)pid;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fc_warn("a keeper failed (status %#x)", (unsigned)status);
    over(user);
}

/* Parts come in order, or the whole is dropped. */
static void take_model(struct keeper *one, const struct fc_keeper_event *e)
{
    struct fc_keepers *k = one->all;
    if (!e->model.at) {
        free(one->model);
        one->model = malloc(e->model.total);
        one->model_total = e->model.total;
        one->model_have = 0;
    }
    if (!one->model || e->model.at != one->model_have ||
        e->model.total != one->model_total)
        return;
    memcpy(one->model + one->model_have, e->model.bytes, e->model.len);
    one->model_have += e->model.len;
    if (one->model_have < one->model_total)
        return;
    k->args.model(k->args.user, one->uuid, one->model, one->model_total);
    free(one->model);
    one->model = NULL;
}

static void take_event(struct keeper *one, const struct fc_keeper_event *e)
{
    switch (e->type) {
    case FC_KEEPER_STATUS:
        one->status = e->status;
        if (e->status.ending)
            one->ending = true;
        break;
    case FC_KEEPER_LOG:
        fc_log(e->log.level <= FC_LOG_WARN ? FC_LOG_WARN : FC_LOG_INFO,
               "keeper %d: %s", (int)one->pid, e->log.text);
        break;
    case FC_KEEPER_CLOSED:
        channel_closed(one, e->closed.id);
        break;
    case FC_KEEPER_MODEL:
        take_model(one, e);
        break;
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct keeper *one = arg;
    struct fc_keeper_event event;
    (void)what;
    for (int i = 0; i < EVENTS_AT_ONCE; i++) {
        int rc = fc_keeper_event_read(fd, &event);
        if (!rc)
            return;
        if (rc == FC_EEOF || rc == FC_EIO) {
            over(one);
            return;
        }
        if (rc == 1)
            take_event(one, &event);
    }
}

void fc_keepers_free(struct fc_keepers *k)
{
    if (!k)
        return;
    for (struct keeper *one = k->first, *next; one; one = next) {
        next = one->next;
        (void)fc_keeper_shutdown(one->sock);
        fc_children_forget(k->args.children, one->pid);
        dispose(one);
    }
    free(k);
}

void fc_keepers_set_limits(struct fc_keepers *k, uint64_t budget_bytes,
                           uint64_t linger_ms)
{
    bool changed = k->args.budget_bytes != budget_bytes;
    k->args.budget_bytes = budget_bytes;
    k->args.linger_ms = linger_ms;
    if (changed)
        share_out(k);
}

static struct keeper *find(const struct fc_keepers *k, const uint8_t *uuid)
{
    for (struct keeper *one = k->first; one; one = one->next)
        if (!memcmp(one->uuid, uuid, FC_UUID_BYTES))
            return one;
    return NULL;
}

static int read_epoch(int store_fd, uint64_t *epoch_r)
{
    struct fc_store_view view;
    int rc = fc_store_view_open(store_fd, &view);
    if (rc)
        return rc;
    *epoch_r = view.epoch;
    fc_store_view_dispose(&view);
    return 0;
}

static int spawn(struct fc_keepers *k, struct keeper *one)
{
    int rc = fc_random(one->token, sizeof(one->token));
    if (rc)
        return rc;
    one->store_fd = fc_store_file_new("forecopy-store", k->args.budget_bytes);
    if (one->store_fd < 0)
        return one->store_fd;
    rc = read_epoch(one->store_fd, &one->epoch);
    if (rc)
        return rc;
    struct fc_keeper_args args = {
        .sock = -1,
        .store_fd = one->store_fd,
        .budget_bytes = share_of(k, k->count + 1),
        .linger_ms = k->args.linger_ms,
        .uid = k->args.uid,
        .gid = k->args.gid,
    };
    memcpy(args.uuid, one->uuid, FC_UUID_BYTES);
    memcpy(args.token, one->token, FC_TOKEN_BYTES);
    one->sock = fc_keeper_spawn(&args, &one->pid);
    if (one->sock < 0)
        return one->sock;
    one->event = event_new(k->args.base, one->sock, EV_READ | EV_PERSIST,
                           on_readable, one);
    if (!one->event || event_add(one->event, NULL) < 0)
        return FC_ENOMEM;
    return fc_children_watch(k->args.children, one->pid, on_ended, one);
}

static int start(struct fc_keepers *k, const uint8_t *uuid,
                 struct keeper **keeper_r)
{
    char text[FC_UUID_TEXT];
    if (k->count >= FC_KEEPERS_MAX ||
        k->args.budget_bytes / (k->count + 1) < FC_STORE_MIN_BYTES)
        return FC_ELIMIT;
    struct keeper *one = calloc(1, sizeof(*one));
    if (!one)
        return FC_ENOMEM;
    one->all = k;
    one->sock = one->store_fd = -1;
    memcpy(one->uuid, uuid, FC_UUID_BYTES);
    int rc = spawn(k, one);
    if (rc) {
        int saved = errno;
        dispose(one); /* a keeper without its socket ends by itself */
        errno = saved;
        return rc;
    }
    one->next = k->first;
    k->first = one;
    k->count++;
    share_out(k);
    fc_uuid_format(uuid, text);
    fc_info("started a keeper for %s (process %d, %llu MiB)", text,
            (int)one->pid, (unsigned long long)(share_of(k, k->count) >> 20));
    *keeper_r = one;
    return 0;
}

int fc_keepers_receive(struct fc_keepers *k, const uint8_t *uuid, int in_fd,
                       int out_fd, uint64_t *id_r)
{
    struct keeper *one = find(k, uuid);
    if (!one) {
        int rc = start(k, uuid, &one);
        if (rc)
            return rc;
    }
    if (one->ending)
        return FC_EBUSY;
    unsigned i = 0;
    while (i < FC_KEEPER_CHANNELS && one->channel[i])
        i++;
    if (i == FC_KEEPER_CHANNELS)
        return FC_EBUSY;
    uint64_t id = k->next_id++;
    int rc = fc_keeper_give_channel(one->sock, id, in_fd, out_fd);
    if (rc)
        return rc == FC_EIO ? FC_ESYS : rc;
    one->channel[i] = *id_r = id;
    return 0;
}

/* Takes as long wherever they differ. */
static bool same_token(const uint8_t *a, const uint8_t *b)
{
    unsigned differ = 0;
    for (unsigned i = 0; i < FC_TOKEN_BYTES; i++)
        differ |= a[i] ^ b[i];
    return !differ;
}

int fc_keepers_store(struct fc_keepers *k, const uint8_t *uuid,
                     const uint8_t *token, uint64_t epoch, uint64_t *pages_r)
{
    const struct keeper *one = find(k, uuid);
    if (!one || one->epoch != epoch)
        return FC_ENOENT;
    if (!same_token(one->token, token))
        return FC_EPERM;
    *pages_r = one->status.pages;
    return fc_store_readonly_fd(one->store_fd);
}

void fc_keepers_status(const struct fc_keepers *k, struct fc_keepers_status *s)
{
    memset(s, 0, sizeof(*s));
    s->keepers = k->count;
    s->budget_bytes = k->args.budget_bytes;
    for (const struct keeper *one = k->first; one; one = one->next) {
        s->channels += one->status.channels;
        s->pages += one->status.pages;
        s->used_bytes += one->status.used_bytes;
        s->received_bytes += one->status.received_bytes;
        s->evicted += one->status.evicted;
    }
}
