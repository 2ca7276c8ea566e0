/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <string.h>

#include "ctl.h"
#include "frontend_report.h"

#define TEXT 64

/* What the figures of `disk-status` are called there and in the report. */
static const char *const figures[] = { "sent_bytes", "sent_blocks",
                                       "zero_bytes", "remaining_bytes",
                                       "fence_ms" };
#define FIGURES (sizeof(figures) / sizeof(figures[0]))

static uint64_t count_of(struct json_object *o, const char *key)
{
    int64_t value = fc_json_int(o, key, 0);
    return value > 0 ? (uint64_t)value : 0;
}

static void add_count(struct json_object *o, const char *key, uint64_t value)
{
    json_object_object_add(o, key, json_object_new_int64((int64_t)value));
}

/* The array, or NULL. */
static struct json_object *list_of(struct json_object *reply)
{
    struct json_object *list;
    return json_object_object_get_ex(reply, "disks", &list) &&
                   json_object_is_type(list, json_type_array)
               ? list
               : NULL;
}

static uint64_t sum_of(struct json_object *reply, const char *key)
{
    struct json_object *list = list_of(reply);
    uint64_t sum = 0;
    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        sum += count_of(json_object_array_get_idx(list, i), key);
    return sum;
}

struct json_object *fc_front_disks_json(const struct fc_front_disk_facts *f)
{
    struct json_object *o = json_object_new_object();
    struct json_object *list = list_of(f->begun);
    if (!o)
        return NULL;
    json_object_object_add(
        o, "mode", json_object_new_string(f->lazy ? "lazy" : "complete"));
    json_object_object_add(
        o, "outcome", f->outcome ? json_object_new_string(f->outcome) : NULL);
    add_count(o, "count", list ? json_object_array_length(list) : 0);
    add_count(o, "size_bytes", sum_of(f->begun, "size"));
    add_count(o, "copy_ms", f->copy_ms);
    for (size_t i = 0; i < FIGURES; i++)
        add_count(o, figures[i], count_of(f->status, figures[i]));
    return o;
}

void fc_front_disks_text(struct json_object *disks, const char *domain,
                         const char *host, FILE *out)
{
    char sent[TEXT], size[TEXT], zero[TEXT], time[TEXT];
    uint64_t left = count_of(disks, "remaining_bytes");
    bool moved = !strcmp(fc_json_str(disks, "outcome", ""), "moved");

    fprintf(out,
            "forecopy: disks: %s sent for %s in %" PRIu64
            " blocks, %s zero or never written, copied in %s",
            fc_front_bytes(count_of(disks, "sent_bytes"), sent, sizeof(sent)),
            fc_front_bytes(count_of(disks, "size_bytes"), size, sizeof(size)),
            count_of(disks, "sent_blocks"),
            fc_front_bytes(count_of(disks, "zero_bytes"), zero, sizeof(zero)),
            fc_front_time(count_of(disks, "copy_ms"), time, sizeof(time)));
    if (moved)
        fprintf(out, ", held for the hand-over for %s",
                fc_front_time(count_of(disks, "fence_ms"), time, sizeof(time)));
    fputc('\n', out);
    if (moved && left)
        fprintf(out,
                "forecopy: %s of the disks follow from here: keep this host "
                "and its forecopyd up until `forecopy disks %s` at %s shows "
                "that all is there\n",
                fc_front_bytes(left, sent, sizeof(sent)), domain, host);
}

void fc_front_disks_forecast_text(const struct fc_front_forecast *f, FILE *out)
{
    char size[TEXT], copy[TEXT], vdev[TEXT], volume[256];
    struct json_object *list = list_of(f->disks);

    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        struct json_object *d = json_object_array_get_idx(list, i);
        snprintf(vdev, sizeof(vdev), "%s", fc_json_str(d, "vdev", "?"));
        snprintf(volume, sizeof(volume), "%s",
                 fc_json_str(d, "volume", "not known"));
        fprintf(out, "disk:            %s, %s, %s to copy; volume there: %s\n",
                fc_front_scrub(vdev),
                fc_front_bytes(count_of(d, "size"), size, sizeof(size)),
                fc_front_bytes(count_of(d, "copy_bytes"), copy, sizeof(copy)),
                fc_front_scrub(volume));
    }
    fprintf(out, "disks:           %s to copy, %s\n",
            fc_front_bytes(sum_of(f->disks, "copy_bytes"), copy, sizeof(copy)),
            f->lazy_disks ? "the rest of them after the hand-over"
                          : "all of it before the hand-over");
}

unsigned fc_front_disks_percent(struct json_object *status)
{
    uint64_t total = count_of(status, "total_bytes");
    uint64_t left = count_of(status, "remaining_bytes");
    if (!total || left > total)
        return 0;
    return (unsigned)((double)(total - left) * 100 / (double)total);
}

void fc_front_disks_progress(struct json_object *status, unsigned width,
                             char *out, size_t size)
{
    char rate[TEXT], dirty[TEXT], left[TEXT], eta[TEXT], line[512], state[16];
    uint64_t sent_ps = count_of(status, "rate_bps");
    uint64_t dirty_ps = count_of(status, "dirty_bps");
    uint64_t bytes = count_of(status, "remaining_bytes");

    snprintf(state, sizeof(state), "%s", fc_json_str(status, "state", "?"));
    int n = snprintf(line, sizeof(line),
                     "forecopy: disks %s, %u%%, %s to go, %s/s, written %s/s",
                     fc_front_scrub(state), fc_front_disks_percent(status),
                     fc_front_bytes(bytes, left, sizeof(left)),
                     fc_front_bytes(sent_ps, rate, sizeof(rate)),
                     fc_front_bytes(dirty_ps, dirty, sizeof(dirty)));
    size_t used = n > 0 && (size_t)n < sizeof(line) ? (size_t)n : 0;
    const char *reason = fc_json_str(status, "reason", "");
    if (reason[0]) {
        snprintf(line + used, sizeof(line) - used, ", %s", reason);
        fc_front_scrub(line);
    } else if (bytes && sent_ps > dirty_ps) {
        snprintf(line + used, sizeof(line) - used, ", %s left",
                 fc_front_time((uint64_t)((double)bytes * 1000 /
                                          (double)(sent_ps - dirty_ps)),
                               eta, sizeof(eta)));
    }
    snprintf(out, size, "%.*s", (int)width, line);
}
