/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settings.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk_id.h"
#include "err.h"
#include "log.h"
#include "scorer.h"

/*
 * What holds for a guest: the guest's own value if there is one, else the
 * host's, else the default; of the guest's and of the host's the one set over
 * the control socket, else xenstore's, else the file's.
 */
enum type {
    INTEGER,
    BYTES, /* an integer with an optional suffix K, M, G, T (of 1024) */
    FRACTION,
    TEXT,
};

struct key {
    const char *name;
    bool of_guest;
    enum type type;
    const char *unit;
    double least, most;
    const char *initial;
    const char *doc;
};

#define KIB 1024.0
#define MIB (KIB * KIB)
#define GIB (KIB * MIB)
#define TEXT_BYTES 1024u

static const struct key keys[FC_SETTINGS] = {
    [FC_SET_LOG_LEVEL] = { "log_level", false, TEXT, "", 0, 0, "info",
                           "least severe messages to log: error, warning, "
                           "info or debug" },
    [FC_SET_STORE_BUDGET] = { "store_budget_bytes", false, BYTES, "bytes",
                              16 * MIB, 1024 * GIB, "1G",
                              "memory for staged pages of all guests that "
                              "other hosts may send here" },
    [FC_SET_STORE_LINGER] = { "store_linger_s", false, INTEGER, "s", 1, 604800,
                              "600",
                              "how long staged pages are kept when no channel "
                              "is open" },
    [FC_SET_MAX_ARMED] = { "max_armed_guests", false, INTEGER, "guests", 0,
                           1024, "64", "most guests armed at the same time" },
    [FC_SET_BLOCK_TRACE] = { "block_trace", false, TEXT, "", 0, 0, "auto",
                             "how the disks of guests that are looked after "
                             "are traced: auto, bpf, tracefs, blktrace or "
                             "off" },
    [FC_SET_ARMED_AWAY] = { "armed_away_s", true, INTEGER, "s", 1, 31536000,
                            "86400",
                            "how long a guest stays armed while its domain is "
                            "not here" },
    [FC_SET_SAMPLE_INTERVAL] = { "sample_interval_ms", true, INTEGER, "ms", 50,
                                 60000, "250",
                                 "time between two looks at the dirty log" },
    [FC_SET_LOG_SHARE] = { "log_share_percent", true, FRACTION, "percent", 0.01,
                           50, "1.0",
                           "most of one vcpu's time to be spent on faults of "
                           "the dirty log" },
    [FC_SET_FAULT_COST] = { "fault_cost_ns", true, INTEGER, "ns", 100, 1000000,
                            "3000", "what one such fault costs the guest" },
    [FC_SET_SCORER] = { "scorer", true, TEXT, "", 0, 0, "mixture",
                        "how the chance of a write is estimated: mixture, "
                        "ewma or frequency; read when a guest is armed" },
    [FC_SET_ADAPT_SHARE] = { "adapt_share_percent", false, FRACTION, "percent",
                             0, 100, "5",
                             "most of a core for adapting the GRU to the armed "
                             "guests, all together; 0: it stays as it ships" },
    [FC_SET_STAGE_RATE] = { "stage_rate_bytes", true, BYTES, "bytes/s", 0,
                            1024 * GIB, "8M",
                            "most to send for staging; 0: no limit" },
    [FC_SET_STAGE_QUIET] = { "stage_quiet_s", true, FRACTION, "s", 0, 86400,
                             "10",
                             "a page is staged when not written for so long" },
    [FC_SET_STAGE_RISK] = { "stage_risk_percent", true, FRACTION, "percent",
                            0.1, 100, "50",
                            "pages more likely than this to be written within "
                            "10 s are not staged" },
    [FC_SET_CHANNELS] = { "channels", true, INTEGER, "channels", 1, 16, "1",
                          "connections to the destination for one guest" },
    [FC_SET_CHANNEL_COMMAND] = { "channel_command", true, TEXT, "", 0, 0,
                                 "ssh -o BatchMode=yes "
                                 "-o ServerAliveInterval=10 "
                                 "%h forecopy receive %u",
                                 "command whose input and output are a "
                                 "channel; %h host, %u uuid, %% percent" },
    [FC_SET_LINK_RATE] = { "link_rate_bytes", true, BYTES, "bytes/s", 0,
                           1024 * GIB, "0",
                           "speed of the link for estimates; 0: measured" },
    [FC_SET_MAX_DOWNTIME] = { "max_downtime_ms", true, INTEGER, "ms", 1,
                              3600000, "300",
                              "downtime to aim for when a migration names "
                              "none" },
    [FC_SET_WINDOW] = { "window_bytes", true, BYTES, "bytes", 64 * KIB, GIB,
                        "2M",
                        "most of a migration's data to be in flight before it "
                        "is acknowledged" },
    [FC_SET_PEER_TIMEOUT] = { "peer_timeout_s", true, INTEGER, "s", 5, 3600,
                              "30",
                              "silence of the destination that ends a "
                              "migration attempt" },
    [FC_SET_DISK_BLOCK] = { "disk_block_bytes", true, BYTES, "bytes", 4 * KIB,
                            MIB, "64K",
                            "what a disk is copied in; a power of two" },
    [FC_SET_DISK_VOLUME] = { "disk_volume", false, TEXT, "", 0, 0, "%p",
                             "path of the volume for a disk that comes from "
                             "another host; %p path there, %u uuid, %v virtual "
                             "device, %n name, %% percent" },
    [FC_SET_DISK_RATE] = { "disk_rate_percent", true, FRACTION, "percent", 1,
                           99, "80",
                           "disks' share of the guest's rate limit while they "
                           "are copied" },
    [FC_SET_DISK_FENCE] = { "disk_fence_ms", true, INTEGER, "ms", 10, 600000,
                            "1000",
                            "time that the blocks left at the fence may take "
                            "to send" },
    [FC_SET_DISK_STEP] = { "disk_step_s", false, INTEGER, "s", 1, 600, "30",
                           "most for attaching or making a volume, or for "
                           "changing a table" },
    [FC_SET_DISK_LINGER] = { "disk_linger_s", false, INTEGER, "s", 1, 604800,
                             "600",
                             "how long a shadow is kept that nobody fills" },
};

