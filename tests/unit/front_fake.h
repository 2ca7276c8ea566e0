/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FRONT_FAKE_H
#define FRONT_FAKE_H

/*
 * Around the front end: a daemon, a real xl with a helper in it, a remote
 * command and a transport, all fakes. The test program is its own xl (by its
 * name) and its own helper (by --self-test). The daemon answers with the file
 * reply-COMMAND: the first request gets its first line, and so on, the last
 * line serving all that follow; "!close" breaks the connection off, "!die" ends
 * the daemon, "!mark " before a reply says that it has come to that.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-c/json.h>

#include "frontend.h"
#include "io.h"
#include "session.h"

#define FAKE_UUID "11111111-2222-3333-4444-555555555555"

static char fake_dir[] = "/tmp/test-front-XXXXXX";
static pid_t fake_daemon_pid;
static unsigned fake_domid; /* of this run: /proc shows those of others too */

static inline char *fake_path(const char *name)
{
    static char path[4][PATH_MAX];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, PATH_MAX, "%s/%s", fake_dir, name);
    return p;
}

static inline void fake_write(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(fake_path(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(fake_path(name), mode), 0);
}

/* A file's text, "" when there is none. The caller frees it. */
static inline char *fake_read(const char *name)
{
    char *text = calloc(1, 65536);
    FILE *f = fopen(fake_path(name), "r");
    if (f) {
        size_t n = fread(text, 1, 65535, f);
        text[n] = '\0';
        fclose(f);
    }
    return text;
}

static inline bool fake_has(const char *name, const char *part)
{
    char *text = fake_read(name);
    bool has = strstr(text, part) != NULL;
    free(text);
    return has;
}

static inline void fake_check(const char *name, const char *part, int line)
{
    char *text = fake_read(name);
    if (!strstr(text, part))
        fail_msg("line %d: no \"%s\" in %s:\n%s", line, part, name, text);
    free(text);
}
#define CHECK_IN(name, part) fake_check(name, part, __LINE__)

/* ---- the real xl -------------------------------------------------------- */

static inline int fake_xl_events(int fd)
{
    char *events = fake_read("events"), *rest = events, *line;
    while ((line = strsep(&rest, "\n"))) {
        char packet[64];
        if (!strcmp(line, "!abort")) {
            ssize_t n;
            do
                n = recv(fd, packet, sizeof(packet), 0);
            while (n >= 0 && (n != 5 || memcmp(packet, "abort", 5)));
        } else if (!strcmp(line, "!mark")) {
            fclose(fopen(fake_path("mark"), "w"));
        } else if (!strcmp(line, "!pause")) {
            usleep(400000);
        } else if (!strcmp(line, "!await")) {
            for (int i = 0; i < 3000 && access(fake_path("go"), F_OK); i++)
                usleep(20000);
        } else if (*line && send(fd, line, strlen(line), 0) < 0) {
            return -1;
        }
    }
    free(events);
    return 0;
}

static inline int fake_xl_session(const char *text, const char *rune)
{
    struct fc_session s;
    char why[256];
    if (fc_session_parse(text, &s, why, sizeof(why)))
        return 99;
    char status[128];
    snprintf(status, sizeof(status), "%u %u %d %d %d %lu %u\n",
             s.max_downtime_ms, s.deadline_s, s.abort_at_deadline,
             s.fail_when_plain, s.staged_fd >= 0, (unsigned long)s.window_bytes,
             s.peer_timeout_s);
    fake_write("session", status, 0600);

    const char *disks = getenv("FORECOPY_DISK_MIGRATION");
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    snprintf(status, sizeof(status), "disks=%s blocked=%d\n",
             disks ? disks : "none", sigismember(&blocked, SIGINT));
    fake_write("environment", status, 0600);

    /* as xl does, but the transport's end is waited for */
    if (getenv("FAKE_RUNE") && system(rune))
        return 1;
    if (s.status_fd >= 0 && fake_xl_events(s.status_fd))
        return 98;
    return 0;
}

static inline int fake_xl(int argc, char **argv)
{
    FILE *f = fopen(fake_path("xl"), "a");
    for (int i = 0; i < argc; i++)
        fprintf(f, "%s%s", i ? "|" : "", argv[i]);
    const char *helper = getenv("LIBXL_SAVE_HELPER");
    const char *session = getenv("FORECOPY_SESSION");
    fprintf(f, "\nhelper=%s tty=%d session=%d\n", helper ? helper : "none",
            isatty(1), session != NULL);
    fclose(f);

    int status = session ? fake_xl_session(session, argv[argc - 1]) : 0;
    if (status)
        return status;
    if (getenv("FAKE_SIGNAL"))
        raise(atoi(getenv("FAKE_SIGNAL")));
    char *text = fake_read(session ? "status" : "plain-status");
    status = atoi(text);
    free(text);
    return status;
}

/* ---- the daemon --------------------------------------------------------- */

/* How many requests of this name have come so far. */
static inline unsigned fake_daemon_count(const char *cmd)
{
    char *log = fake_read("requests"), key[96];
    unsigned count = 0;
    snprintf(key, sizeof(key), "\"cmd\":\"%s\"", cmd);
    for (char *p = log; (p = strstr(p, key)); p++)
        count++;
    free(log);
    return count;
}

/* Cuts the n-th line out, the last when there are fewer. */
static inline void fake_daemon_line(char *reply, unsigned n)
{
    char *line = reply, *next;
    for (unsigned i = 0; i < n && (next = strchr(line, '\n')) && next[1]; i++)
        line = next + 1;
    size_t len = strcspn(line, "\n");
    memmove(reply, line, len);
    reply[len] = '\0';
}

/* What comes before a reply. False: there is none. */
static inline bool fake_daemon_order(char *reply)
{
    if (!strncmp(reply, "!mark ", 6)) {
        fclose(fopen(fake_path("mark"), "w"));
        memmove(reply, reply + 6, strlen(reply + 6) + 1);
    }
    if (!strcmp(reply, "!die")) {
        unlink(fake_path("sock"));
        kill(getppid(), SIGKILL);
    }
    return strcmp(reply, "!die") && strcmp(reply, "!close");
}

static inline void fake_daemon_answer(int sock, const char *line)
{
    struct json_object *req = json_tokener_parse(line), *cmd;
    char name[64];
    int fd = -1;

    assert_true(json_object_object_get_ex(req, "cmd", &cmd));
    snprintf(name, sizeof(name), "reply-%s", json_object_get_string(cmd));
    unsigned before = fake_daemon_count(json_object_get_string(cmd));
    FILE *log = fopen(fake_path("requests"), "a");
    fprintf(log, "%s\n", line);
    fclose(log);

    char *reply = fake_read(name);
    fake_daemon_line(reply, before);
    if (!fake_daemon_order(reply))
        _exit(0);
    if (strstr(reply, "\"token\""))
        fd = memfd_create("set", MFD_CLOEXEC);
    strcat(reply, "\n");
    fc_send_fds(sock, reply, strlen(reply), &fd, fd >= 0);
    fc_close(&fd);
    free(reply);
    json_object_put(req);
}

static inline void fake_daemon_client(int sock)
{
    char line[65536];
    size_t used = 0;
    ssize_t r;
    while (used < sizeof(line) - 1 && (r = read(sock, line + used, 1)) == 1) {
        if (line[used] != '\n') {
            used++;
            continue;
        }
        line[used] = '\0';
        fake_daemon_answer(sock, line);
        used = 0;
    }
    close(sock);
}

static inline void fake_daemon_start(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", fake_path("sock"));
    unlink(addr.sun_path);
    assert_int_equal(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(sock, 8), 0);
    fake_daemon_pid = fork();
    if (!fake_daemon_pid) {
        signal(SIGCHLD, SIG_IGN);
        for (;;) {
            int client = accept(sock, NULL, NULL);
            if (client < 0)
                _exit(1);
            if (!fork()) {
                fake_daemon_client(client);
                _exit(0);
            }
            close(client);
        }
    }
    close(sock);
}

static inline void fake_daemon_stop(void)
{
    if (fake_daemon_pid > 0) {
        kill(fake_daemon_pid, SIGKILL);
        waitpid(fake_daemon_pid, NULL, 0);
    }
    fake_daemon_pid = 0;
    unlink(fake_path("sock"));
}

/* ---- a run of the front end --------------------------------------------- */

/* Starts it with words split at '|', standard output and error to files;
 * `tty` >= 0: these go there instead. */
static inline pid_t fake_start(const char *words, int tty)
{
    pid_t pid = fork();
    if (pid)
        return pid;

    /* whoever runs the test may ignore them, and they would stay ignored */
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    char *text = strdup(words), *rest = text, *argv[32];
    int argc = 0;
    while ((argv[argc] = strsep(&rest, "|")))
        argc++;
    int out = tty >= 0
                  ? tty
                  : open(fake_path("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = tty >= 0
                  ? tty
                  : open(fake_path("err"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out, 1);
    dup2(err, 2);
    int status = fc_front_main(argc, argv);
    fflush(NULL);
    _exit(status);
}

static inline int fake_wait(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static inline int fake_run(const char *words)
{
    return fake_wait(fake_start(words, -1));
}

/* Waits until the fake xl has come to "!mark". */
static inline void fake_wait_mark(void)
{
    for (int i = 0; i < 3000 && access(fake_path("mark"), F_OK); i++)
        usleep(20000);
    assert_int_equal(access(fake_path("mark"), F_OK), 0);
}

/* Waits until the front end has said that, and lets the fake xl go on. */
static inline void fake_wait_said(const char *part)
{
    for (int i = 0; i < 1500 && !fake_has("err", part); i++)
        usleep(20000);
    fclose(fopen(fake_path("go"), "w"));
}

#define FAKE_ESTIMATE                                                          \
    "\"estimate\":{\"bytes\":1048576,\"total_ms\":900,"                        \
    "\"downtime_ms\":50,\"confidence\":0.9,\"link_bps\":1048576,"              \
    "\"converges\":true,\"basis\":\"tested\"}"

/* Everything as it is when all goes well. */
static inline int fake_setup(void **state)
{
    (void)state;
    const char *const old[] = { "xl",      "requests",      "events",
                                "status",  "mark",          "plain-status",
                                "session", "report",        "out",
                                "err",     "transport-log", "environment" };
    for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++)
        unlink(fake_path(old[i]));
    char status[512];
    snprintf(status, sizeof(status),
             "{\"ok\":true,\"guests\":[{\"name\":\"web\",\"uuid\":\"" FAKE_UUID
             "\",\"domid\":%u,\"pages\":1000,\"staged_pages\":900,"
             "\"state\":\"steady\"}]}",
             fake_domid);
    fake_write("reply-status", status, 0600);
    fake_write("reply-get",
               "{\"ok\":true,\"settings\":{\"max_downtime_ms\":"
               "250,\"window_bytes\":99999,\"peer_timeout_s\":0}}",
               0600);
    fake_write("reply-estimate", "{\"ok\":true," FAKE_ESTIMATE "}", 0600);
    fake_write("reply-migrate-begin",
               "{\"ok\":true,\"uuid\":\"" FAKE_UUID
               "\",\"token\":\"000102030405060708090a0b0c0d0e0f\","
               "\"epoch\":77," FAKE_ESTIMATE "}",
               0600);
    fake_write("reply-migrate-end", "{\"ok\":true}", 0600);
    fake_write("remote",
               "#!/bin/sh\necho hello from the login script\n"
               "echo \"$*\" >>$(dirname \"$0\")/requests\n"
               "echo '{\"ok\":true,\"version\":\"9.9\",\"protocol\":1,"
               "\"removed\":0}'\n",
               0700);
    fake_write("forecopy-transport",
               "#!/bin/sh\necho \"$*\" >>$(dirname "
               "\"$0\")/transport-log\n",
               0700);
    fake_write("plain-status", "0", 0600);
    unsetenv("LIBXL_SAVE_HELPER");
    unsetenv("FAKE_RUNE");
    unsetenv("FAKE_SIGNAL");
    unsetenv("FAKE_SELF_TEST");
    fake_daemon_start();
    return 0;
}

static inline int fake_teardown(void **state)
{
    (void)state;
    fake_daemon_stop();
    return 0;
}

static inline int fake_group_setup(void **state)
{
    (void)state;
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0 || !mkdtemp(fake_dir))
        return -1;
    self[n] = '\0';
    fake_domid = 10000 + (unsigned)getpid() % 50000;
    setenv("FAKE_DIR", fake_dir, 1);
    setenv("FORECOPY_XL", self, 1);
    setenv("FORECOPY_HELPER", self, 1);
    setenv("FORECOPY_SOCKET", fake_path("sock"), 1);
    setenv("FORECOPY_RUN_DIR", fake_dir, 1);
    setenv("FORECOPY_TRANSPORT", fake_path("forecopy-transport"), 1);
    return 0;
}

static inline int fake_group_teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof(command), "rm -r '%s'", fake_dir);
    return system(command);
}

/* At the head of main(): plays the part that this process was started for. */
static inline void fake_role(int argc, char **argv)
{
    if (getenv("FAKE_DIR"))
        memcpy(fake_dir, getenv("FAKE_DIR"), sizeof(fake_dir));
    if (argc == 2 && !strcmp(argv[1], "--self-test"))
        exit(getenv("FAKE_SELF_TEST") ? atoi(getenv("FAKE_SELF_TEST")) : 0);
    if (!strcmp(argv[0], "idle"))
        pause();
    if (!strcmp(argv[0], "xl"))
        exit(fake_xl(argc, argv));
}

#endif
