/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../rng.h"
#include "batch.h"
#include "err.h"
#include "golden.h"

#define TYPE(t) ((uint64_t)(t) << FC_PFN_TYPE_SHIFT)

static uint8_t out[FC_BATCH_MAX_BYTES];
static uint8_t content[FC_BATCH_PAGES][FC_PAGE_SIZE];
static uint8_t unpacked[FC_BATCH_PAGES][FC_PAGE_SIZE];
static uint8_t good[FC_BATCH_PAGES];
static struct fc_batch_item items[FC_BATCH_PAGES];

static void fill(uint8_t *page, int compressible)
{
    for (unsigned i = 0; i < FC_PAGE_SIZE; i++)
        page[i] = compressible ? (uint8_t)(i / 64) : (uint8_t)test_rng();
    page[0] = 1;
}

static void make_random_items(unsigned n)
{
    uint64_t pfn = test_rng() & 0xffff;
    for (unsigned i = 0; i < n; i++) {
        pfn += 1 + (test_rng() % 4 == 0) * (test_rng() % 100);
        enum fc_batch_kind kind = test_rng() % 4;
        fill(content[i], test_rng() % 2);
        items[i] = (struct fc_batch_item){
            .entry = pfn | TYPE(kind == FC_BATCH_NONE ? 0xd + test_rng() % 3
                                                      : test_rng() % 5),
            .page = content[i],
            .hash = fc_page_hash(content[i]),
            .kind = kind,
        };
    }
}

static void assert_same(const struct fc_batch *b, unsigned n)
{
    struct fc_batch_iter it;
    struct fc_batch_step s;
    unsigned i = 0;
    fc_batch_iter_init(&it, b);
    while (fc_batch_next(&it, &s)) {
        for (unsigned k = 0; k < s.count; k++, i++) {
            assert_true(i < n);
            assert_int_equal(s.entry + k, items[i].entry);
            assert_int_equal(s.kind, items[i].kind);
        }
        if (s.kind == FC_BATCH_REF || s.kind == FC_BATCH_DATA)
            assert_true(fc_hash_equal(s.hash, items[i - 1].hash));
        if (s.kind == FC_BATCH_DATA) {
            assert_int_equal(good[s.data_index], 1);
            assert_memory_equal(unpacked[s.data_index], content[i - 1],
                                FC_PAGE_SIZE);
        }
    }
    assert_int_equal(i, n);
}

/* Would break: a page comes out under another pfn or with other bytes. */
static void round_trip(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        unsigned n = round ? 1 + test_rng() % FC_BATCH_PAGES : FC_BATCH_PAGES;
        struct fc_batch b;
        const char *why;
        make_random_items(n);
        ssize_t len = fc_batch_encode(items, n, out, sizeof(out));
        assert_true(len > 0);
        assert_int_equal(fc_batch_parse(out, (size_t)len, &b, &why), 0);
        assert_int_equal(fc_batch_unpack(&b, unpacked[0], good),
                         b.data_pages);
        assert_same(&b, n);
    }
}

/* Would break: the batch outgrows the length that every receiver allows. */
static void worst_case_fits(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FC_BATCH_PAGES; i++) {
        fill(content[i], 0);
        items[i] = (struct fc_batch_item){ .entry = 2 * i,
                                           .page = content[i],
                                           .hash = fc_page_hash(content[i]),
                                           .kind = FC_BATCH_DATA };
    }
    ssize_t len = fc_batch_encode(items, FC_BATCH_PAGES, out, sizeof(out));
    assert_true(len > (ssize_t)(FC_BATCH_PAGES * FC_PAGE_SIZE));
    assert_int_equal(fc_batch_encode(items, FC_BATCH_PAGES, out,
                                     (size_t)len - 1),
                     FC_ETOOBIG);
}