static const struct key *find(const char *name, unsigned *which_r)
{
    for (unsigned i = 0; i < FC_SETTINGS; i++) {
        if (strcmp(keys[i].name, name))
            continue;
        *which_r = i;
        return &keys[i];
    }
    return NULL;
}

const char *fc_settings_key(unsigned which)
{
    return which < FC_SETTINGS ? keys[which].name : NULL;
}

bool fc_settings_known(const char *key)
{
    unsigned which;
    return find(key, &which) != NULL;
}

void fc_settings_init(struct fc_settings *s, const struct fc_settings *host)
{
    memset(s, 0, sizeof(*s));
    s->host = host;
}

static void clear(struct fc_setting_value *v)
{
    free(v->text);
    memset(v, 0, sizeof(*v));
}

void fc_settings_dispose(struct fc_settings *s)
{
    for (unsigned i = 0; i < FC_SOURCES; i++)
        for (unsigned k = 0; k < FC_SETTINGS; k++)
            clear(&s->value[i][k]);
}

/* A number with its suffix; false when the text is none. */
static bool parse_number(const struct key *key, const char *text, double *out)
{
    char *end;
    /* strtod takes more than we mean: hexadecimal, nan, inf, blanks */
    if (text[0] < '0' || text[0] > '9' ||
        text[strspn(text, "0123456789.")] == 'x')
        return false;
    errno = 0;
    double v = strtod(text, &end);
    if (errno)
        return false;
    if (key->type == BYTES && *end) {
        static const char suffixes[] = "KMGT";
        const char *at = strchr(suffixes, *end & ~0x20);
        if (!at || end[1])
            return false;
        v *= pow(KIB, (double)(at - suffixes + 1));
        end++;
    }
    if (*end || (key->type != FRACTION && v != floor(v)))
        return false;
    *out = v;
    return true;
}

/* Keys of text have rules of their own. NULL, or what is wrong. */
static const char *check_text(unsigned which, const char *text)
{
    char command[2 * TEXT_BYTES], volume[FC_DISK_PATH];
    if (strlen(text) >= TEXT_BYTES)
        return "is too long";
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return "has a control character";
    switch (which) {
    case FC_SET_LOG_LEVEL:
        return fc_log_level_parse(text) < 0
                   ? "is not error, warning, info or debug"
                   : NULL;
    case FC_SET_SCORER:
        return fc_scorer_find(text) ? NULL
                                    : "is not mixture, ewma or frequency";
    case FC_SET_BLOCK_TRACE:
        return strcmp(text, "auto") && strcmp(text, "bpf") &&
                       strcmp(text, "tracefs") && strcmp(text, "blktrace") &&
                       strcmp(text, "off")
                   ? "is not auto, bpf, tracefs, blktrace or off"
                   : NULL;
    case FC_SET_CHANNEL_COMMAND:
        return !*text || fc_settings_command(text, "h", "u", command,
                                             sizeof(command))
                   ? "is no command (% stands before h, u or % only)"
                   : NULL;
    case FC_SET_DISK_VOLUME:
        return fc_disk_template(text, &(struct fc_disk_id){ .vdev = "xvda" },
                                "name", "/path", volume)
                   ? "is no absolute path (% stands before p, u, v, n or % "
                     "only)"
                   : NULL;
    default:
        return NULL;
    }
}

static const char *type_name(enum type type)
{
    switch (type) {
    case INTEGER:
        return "integer";
    case BYTES:
        return "bytes";
    case FRACTION:
        return "number";
    case TEXT:
        return "text";
    }
    return "";
}

