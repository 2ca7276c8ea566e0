/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who wants each request of a disk. A child reports requests only if it was
 * started for that; so the first listener, and the end of the last one, mean
 * another child, as a change of the disks does. A listener knows the child that
 * it hears by its START; what a child still has to say after it was told to end
 * is heard too.
 */
#include <stdlib.h>
#include <string.h>

#include "blocktrace_int.h"
#include "err.h"

struct fc_block_listener {
    struct fc_blocktrace *b; /* NULL: was freed */
    uint8_t uuid[FC_UUID_BYTES];
    char vdev[FC_BLOCKTRACE_VDEV];
    const struct fc_block_ears *ears;
    void *user;
    unsigned heard; /* children that have begun and not ended */
    bool ending;
    uint64_t lost; /* by children that have ended */
    struct fc_block_listener *next;
};

bool fc_blocktrace_is_heard(const struct fc_blocktrace *b, const uint8_t *uuid)
{
    for (const struct fc_block_listener *l = b->listeners; l; l = l->next)
        if (!l->ending && !memcmp(l->uuid, uuid, FC_UUID_BYTES))
            return true;
    return false;
}

bool fc_blocktrace_wants_requests(const struct fc_blocktrace *b)
{
    for (const struct fc_block_listener *l = b->listeners; l; l = l->next)
        if (!l->ending)
            return true;
    return false;
}

/* The device of the child's that is the listener's disk, or -1. */
static int device_of(const struct fc_block_listener *l, const struct run *r)
{
    for (uint32_t i = 0; r->requests && i < r->disks; i++)
        if (!memcmp(r->uuid[i], l->uuid, FC_UUID_BYTES) &&
            !strcmp(r->vdev[i], l->vdev))
            return (int)i;
    return -1;
}

void fc_blocktrace_tell_begun(struct run *r)
{
    for (struct fc_block_listener *l = r->b->listeners; l; l = l->next) {
        int i = device_of(l, r);
        if (i < 0)
            continue;
        l->heard++;
        l->ears->begun(l->user, fc_blockbatch_means_name(r->reader.start.means),
                       r->reader.start.device[i].sectors);
    }
}

void fc_blocktrace_tell_requests(struct run *r,
                                 const struct fc_blockbatch_frame *f)
{
    for (struct fc_block_listener *l = r->b->listeners; l; l = l->next)
        if (device_of(l, r) == (int)f->device)
            l->ears->requests(l->user, f);
}

void fc_blocktrace_tell_ended(struct run *r)
{
    for (struct fc_block_listener *l = r->b->listeners; l; l = l->next) {
        if (device_of(l, r) < 0)
            continue;
        if (r->reader.start.devices && l->heard)
            l->heard--;
        l->lost += r->reader.lost;
        l->ears->ended(l->user, !l->heard);
    }
}

void fc_blocktrace_drop_listeners(struct fc_blocktrace *b)
{
    for (struct fc_block_listener *l = b->listeners, *next; l; l = next) {
        next = l->next;
        l->b = NULL;
        l->heard = 0;
    }
    b->listeners = NULL;
}

/* Another child at once, and not only at the next tick. */
static void change(struct fc_blocktrace *b)
{
    b->changed = true;
    if (*b->means)
        fc_blocktrace_tick(b, b->means, fc_now_ms());
}

/* The guest's disk of that name ("": its only one). */
static int find_named(const struct fc_blocktrace *b, const uint8_t *uuid,
                      const char *vdev, const struct disk **d_r)
{
    *d_r = NULL;
    for (const struct disk *d = b->disks; d; d = d->next) {
        if (memcmp(d->uuid, uuid, FC_UUID_BYTES) ||
            (*vdev && strcmp(d->vdev, vdev)))
            continue;
        if (*d_r)
            return FC_EINVAL;
        *d_r = d;
    }
    return *d_r ? 0 : FC_ENOENT;
}

int fc_blocktrace_listen(struct fc_blocktrace *b, const uint8_t *uuid,
                         const char *vdev, const struct fc_block_ears *ears,
                         void *user, struct fc_block_listener **l_r)
{
    const struct disk *d;
    if (!b)
        return FC_ENOENT;
    struct fc_block_listener *l = calloc(1, sizeof(*l));
    if (!l)
        return FC_ENOMEM;
    *l = (struct fc_block_listener){
        .b = b, .ears = ears, .user = user, .next = b->listeners
    };
    memcpy(l->uuid, uuid, FC_UUID_BYTES);
    b->listeners = l;
    fc_blocktrace_look(b); /* it counts as wanted now */
    int rc = find_named(b, uuid, vdev, &d);
    if (rc) {
        l->ending = true; /* for no child's sake */
        fc_blocktrace_listener_free(l);
        return rc;
    }
    memcpy(l->vdev, d->vdev, sizeof(l->vdev));
    *l_r = l;
    change(b);
    return 0;
}

const char *fc_blocktrace_listener_vdev(const struct fc_block_listener *l)
{
    return l->vdev;
}

uint64_t fc_blocktrace_listener_lost(const struct fc_block_listener *l)
{
    uint64_t lost = l->lost;
    for (const struct run *r = l->b ? l->b->runs : NULL; r; r = r->next)
        if (device_of(l, r) >= 0)
            lost += r->reader.lost;
    return lost;
}

bool fc_blocktrace_listener_end(struct fc_block_listener *l)
{
    bool was = l->ending;
    l->ending = true;
    if (l->b && !was)
        change(l->b);
    return l->b && l->heard;
}

void fc_blocktrace_listener_free(struct fc_block_listener *l)
{
    if (!l)
        return;
    if (l->b && !l->ending)
        l->b->changed = true; /* a child need not report so much any more */
    struct fc_block_listener **at = l->b ? &l->b->listeners : NULL;
    while (at && *at && *at != l)
        at = &(*at)->next;
    if (at && *at)
        *at = l->next;
    free(l);
}
