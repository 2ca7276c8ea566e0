/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_MIXTURE_KIT_H
#define FC_TEST_MIXTURE_KIT_H

#include <stdint.h>

/* The same chances, 0 to 1, for every run. */
static inline float chance(void)
{
    static uint64_t x = 0x9e3779b97f4a7c15ull;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (float)(x >> 40) * 0x1p-24f;
}

#endif
