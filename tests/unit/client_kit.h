/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_CLIENT_KIT_H
#define FC_TEST_CLIENT_KIT_H

/*
 * For tests of forecopy(8): a world of its own, in which daemon, commands and
 * files answer from a table, and what was printed. Include after cmocka.h.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "ctl.h"
#include "err.h"

/* What the commands printed. */
static char *out_text, *err_text;
static size_t out_len, err_len;
static FILE *out, *err;

static inline void capture(void)
{
    out = open_memstream(&out_text, &out_len);
    err = open_memstream(&err_text, &err_len);
    assert_non_null(out);
    assert_non_null(err);
}

static inline void captured(void)
{
    fflush(out);
    fflush(err);
}

static inline void release(void)
{
    fclose(out);
    fclose(err);
    free(out_text);
    free(err_text);
    out_text = err_text = NULL;
}

static inline int parse(const char *line, struct fc_client_args *args)
{
    static char text[512];
    static char *argv[32];
    int argc = 1;
    argv[0] = (char *)(uintptr_t) "forecopy";
    snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    return fc_client_args_parse(argc, argv, args, out, err);
}

struct answer {
    const char *match; /* part of the request, the command or the path */
    int rc;
    const char *text; /* reply, output, contents */
};

struct world {
    const struct answer *answers;
    char asked[4096];
};

static inline const struct answer *answer_to(struct world *w, const char *what)
{
    size_t used = strlen(w->asked);
    snprintf(w->asked + used, sizeof(w->asked) - used, "%s\n", what);
    for (const struct answer *a = w->answers; a->match; a++)
        if (strstr(what, a->match))
            return a;
    return NULL;
}

static inline int fake_call(void *user, struct json_object *request,
                            struct json_object **reply_r)
{
    const struct answer *a = answer_to(
        user, json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN));
    *reply_r = NULL;
    errno = ENOENT;
    if (!a)
        return FC_EDAEMON;
    if (a->text) {
        *reply_r = fc_ctl_parse(a->text, strlen(a->text), NULL);
        assert_non_null(*reply_r);
    }
    return a->rc;
}

static inline int fake_run(void *user, const char *command, int timeout_ms,
                           char *text, size_t cap)
{
    const struct answer *a = answer_to(user, command);
    assert_true(timeout_ms > 0);
    snprintf(text, cap, "%s", a && a->text ? a->text : "");
    return a ? a->rc : 127;
}

static inline int fake_read(void *user, const char *path, char *text,
                            size_t cap)
{
    const struct answer *a = answer_to(user, path);
    snprintf(text, cap, "%s", a && a->text ? a->text : "");
    return a ? a->rc : FC_EIO;
}

static inline int fake_executable(void *user, const char *path)
{
    const struct answer *a = answer_to(user, path);
    return a && !a->rc;
}

static struct world the_world;

static inline int run(const char *line, const struct answer *answers)
{
    struct fc_client_args args;
    struct fc_client_world world = { .user = &the_world,
                                     .call = fake_call,
                                     .run = fake_run,
                                     .read = fake_read,
                                     .executable = fake_executable,
                                     .is_root = 1 };
    the_world = (struct world){ .answers = answers };
    capture();
    int status = parse(line, &args);
    assert_int_equal(status, -1);
    struct fc_client_task c = {
        .args = &args, .world = &world, .out = out, .err = err
    };
    status =
        args.verb == FC_VERB_DOCTOR ? fc_client_doctor(&c) : fc_client_run(&c);
    captured();
    return status;
}

#endif
