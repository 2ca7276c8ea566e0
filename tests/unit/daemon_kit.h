/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TEST_DAEMON_KIT_H
#define FC_TEST_DAEMON_KIT_H

/*
 * A daemon in a child process, with a Xen made of shared memory: domains, one
 * guest's pages, its dirty log, a little xenstore. The test writes to the guest
 * and talks to the daemon as any client would. It is both source and
 * destination: channels are `forecopy receive` to the daemon itself.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "daemon.h"
#include "err.h"
#include "io.h"
#include "log.h"

#define KIT_PFNS 8192u /* of these, the first KIT_RAM are memory */
#define KIT_RAM 4096u
#define KIT_DOMAINS 4u
#define KIT_KEYS 16u

struct kit_domain {
    bool exists, log_on;
    struct fc_domain info;
    uint64_t dirty[KIT_PFNS / 64];
};

struct kit_world {
    pthread_mutex_t lock;
    struct kit_domain domain[KIT_DOMAINS];
    char key[KIT_KEYS][2][200]; /* path, value; "": free */
    bool domains_changed;
    char changed[200]; /* path of a setting; "" */
    uint64_t cleans, peeks, enables, disables, copies;
    uint8_t memory[KIT_RAM][FC_PAGE_SIZE]; /* of domain[0] */
};

static struct kit_world *world;
static int world_event = -1;
static char kit_dir[64], kit_socket[96], kit_proc[96], kit_armed[96],
    kit_config[96], kit_xl[96];
/* set by tests about disks; "": the daemon has none */
static char kit_disks[96], kit_disks_run[96], kit_nbdkit[96], kit_tool[96];
static char kit_sys[96]; /* "": there is none */
static pid_t kit_daemon;

static inline void kit_lock(void)
{
    pthread_mutex_lock(&world->lock);
}

static inline void kit_unlock(void)
{
    pthread_mutex_unlock(&world->lock);
}

static inline struct kit_domain *kit_find(uint32_t domid)
{
    for (unsigned i = 0; i < KIT_DOMAINS; i++)
        if (world->domain[i].exists && world->domain[i].info.domid == domid)
            return &world->domain[i];
    return NULL;
}

static inline int kit_list(void *user, struct fc_domain *domains, unsigned cap)
{
    unsigned n = 0;
    (void)user;
    kit_lock();
    for (unsigned i = 0; i < KIT_DOMAINS && n < cap; i++)
        if (world->domain[i].exists)
            domains[n++] = world->domain[i].info;
    kit_unlock();
    return (int)n;
}

static inline int kit_describe(void *user, struct fc_domain *domain)
{
    (void)user;
    kit_lock();
    const struct kit_domain *d = kit_find(domain->domid);
    if (d) {
        memcpy(domain->name, d->info.name, sizeof(domain->name));
        domain->type = d->info.type;
    }
    kit_unlock();
    return d ? 0 : FC_ENODOM;
}

static const struct fc_domains_ops kit_domains = { kit_list, kit_describe };

static inline int kit_fd(void *user)
{
    (void)user;
    return world_event;
}

static inline int kit_next(void *user, struct fc_xenwatch_event *event)
{
    uint64_t count;
    int any = 0;
    (void)user;
    if (read(world_event, &count, sizeof(count)) < 0 && errno != EAGAIN)
        abort();
    kit_lock();
    if (world->changed[0]) {
        event->type = FC_XENWATCH_SETTING;
        snprintf(event->path, sizeof(event->path), "%s", world->changed);
        world->changed[0] = '\0';
        any = 1;
    } else if (world->domains_changed) {
        event->type = FC_XENWATCH_DOMAIN;
        world->domains_changed = false;
        any = 1;
    }
    kit_unlock();
    return any;
}

static inline char *kit_read(void *user, const char *path)
{
    char *value = NULL;
    (void)user;
    kit_lock();
    for (unsigned i = 0; i < KIT_KEYS; i++)
        if (!strcmp(world->key[i][0], path))
            value = strdup(world->key[i][1]);
    kit_unlock();
    return value;
}

