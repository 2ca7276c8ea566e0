/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_DISK_KIT_H
#define FC_TEST_DISK_KIT_H

/*
 * For tests of disks in the daemon: nbdkit, forecopy-block and ssh are programs
 * of the test's own, which write down what they are asked, and fail as files
 * in the test's directory say. The engine is this very program, called with
 * "fake-engine". Include after cmocka.h.
 */
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon_kit.h"

#define DISK_BYTES (1u << 20)
#define FAKE_CLIENTS 64
#define DISK_TEXT 65536u

static inline void disk_file(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", kit_dir, name);
    if (text)
        kit_file(path, text, strlen(text));
    else
        unlink(path);
}

/* A file's text; "" when it is not there. One buffer. */
static inline const char *disk_text(const char *name)
{
    static char text[DISK_TEXT];
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", kit_dir, name);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static inline bool disk_has(const char *name, const char *part)
{
    return strstr(disk_text(name), part) != NULL;
}

static inline bool disk_is_there(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", kit_dir, name);
    return access(path, F_OK) == 0;
}

/* How often the part comes in the file. */
static inline unsigned disk_count(const char *name, const char *part)
{
    unsigned n = 0;
    for (const char *p = disk_text(name); (p = strstr(p, part)); p++)
        n++;
    return n;
}

/* ---- the engine ---- */

static inline void fake_note(const char *dir, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/engine.log", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    close(fd);
}

/* What "engine-CMD" says: "" as it should be, "die", "no", "hang". */
static inline void fake_mood(const char *dir, const char *cmd, char mood[16])
{
    char path[256];
    snprintf(path, sizeof(path), "%s/engine-%s", dir, cmd);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, mood, 15);
    close(fd);
    mood[n > 0 ? n : 0] = '\0';
    if (!strcmp(mood, "die")) { /* once */
        unlink(path);
        _exit(3);
    }
}

static inline void fake_answer(const char *dir, int sock, const char *line,
                               size_t len)
{
    char mood[16], text[DISK_TEXT] = "{\"ok\":true}\n", path[256], name[80];
    struct json_object *o = fc_ctl_parse(line, len, NULL);
    const char *cmd = fc_json_str(o, "cmd", "?");
    if (strcmp(cmd, "status")) {
        snprintf(text, sizeof(text), "%.*s\n", (int)len, line);
        fake_note(dir, text);
        strcpy(text, "{\"ok\":true}\n");
    }
    snprintf(name, sizeof(name), "%.60s", cmd);
    fake_mood(dir, name, mood);
    if (!strcmp(mood, "no"))
        strcpy(text, "{\"ok\":false,\"code\":\"FC_EPERM\",\"error\":\"the "
                     "engine will not\"}\n");
    else if (!strcmp(cmd, "status") || !strcmp(cmd, "ranges")) {
        snprintf(path, sizeof(path), "%s/%s", dir, cmd);
        int fd = open(path, O_RDONLY);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        close(fd);
        if (fd >= 0)
            text[n > 0 ? n : 0] = '\0';
    }
    json_object_put(o);
    if (strcmp(mood, "hang") && write(sock, text, strlen(text)) < 0)
        _exit(4);
}

/* One client's bytes; false when it has gone. Channels' ends are kept. */
static inline bool fake_read(const char *dir, int sock)
{
    char line[4096];
    int fds[2], n = 0;
    ssize_t r = fc_recv_fds(sock, line, sizeof(line), fds, 2, &n);
    if (r <= 0)
        return false;
    char *end = memchr(line, '\n', (size_t)r);
    if (end)
        fake_answer(dir, sock, line, (size_t)(end - line));
    return true;
}

static inline int fake_engine(int argc, char **argv)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct pollfd poll_fds[FAKE_CLIENTS];
    const char *dir = getenv("FC_FAKE_DIR");
    char line[4096] = "start";
    int count = 1;
    for (int i = 2; i < argc; i++) {
        if (!strncmp(argv[i], "control=", 8))
            snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", argv[i] + 8);
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " %s",
                 argv[i]);
    }
    strcat(line, "\n");
    fake_note(dir, line);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(s, (struct sockaddr *)&addr, sizeof(addr)) || listen(s, 16))
        return 5;
    poll_fds[0] = (struct pollfd){ .fd = s, .events = POLLIN };
    while (poll(poll_fds, (nfds_t)count, -1) > 0) {
        for (int i = count - 1; i > 0; i--)
            if (poll_fds[i].revents && !fake_read(dir, poll_fds[i].fd)) {
                close(poll_fds[i].fd);
                poll_fds[i] = poll_fds[--count];
            }
        if (poll_fds[0].revents && count < FAKE_CLIENTS)
            poll_fds[count++] = (struct pollfd){ .fd = accept(s, NULL, NULL),
                                                 .events = POLLIN };
    }
    return 0;
}

