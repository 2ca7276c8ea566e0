/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <string.h>

#include "ctl.h"
#include "frontend_report.h"
#include "page.h"

#define TEXT 64

static uint64_t count_of(struct json_object *o, const char *key)
{
    int64_t value = fc_json_int(o, key, 0);
    return value > 0 ? (uint64_t)value : 0;
}

static bool has(struct json_object *o, const char *key)
{
    return o && json_object_object_get_ex(o, key, NULL);
}

const char *fc_front_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = { "KiB", "MiB", "GiB",
                                         "TiB", "PiB", "EiB" };
    if (bytes < 1024) {
        snprintf(out, size, "%" PRIu64 " B", bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    unsigned unit = 0;
    while (value >= 1023.95 && unit < 5) {
        value /= 1024;
        unit++;
    }
    snprintf(out, size, "%.1f %s", value, units[unit]);
    return out;
}

const char *fc_front_time(uint64_t ms, char *out, size_t size)
{
    if (ms < 1000)
        snprintf(out, size, "%" PRIu64 " ms", ms);
    else if (ms < 60000)
        snprintf(out, size, "%" PRIu64 ".%" PRIu64 " s", ms / 1000,
                 ms % 1000 / 100);
    else
        snprintf(out, size, "%" PRIu64 " min %" PRIu64 " s", ms / 60000,
                 ms / 1000 % 60);
    return out;
}

char *fc_front_scrub(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < ' ' || *p == 127)
            *p = '?';
    return text;
}

void fc_front_progress(struct json_object *event, unsigned width, char *out,
                       size_t size)
{
    char rate[TEXT], eta[TEXT], down[TEXT], line[512], phase[16];
    uint64_t total = count_of(event, "pages_total");
    uint64_t left = count_of(event, "pages_left");
    unsigned percent = 0;

    if (total && left <= total)
        percent = (unsigned)((double)(total - left) * 100 / (double)total);
    snprintf(phase, sizeof(phase), "%s", fc_json_str(event, "phase", "?"));
    fc_front_bytes(count_of(event, "rate_bps"), rate, sizeof(rate));

    int n = snprintf(line, sizeof(line),
                     "forecopy: %s, round %" PRIu64 ", %u%%, %s/s, dirtied "
                     "%" PRIu64 " pages/s",
                     fc_front_scrub(phase), count_of(event, "round"), percent,
                     rate, count_of(event, "dirty_rate_pps"));
    if (has(event, "eta_ms") && n > 0 && (size_t)n < sizeof(line))
        n += snprintf(
            line + n, sizeof(line) - (size_t)n, ", %s left",
            fc_front_time(count_of(event, "eta_ms"), eta, sizeof(eta)));
    if (has(event, "downtime_estimate_ms") && n > 0 && (size_t)n < sizeof(line))
        snprintf(line + n, sizeof(line) - (size_t)n, ", downtime about %s",
                 fc_front_time(count_of(event, "downtime_estimate_ms"), down,
                               sizeof(down)));
    snprintf(out, size, "%.*s", (int)width, line);
}

static void pages_line(FILE *out, const char *what, struct json_object *o,
                       const char *key)
{
    char text[TEXT];
    if (has(o, key))
        fprintf(out, "%-16s %" PRIu64 " pages (%s)\n", what, count_of(o, key),
                fc_front_bytes(count_of(o, key) * FC_PAGE_SIZE, text,
                               sizeof(text)));
}

static void estimate_text(const struct fc_front_forecast *f, FILE *out)
{
    struct json_object *e = f->estimate;
    char bytes[TEXT], total[TEXT], down[TEXT], link[TEXT], basis[256];

    snprintf(basis, sizeof(basis), "%s", fc_json_str(e, "basis", "unknown"));
    fprintf(out, "to send:         %s over a link of %s/s\n",
            fc_front_bytes(count_of(e, "bytes"), bytes, sizeof(bytes)),
            fc_front_bytes(count_of(e, "link_bps"), link, sizeof(link)));
    fprintf(out, "total time:      %s\n",
            fc_front_time(count_of(e, "total_ms"), total, sizeof(total)));
    fprintf(out, "downtime:        %s (aim: at most %ld ms)\n",
            fc_front_time(count_of(e, "downtime_ms"), down, sizeof(down)),
            f->max_downtime_ms);
    fprintf(out, "confidence:      %.0f%% (%s)\n",
            fc_json_double(e, "confidence", 0) * 100, fc_front_scrub(basis));
    fprintf(out, "converges:       %s\n",
            fc_json_bool(e, "converges", 0)
                ? "yes"
                : "no: the guest writes faster than the link carries");
    pages_line(out, "by reference:", e, "reference_pages");
    pages_line(out, "missing:", e, "missing_pages");
    pages_line(out, "zero:", e, "zero_pages");
}