static inline char *kit_names(void *user, const char *path)
{
    size_t len = strlen(path), used = 0;
    char *names = calloc(1, sizeof(world->key));
    (void)user;
    kit_lock();
    for (unsigned i = 0; i < KIT_KEYS; i++) {
        const char *key = world->key[i][0];
        if (strncmp(key, path, len) || key[len] != '/')
            continue;
        size_t n = strcspn(key + len + 1, "/");
        memcpy(names + used, key + len + 1, n);
        used += n + 1;
    }
    kit_unlock();
    return names;
}

static const struct fc_xenwatch_ops kit_watch = { kit_fd, kit_next, kit_read,
                                                  kit_names };

static inline int kit_size(void *user, uint32_t domid, uint64_t *pfns_r)
{
    (void)user;
    (void)domid;
    *pfns_r = KIT_PFNS;
    return 0;
}

static inline int kit_enable(void *user, uint32_t domid)
{
    int rc = FC_ENODOM;
    (void)user;
    kit_lock();
    struct kit_domain *d = kit_find(domid);
    if (d && d->log_on) {
        rc = FC_EBUSY;
    } else if (d) {
        d->log_on = true;
        memset(d->dirty, 0, sizeof(d->dirty));
        world->enables++;
        rc = 0;
    }
    kit_unlock();
    return rc;
}

static inline int kit_disable(void *user, uint32_t domid)
{
    (void)user;
    kit_lock();
    struct kit_domain *d = kit_find(domid);
    if (d)
        d->log_on = false;
    world->disables++;
    kit_unlock();
    return d ? 0 : FC_ENODOM;
}

static inline int kit_bits(uint32_t domid, uint64_t *bitmap, uint64_t pfns,
                           bool clean)
{
    kit_lock();
    struct kit_domain *d = kit_find(domid);
    memset(bitmap, 0, pfns / 8);
    if (d && d->log_on)
        memcpy(bitmap, d->dirty, sizeof(d->dirty));
    if (d && clean)
        memset(d->dirty, 0, sizeof(d->dirty));
    *(clean ? &world->cleans : &world->peeks) += 1;
    kit_unlock();
    return d ? 0 : FC_ENODOM;
}

static inline int kit_clean(void *user, uint32_t domid, uint64_t *bitmap,
                            uint64_t pfns)
{
    (void)user;
    return kit_bits(domid, bitmap, pfns, true);
}

static inline int kit_peek(void *user, uint32_t domid, uint64_t *bitmap,
                           uint64_t pfns)
{
    (void)user;
    return kit_bits(domid, bitmap, pfns, false);
}

static inline int kit_mark(void *user, uint32_t domid,
                           const struct fc_pfn_run *runs, unsigned count)
{
    (void)user;
    kit_lock();
    struct kit_domain *d = kit_find(domid);
    for (unsigned i = 0; d && d->log_on && i < count; i++)
        for (uint64_t p = runs[i].first; p < runs[i].first + runs[i].count; p++)
            if (p < KIT_RAM)
                d->dirty[p / 64] |= 1ull << p % 64;
    kit_unlock();
    return d ? 0 : FC_ENODOM;
}

static const struct fc_dirtylog_ops kit_log = {
    .size = kit_size,
    .enable = kit_enable,
    .disable = kit_disable,
    .clean = kit_clean,
    .peek = kit_peek,
    .mark = kit_mark,
};

static inline int kit_open(void *user, void **handle_r)
{
    (void)user;
    *handle_r = world;
    return 0;
}

static inline void kit_close(void *handle)
{
    (void)handle;
}