int fc_settings_set(struct fc_settings *s, enum fc_setting_source source,
                    const char *name, const char *text,
                    char why[FC_SETTING_WHY])
{
    unsigned which;
    double number = 0;
    const struct key *key = find(name, &which);
    if (!key) {
        snprintf(why, FC_SETTING_WHY, "there is no setting \"%.64s\"", name);
        return FC_ENOENT;
    }
    if (s->host && !key->of_guest) {
        snprintf(why, FC_SETTING_WHY,
                 "%s is a setting of the host, not of a "
                 "guest",
                 name);
        return FC_ENOENT;
    }
    if (key->type == TEXT) {
        const char *wrong = check_text(which, text);
        if (wrong) {
            snprintf(why, FC_SETTING_WHY, "%s: \"%.64s\" %s", name, text,
                     wrong);
            return FC_EINVAL;
        }
    } else if (!parse_number(key, text, &number)) {
        snprintf(why, FC_SETTING_WHY, "%s: \"%.64s\" is not of type %s", name,
                 text, type_name(key->type));
        return FC_EINVAL;
    } else if (number < key->least || number > key->most) {
        snprintf(why, FC_SETTING_WHY,
                 "%s: %.64s is not within %.12g and "
                 "%.15g",
                 name, text, key->least, key->most);
        return FC_EINVAL;
    }
    char *copy = strdup(text);
    if (!copy) {
        snprintf(why, FC_SETTING_WHY, "%s: out of memory", name);
        return FC_ENOMEM;
    }
    struct fc_setting_value *v = &s->value[source][which];
    clear(v);
    v->set = true;
    v->number = number;
    v->text = copy;
    return 0;
}

void fc_settings_unset(struct fc_settings *s, enum fc_setting_source source,
                       const char *key)
{
    for (unsigned k = 0; k < FC_SETTINGS; k++)
        if (!key || !strcmp(keys[k].name, key))
            clear(&s->value[source][k]);
}

/* The value that is in force, or NULL for the default. */
static const struct fc_setting_value *in_force(const struct fc_settings *s,
                                               unsigned which)
{
    for (; s; s = s->host)
        for (unsigned i = FC_SOURCES; i-- > 0;)
            if (s->value[i][which].set)
                return &s->value[i][which];
    return NULL;
}

double fc_settings_double(const struct fc_settings *s, enum fc_setting which)
{
    const struct fc_setting_value *v = in_force(s, which);
    double number = 0;
    if (v)
        return v->number;
    if (keys[which].type != TEXT)
        parse_number(&keys[which], keys[which].initial, &number);
    return number;
}

uint64_t fc_settings_u64(const struct fc_settings *s, enum fc_setting which)
{
    return (uint64_t)fc_settings_double(s, which);
}

const char *fc_settings_text(const struct fc_settings *s, enum fc_setting which)
{
    const struct fc_setting_value *v = in_force(s, which);
    return v ? v->text : keys[which].initial;
}

struct json_object *fc_settings_json(const struct fc_settings *s,
                                     const char *key)
{
    if (key && !fc_settings_known(key))
        return NULL;
    struct json_object *o = json_object_new_object();
    for (unsigned k = 0; o && k < FC_SETTINGS; k++) {
        if ((key && strcmp(keys[k].name, key)) ||
            (s->host && !keys[k].of_guest))
            continue;
        struct json_object *v;
        if (keys[k].type == TEXT)
            v = json_object_new_string(fc_settings_text(s, k));
        else if (keys[k].type == FRACTION)
            v = json_object_new_double(fc_settings_double(s, k));
        else
            v = json_object_new_int64((int64_t)fc_settings_double(s, k));
        json_object_object_add(o, keys[k].name, v);
    }
    return o;
}

void fc_settings_dump(void)
{
    for (unsigned k = 0; k < FC_SETTINGS; k++)
        printf("%s\t%s\t%s\t%s\t%.15g\t%.15g\t%s\t%s\n", keys[k].name,
               keys[k].of_guest ? "guest" : "host", type_name(keys[k].type),
               keys[k].unit, keys[k].least, keys[k].most, keys[k].initial,
               keys[k].doc);
}

bool fc_settings_host_ok(const char *host)
{
    size_t len = strlen(host);
    return len && len < 256 && host[0] != '-' &&
           len == strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                               "abcdefghijklmnopqrstuvwxyz"
                               "0123456789._:@-");
}

int fc_settings_command(const char *pattern, const char *host, const char *uuid,
                        char *out, size_t size)
{
    size_t used = 0;
    if (!fc_settings_host_ok(host))
        return FC_EINVAL;
    for (const char *p = pattern; *p; p++) {
        char one[2] = { *p, '\0' };
        const char *piece = one;
        if (*p == '%') {
            p++;
            if (*p == 'h')
                piece = host;
            else if (*p == 'u')
                piece = uuid;
            else if (*p != '%')
                return FC_EINVAL;
        }
        size_t len = strlen(piece);
        if (len >= size - used)
            return FC_ETOOBIG;
        memcpy(out + used, piece, len);
        used += len;
    }
    out[used] = '\0';
    return 0;
}