static void helper_there(struct json_object *destination, FILE *out)
{
    char path[256];
    snprintf(path, sizeof(path), "%s",
             fc_json_str(destination, "helper", "none"));
    fprintf(out, "helper there:    %s%s\n",
            has(destination, "helper_works") ? fc_front_scrub(path)
                                             : "not known",
            fc_json_bool(destination, "helper_works", 1) ||
                    !fc_json_str(destination, "helper", NULL)
                ? ""
                : ", which fails its self-test");
}

void fc_front_forecast_text(const struct fc_front_forecast *f, FILE *out)
{
    char text[256];

    snprintf(text, sizeof(text), "%s", fc_json_str(f->guest, "name", "?"));
    fprintf(out, "domain:          %s (%" PRId64 ", %s)\n",
            fc_front_scrub(text), fc_json_int(f->guest, "domid", -1),
            fc_json_str(f->guest, "uuid", "?"));
    snprintf(text, sizeof(text), "%s", f->host);
    if (f->in_band)
        fprintf(out, "destination:     asked when the stream starts\n");
    else if (f->destination) {
        char version[TEXT];
        snprintf(version, sizeof(version), "%s",
                 fc_json_str(f->destination, "version", "?"));
        fprintf(out, "destination:     %s, forecopy %s, protocol %" PRId64 "\n",
                fc_front_scrub(text), fc_front_scrub(version),
                fc_json_int(f->destination, "protocol", 0));
    } else {
        fprintf(out, "destination:     %s, without forecopy\n",
                fc_front_scrub(text));
    }
    fprintf(out, "save helper:     %s\n", f->helper ? f->helper : "none");
    if (f->destination)
        helper_there(f->destination, out);
    if (f->guest) {
        snprintf(text, sizeof(text), "%s", fc_json_str(f->guest, "state", "?"));
        fprintf(out, "staging:         %s\n", fc_front_scrub(text));
        pages_line(out, "memory:", f->guest, "pages");
        pages_line(out, "staged:", f->guest, "staged_pages");
        pages_line(out, "still valid:", f->guest, "valid_pages");
    }
    if (f->estimate)
        estimate_text(f, out);
    if (f->disks)
        fc_front_disks_forecast_text(f, out);
    if (f->reason)
        fprintf(out, "predictive:      impossible: %s\n", f->reason);
    else
        fprintf(out, "predictive:      possible\n");
}

static struct json_object *share(struct json_object *o)
{
    return o ? json_object_get(o) : NULL;
}

static struct json_object *text_or_null(const char *text)
{
    return text ? json_object_new_string(text) : NULL;
}

static void add(struct json_object *o, const char *key,
                struct json_object *value)
{
    json_object_object_add(o, key, value);
}

struct json_object *fc_front_forecast_json(const struct fc_front_forecast *f)
{
    struct json_object *o = json_object_new_object();
    if (!o)
        return NULL;
    add(o, "possible", json_object_new_boolean(!f->reason));
    add(o, "reason", text_or_null(f->reason));
    add(o, "host", text_or_null(f->host));
    add(o, "max_downtime_ms", json_object_new_int64(f->max_downtime_ms));
    add(o, "helper", text_or_null(f->helper));
    add(o, "destination", share(f->destination));
    add(o, "guest", share(f->guest));
    add(o, "estimate", share(f->estimate));
    struct json_object *disks;
    if (json_object_object_get_ex(f->disks, "disks", &disks))
        add(o, "disks", share(disks));
    return o;
}

