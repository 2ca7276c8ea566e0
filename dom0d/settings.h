/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SETTINGS_H
#define FC_SETTINGS_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The daemon's settings: one table of keys, and for the host and each guest
 * the values that its sources gave. Event loop thread only.
 */
enum fc_setting {
    FC_SET_LOG_LEVEL,
    FC_SET_STORE_BUDGET,
    FC_SET_STORE_LINGER,
    FC_SET_MAX_ARMED,
    FC_SET_BLOCK_TRACE,
    FC_SET_ARMED_AWAY,
    FC_SET_SAMPLE_INTERVAL,
    FC_SET_LOG_SHARE,
    FC_SET_FAULT_COST,
    FC_SET_SCORER,
    FC_SET_ADAPT_SHARE,
    FC_SET_STAGE_RATE,
    FC_SET_STAGE_QUIET,
    FC_SET_STAGE_RISK,
    FC_SET_CHANNELS,
    FC_SET_CHANNEL_COMMAND,
    FC_SET_LINK_RATE,
    FC_SET_MAX_DOWNTIME,
    FC_SET_WINDOW,
    FC_SET_PEER_TIMEOUT,
    FC_SET_DISK_BLOCK,
    FC_SET_DISK_VOLUME,
    FC_SET_DISK_RATE,
    FC_SET_DISK_FENCE,
    FC_SET_DISK_STEP,
    FC_SET_DISK_LINGER,
    FC_SETTINGS
};

/* Where a value came from; a later one hides an earlier one. */
enum fc_setting_source {
    FC_SOURCE_FILE,
    FC_SOURCE_XENSTORE,
    FC_SOURCE_CONTROL,
    FC_SOURCES
};

struct fc_setting_value {
    bool set;
    double number;
    char *text; /* owned */
};

struct fc_settings {
    const struct fc_settings *host; /* NULL in the host's own */
    struct fc_setting_value value[FC_SOURCES][FC_SETTINGS];
};

/* `host` NULL: the host's. Otherwise a guest's, which falls back on it; the
 * host's must outlive it. */
void fc_settings_init(struct fc_settings *s, const struct fc_settings *host);
void fc_settings_dispose(struct fc_settings *s);

#define FC_SETTING_WHY 256

/*
 * Sets `key` from text. On an error the value stays as it was and `why` says
 * what is wrong, without saying where it came from. 0, FC_ENOENT (no such key,
 * or not one of a guest), FC_EINVAL (bad value) or FC_ENOMEM.
 */
int fc_settings_set(struct fc_settings *s, enum fc_setting_source source,
                    const char *key, const char *text,
                    char why[FC_SETTING_WHY]);

/* Forgets what the source gave for the key, or for all (NULL). */
void fc_settings_unset(struct fc_settings *s, enum fc_setting_source source,
                       const char *key);

/* The value in force. Numbers in the key's unit; text of text keys only, valid
 * until the setting changes. */
double fc_settings_double(const struct fc_settings *s, enum fc_setting which);
uint64_t fc_settings_u64(const struct fc_settings *s, enum fc_setting which);
const char *fc_settings_text(const struct fc_settings *s,
                             enum fc_setting which);

/* The key's name; NULL past the end. */
const char *fc_settings_key(unsigned which);
bool fc_settings_known(const char *key);

/* {"KEY": value}; one key, or all (NULL). NULL: no such key, or no memory. */
struct json_object *fc_settings_json(const struct fc_settings *s,
                                     const char *key);

/* Prints the table, a key a line, fields separated by tabs: name, scope, type,
 * unit, least, most, default, what it does. */
void fc_settings_dump(void);

/*
 * The command of a channel with %h, %u and %% filled in. Host names with
 * characters outside [A-Za-z0-9._:@-], empty, or starting with '-' are refused:
 * a shell reads the result. 0, FC_EINVAL or FC_ETOOBIG.
 */
int fc_settings_command(const char *pattern, const char *host, const char *uuid,
                        char *out, size_t size);

/* Whether a host name may stand in such a command. */
bool fc_settings_host_ok(const char *host);

#endif
