/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client_out.h"

#include <stdlib.h>
#include <string.h>

#include "ctl.h"

#define CELL 64 /* bytes of a formatted value */

enum cell_kind { CELL_TEXT, CELL_COUNT, CELL_FRACTION, CELL_MIB, CELL_KB };

struct column {
    const char *title, *key, *inner; /* inner: within the object `key` */
    int width;
    enum cell_kind kind;
};

/* Names carry their units, as in xentop. Columns with text come last but for
 * the names, so that long text bends nothing. */
static const struct column guest_columns[] = {
    { "NAME", "name", NULL, 12, CELL_TEXT },
    { "STATE", "state", NULL, 10, CELL_TEXT },
    { "TYPE", "type", NULL, 4, CELL_TEXT },
    { "CPU(%)", "cpu_percent", NULL, 6, CELL_FRACTION },
    { "PAGES", "pages", NULL, 9, CELL_COUNT },
    { "STAGED(%)", "staged_percent", NULL, 9, CELL_FRACTION },
    { "VALID(%)", "valid_percent", NULL, 8, CELL_FRACTION },
    { "SENT(MiB)", "staged_bytes", NULL, 9, CELL_MIB },
    { "RATE(kB/s)", "rate_bytes", NULL, 10, CELL_KB },
    { "DIRTY(p/s)", "dirty_rate_pps", NULL, 10, CELL_COUNT },
    { "LOG(%)", "log_share_percent", NULL, 6, CELL_FRACTION },
    { "VIF(kB/s)", "vif_bytes_ps", NULL, 9, CELL_KB },
    { "VBD(kB/s)", "vbd_bytes_ps", NULL, 9, CELL_KB },
    { "EST(MiB)", "estimate", "bytes", 8, CELL_MIB },
    { "TIME(ms)", "estimate", "total_ms", 8, CELL_COUNT },
    { "DOWN(ms)", "estimate", "downtime_ms", 8, CELL_COUNT },
    { "HOST", "host", NULL, 4, CELL_TEXT },
};
#define GUEST_COLUMNS (sizeof(guest_columns) / sizeof(guest_columns[0]))

static int plain(int c)
{
    return (unsigned char)c < 0x20 || c == 0x7f ? '?' : c;
}

void fc_out_text(FILE *out, const char *text)
{
    for (; *text; text++)
        putc(plain(*text), out);
}

void fc_out_json(FILE *out, struct json_object *o)
{
    fputs(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                                JSON_C_TO_STRING_NOSLASHESCAPE),
          out);
    putc('\n', out);
}

static int is_number(struct json_object *v)
{
    return json_object_is_type(v, json_type_int) ||
           json_object_is_type(v, json_type_double);
}

static void format_number(struct json_object *v, enum cell_kind kind,
                          char text[CELL])
{
    double d = json_object_get_double(v);
    switch (kind) {
    case CELL_FRACTION:
        snprintf(text, CELL, "%.1f", d);
        break;
    case CELL_MIB:
        snprintf(text, CELL, "%.1f", d / (1 << 20));
        break;
    case CELL_KB:
        snprintf(text, CELL, "%.0f", d / 1000);
        break;
    default:
        snprintf(text, CELL, "%.0f", d);
        break;
    }
}

/* A guest's name is at the left edge of what a reader looks for, yet stands at
 * the right of its column, as in xentop. */
static void print_cell(FILE *out, const struct column *c,
                       struct json_object *guest)
{
    char text[CELL] = "-";
    const char *shown = text;
    struct json_object *v = fc_json_member(guest, c->key);
    if (c->inner)
        v = fc_json_member(v, c->inner);
    if (c->kind == CELL_TEXT && json_object_is_type(v, json_type_string)) {
        if (*json_object_get_string(v))
            shown = json_object_get_string(v);
    } else if (c->kind != CELL_TEXT && is_number(v)) {
        format_number(v, c->kind, text);
    }
    for (int pad = c->width - (int)strlen(shown); pad > 0; pad--)
        putc(' ', out);
    fc_out_text(out, shown);
}

/* Below a guest: what is known of its disks. */
static void print_disks(FILE *out, struct json_object *disks)
{
    size_t count = json_object_is_type(disks, json_type_array)
                       ? json_object_array_length(disks)
                       : 0;
    for (size_t i = 0; i < count; i++) {
        struct json_object *d = json_object_array_get_idx(disks, i);
        const char *method = fc_json_str(d, "method", "");
        fputs("  disk ", out);
        fc_out_text(out, fc_json_str(d, "vdev", "?"));
        fputs(*method ? ": traced by " : ": not traced at present", out);
        fc_out_text(out, method);
        fprintf(out, ", %lld reads, %lld writes, %lld extents, %lld lost\n",
                (long long)fc_json_int(d, "reads", 0),
                (long long)fc_json_int(d, "writes", 0),
                (long long)fc_json_int(d, "extents", 0),
                (long long)fc_json_int(d, "lost", 0));
    }
}

