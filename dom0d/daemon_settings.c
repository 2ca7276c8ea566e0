/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "daemon.h"
#include "err.h"
#include "log.h"

/* Guests whose settings are remembered; only root can name more. */
#define MAX_GUESTS 4096u

struct fc_settings *fc_daemon_guest_settings(struct fc_daemon *d,
                                             const uint8_t *uuid, bool make)
{
    for (struct fc_guest_settings *g = d->guest_settings; g; g = g->next)
        if (!memcmp(g->uuid, uuid, FC_UUID_BYTES))
            return &g->settings;
    if (!make || d->guest_settings_count >= MAX_GUESTS)
        return NULL;
    struct fc_guest_settings *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    memcpy(g->uuid, uuid, FC_UUID_BYTES);
    fc_settings_init(&g->settings, &d->settings);
    g->next = d->guest_settings;
    d->guest_settings = g;
    d->guest_settings_count++;
    return &g->settings;
}

void fc_daemon_settings_apply(struct fc_daemon *d)
{
    int level =
        fc_log_level_parse(fc_settings_text(&d->settings, FC_SET_LOG_LEVEL));
    fc_log_set_level(d->config->debug || level < 0 ? FC_LOG_DEBUG
                                                   : (enum fc_level)level);
    if (d->keepers)
        fc_keepers_set_limits(
            d->keepers, fc_settings_u64(&d->settings, FC_SET_STORE_BUDGET),
            fc_settings_u64(&d->settings, FC_SET_STORE_LINGER) * 1000);
}

void fc_daemon_reload(struct fc_daemon *d)
{
    int n = fc_config_read(&d->settings, d->config->config_path,
                           d->config->config_optional);
    if (n)
        fc_warn("%s was read with errors; what is wrong in it does not count",
                d->config->config_path);
    fc_daemon_settings_apply(d);
}

/* Takes the value of one key in xenstore, or that there is none now. */
static void read_key(struct fc_daemon *d, struct fc_settings *s,
                     const char *dir, const char *key)
{
    char path[300], why[FC_SETTING_WHY];
    snprintf(path, sizeof(path), "%s/%s", dir, key);
    char *value = d->config->xen.watch->read(d->config->xen.watch_user, path);
    if (!value)
        fc_settings_unset(s, FC_SOURCE_XENSTORE, key);
    else if (fc_settings_set(s, FC_SOURCE_XENSTORE, key, value, why))
        fc_error("xenstore %s: %s", path, why);
    free(value);
}

/* Takes all keys of a directory. */
static void read_dir(struct fc_daemon *d, struct fc_settings *s,
                     const char *dir)
{
    char *names = d->config->xen.watch->list(d->config->xen.watch_user, dir);
    for (const char *n = names; n && *n; n += strlen(n) + 1)
        if (!fc_settings_known(n))
            fc_error("xenstore %s/%.64s: there is no setting of that name", dir,
                     n);
    free(names);
    for (unsigned i = 0; fc_settings_key(i); i++)
        read_key(d, s, dir, fc_settings_key(i));
}

static void read_guest(struct fc_daemon *d, const char *uuid_text,
                       const char *key)
{
    char dir[256];
    uint8_t uuid[FC_UUID_BYTES];
    if (fc_uuid_parse(uuid_text, uuid)) {
        fc_error("xenstore " FC_XENWATCH_DOMAINS "/%.64s: not a uuid",
                 uuid_text);
        return;
    }
    struct fc_settings *s = fc_daemon_guest_settings(d, uuid, true);
    if (!s) {
        fc_error("xenstore " FC_XENWATCH_DOMAINS "/%s: too many guests have "
                 "settings",
                 uuid_text);
        return;
    }
    snprintf(dir, sizeof(dir), FC_XENWATCH_DOMAINS "/%s", uuid_text);
    if (key)
        read_key(d, s, dir, key);
    else
        read_dir(d, s, dir);
}

static void read_guests(struct fc_daemon *d)
{
    char uuid[FC_UUID_TEXT];
    char *names = d->config->xen.watch->list(d->config->xen.watch_user,
                                             FC_XENWATCH_DOMAINS);
    for (const char *n = names; n && *n; n += strlen(n) + 1)
        read_guest(d, n, NULL);
    free(names);
    /* and those whose directory is gone */
    for (struct fc_guest_settings *g = d->guest_settings; g; g = g->next) {
        fc_uuid_format(g->uuid, uuid);
        read_guest(d, uuid, NULL);
    }
}

/* The part of `path` below `dir`, "" for `dir` itself, NULL when outside. */
static const char *below(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    if (strncmp(path, dir, len))
        return NULL;
    if (!path[len])
        return path + len;
    return path[len] == '/' ? path + len + 1 : NULL;
}

void fc_daemon_settings_event(struct fc_daemon *d, const char *path)
{
    const char *rest = below(path, FC_XENWATCH_CONFIG);
    if (rest && (!*rest || !fc_settings_known(rest))) {
        read_dir(d, &d->settings, FC_XENWATCH_CONFIG);
    } else if (rest) {
        read_key(d, &d->settings, FC_XENWATCH_CONFIG, rest);
    } else if ((rest = below(path, FC_XENWATCH_DOMAINS))) {
        char uuid[FC_UUID_TEXT];
        size_t len = strcspn(rest, "/");
        snprintf(uuid, sizeof(uuid), "%.*s", (int)len, rest);
        const char *key = rest[len] ? rest + len + 1 : NULL;
        if (!*rest)
            read_guests(d);
        else
            read_guest(d, uuid, key && fc_settings_known(key) ? key : NULL);
    }
    fc_daemon_settings_apply(d);
}