static void bytes_line(const struct fc_front_outcome *o, FILE *out)
{
    char sent[TEXT], plain[TEXT], total[TEXT], bytes[TEXT], time[TEXT];
    struct json_object *s = o->summary;

    fprintf(out, "forecopy: %s sent",
            fc_front_bytes(count_of(s, "bytes_sent"), sent, sizeof(sent)));
    if (has(s, "bytes_plain"))
        fprintf(
            out, " for %s",
            fc_front_bytes(count_of(s, "bytes_plain"), plain, sizeof(plain)));
    fprintf(out, " in %" PRIu64 " rounds, %s in all", count_of(s, "rounds"),
            fc_front_time(o->elapsed_ms, total, sizeof(total)));
    if (has(o->estimate, "bytes"))
        fprintf(out, " (forecast: %s, %s)",
                fc_front_bytes(count_of(o->estimate, "bytes"), bytes,
                               sizeof(bytes)),
                fc_front_time(count_of(o->estimate, "total_ms"), time,
                              sizeof(time)));
    fputc('\n', out);
}

/* What the guest stood still, as far as it can be seen from here: libxl took
 * its time to suspend it before the helper could say so. */
static uint64_t outage_ms(const struct fc_front_outcome *o)
{
    return o->handover_ms ? o->handover_ms + count_of(o->summary, "suspend_ms")
                          : 0;
}

static void memory_text(const struct fc_front_outcome *o, FILE *out)
{
    char down[TEXT], forecast[TEXT];
    struct json_object *s = o->summary;

    bytes_line(o, out);
    fprintf(out,
            "forecopy: pages: %" PRIu64 " sent, %" PRIu64 " zero, %" PRIu64
            " by reference, %" PRIu64 " skipped, %" PRIu64 " pulled\n",
            count_of(s, "data_pages"), count_of(s, "zero_pages"),
            count_of(s, "reference_pages"), count_of(s, "skipped_pages"),
            count_of(s, "pulled_pages"));
    if (!o->success || !o->handover_ms)
        return;
    fprintf(out, "forecopy: downtime %s",
            fc_front_time(outage_ms(o), down, sizeof(down)));
    if (has(o->estimate, "downtime_ms"))
        fprintf(out, " (forecast: %s)",
                fc_front_time(count_of(o->estimate, "downtime_ms"), forecast,
                              sizeof(forecast)));
    fputc('\n', out);
}

void fc_front_outcome_text(const struct fc_front_outcome *o, FILE *out)
{
    if (o->summary)
        memory_text(o, out);
    if (o->disks)
        fc_front_disks_text(o->disks, o->domain, o->host, out);
}

/* What the helper counted, but for what is known better here. Its reason is
 * why the rounds ended, ours why the migration did. */
static void add_counters(struct json_object *j, struct json_object *summary)
{
    if (!summary)
        return;
    json_object_object_foreach(summary, key, value)
    {
        if (!strcmp(key, "reason"))
            add(j, "stop_reason", share(value));
        else if (strcmp(key, "event") && !has(j, key))
            add(j, key, share(value));
    }
}

struct json_object *fc_front_outcome_json(const struct fc_front_outcome *o)
{
    struct json_object *j = json_object_new_object();
    if (!j)
        return NULL;
    add(j, "domain", text_or_null(o->domain));
    add(j, "uuid", text_or_null(o->uuid));
    add(j, "host", text_or_null(o->host));
    add(j, "mode", text_or_null(o->mode));
    add(j, "reason", text_or_null(o->reason));
    add(j, "success", o->finished ? json_object_new_boolean(o->success) : NULL);
    add(j, "exit_status",
        o->finished ? json_object_new_int(o->exit_status) : NULL);
    add(j, "interrupted", json_object_new_boolean(o->interrupted));
    add(j, "retried", json_object_new_boolean(o->retried));
    add(j, "elapsed_ms", json_object_new_int64((int64_t)o->elapsed_ms));
    add(j, "handover_ms", json_object_new_int64((int64_t)o->handover_ms));
    add(j, "outage_ms", json_object_new_int64((int64_t)outage_ms(o)));
    add(j, "forecast", share(o->estimate));
    if (o->disks)
        add(j, "disks", share(o->disks));
    add_counters(j, o->summary);
    return j;
}
