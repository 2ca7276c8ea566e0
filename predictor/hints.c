/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

#define MOST_IN_S 604800u
#define MOST_LENGTH_S 86400u
#define LENGTH_S 60u
#define NEAR_MS 10000.0f /* away at which an event counts half */

void fc_hints_init(struct fc_hints *h)
{
    memset(h, 0, sizeof(*h));
}

void fc_hints_begin(struct fc_hints *h)
{
    for (unsigned i = 0; i < h->count; i++)
        h->hint[i].seen = false;
}

void fc_hints_end(struct fc_hints *h)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < h->count; i++)
        if (h->hint[i].seen)
            h->hint[kept++] = h->hint[i];
    h->count = kept;
}

static bool name_ok(const char *name)
{
    size_t len = strnlen(name, FC_HINT_NAME);
    return len && len < FC_HINT_NAME &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == len;
}

/* The next number of the text, which is moved past it and the space after it.
 * False: not a number in range. */
static bool take_number(const char **text, uint32_t min, uint32_t max,
                        uint32_t *value_r)
{
    size_t digits = strspn(*text, "0123456789");
    if (!digits || digits > 10)
        return false;
    uint64_t v = strtoull(*text, NULL, 10);
    *text += digits;
    if (v < min || v > max)
        return false;
    if (**text == ' ' && (*text)[1])
        ++*text;
    else if (**text)
        return false;
    *value_r = (uint32_t)v;
    return true;
}

static bool parse(const char *text, uint32_t *in_s, uint32_t *length_s)
{
    uint32_t serial;
    *length_s = LENGTH_S;
    return take_number(&text, 0, MOST_IN_S, in_s) &&
           (!*text || take_number(&text, 1, MOST_LENGTH_S, length_s)) &&
           (!*text || take_number(&text, 0, UINT32_MAX, &serial)) && !*text;
}

static enum fc_hint_kind kind_of(const char *name)
{
    static const char *const prefixes[] = {
        [FC_HINT_CHECKPOINT] = "checkpoint",
        [FC_HINT_BACKUP] = "backup",
        [FC_HINT_BATCH] = "batch",
    };
    for (unsigned k = 0; k < FC_HINT_OTHER; k++)
        if (!strncmp(name, prefixes[k], strlen(prefixes[k])))
            return (enum fc_hint_kind)k;
    return FC_HINT_OTHER;
}

static struct fc_hint *find(struct fc_hints *h, const char *name)
{
    for (unsigned i = 0; i < h->count; i++)
        if (!strcmp(h->hint[i].name, name))
            return &h->hint[i];
    return NULL;
}

int fc_hints_set(struct fc_hints *h, const char *name, const char *value,
                 uint64_t now_ms, char *why, size_t why_len)
{
    uint32_t in_s, length_s;
    if (!name_ok(name)) {
        snprintf(why, why_len,
                 "the name of a hint is not 1 to 32 of a-z, "
                 "0-9, - and _");
        return FC_EFORMAT;
    }
    if (strnlen(value, FC_HINT_TEXT) == FC_HINT_TEXT ||
        !parse(value, &in_s, &length_s)) {
        snprintf(why, why_len,
                 "hint %s is not IN [LENGTH [SERIAL]] in seconds, or out of "
                 "range",
                 name);
        return FC_EFORMAT;
    }
    struct fc_hint *hint = find(h, name);
    if (!hint && h->count == FC_HINTS_MAX) {
        snprintf(why, why_len, "hint %s is one more than %u", name,
                 FC_HINTS_MAX);
        return FC_ELIMIT;
    }
    if (!hint) {
        hint = &h->hint[h->count++];
        memset(hint, 0, sizeof(*hint));
        memcpy(hint->name, name, strlen(name) + 1);
        hint->kind = kind_of(name);
    }
    hint->seen = true;
    if (strcmp(hint->text, value)) {
        memcpy(hint->text, value, strlen(value) + 1);
        hint->begin_ms = now_ms + in_s * 1000ull;
        hint->end_ms = hint->begin_ms + length_s * 1000ull;
    }
    return 0;
}

void fc_hints_features(const struct fc_hints *h, uint64_t now_ms,
                       float out[FC_HINT_KINDS])
{
    for (unsigned k = 0; k < FC_HINT_KINDS; k++)
        out[k] = 0;
    for (unsigned i = 0; i < h->count; i++) {
        const struct fc_hint *hint = &h->hint[i];
        if (now_ms >= hint->end_ms)
            continue;
        float away_ms =
            now_ms < hint->begin_ms ? (float)(hint->begin_ms - now_ms) : 0;
        float x = NEAR_MS / (NEAR_MS + away_ms);
        if (x > out[hint->kind])
            out[hint->kind] = x;
    }
}
