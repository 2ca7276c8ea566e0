/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "frontend_exec.h"
#include "frontend_remote.h"
#include "frontend_report.h"

/* On a terminal somebody may have to type a password first. */
#define REMOTE_MS 20000
#define REMOTE_TTY_MS 60000
#define REPLY_BYTES 65536

/* The protocol between two hosts' forecopy, HELLO's version. */
#define PROTOCOL 1

/* What the shell and ssh themselves exit with. */
#define STATUS_NOT_FOUND 127
#define STATUS_SSH 255

struct answer {
    struct json_object *reply; /* NULL: none */
    const char *complaint;     /* what forecopy says there; NULL: nothing */
};

/* The first line that is a JSON object, and the first that is forecopy's; a
 * login script or ssh may print others. */
static void find_answer(char *text, struct answer *answer_r)
{
    static const char ours[] = "forecopy: ";
    char *rest = text, *line;

    *answer_r = (struct answer){ NULL, NULL };
    while ((line = strsep(&rest, "\n"))) {
        const char *why;
        if (line[0] == '{' && !answer_r->reply)
            answer_r->reply = fc_ctl_parse(line, strlen(line), &why);
        if (!answer_r->complaint && !strncmp(line, ours, strlen(ours)))
            answer_r->complaint = line + strlen(ours);
    }
}

static void explain(const struct fc_front_args *args, int status,
                    const struct answer *answer, char *why)
{
    const char *complaint =
        fc_json_str(answer->reply, "error", answer->complaint);
    if (complaint)
        snprintf(why, FC_FRONT_WHY, "forecopy at %s: %s", args->host,
                 complaint);
    else if (status == FC_ETIMEOUT)
        snprintf(why, FC_FRONT_WHY, "%s did not answer in time", args->host);
    else if (status < 0)
        snprintf(why, FC_FRONT_WHY, "cannot ask %s: %s", args->host,
                 strerror(errno));
    else if (status == STATUS_NOT_FOUND)
        snprintf(why, FC_FRONT_WHY, "%s has no forecopy", args->host);
    else if (status == STATUS_SSH)
        snprintf(why, FC_FRONT_WHY, "%s cannot be reached", args->host);
    else
        snprintf(why, FC_FRONT_WHY, "forecopy at %s failed (status %d)",
                 args->host, status);
}

static int judge(const struct fc_front_args *args, int status,
                 const struct answer *answer, char *why)
{
    if (status || !answer->reply || fc_json_str(answer->reply, "error", NULL)) {
        explain(args, status, answer, why);
        return FC_EPEER;
    }
    int64_t protocol = fc_json_int(answer->reply, "protocol", 0);
    if (protocol < PROTOCOL) {
        snprintf(why, FC_FRONT_WHY,
                 "forecopy at %s is too old (%s, protocol "
                 "%lld)",
                 args->host, fc_json_str(answer->reply, "version", "?"),
                 (long long)protocol);
        return FC_EPEER;
    }
    return 0;
}

static int ask(const struct fc_front_args *args, const char *words,
               const char *name, struct json_object **reply_r, char *why)
{
    int rc = FC_EPEER;
    char *text = malloc(REPLY_BYTES);
    char *command = fc_front_remote(args, words, name);

    *reply_r = NULL;
    if (!text || !command) {
        snprintf(why, FC_FRONT_WHY, "out of memory");
        goto out;
    }
    const char *argv[] = { "sh", "-c", command, NULL };
    int status = fc_front_capture(
        argv, isatty(STDERR_FILENO) ? REMOTE_TTY_MS : REMOTE_MS, text,
        REPLY_BYTES);
    struct answer answer;
    find_answer(text, &answer);
    rc = judge(args, status, &answer, why);
    if (rc)
        json_object_put(answer.reply);
    else
        *reply_r = answer.reply;
out:
    fc_front_scrub(why);
    free(command);
    free(text);
    return rc;
}

int fc_front_remote_prepare(const struct fc_front_args *args,
                            const struct fc_front_guest *guest,
                            struct json_object **reply_r, char *why)
{
    char words[96];
    why[0] = '\0';
    snprintf(words, sizeof(words), "prepare --json --uuid %s",
             guest->uuid_text);
    return ask(args, words, guest->name, reply_r, why);
}

int fc_front_remote_version(const struct fc_front_args *args,
                            struct json_object **reply_r, char *why)
{
    why[0] = '\0';
    return ask(args, "version --json", NULL, reply_r, why);
}
