/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_ENGINE_KIT_H
#define FC_TEST_ENGINE_KIT_H

/*
 * Real engines: nbdkit with the built plugin, on files in a directory of its
 * own, driven over their control sockets.
 */
#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "io.h"

#define ENGINE_PATIENCE_MS 60000
#define ENGINE_UUID "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa"

#define engine_await(condition)                                                \
    do {                                                                       \
        uint64_t await_end = fc_now_ms() + ENGINE_PATIENCE_MS;                 \
        while (!(condition)) {                                                 \
            if (fc_now_ms() > await_end)                                       \
                fail_msg("waited in vain for " #condition);                    \
            usleep(2000);                                                      \
        }                                                                      \
    } while (0)

struct engine {
    const char *dir, *role;
    pid_t pid;
    char socket[128], control[128];
};

static inline void engine_file(const char *dir, const char *name,
                               uint64_t bytes)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)bytes), 0);
    fclose(f);
}

/* One request; the reply is the caller's. NULL when nobody answers. */
static inline struct json_object *engine_ask(struct engine *e, const char *text,
                                             const int *fds, int nfds)
{
    struct json_object *reply = NULL;
    struct json_object *request = json_tokener_parse(text);
    assert_non_null(request);
    int sock = fc_ctl_connect(e->control, 1000);
    if (sock >= 0)
        fc_ctl_call(sock, request, fds, nfds, &reply, NULL, ENGINE_PATIENCE_MS);
    fc_close(&sock);
    json_object_put(request);
    return reply;
}

/* Whether it was answered with ok; what was said otherwise is printed. */
static inline bool engine_does(struct engine *e, const char *text)
{
    struct json_object *reply = engine_ask(e, text, NULL, 0);
    bool ok = fc_json_bool(reply, "ok", 0);
    if (!ok)
        print_message("%s %s: %s\n", e->role, text,
                      reply ? json_object_to_json_string(reply) : "no answer");
    json_object_put(reply);
    return ok;
}

static inline int64_t engine_number(struct engine *e, const char *key)
{
    struct json_object *reply = engine_ask(e, "{\"cmd\":\"status\"}", NULL, 0);
    int64_t v = fc_json_int(reply, key, -1);
    if (v < 0)
        v = fc_json_bool(reply, key, -1);
    json_object_put(reply);
    return v;
}

static inline bool engine_is(struct engine *e, const char *state)
{
    struct json_object *reply = engine_ask(e, "{\"cmd\":\"status\"}", NULL, 0);
    bool is = !strcmp(fc_json_str(reply, "state", ""), state);
    json_object_put(reply);
    return is;
}

/* Starts one and waits until its control socket answers. `more`: arguments
 * before the plugin or NULL, `last`: a parameter or NULL. */
static inline void engine_start(struct engine *e, const char *dir,
                                const char *role, const char *more,
                                const char *last)
{
    char plugin[512], role_p[64], volume[160], map[160], control[160];
    const char *build = getenv("FC_BUILD") ? getenv("FC_BUILD") : "build";
    e->dir = dir;
    e->role = role;
    snprintf(plugin, sizeof(plugin), "%s%s/nbdkit-forecopy-plugin.so",
             build[0] == '/' ? "" : "./", build);
    snprintf(role_p, sizeof(role_p), "role=%s", role);
    snprintf(volume, sizeof(volume), "volume=%s/%s.img", dir, role);
    snprintf(map, sizeof(map), "map=%s/%s.map", dir, role);
    snprintf(e->socket, sizeof(e->socket), "%s/%s.nbd", dir, role);
    snprintf(e->control, sizeof(e->control), "%s/%s.ctl", dir, role);
    snprintf(control, sizeof(control), "control=%s", e->control);
    const char *argv[24] = { "nbdkit", "-f", "-U", e->socket };
    int n = 4;
    if (more)
        argv[n++] = more;
    const char *const rest[] = { plugin,
                                 role_p,
                                 volume,
                                 control,
                                 "vdev=xvda",
                                 "block-size=4096",
                                 "uuid=" ENGINE_UUID };
    for (unsigned i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
        argv[n++] = rest[i];
    if (strcmp(role, "source"))
        argv[n++] = map;
    if (last)
        argv[n++] = last;
    unlink(e->socket);
    unlink(e->control);
    e->pid = fork();
    assert_true(e->pid >= 0);
    if (!e->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[0], (char **)(uintptr_t)argv);
        perror("nbdkit");
        _exit(127);
    }
    engine_await(access(e->control, F_OK) == 0 &&
                 access(e->socket, F_OK) == 0 && engine_number(e, "size") > 0);
}

/* Its wait status. */
static inline int engine_end(struct engine *e, int signal_number)
{
    int status = 0;
    if (e->pid > 0) {
        kill(e->pid, signal_number);
        engine_await(waitpid(e->pid, &status, WNOHANG) == e->pid);
        e->pid = 0;
    }
    return status;
}

/* A new channel between two. */
static inline void engine_join(struct engine *source, struct engine *shadow)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends),
                     0);
    struct engine *who[] = { shadow, source };
    for (unsigned i = 0; i < 2; i++) {
        int fds[2] = { ends[i], ends[i] };
        struct json_object *reply =
            engine_ask(who[i], "{\"cmd\":\"channel\"}", fds, 2);
        assert_true(fc_json_bool(reply, "ok", 0));
        json_object_put(reply);
        close(ends[i]);
    }
}

static inline void engine_clean(const char *dir)
{
    char command[160];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

#endif
