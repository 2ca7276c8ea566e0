/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_HEATMAP_H
#define FC_HEATMAP_H

#include <stdint.h>
#include <stdio.h>

/*
 * Heat of a guest's memory (or a disk) in cells of equal size: the share of a
 * cell's pages that is expected to be touched within the horizon. Plain data;
 * one thread at a time.
 */
#define FC_HEATMAP_CELLS 4096u

struct fc_heatmap {
    uint64_t pages; /* all together */
    unsigned cells; /* 1 .. FC_HEATMAP_CELLS, at most one a page */
    float heat[FC_HEATMAP_CELLS]; /* 0 to 1 */
};

/* As many cells as asked for, or the nearest number that is allowed; cold. */
void fc_heatmap_init(struct fc_heatmap *map, uint64_t pages, unsigned cells);

/* First page of a cell; of the one past the last: all pages. */
uint64_t fc_heatmap_first(const struct fc_heatmap *map, unsigned cell);

/* Adds a region, each page of which is touched with chance p; what is out of
 * range is cut off. Regions must not overlap. */
void fc_heatmap_add(struct fc_heatmap *map, uint64_t first, uint64_t pages,
                    float p);

/* What the pictures say besides the heat. */
struct fc_heatmap_labels {
    const char *title;   /* any text; control characters are shown as '?' */
    uint32_t horizon_ms; /* of the chances */
    uint32_t page_bytes; /* 4096; of a disk an extent's */
};

/* For a terminal: a line of `width` cells (8 to 256) each, the hotter the
 * denser, with the address at its start. */
void fc_heatmap_text(const struct fc_heatmap *map,
                     const struct fc_heatmap_labels *labels, unsigned width,
                     FILE *out);

/* A whole SVG document with a legend; addresses show when one points at a
 * cell. */
void fc_heatmap_svg(const struct fc_heatmap *map,
                    const struct fc_heatmap_labels *labels, FILE *out);

#endif
