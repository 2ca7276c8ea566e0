/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "samples.h"

#include <stdlib.h>
#include <string.h>

void fc_samples_init(struct fc_samples *s)
{
    memset(s, 0, sizeof(*s));
}

void fc_samples_dispose(struct fc_samples *s)
{
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        for (unsigned i = 0; i < FC_SAMPLES_PENDING; i++)
            free(s->ring[z][i]);
    fc_samples_init(s);
}

bool fc_samples_wanted(const struct fc_samples *s, unsigned horizon,
                       uint32_t now)
{
    return (int32_t)(now - s->next[horizon]) >= 0 &&
           s->waiting[horizon] < FC_SAMPLES_PENDING;
}

struct fc_sample *fc_samples_add(struct fc_samples *s, unsigned horizon,
                                 uint32_t now, uint32_t ticks)
{
    uint32_t at =
        (s->first[horizon] + s->waiting[horizon]) % FC_SAMPLES_PENDING;
    struct fc_sample **p = &s->ring[horizon][at];
    if (!*p && !(*p = malloc(sizeof(**p))))
        return NULL;
    s->waiting[horizon]++;
    s->next[horizon] =
        now + (ticks + FC_SAMPLES_PENDING - 1) / FC_SAMPLES_PENDING;
    (*p)->taken = now;
    (*p)->due = now + ticks;
    (*p)->n = 0;
    return *p;
}

const struct fc_sample *fc_samples_due(struct fc_samples *s, unsigned horizon,
                                       uint32_t now)
{
    struct fc_sample *p = s->ring[horizon][s->first[horizon]];
    if (!s->waiting[horizon] || (int32_t)(now - p->due) < 0)
        return NULL;
    s->first[horizon] = (s->first[horizon] + 1) % FC_SAMPLES_PENDING;
    s->waiting[horizon]--;
    return p;
}

void fc_samples_forget(struct fc_samples *s, unsigned horizon)
{
    s->waiting[horizon] = 0;
    s->next[horizon] = 0;
}

uint64_t fc_samples_bytes(const struct fc_samples *s)
{
    uint64_t bytes = sizeof(*s);
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        for (unsigned i = 0; i < FC_SAMPLES_PENDING; i++)
            bytes += s->ring[z][i] ? sizeof(*s->ring[z][i]) : 0;
    return bytes;
}
