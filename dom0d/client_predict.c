/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client_predict.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "client_out.h"
#include "ctl.h"
#include "heatmap.h"

#define PAGE_BYTES 4096.0
#define TEXT_WIDTH 64u
#define HEAT_UNIT 1e-6f
#define MIB ((double)(1 << 20))

static struct json_object *array_of(struct json_object *o, const char *key,
                                    size_t *count_r)
{
    struct json_object *v = NULL;
    json_object_object_get_ex(o, key, &v);
    bool is_array = json_object_is_type(v, json_type_array);
    *count_r = is_array ? json_object_array_length(v) : 0;
    return is_array ? v : NULL;
}

static double number_at(struct json_object *array, size_t i)
{
    struct json_object *v = json_object_array_get_idx(array, i);
    bool is_number = json_object_is_type(v, json_type_int) ||
                     json_object_is_type(v, json_type_double);
    return is_number ? json_object_get_double(v) : 0;
}

void fc_client_show_rank(FILE *out, struct json_object *reply)
{
    size_t count;
    struct json_object *regions = array_of(reply, "regions", &count);
    fc_out_text(out, fc_json_str(reply, "name", "?"));
    fprintf(out, ", %s: %lld of %lld active regions, written within %.3g s ",
            !strcmp(fc_json_str(reply, "list", ""), "delta")
                ? "most likely first"
                : "least likely first",
            (long long)fc_json_int(reply, "count", 0),
            (long long)fc_json_int(reply, "chosen_from", 0),
            fc_json_double(reply, "horizon_ms", 0) / 1000);
    fprintf(out, "by at most %.3g %%, confidence %.0f %%\n",
            fc_json_double(reply, "most_p", 0) * 100,
            fc_json_double(reply, "confidence", 0) * 100);
    fc_out_text(out, fc_json_str(reply, "method", "-"));
    fprintf(out, "\n %14s %8s %10s %10s\n", "ADDRESS(MiB)", "SIZE(kB)",
            "CHANCE(%)", "NEXT(s)");
    for (size_t i = 0; i < count; i++) {
        struct json_object *r = json_object_array_get_idx(regions, i);
        if (!json_object_is_type(r, json_type_array) ||
            json_object_array_length(r) < 4)
            continue;
        fprintf(out, " %14.3f %8.0f %10.4f ",
                number_at(r, 0) * PAGE_BYTES / MIB,
                number_at(r, 1) * PAGE_BYTES / 1024, number_at(r, 2) * 100);
        double next_ms = number_at(r, 3);
        if (next_ms < 0)
            fprintf(out, "%10s\n", "-");
        else
            fprintf(out, "%10.1f\n", next_ms / 1000);
    }
}

static void show_start(FILE *out, int64_t start_s)
{
    char text[32];
    time_t start = (time_t)start_s;
    struct tm tm;
    if (!localtime_r(&start, &tm) ||
        !strftime(text, sizeof(text), "%a %H:%M", &tm))
        snprintf(text, sizeof(text), "-");
    fprintf(out, " %-9s", text);
}

void fc_client_show_when(FILE *out, struct json_object *reply)
{
    size_t count;
    struct json_object *windows = array_of(reply, "windows", &count);
    int64_t best = fc_json_int(reply, "best", -1);
    fprintf(out, "  %-9s %10s %10s %10s %7s  %s\n", "START", "DATA(MiB)",
            "TIME(s)", "DOWN(ms)", "SURE(%)", "BASIS");
    for (size_t i = 0; i < count; i++) {
        struct json_object *w = json_object_array_get_idx(windows, i);
        putc((int64_t)i == best ? '*' : ' ', out);
        show_start(out, fc_json_int(w, "start_s", 0));
        fprintf(out, " %10.1f %10.1f %10.0f %7.0f  ",
                fc_json_double(w, "bytes", 0) / MIB,
                fc_json_double(w, "total_ms", 0) / 1000,
                fc_json_double(w, "downtime_ms", 0),
                fc_json_double(w, "confidence", 0) * 100);
        fc_out_text(out, fc_json_str(w, "basis", "-"));
        if (!fc_json_bool(w, "converges", 1))
            fputs("; longer down than wanted", out);
        putc('\n', out);
    }
}

/* The map of the reply; false when it has none. */
static bool take_map(struct json_object *reply, struct fc_heatmap *map)
{
    size_t count;
    struct json_object *heat = array_of(reply, "heat", &count);
    int64_t pages = fc_json_int(reply, "pages", 0);
    if (!count || count > FC_HEATMAP_CELLS || pages < (int64_t)count)
        return false;
    fc_heatmap_init(map, (uint64_t)pages, (unsigned)count);
    for (unsigned i = 0; i < map->cells; i++) {
        float share = (float)number_at(heat, i) * HEAT_UNIT;
        map->heat[i] = share > 0 ? (share < 1 ? share : 1) : 0;
    }
    return true;
}

static int write_svg(struct fc_client_task *c, const struct fc_heatmap *map,
                     const struct fc_heatmap_labels *labels)
{
    FILE *f = fopen(c->args->output, "we");
    bool ok = f != NULL;
    if (f) {
        fc_heatmap_svg(map, labels, f);
        ok = !ferror(f);
        ok = fclose(f) == 0 && ok;
    }
    if (!ok)
        fprintf(c->err, "forecopy: cannot write %s: %s\n", c->args->output,
                strerror(errno));
    return ok ? 0 : 1;
}

int fc_client_show_heatmap(struct fc_client_task *c, struct json_object *reply)
{
    static struct fc_heatmap map;
    int64_t horizon_ms = fc_json_int(reply, "horizon_ms", 0);
    int64_t page_bytes = fc_json_int(reply, "page_bytes", 0);
    if (!take_map(reply, &map) || horizon_ms < 1 || horizon_ms > UINT32_MAX ||
        page_bytes < 1 || page_bytes > UINT32_MAX) {
        fputs("forecopy: forecopyd's answer has no heat map\n", c->err);
        return 1;
    }
    const struct fc_heatmap_labels labels = {
        .title = fc_json_str(reply, "name", "?"),
        .horizon_ms = (uint32_t)horizon_ms,
        .page_bytes = (uint32_t)page_bytes,
    };
    if (c->args->output)
        return write_svg(c, &map, &labels);
    fc_heatmap_text(&map, &labels, TEXT_WIDTH, c->out);
    return 0;
}