/* Would break: a million-page hole costs more than one run. */
static void holes_are_one_run(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FC_BATCH_PAGES; i++)
        items[i] = (struct fc_batch_item){ .entry = (500 + i) | TYPE(0xf),
                                           .kind = FC_BATCH_NONE };
    assert_int_equal(fc_batch_encode(items, FC_BATCH_PAGES, out, sizeof(out)),
                     24 + 16);
}

/* Would break: contents for a page type that has none, or none for one that
 * has, desynchronise libxc's reader. */
static void kinds_must_fit_types(void **state)
{
    (void)state;
    fill(content[0], 1);
    struct fc_batch_item bad[] = {
        { .entry = TYPE(0xf), .page = content[0], .kind = FC_BATCH_DATA },
        { .entry = 1, .kind = FC_BATCH_NONE },
        { .entry = 1ull << 55, .kind = FC_BATCH_ZERO },
    };
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(fc_batch_encode(&bad[i], 1, out, sizeof(out)),
                         FC_EINVAL);
    assert_int_equal(fc_batch_encode(items, 0, out, sizeof(out)), FC_EINVAL);
}

/* Would break: damaged contents are taken for the page. */
static void damage_is_not_good(void **state)
{
    (void)state;
    for (int compressible = 0; compressible < 2; compressible++) {
        struct fc_batch b;
        fill(content[0], compressible);
        items[0] = (struct fc_batch_item){ .entry = 7,
                                           .page = content[0],
                                           .hash = fc_page_hash(content[0]),
                                           .kind = FC_BATCH_DATA };
        ssize_t len = fc_batch_encode(items, 1, out, sizeof(out));
        out[len - 3] ^= 0x40;
        if (fc_batch_parse(out, (size_t)len, &b, NULL) == 0)
            assert_int_equal(fc_batch_unpack(&b, unpacked[0], good), 0);
    }
}

/* Would break: a truncated or altered batch is read past its end (the
 * sanitizer sees it) or accepted with counts that lie. */
static void mutations_are_refused_or_harmless(void **state)
{
    (void)state;
    make_random_items(40);
    ssize_t len = fc_batch_encode(items, 40, out, sizeof(out));
    struct fc_batch b;
    for (ssize_t cut = 0; cut < len; cut++) {
        uint8_t *copy = malloc((size_t)cut + 1);
        memcpy(copy, out, (size_t)cut);
        assert_int_equal(fc_batch_parse(copy, (size_t)cut, &b, NULL),
                         FC_EFORMAT);
        free(copy);
    }
    uint8_t *copy = malloc((size_t)len);
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(copy, out, (size_t)len);
        copy[test_rng() % (i % 2 ? 800u : (size_t)len)] ^= (uint8_t)(1 + test_rng() % 255);
        if (fc_batch_parse(copy, (size_t)len, &b, NULL) == 0)
            fc_batch_unpack(&b, unpacked[0], good);
    }
    free(copy);
}

/* Would break: the format changes without its document and version. */
static void golden_batch(void **state)
{
    (void)state;
    memset(content[0], 'x', FC_PAGE_SIZE);
    struct fc_batch_item fixed[] = {
        { .entry = 1, .kind = FC_BATCH_ZERO },
        { .entry = 2, .kind = FC_BATCH_ZERO },
        { .entry = 9 | TYPE(1), .hash = { 0x1122, 0x3344 },
          .kind = FC_BATCH_REF },
        { .entry = 16, .page = content[0], .hash = fc_page_hash(content[0]),
          .kind = FC_BATCH_DATA },
        { .entry = 100 | TYPE(0xf), .kind = FC_BATCH_NONE },
    };
    ssize_t len = fc_batch_encode(fixed, 5, out, sizeof(out));
    assert_true(len > 0);
    assert_golden("page-batch", out, (size_t)len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(worst_case_fits),
        cmocka_unit_test(holes_are_one_run),
        cmocka_unit_test(kinds_must_fit_types),
        cmocka_unit_test(damage_is_not_good),
        cmocka_unit_test(mutations_are_refused_or_harmless),
        cmocka_unit_test(golden_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
