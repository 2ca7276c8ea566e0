/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A MODEL frame, which the privileged daemon reads: profile and what was
 * learned are those of their readers, and a refusal says why. Checksums are
 * made to match, or nothing would get past them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fuzz_learned.h"
#include "learned.h"
#include "luggage.h"
#include "wire.h"

#define HEAD 4u
#define CHECK 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *bytes, size_t size)
{
    size_t profile = size >= HEAD ? (size_t)fc_le_load(bytes, HEAD) : 0;
    if (profile < CHECK || profile > size - HEAD)
        return;
    uint8_t *end = bytes + HEAD + profile;
    fc_le_store(end - CHECK, XXH3_64bits(bytes + HEAD, profile - CHECK), CHECK);
    learned_mend(end, size - HEAD - profile);
}

/* What is kept of it is read again when the guest is armed. */
static void use(const struct fc_luggage *l, const uint8_t *bytes, size_t size)
{
    static uint8_t again[FC_PROFILE_BYTES];
    static struct fc_learned learned;
    struct fc_model_problem problem;
    ssize_t n = fc_profile_encode(&l->profile, again, sizeof(again));
    if (n < 0 || (size_t)n + HEAD + l->learned_len != size ||
        memcmp(bytes + HEAD, again, (size_t)n) ||
        l->learned != bytes + HEAD + n)
        abort();
    if (!l->learned_len)
        return;
    if (fc_learned_parse(l->learned, l->learned_len, &learned, &problem))
        abort();
    fc_learned_dispose(&learned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fc_luggage l;
    char why[160] = "";
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy)
        return 0;
    memcpy(copy, data, size);
    mend(copy, size);
    if (!fc_luggage_parse(copy, size, &l, why, sizeof(why)))
        use(&l, copy, size);
    else if (!*why)
        abort();
    free(copy);
    return 0;
}