/* `engine` as status has it. */
static inline void disk_engine(bool owner, unsigned blocks, unsigned remaining,
                               bool channel, unsigned epoch)
{
    char text[512];
    snprintf(
        text, sizeof(text),
        "{\"ok\":true,\"role\":\"source\",\"owner\":%s,\"state\":"
        "\"copying\",\"blocks\":%u,\"remaining_blocks\":%u,"
        "\"valid_blocks\":%u,\"channel\":%s,\"epoch\":%u,"
        "\"sent_bytes\":4096,\"dirty_rate_bps\":0,\"metrics\":{\"reads\":5,"
        "\"hits_predictive\":6,\"misses\":2,\"latency\":[4,0,1]}}\n",
        owner ? "true" : "false", blocks, remaining, blocks - remaining,
        channel ? "true" : "false", epoch);
    disk_file("status.new", text);
    char from[128], to[128]; /* never half of it */
    snprintf(from, sizeof(from), "%s/status.new", kit_dir);
    snprintf(to, sizeof(to), "%s/status", kit_dir);
    if (rename(from, to))
        abort();
}

static inline void disk_script(const char *name, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    disk_file(name, text);
}

/* A disk of the first guest, as the hotplug script leaves it. */
static inline void disk_attach(const char *vdev)
{
    char path[256], text[260];
    snprintf(path, sizeof(path), "%s/" KIT_UUID "-%s", kit_disks_run, vdev);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/%s.img", kit_dir, vdev);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, DISK_BYTES))
        abort();
    close(fd);
    snprintf(text, sizeof(text), "%s\n", path);
    snprintf(path, sizeof(path), "run/" KIT_UUID "-%s/target", vdev);
    disk_file(path, text);
    snprintf(path, sizeof(path), "run/" KIT_UUID "-%s/backing", vdev);
    disk_file(path, text);
}

static inline int disk_setup(void **state)
{
    char self[256];
    (void)state;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        abort();
    self[n] = '\0';
    kit_setup();
    snprintf(kit_disks, sizeof(kit_disks), "%s/disks", kit_dir);
    snprintf(kit_disks_run, sizeof(kit_disks_run), "%s/run", kit_dir);
    snprintf(kit_nbdkit, sizeof(kit_nbdkit), "%s/nbdkit", kit_dir);
    snprintf(kit_tool, sizeof(kit_tool), "%s/tool", kit_dir);
    mkdir(kit_disks_run, 0700);
    disk_script("nbdkit",
                "#!/bin/sh\nexport FC_FAKE_DIR=%s\n"
                "exec %s fake-engine \"$@\"\n",
                kit_dir, self);
    disk_script("tool",
                "#!/bin/sh\necho \"$*\" >>%s/tool.log\n"
                "if [ -e %s/tool-$1 ]; then echo no $1 >&2; exit 1; fi\n"
                "if [ $1 = nbd-attach ]; then echo /dev/nbd7; fi\n",
                kit_dir, kit_dir);
    disk_script("ssh",
                "#!/bin/sh\ncd %s || exit 1\necho \"$*\" >>ssh.log\n"
                "case $3 in\n"
                "disk-prepare)\n"
                "    cat >>prepare.log\n"
                "    if [ -e refuse ]; then cat refuse; exit 1; fi\n"
                "    echo Welcome\n"
                "    echo '{\"ok\":true,\"disks\":[{\"vdev\":\"xvda\","
                "\"volume\":\"/x is created\"}]}' ;;\n"
                "disk-receive)\n"
                "    if [ -e cut ]; then echo cut >&2; exit 1; fi\n"
                "    exec cat >/dev/null ;;\n"
                "esac\n",
                kit_dir);
    char command[256];
    snprintf(command, sizeof(command), "%s/ssh %%h forecopy receive %%u",
             kit_dir);
    kit_add_domain(0, 5, "guest", FC_DOMAIN_PVH);
    kit_set_key(FC_XENWATCH_CONFIG "/channel_command", command);
    kit_set_key(FC_XENWATCH_CONFIG, NULL);
    disk_engine(true, 16, 0, true, 0);
    return 0;
}

/* Engines outlive the daemon. */
static inline void disk_end_engines(void)
{
    char command[512];
    snprintf(command, sizeof(command),
             "exec 2>/dev/null; for p in /proc/[0-9]*; do "
             "[ $p = /proc/$$ ] && continue; " /* it has these words, too */
             "if tr '\\0' ' ' <$p/cmdline "
             "| grep -q 'fake-engine.*%s/run'; then kill -9 "
             "${p#/proc/}; fi; done",
             kit_dir);
    if (system(command) < 0)
        abort();
}

static inline int disk_teardown(void **state)
{
    (void)state;
    if (kit_daemon > 0)
        kit_stop();
    disk_end_engines();
    kit_teardown();
    kit_disks[0] = '\0';
    return 0;
}

#define WITH_DISKS(test)                                                       \
    cmocka_unit_test_setup_teardown(test, disk_setup, disk_teardown)

#endif
