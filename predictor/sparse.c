/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sparse.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"

#define CHUNK_WORDS (FC_SPARSE_PAGES / 64)

int fc_sparse_init(struct fc_sparse *s, uint64_t pages, size_t item_bytes)
{
    memset(s, 0, sizeof(*s));
    s->pages = pages;
    s->item_bytes = item_bytes;
    s->nchunks = pages / FC_SPARSE_PAGES + (pages % FC_SPARSE_PAGES != 0);
    s->chunks = calloc(s->nchunks ? s->nchunks : 1, sizeof(*s->chunks));
    return s->chunks ? 0 : FC_ENOMEM;
}

void fc_sparse_dispose(struct fc_sparse *s)
{
    for (uint64_t i = 0; s->chunks && i < s->nchunks; i++)
        free(s->chunks[i]);
    free(s->chunks);
    memset(s, 0, sizeof(*s));
}

void *fc_sparse_make(struct fc_sparse *s, uint64_t index)
{
    if (index >= s->nchunks)
        return NULL;
    if (!s->chunks[index]) {
        s->chunks[index] = calloc(FC_SPARSE_PAGES, s->item_bytes);
        s->held += s->chunks[index] != NULL;
    }
    return s->chunks[index];
}

size_t fc_sparse_bytes(const struct fc_sparse *s)
{
    return s->nchunks * sizeof(*s->chunks) +
           s->held * FC_SPARSE_PAGES * s->item_bytes;
}

int fc_sparse_each_bit(struct fc_sparse *s, const uint64_t *bits,
                       void (*each)(void *user, void *item), void *user)
{
    int rc = 0;
    uint64_t words = s->pages / 64 + (s->pages % 64 != 0);
    for (uint64_t w = 0; w < words; w++) {
        uint64_t left = bits[w];
        if (w == words - 1 && s->pages % 64)
            left &= (1ull << s->pages % 64) - 1;
        if (!left)
            continue;
        char *chunk = fc_sparse_make(s, w / CHUNK_WORDS);
        if (!chunk) {
            rc = FC_ENOMEM;
            continue;
        }
        uint64_t base = w % CHUNK_WORDS * 64;
        for (; left; left &= left - 1) {
            uint64_t at = base + (unsigned)__builtin_ctzll(left);
            each(user, chunk + at * s->item_bytes);
        }
    }
    return rc;
}

void fc_sparse_each_item(struct fc_sparse *s,
                         void (*each)(void *user, void *item), void *user)
{
    for (uint64_t i = 0; i < s->nchunks; i++)
        for (unsigned n = 0; s->chunks[i] && n < FC_SPARSE_PAGES; n++)
            each(user, (char *)s->chunks[i] + n * s->item_bytes);
}
