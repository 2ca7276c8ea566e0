/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_RNG_H
#define FC_TEST_RNG_H

#include <stdint.h>

/* For tests and benches: noise that is the same in every run (xorshift64,
 * G. Marsaglia, "Xorshift RNGs", 2003). The state is the program's. */
static inline uint64_t test_rng(void)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

#endif