static inline int kit_copy(void *handle, uint32_t domid, const uint64_t *pfns,
                           unsigned count, uint8_t *pages, uint8_t *good)
{
    (void)handle;
    kit_lock();
    bool here = kit_find(domid) != NULL;
    for (unsigned i = 0; here && i < count; i++) {
        good[i] = pfns[i] < KIT_RAM;
        if (good[i])
            memcpy(pages + (size_t)i * FC_PAGE_SIZE, world->memory[pfns[i]],
                   FC_PAGE_SIZE);
    }
    world->copies++;
    kit_unlock();
    return here ? 0 : FC_ENODOM;
}

static const struct fc_guestmem_ops kit_mem = { kit_open, kit_close, kit_copy };

/* What the test does. */

static inline void kit_notify(void)
{
    uint64_t one = 1;
    if (write(world_event, &one, sizeof(one)) < 0)
        abort();
}

static const uint8_t kit_uuid[FC_UUID_BYTES] = { 0xaa, 1, 2, 3, 4, 5, 6, 7,
                                                 8,    9, 1, 2, 3, 4, 5, 6 };
#define KIT_UUID "aa010203-0405-0607-0809-010203040506"

static inline void kit_add_domain(unsigned i, uint32_t domid, const char *name,
                                  enum fc_domain_type type)
{
    kit_lock();
    struct kit_domain *d = &world->domain[i];
    memset(d, 0, sizeof(*d));
    d->exists = true;
    d->info.domid = domid;
    d->info.type = type;
    d->info.pages = KIT_RAM;
    memcpy(d->info.uuid, kit_uuid, sizeof(kit_uuid));
    d->info.uuid[0] = (uint8_t)(0xaa + i);
    snprintf(d->info.name, sizeof(d->info.name), "%s", name);
    world->domains_changed = true;
    kit_unlock();
    kit_notify();
}

/* As xl does at the source once the destination can go on. */
static inline void kit_rename_suspended(unsigned i, const char *name)
{
    kit_lock();
    world->domain[i].info.suspended = true;
    snprintf(world->domain[i].info.name, sizeof(world->domain[i].info.name),
             "%s", name);
    kit_unlock();
}

static inline void kit_remove_domain(unsigned i)
{
    kit_lock();
    world->domain[i].exists = false;
    world->domains_changed = true;
    kit_unlock();
    kit_notify();
}

static inline void kit_set_key(const char *path, const char *value)
{
    kit_lock();
    unsigned at = KIT_KEYS;
    for (unsigned i = KIT_KEYS; i-- > 0;)
        if (!world->key[i][0][0])
            at = i;
    for (unsigned i = 0; i < KIT_KEYS; i++)
        if (!strcmp(world->key[i][0], path))
            at = i;
    snprintf(world->key[at][0], sizeof(world->key[at][0]), "%s",
             value ? path : "");
    snprintf(world->key[at][1], sizeof(world->key[at][1]), "%s",
             value ? value : "");
    snprintf(world->changed, sizeof(world->changed), "%s", path);
    kit_unlock();
    kit_notify();
}

/* The guest writes a page. */
static inline void kit_write(uint64_t pfn, uint64_t value)
{
    kit_lock();
    uint64_t *page = (uint64_t *)world->memory[pfn];
    page[0] = value;
    for (unsigned i = 1; value && i < FC_PAGE_SIZE / 8; i++)
        page[i] = page[i - 1] * 6364136223846793005ull + 1442695040888963407ull;
    if (!value)
        memset(page, 0, FC_PAGE_SIZE);
    if (world->domain[0].log_on)
        world->domain[0].dirty[pfn / 64] |= 1ull << pfn % 64;
    kit_unlock();
}

static inline void kit_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        abort();
    close(fd);
}

/* A process with these NUL-separated words as its command line. */
static inline void kit_process(int pid, const char *words, size_t len)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%d", kit_proc, pid);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/%d/cmdline", kit_proc, pid);
    kit_file(path, words, len);
}

static inline void kit_process_ends(int pid)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%d/cmdline", kit_proc, pid);
    unlink(path);
    snprintf(path, sizeof(path), "%s/%d", kit_proc, pid);
    rmdir(path);
}

static inline void kit_on_term(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    fc_daemon_stop(arg);
}

