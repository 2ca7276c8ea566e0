/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <libxlutil.h>

#include "config.h"
#include "err.h"
#include "io.h"
#include "log.h"

/*
 * The grammar is libxlutil's, so that forecopy.conf reads as xl.conf does. The
 * library answers for keys that are asked for, but neither lists the keys of a
 * file nor remembers lines; the lines that start an assignment are found
 * here, for messages and for keys that do not exist.
 */
#define MAX_BYTES (256u * 1024u)
#define MAX_LINES 10000u

/* Logs what the library reported, line by line. */
static void log_report(const char *report)
{
    while (*report) {
        size_t len = strcspn(report, "\n");
        if (len)
            fc_error("%.*s", (int)len, report);
        report += len + (report[len] != '\0');
    }
}

/* If the line at `p` assigns to a key, the key's length, else 0. */
static size_t key_length(const char *p, const char *end)
{
    size_t len = 0;
    while (p + len < end &&
           (p[len] == '_' || (p[len] >= 'a' && p[len] <= 'z') ||
            (p[len] >= 'A' && p[len] <= 'Z') ||
            (len && p[len] >= '0' && p[len] <= '9')))
        len++;
    const char *q = p + len;
    while (q < end && (*q == ' ' || *q == '\t'))
        q++;
    return len && q < end && *q == '=' ? len : 0;
}

/* Takes the value of one key that the file assigns to. 1 when it complained. */
static int take(struct fc_settings *s, const XLU_Config *cfg, const char *key,
                const char *name, unsigned line)
{
    char why[FC_SETTING_WHY];
    const char *value;
    if (!fc_settings_known(key)) {
        fc_error("%s:%u: there is no setting \"%.64s\"", name, line, key);
        return 1;
    }
    int r = xlu_cfg_get_string(cfg, key, &value, 1);
    if (r == ESRCH)
        return 0; /* inside a longer value, not an assignment */
    if (r) {
        fc_error("%s:%u: %s: a list is not wanted here", name, line, key);
        return 1;
    }
    if (!fc_settings_set(s, FC_SOURCE_FILE, key, value, why))
        return 0;
    fc_error("%s:%u: %s", name, line, why);
    return 1;
}

static int take_all(struct fc_settings *s, const XLU_Config *cfg,
                    const char *name, const char *text, size_t len)
{
    int complaints = 0;
    const char *value;
    for (unsigned i = 0; fc_settings_key(i); i++)
        if (xlu_cfg_get_string(cfg, fc_settings_key(i), &value, 1) == ESRCH)
            fc_settings_unset(s, FC_SOURCE_FILE, fc_settings_key(i));
    unsigned line = 1;
    const char *end = text + len;
    for (const char *p = text; p < end && line <= MAX_LINES; line++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *stop = nl ? nl : end;
        while (p < stop && (*p == ' ' || *p == '\t'))
            p++;
        size_t n = key_length(p, stop);
        if (n) {
            char key[65];
            snprintf(key, sizeof(key), "%.*s", (int)(n < 64 ? n : 64), p);
            complaints += take(s, cfg, key, name, line);
        }
        p = stop + 1;
    }
    return complaints;
}

int fc_config_parse(struct fc_settings *s, const char *name, const char *text,
                    size_t len)
{
    char *report = NULL;
    size_t report_len = 0;
    if (len > MAX_BYTES || memchr(text, '\0', len)) {
        fc_error("%s: %s", name,
                 len > MAX_BYTES ? "longer than 256 KiB" : "has a NUL byte");
        return FC_EFORMAT;
    }
    FILE *f = open_memstream(&report, &report_len);
    if (!f)
        return FC_ENOMEM;
    XLU_Config *cfg = xlu_cfg_init(f, name);
    int rc = FC_ENOMEM;
    if (!cfg)
        goto out;
    if (xlu_cfg_readdata(cfg, text, (int)len)) {
        rc = FC_EFORMAT;
        goto out;
    }
    rc = take_all(s, cfg, name, text, len);
out:
    if (cfg)
        xlu_cfg_destroy(cfg);
    fclose(f);
    if (report)
        log_report(report);
    free(report);
    return rc;
}

int fc_config_read(struct fc_settings *s, const char *path, int optional)
{
    int rc = FC_ESYS;
    char *text = NULL;
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && optional) {
        fc_settings_unset(s, FC_SOURCE_FILE, NULL);
        return 0;
    }
    if (fd < 0)
        goto out;
    text = malloc(MAX_BYTES + 1);
    if (!text) {
        rc = FC_ENOMEM;
        goto out;
    }
    while (used <= MAX_BYTES) {
        ssize_t r = read(fd, text + used, MAX_BYTES + 1 - used);
        if (r < 0)
            goto out;
        if (!r)
            break;
        used += (size_t)r;
    }
    rc = fc_config_parse(s, path, text, used);
out:
    if (rc == FC_ESYS)
        fc_error("cannot read %s: %s", path, strerror(errno));
    fc_close(&fd);
    free(text);
    return rc;
}
