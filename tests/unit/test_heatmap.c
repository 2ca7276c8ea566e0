/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A picture would show heat in the wrong place, or a guest's name would get
 * into the terminal or the document as more than text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "golden.h"
#include "heatmap.h"

static struct fc_heatmap map;
static char *text;
static size_t text_len;

static const struct fc_heatmap_labels labels = { .title = "web1",
                                                 .horizon_ms = 10000,
                                                 .page_bytes = 4096 };

static int tear_down(void **state)
{
    (void)state;
    free(text);
    text = NULL;
    return 0;
}

static void draw(bool svg, const struct fc_heatmap_labels *l)
{
    tear_down(NULL);
    FILE *f = open_memstream(&text, &text_len);
    assert_non_null(f);
    if (svg)
        fc_heatmap_svg(&map, l, f);
    else
        fc_heatmap_text(&map, l, 16, f);
    fclose(f);
}

static void test_cells_part_the_pages(void **state)
{
    static const uint64_t sizes[] = { 1, 7, 4096, 4097, 1ull << 40, 0 };
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        fc_heatmap_init(&map, sizes[i], 1000);
        assert_int_equal(fc_heatmap_first(&map, 0), 0);
        assert_int_equal(fc_heatmap_first(&map, map.cells), map.pages);
        for (unsigned c = 0; c < map.cells; c++)
            assert_true(fc_heatmap_first(&map, c) <
                        fc_heatmap_first(&map, c + 1));
    }
    fc_heatmap_init(&map, 1 << 20, 1u << 30);
    assert_int_equal(map.cells, FC_HEATMAP_CELLS);
}

static void test_heat_is_where_it_belongs(void **state)
{
    (void)state;
    fc_heatmap_init(&map, 1000, 10);
    fc_heatmap_add(&map, 150, 100, 0.5f); /* half of cell 1, half of cell 2 */
    fc_heatmap_add(&map, 500, 100, 1);
    fc_heatmap_add(&map, 990, UINT64_MAX, 1);
    fc_heatmap_add(&map, 1000, 5, 1);
    fc_heatmap_add(&map, UINT64_MAX, UINT64_MAX, 1);
    fc_heatmap_add(&map, 0, 10, -1);
    const float want[] = { 0, 0.25f, 0.25f, 0, 0, 1, 0, 0, 0, 0.1f };
    for (unsigned c = 0; c < 10; c++)
        assert_float_equal(map.heat[c], want[c], 1e-5);
    fc_heatmap_init(&map, 10, 3); /* cells of 3, 3 and 4 pages */
    fc_heatmap_add(&map, 0, 10, 0.5f);
    for (unsigned c = 0; c < 3; c++)
        assert_float_equal(map.heat[c], 0.5f, 1e-5);
}

static void some_heat(void)
{
    fc_heatmap_init(&map, 32768, 40);
    fc_heatmap_add(&map, 0, 4096, 0.0001f);
    fc_heatmap_add(&map, 4096, 2048, 0.02f);
    fc_heatmap_add(&map, 8192, 1024, 0.3f);
    fc_heatmap_add(&map, 30000, 2768, 0.95f);
}

static void test_golden(void **state)
{
    (void)state;
    some_heat();
    draw(false, &labels);
    assert_golden("heatmap-text", text, text_len);
    draw(true, &labels);
    assert_golden("heatmap-svg", text, text_len);
}

static void test_hotter_is_denser(void **state)
{
    (void)state;
    some_heat();
    draw(false, &labels);
    const char *first = strchr(text, '\n') + 14, *third = first;
    assert_int_equal(first[0], '.');
    assert_int_equal(first[13], ' ');
    for (unsigned line = 0; line < 2; line++)
        third = strchr(third, '\n') + 14;
    assert_int_equal(third[7], '@');
}

static void test_names_are_only_text(void **state)
{
    const struct fc_heatmap_labels odd = { .title = "a\033[2J<script>&\"\xff",
                                           .horizon_ms = 1,
                                           .page_bytes = 1 };
    (void)state;
    some_heat();
    draw(false, &odd);
    assert_null(strchr(text, '\033'));
    draw(true, &odd);
    assert_null(strstr(text, "<script"));
    assert_null(strchr(text, '\033'));
    assert_null(strchr(text, '\xff'));
    assert_non_null(strstr(text, "a?[2J&#60;script&#62;&#38;&#34;?</text>"));
}

int main(void)
{
#define T(test) cmocka_unit_test_teardown(test, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_cells_part_the_pages),
        T(test_heat_is_where_it_belongs),
        T(test_golden),
        T(test_hotter_is_denser),
        T(test_names_are_only_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
