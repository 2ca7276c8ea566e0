/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "heatmap.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/*
 * Shades are even on a scale of octaves: of memory most is cold, and whether a
 * cell is touched with a chance of a hundredth or a thousandth is what decides
 * on staging.
 */
#define SHADES 9         /* besides untouched */
#define LEAST_HEAT 1e-3f /* below: the first shade */
#define MIN_WIDTH 8u
#define MAX_WIDTH 256u

#define SVG_COLUMNS 64u
#define SVG_CELL 12u
#define SVG_MARGIN 24u

static const char shade_chars[SHADES + 2] = ".:-=+*#%@";
/* from dark blue to yellow, readable in print and by the colour-blind */
static const char *const shade_colours[SHADES] = {
    "#352a87", "#0363e1", "#1485d4", "#06a7c6", "#38b99e",
    "#92bf73", "#d9ba56", "#fcce2e", "#f9fb0e",
};

void fc_heatmap_init(struct fc_heatmap *map, uint64_t pages, unsigned cells)
{
    memset(map, 0, sizeof(*map));
    map->pages = pages ? pages : 1;
    cells = cells < FC_HEATMAP_CELLS ? cells : FC_HEATMAP_CELLS;
    cells = cells ? cells : 1;
    map->cells = cells < map->pages ? cells : (unsigned)map->pages;
}

uint64_t fc_heatmap_first(const struct fc_heatmap *map, unsigned cell)
{
    uint64_t each = map->pages / map->cells, more = map->pages % map->cells;
    return each * cell + more * cell / map->cells;
}

static unsigned cell_of(const struct fc_heatmap *map, uint64_t page)
{
    double share = (double)page / (double)map->pages;
    unsigned cell = (unsigned)(share * map->cells);
    cell = cell < map->cells ? cell : map->cells - 1;
    while (cell && fc_heatmap_first(map, cell) > page)
        cell--;
    while (cell + 1 < map->cells && fc_heatmap_first(map, cell + 1) <= page)
        cell++;
    return cell;
}

void fc_heatmap_add(struct fc_heatmap *map, uint64_t first, uint64_t pages,
                    float p)
{
    if (first >= map->pages || !pages || !(p > 0))
        return;
    uint64_t end = pages < map->pages - first ? first + pages : map->pages;
    p = fminf(p, 1);
    for (unsigned c = cell_of(map, first); c < map->cells && first < end; c++) {
        uint64_t from = fc_heatmap_first(map, c);
        uint64_t to = fc_heatmap_first(map, c + 1);
        uint64_t until = to < end ? to : end;
        double share = (double)(until - first) / (double)(to - from);
        map->heat[c] = fminf(map->heat[c] + (float)share * p, 1);
        first = until;
    }
}

/* -1: not expected to be touched at all. */
static int shade_of(float heat)
{
    if (!(heat > 0))
        return -1;
    float at = 1 - log2f(fmaxf(fminf(heat, 1), LEAST_HEAT)) / log2f(LEAST_HEAT);
    int shade = (int)(at * SHADES);
    return shade < SHADES ? shade : SHADES - 1;
}

/* The least heat of a shade, percent. */
static double shade_percent(int shade)
{
    return 100 * pow((double)LEAST_HEAT, 1 - (double)shade / SHADES);
}

static void put_plain(const char *text, FILE *out)
{
    for (; *text; text++)
        putc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

static void put_xml(const char *text, FILE *out)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<' || c == '>' || c == '&' || c == '"')
            fprintf(out, "&#%d;", c);
        else /* beyond ASCII it might not be UTF-8 */
            putc(c < 0x20 || c >= 0x7f ? '?' : c, out);
    }
}

static double mib(uint64_t pages, const struct fc_heatmap_labels *labels)
{
    return (double)pages * labels->page_bytes / (1 << 20);
}

