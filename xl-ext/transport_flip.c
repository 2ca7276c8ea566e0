/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport_flip.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "frontend_report.h"
#include "io.h"

/* After its own limit the daemon gives up and says so; waiting for that is
 * worth as long again, or this much. */
#define MARGIN_MS 10000
/* A daemon that died is started again by systemd within seconds, or not. */
#define ABSENT_MS 10000
#define CONNECT_MS 2000
#define RETRY_US 200000

bool fc_flip_migration_valid(const char *text)
{
    return strlen(text) == FC_FLIP_MIGRATION_DIGITS &&
           strspn(text, "0123456789abcdefABCDEF") == FC_FLIP_MIGRATION_DIGITS;
}

static int ask(int sock, const char *migration, int limit_ms, int wait_ms,
               struct json_object **reply_r)
{
    struct json_object *req = json_object_new_object();
    json_object_object_add(req, "cmd", json_object_new_string("disk-flip"));
    json_object_object_add(req, "migration", json_object_new_string(migration));
    json_object_object_add(req, "timeout_ms", json_object_new_int(limit_ms));
    int rc = fc_ctl_call(sock, req, NULL, 0, reply_r, NULL, wait_ms);
    json_object_put(req);
    return rc;
}

int fc_flip(const char *migration, int timeout_ms, char *why, size_t size)
{
    uint64_t now = fc_now_ms(), heard_ms = now;
    uint64_t end_ms = now + (uint64_t)timeout_ms;
    int margin_ms = timeout_ms < MARGIN_MS ? timeout_ms : MARGIN_MS;
    struct json_object *reply = NULL;
    int rc;

    snprintf(why, size, "forecopyd does not answer");
    for (;;) {
        rc = FC_EDAEMON;
        int sock = fc_ctl_connect(NULL, CONNECT_MS);
        now = fc_now_ms();
        int left_ms = now < end_ms ? (int)(end_ms - now) : 1;
        if (sock >= 0) {
            rc = ask(sock, migration, left_ms, left_ms + margin_ms, &reply);
            heard_ms = fc_now_ms();
        }
        fc_close(&sock);
        if (rc != FC_EDAEMON || reply)
            break;
        now = fc_now_ms();
        if (now >= end_ms || now - heard_ms >= ABSENT_MS)
            return rc;
        usleep(RETRY_US);
    }
    if (rc) {
        snprintf(why, size, "forecopyd: %s",
                 fc_json_str(reply, "error", fc_strerror(rc)));
        fc_front_scrub(why);
    }
    json_object_put(reply);
    return rc;
}
