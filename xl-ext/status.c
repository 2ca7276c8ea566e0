/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "status.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>

#include "io.h"

#define MAX_EVENT 4096u
#define IMPORTANT_MS 1000 /* how long an event that matters waits for room */

static const char *const phase_names[] = {
    [FC_PHASE_CONNECT] = "connect", [FC_PHASE_PRECOPY] = "precopy",
    [FC_PHASE_STOP] = "stop",       [FC_PHASE_DONE] = "done",
    [FC_PHASE_FAILED] = "failed",
};

static const char *const fault_names[] = {
    [FC_FAULT_OURS] = "ours",     [FC_FAULT_PEER] = "peer",
    [FC_FAULT_STREAM] = "stream", [FC_FAULT_GUEST] = "guest",
    [FC_FAULT_USER] = "user",
};

static struct json_object *event_new(const char *name)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "event", json_object_new_string(name));
    return o;
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
    json_object_object_add(o, key, json_object_new_string(text ? text : ""));
}

static void add_number(struct json_object *o, const char *key, uint64_t value)
{
    json_object_object_add(o, key, json_object_new_int64((int64_t)value));
}

/* Sends and frees. */
static void send_event(int fd, struct json_object *o, int wait_ms)
{
    size_t len;
    const char *text =
        json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);
    while (text && len <= MAX_EVENT) {
        ssize_t r = send(fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r >= 0 || (errno != EAGAIN && errno != EINTR) || !wait_ms)
            break;
        if (errno == EAGAIN && fc_wait_writable(fd, wait_ms) <= 0)
            break;
    }
    json_object_put(o);
}

void fc_status_progress(int fd, const struct fc_progress *p)
{
    if (fd < 0)
        return;
    struct json_object *o = event_new("progress");
    add_text(o, "phase", phase_names[p->phase]);
    add_number(o, "round", p->round);
    add_number(o, "pages_left", p->pages_left);
    add_number(o, "pages_total", p->pages_total);
    add_number(o, "bytes_sent", p->bytes_sent);
    add_number(o, "rate_bps", p->rate_bps);
    add_number(o, "dirty_pages", p->dirty_pages);
    add_number(o, "dirty_rate_pps", p->dirty_rate_pps);
    if (p->have_eta)
        add_number(o, "eta_ms", p->eta_ms);
    if (p->have_downtime)
        add_number(o, "downtime_estimate_ms", p->downtime_estimate_ms);
    send_event(fd, o, 0);
}

void fc_status_mode(int fd, bool predictive, const char *reason)
{
    if (fd < 0)
        return;
    struct json_object *o = event_new("mode");
    add_text(o, "mode", predictive ? "predictive" : "plain");
    add_text(o, "reason", reason);
    send_event(fd, o, IMPORTANT_MS);
}

void fc_status_suspended(int fd)
{
    /* On the way to the stop-and-copy: it must not wait for anybody. */
    if (fd >= 0)
        send_event(fd, event_new("suspended"), 0);
}

void fc_status_failed(int fd, enum fc_fault fault, const char *reason)
{
    if (fd < 0)
        return;
    struct json_object *o = event_new("failed");
    add_text(o, "fault", fault_names[fault]);
    add_text(o, "reason", reason);
    send_event(fd, o, IMPORTANT_MS);
}

void fc_status_summary(int fd, const struct fc_summary *s)
{
    if (fd < 0)
        return;
    struct json_object *o = event_new("summary");
    json_object_object_add(o, "success", json_object_new_boolean(s->success));
    add_text(o, "mode", s->mode);
    add_text(o, "reason", s->reason);
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        { "rounds", s->rounds },
        { "total_ms", s->total_ms },
        { "precopy_ms", s->precopy_ms },
        { "sync_ms", s->sync_ms },
        { "downtime_ms", s->downtime_ms },
        { "downtime_estimate_ms", s->downtime_estimate_ms },
        { "dirty_at_stop", s->dirty_at_stop },
        { "dirty_rate_pps", s->dirty_rate_pps },
        { "bytes_sent", s->bytes_sent },
        { "bytes_plain", s->bytes_plain },
        { "encoded_bytes", s->encoded_bytes },
        { "link_bps", s->link_bps },
        { "memory_bytes", s->memory_bytes },
        { "data_pages", s->data_pages },
        { "zero_pages", s->zero_pages },
        { "reference_pages", s->reference_pages },
        { "skipped_pages", s->skipped_pages },
        { "pulled_pages", s->pulled_pages },
        { "suspend_ms", s->suspend_ms },
        { "final_bytes", s->final_bytes },
        { "first_round_ms", s->first_round_ms },
        { "first_round_pages", s->first_round_pages },
        { "first_round_bytes", s->first_round_bytes },
        { "later_rounds_ms", s->later_rounds_ms },
        { "later_rounds_pages", s->later_rounds_pages },
        { "later_rounds_bytes", s->later_rounds_bytes },
    };
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        add_number(o, numbers[i].key, numbers[i].value);
    send_event(fd, o, IMPORTANT_MS);
}

bool fc_status_abort_wanted(int fd, bool *closed_r)
{
    char text[16];
    ssize_t r = recv(fd, text, sizeof(text), MSG_DONTWAIT);
    if (r == 0 || (r < 0 && errno != EAGAIN && errno != EINTR))
        *closed_r = true;
    return r == 5 && !memcmp(text, "abort", 5);
}
