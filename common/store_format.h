/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_STORE_FORMAT_H
#define FC_STORE_FORMAT_H

#include <endian.h>
#include <stdint.h>

/* What the store's writer and its views share: docs/formats/store.md. */
#define FC_STORE_MAGIC "FCSTORE1"
#define FC_STORE_HEADER 64u
#define FC_STORE_SLOT 32u
#define FC_STORE_LOG2_MIN 8u
#define FC_STORE_LOG2_MAX 28u
#define FC_STORE_ALIGN 4096u
#define FC_STORE_WRITERS_AT 40u /* in the header */
#define FC_STORE_IN_USE_AT 44u  /* changes while the store is read */
#define FC_STORE_PROBES 1024u   /* an entry is closer than that to its home */

static inline uint32_t fc_store_in_use_get(const uint8_t *map)
{
    const uint32_t *at =
        (const uint32_t *)(const void *)(map + FC_STORE_IN_USE_AT);
    return le32toh(__atomic_load_n(at, __ATOMIC_ACQUIRE));
}

static inline void fc_store_in_use_set(uint8_t *map, uint32_t log2)
{
    uint32_t *at = (uint32_t *)(void *)(map + FC_STORE_IN_USE_AT);
    __atomic_store_n(at, htole32(log2), __ATOMIC_RELEASE);
}

/* A slot as four little-endian words. The other process may be writing or
 * reading it: every access is one whole word. */
enum fc_store_word {
    FC_STORE_LO = 0,
    FC_STORE_HI = 1,
    FC_STORE_OFFSET = 2,
    FC_STORE_REST = 3, /* stored bytes in bits 0-15, references in 32-63 */
};

static inline uint64_t fc_store_word_get(const uint64_t *slot, unsigned word)
{
    return le64toh(__atomic_load_n(&slot[word], __ATOMIC_ACQUIRE));
}

static inline void fc_store_word_set(uint64_t *slot, unsigned word,
                                     uint64_t value)
{
    __atomic_store_n(&slot[word], htole64(value), __ATOMIC_RELEASE);
}

#endif
