/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport_gate.h"

#include <string.h>

#include "err.h"

/* xl writes the banner without its zero byte, the other with it. */
static const char banner[] =
    "xl migration receiver ready, send binary domain data.\n";
static const char ready[] = "domain received, ready to unpause";
#define BANNER_BYTES (sizeof(banner) - 1)
#define READY_BYTES sizeof(ready)

static int shut(struct fc_gate *g, int rc)
{
    g->state = FC_GATE_SHUT;
    g->rc = rc;
    return rc;
}

/* How many of `len` bytes go on where `want` was matched so far. */
static size_t match(const struct fc_gate *g, const char *want, size_t size,
                    const char *bytes, size_t len)
{
    size_t n = 0;
    while (n < len && g->matched + n < size && bytes[n] == want[g->matched + n])
        n++;
    return n;
}

static size_t take_banner(struct fc_gate *g, const char *bytes, size_t len)
{
    size_t n = match(g, banner, BANNER_BYTES, bytes, len);
    if (n)
        g->pass(g->user, bytes, n);
    g->matched += n;
    if (g->matched == BANNER_BYTES) {
        g->state = FC_GATE_READY;
        g->matched = 0;
    } else if (n < len) {
        shut(g, FC_EFORMAT);
    }
    return n;
}

/* What was matched is known and need not be kept. */
static size_t take_ready(struct fc_gate *g, const char *bytes, size_t len)
{
    size_t n = match(g, ready, READY_BYTES, bytes, len);
    g->matched += n;
    if (g->matched < READY_BYTES) {
        if (n < len)
            shut(g, FC_EFORMAT);
        return n;
    }
    int rc = g->flip(g->user);
    if (rc) {
        shut(g, rc);
    } else {
        g->state = FC_GATE_OPEN;
        g->pass(g->user, ready, READY_BYTES);
    }
    return n;
}

int fc_gate_feed(struct fc_gate *g, const void *bytes, size_t len)
{
    const char *p = bytes;
    while (len && g->state != FC_GATE_SHUT) {
        size_t n = len;
        if (g->state == FC_GATE_BANNER)
            n = take_banner(g, p, len);
        else if (g->state == FC_GATE_READY)
            n = take_ready(g, p, len);
        else
            g->pass(g->user, p, len);
        p += n;
        len -= n;
    }
    return g->state == FC_GATE_SHUT ? g->rc : 0;
}