static inline int kit_run_daemon(void)
{
    static struct fc_daemon daemon;
    struct fc_daemon_config config = {
        .config_path = kit_config,
        .config_optional = true,
        .debug = getenv("KIT_DEBUG") != NULL,
        .socket_path = kit_socket,
        .armed_dir = kit_armed,
        .proc_root = kit_proc,
        .sys_root = *kit_sys ? kit_sys : "/nonexistent",
        .xl_path = kit_xl,
        .keeper_uid = 65534,
        .keeper_gid = 65534,
        .disks_dir = *kit_disks ? kit_disks : NULL,
        .disks_run = kit_disks_run,
        .nbdkit = kit_nbdkit,
        .nbdkit_plugin = "plugin",
        .block_tool = kit_tool,
        .xen = {
            .domains = &kit_domains,
            .watch = &kit_watch,
            .log = &kit_log,
            .mem = &kit_mem,
            .version = "0.0",
        },
    };
    fc_log_init("test-daemon", FC_LOG_INFO);
    signal(SIGPIPE, SIG_IGN);
    struct event_base *base = event_base_new();
    struct event *term = evsignal_new(base, SIGTERM, kit_on_term, &daemon);
    event_add(term, NULL);
    int rc = fc_daemon_init(&daemon, base, &config);
    if (!rc)
        event_base_dispatch(base);
    fc_daemon_dispose(&daemon);
    event_free(term);
    event_base_free(base);
    return rc ? 1 : 0;
}

static inline void kit_start(void)
{
    fflush(NULL);
    kit_daemon = fork();
    if (kit_daemon < 0)
        abort();
    if (!kit_daemon) {
        if (!getenv("KIT_DEBUG") && !freopen("/dev/null", "w", stdout))
            abort();
        exit(kit_run_daemon());
    }
}

/* Returns the daemon's exit status, or 1000 + the signal that killed it. */
static inline int kit_stop(void)
{
    int status;
    kill(kit_daemon, SIGTERM);
    if (waitpid(kit_daemon, &status, 0) != kit_daemon)
        abort();
    kit_daemon = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline void kit_setup(void)
{
    world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (world == MAP_FAILED)
        abort();
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&world->lock, &shared);
    world_event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    strcpy(kit_dir, "/tmp/fc-daemon-XXXXXX");
    if (world_event < 0 || !mkdtemp(kit_dir))
        abort();
    snprintf(kit_socket, sizeof(kit_socket), "%s/sock", kit_dir);
    snprintf(kit_proc, sizeof(kit_proc), "%s/proc", kit_dir);
    snprintf(kit_armed, sizeof(kit_armed), "%s/armed", kit_dir);
    snprintf(kit_config, sizeof(kit_config), "%s/conf", kit_dir);
    snprintf(kit_xl, sizeof(kit_xl), "%s/xl", kit_dir);
    mkdir(kit_proc, 0700);
    setenv("FORECOPY_SOCKET", kit_socket, 1);
}

static inline void kit_teardown(void)
{
    char command[128];
    if (kit_daemon > 0)
        kit_stop();
    snprintf(command, sizeof(command), "rm -rf %s", kit_dir);
    if (system(command))
        abort();
    munmap(world, sizeof(*world));
    close(world_event);
}

/* A connection to the daemon, which may still be starting. */
static inline int kit_connect(void)
{
    uint64_t end = fc_now_ms() + 20000;
    while (fc_now_ms() < end) {
        int sock = fc_ctl_connect(NULL, 1000);
        if (sock >= 0)
            return sock;
        usleep(20000);
    }
    abort();
}

/* A request as printf makes it. Returns its code; the reply in *reply_r. */
static inline int kit_call_fd(int sock, struct json_object **reply_r, int *fd_r,
                              const char *request)
{
    int fds[FC_CTL_MAX_FDS] = { -1, -1 };
    struct json_object *o = json_tokener_parse(request);
    if (!o)
        abort();
    int rc = fc_ctl_call(sock, o, NULL, 0, reply_r, fds, 20000);
    json_object_put(o);
    fc_close(&fds[1]);
    if (fd_r)
        *fd_r = fds[0];
    else
        fc_close(&fds[0]);
    return rc;
}

