/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client_remote.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "err.h"

#define PLACE "forecopy receive %u"

void fc_remote_init(struct fc_remote *r)
{
    snprintf(r->before, sizeof(r->before), "ssh -o BatchMode=yes %%h ");
    r->after[0] = '\0';
}

int fc_remote_use(struct fc_remote *r, const char *template)
{
    const char *place = strstr(template, PLACE);
    if (!place || strlen(template) >= FC_REMOTE_COMMAND)
        return FC_EFORMAT;
    snprintf(r->before, sizeof(r->before), "%.*s", (int)(place - template),
             template);
    snprintf(r->after, sizeof(r->after), "%s", place + strlen(PLACE));
    return 0;
}

/* Nothing that a shell or ssh would take for more than a name. */
static bool is_host(const char *host)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_:@[]%";
    return *host && *host != '-' && host[strspn(host, allowed)] == '\0';
}

/* Appends `text` with its %h and %% replaced; the new length. */
static size_t expand(char *to, size_t used, const char *text, const char *host)
{
    for (; *text && used < FC_REMOTE_COMMAND; text++) {
        char one[2] = { *text, '\0' };
        const char *piece = one;
        if (text[0] == '%' && text[1] == 'h')
            piece = host;
        if (text[0] == '%' && (text[1] == 'h' || text[1] == '%'))
            text++;
        size_t len = strlen(piece);
        if (used + len < FC_REMOTE_COMMAND)
            memcpy(to + used, piece, len);
        used += len;
    }
    return used;
}

int fc_remote_command(const struct fc_remote *r, const char *host,
                      const char *words, char command[FC_REMOTE_COMMAND])
{
    if (!is_host(host))
        return FC_EINVAL;
    size_t used = expand(command, 0, r->before, host);
    size_t len = strlen(words);
    if (used + len < FC_REMOTE_COMMAND)
        memcpy(command + used, words, len);
    used += len;
    if (used < FC_REMOTE_COMMAND)
        used = expand(command, used, r->after, host);
    if (used >= FC_REMOTE_COMMAND)
        return FC_ETOOBIG;
    command[used] = '\0';
    return 0;
}