void fc_heatmap_text(const struct fc_heatmap *map,
                     const struct fc_heatmap_labels *labels, unsigned width,
                     FILE *out)
{
    width = width < MIN_WIDTH ? MIN_WIDTH : width;
    width = width > MAX_WIDTH ? MAX_WIDTH : width;
    put_plain(labels->title, out);
    fprintf(out, ": %.1f MiB, %.2f MiB a character, touched within %.3g s\n",
            mib(map->pages, labels), mib(map->pages, labels) / map->cells,
            labels->horizon_ms / 1000.0);
    for (unsigned c = 0; c < map->cells; c++) {
        int shade = shade_of(map->heat[c]);
        if (c % width == 0)
            fprintf(out, "%12.1f ", mib(fc_heatmap_first(map, c), labels));
        putc(shade < 0 ? ' ' : shade_chars[shade], out);
        if (c % width == width - 1 || c + 1 == map->cells)
            putc('\n', out);
    }
    fputs("share expected:", out);
    for (int s = 0; s < SHADES; s++)
        fprintf(out, " %c %.2g%%", shade_chars[s], shade_percent(s));
    putc('\n', out);
}

static void put_cells(const struct fc_heatmap *map,
                      const struct fc_heatmap_labels *labels, FILE *out)
{
    for (unsigned c = 0; c < map->cells; c++) {
        int shade = shade_of(map->heat[c]);
        if (shade < 0)
            continue;
        fprintf(out,
                "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" "
                "fill=\"%s\"><title>%.2f MiB: %.3g%%</title></rect>\n",
                SVG_MARGIN + c % SVG_COLUMNS * SVG_CELL,
                2 * SVG_MARGIN + c / SVG_COLUMNS * SVG_CELL, SVG_CELL - 1,
                SVG_CELL - 1, shade_colours[shade],
                mib(fc_heatmap_first(map, c), labels),
                100 * (double)map->heat[c]);
    }
}

static void put_legend(unsigned y, FILE *out)
{
    for (int s = 0; s < SHADES; s++) {
        unsigned x = SVG_MARGIN + (unsigned)s * 80;
        fprintf(out,
                "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" "
                "fill=\"%s\"/>\n<text x=\"%u\" y=\"%u\">%.2g%%</text>\n",
                x, y, SVG_CELL, SVG_CELL, shade_colours[s], x + SVG_CELL + 4,
                y + SVG_CELL - 2, shade_percent(s));
    }
}

void fc_heatmap_svg(const struct fc_heatmap *map,
                    const struct fc_heatmap_labels *labels, FILE *out)
{
    unsigned rows = (map->cells + SVG_COLUMNS - 1) / SVG_COLUMNS;
    unsigned width = 2 * SVG_MARGIN + SVG_COLUMNS * SVG_CELL;
    unsigned below = 2 * SVG_MARGIN + rows * SVG_CELL + SVG_CELL;
    unsigned height = below + 2 * SVG_MARGIN;
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" "
            "height=\"%u\" viewBox=\"0 0 %u %u\" "
            "font-family=\"sans-serif\" font-size=\"11\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
            "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" "
            "fill=\"#eeeeee\"/>\n<text x=\"%u\" y=\"%u\" font-size=\"14\">",
            width, height, width, height, SVG_MARGIN, 2 * SVG_MARGIN,
            SVG_COLUMNS * SVG_CELL, rows * SVG_CELL, SVG_MARGIN, SVG_MARGIN);
    put_xml(labels->title, out);
    fprintf(out,
            "</text>\n<text x=\"%u\" y=\"%u\">%.1f MiB, %.2f MiB a cell; "
            "share of its pages expected to be touched within %.3g "
            "s</text>\n",
            SVG_MARGIN, SVG_MARGIN + 16, mib(map->pages, labels),
            mib(map->pages, labels) / map->cells, labels->horizon_ms / 1000.0);
    put_cells(map, labels, out);
    put_legend(below, out);
    fputs("</svg>\n", out);
}