/* On a connection of its own, for the reply's code alone. */
static inline int kit_ask(const char *request, struct json_object **reply_r)
{
    struct json_object *reply = NULL;
    int sock = kit_connect();
    int rc = kit_call_fd(sock, &reply, NULL, request);
    close(sock);
    if (reply_r)
        *reply_r = reply;
    else
        json_object_put(reply);
    return rc;
}

/* One member of the first guest's status; the caller puts it. */
static inline struct json_object *kit_status(const char *member)
{
    struct json_object *reply, *list, *v = NULL;
    if (kit_ask("{\"cmd\":\"status\",\"domain\":\"" KIT_UUID "\"}", &reply) ==
            0 &&
        json_object_object_get_ex(reply, "guests", &list) &&
        json_object_object_get_ex(json_object_array_get_idx(list, 0), member,
                                  &v))
        json_object_get(v);
    json_object_put(reply);
    return v;
}

static inline int64_t kit_number(const char *member)
{
    struct json_object *v = kit_status(member);
    int64_t n = json_object_get_int64(v);
    json_object_put(v);
    return n;
}

static inline bool kit_state_is(const char *state)
{
    struct json_object *v = kit_status("state");
    bool is = v && !strcmp(json_object_get_string(v), state);
    json_object_put(v);
    return is;
}

static inline int64_t kit_counter(const char *name)
{
    struct json_object *reply, *counters;
    int64_t n = -1;
    if (!kit_ask("{\"cmd\":\"stat\"}", &reply) &&
        json_object_object_get_ex(reply, "counters", &counters))
        n = fc_json_int(counters, name, -1);
    json_object_put(reply);
    return n;
}

/* ---- one guest that could be armed ---- */

#define KIT_ZERO 500u /* pages 0 .. are zero, then unique ones to the end */

static char kit_arm_request[1024]; /* for this host itself */

static inline int kit_guest_setup(void **state)
{
    const char *build = getenv("FC_BUILD");
    char here[512];
    (void)state;
    kit_setup();
    kit_add_domain(0, 5, "guest", FC_DOMAIN_PVH);
    kit_add_domain(1, 6, "old", FC_DOMAIN_PV);
    for (uint64_t i = KIT_ZERO; i < KIT_RAM; i++)
        kit_write(i, i);
    kit_set_key(FC_XENWATCH_CONFIG "/stage_quiet_s", "0.5");
    kit_set_key(FC_XENWATCH_CONFIG "/sample_interval_ms", "50");
    kit_set_key(FC_XENWATCH_CONFIG "/stage_rate_bytes", "0");
    kit_set_key(FC_XENWATCH_CONFIG, NULL);
    if (!build && getcwd(here, sizeof(here) - 8)) {
        strcat(here, "/build");
        build = here;
    }
    snprintf(kit_arm_request, sizeof(kit_arm_request),
             "{\"cmd\":\"arm\",\"domain\":\"guest\",\"host\":\"self\","
             "\"command\":\"%s/forecopy receive %%u\"}",
             build);
    return 0;
}

static inline int kit_guest_teardown(void **state)
{
    (void)state;
    kit_teardown();
    return 0;
}

/* Waits up to 30 s for a condition; `meanwhile` runs each time around. */
#define KIT_WAIT(condition, meanwhile)                                         \
    do {                                                                       \
        uint64_t kit_end = fc_now_ms() + 30000;                                \
        bool kit_ok = false;                                                   \
        while (!(kit_ok = (condition)) && fc_now_ms() < kit_end) {             \
            meanwhile;                                                         \
            usleep(50000);                                                     \
        }                                                                      \
        if (!kit_ok)                                                           \
            fail_msg("never came true: %s", #condition);                       \
    } while (0)

#endif