static void print_trust(FILE *out, struct json_object *trust)
{
    int64_t since = fc_json_int(trust, "changed_s_ago", -1);
    fprintf(out,
            "  within %.3g s: ", fc_json_double(trust, "horizon_ms", 0) / 1000);
    fc_out_text(out, fc_json_str(trust, "trusts", "-"));
    if (since >= 0) {
        fprintf(out, "; for %lld s, before that ", (long long)since);
        fc_out_text(out, fc_json_str(trust, "before", "-"));
    }
    fprintf(out, "; chances off by %.1f %%\n",
            fc_json_double(trust, "off_percent", 0));
}

static void print_adaptation(FILE *out, struct json_object *a)
{
    double gain = fc_json_double(a, "gain", 0);
    if (!a) {
        fputs(", not adapted\n", out);
        return;
    }
    fprintf(out, ", %lld steps since, %.1f %% of a core",
            (long long)fc_json_int(a, "steps", 0),
            fc_json_double(a, "core_percent", 0));
    if (fc_json_int(a, "steps", 0))
        fprintf(out, ", loss %.4f, %.4f %s than the weights that ship",
                fc_json_double(a, "loss", 0), gain < 0 ? -gain : gain,
                gain < 0 ? "more" : "less");
    putc('\n', out);
}

/* Below a guest: whom its predictor trusts, and what came of what it said. */
static void print_predictor(FILE *out, struct json_object *p)
{
    struct json_object *horizons = fc_json_member(p, "horizons");
    const char *origin = fc_json_str(p, "origin", "");
    size_t count = json_object_is_type(horizons, json_type_array)
                       ? json_object_array_length(horizons)
                       : 0;
    for (size_t i = 0; i < count; i++)
        print_trust(out, json_object_array_get_idx(horizons, i));
    if (fc_json_int(p, "judged", 0))
        fprintf(out,
                "  lists: %.1f %% promised to stay clean, %.1f %% did, "
                "confidence %.0f %%\n",
                fc_json_double(p, "promised_percent", 0),
                fc_json_double(p, "right_percent", 0),
                fc_json_double(p, "confidence", 0) * 100);
    if (!count)
        return;
    fputs(!strcmp(origin, "came") ? "  GRU: began with what came with the guest"
          : !strcmp(origin, "kept")
              ? "  GRU: began with what was kept of it here"
              : "  GRU: began with the weights that ship",
          out);
    print_adaptation(out, fc_json_member(p, "adaptation"));
}

void fc_out_guests(FILE *out, struct json_object *guests)
{
    for (unsigned c = 0; c < GUEST_COLUMNS; c++)
        fprintf(out, " %*s", guest_columns[c].width, guest_columns[c].title);
    putc('\n', out);
    size_t count = json_object_is_type(guests, json_type_array)
                       ? json_object_array_length(guests)
                       : 0;
    for (size_t i = 0; i < count; i++) {
        struct json_object *guest = json_object_array_get_idx(guests, i);
        const char *reason = fc_json_str(guest, "reason", "");
        for (unsigned c = 0; c < GUEST_COLUMNS; c++) {
            putc(' ', out);
            print_cell(out, &guest_columns[c], guest);
        }
        if (*reason) {
            fputs("  ", out);
            fc_out_text(out, reason);
        }
        putc('\n', out);
        print_disks(out, fc_json_member(guest, "traced_disks"));
        print_predictor(out, fc_json_member(guest, "predictor"));
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Members in the order of their names, as name, separator, value. */
static void print_members(FILE *out, struct json_object *o,
                          const char *separator)
{
    if (!json_object_is_type(o, json_type_object))
        return;
    size_t count = (size_t)json_object_object_length(o), n = 0;
    const char **names = calloc(count + 1, sizeof(*names));
    if (!names)
        return;
    json_object_object_foreach(o, key, value)
    {
        (void)value;
        names[n++] = key;
    }
    qsort(names, n, sizeof(*names), by_name);
    for (size_t i = 0; i < n; i++) {
        fc_out_text(out, names[i]);
        fputs(separator, out);
        struct json_object *v = fc_json_member(o, names[i]);
        fc_out_text(out, v ? json_object_get_string(v) : "-");
        putc('\n', out);
    }
    free(names);
}

void fc_out_counters(FILE *out, struct json_object *counters)
{
    print_members(out, counters, " ");
}

void fc_out_settings(FILE *out, struct json_object *settings)
{
    print_members(out, settings, " = ");
}

void fc_out_lines(FILE *out, struct json_object *lines)
{
    size_t count = json_object_is_type(lines, json_type_array)
                       ? json_object_array_length(lines)
                       : 0;
    for (size_t i = 0; i < count; i++) {
        struct json_object *line = json_object_array_get_idx(lines, i);
        if (json_object_is_type(line, json_type_string))
            fc_out_text(out, json_object_get_string(line));
        putc('\n', out);
    }
}
