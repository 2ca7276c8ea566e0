/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <event2/event.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenstore.h>

#include "background.h"
#include "config.h"
#include "daemon.h"
#include "dirtylog_xen.h"
#include "domains_xen.h"
#include "err.h"
#include "log.h"
#include "options.h"

#define RUN_DIR "/run/forecopy"
#define LOCK_FILE "forecopyd.pid"
#define ARMED_DIR "/var/lib/forecopy/armed"
#define DISKS_DIR "/var/lib/forecopy/disks"
#define DISKS_RUN RUN_DIR "/disks"
#define BLOCK_TOOL "/usr/lib/forecopy/forecopy-block"
#define STATE_DIR "/var/lib/forecopy"
#define XL_PATH "/usr/lib/xen-" FC_XEN_VERSION "/bin/xl"

struct xen {
    xc_interface *xch;
    struct xs_handle *xs;
    struct fc_domains_xen domains;
    struct fc_dirtylog_xen *log;
};

struct program {
    struct fc_daemon daemon;
    struct event_base *base;
    struct event *signals[3];
};

static int open_xen(struct xen *x)
{
    x->xch = xc_interface_open(NULL, NULL, 0);
    if (!x->xch) {
        fc_error("cannot talk to Xen: %s (is this a dom0, and are we root?)",
                 strerror(errno));
        return FC_ESYS;
    }
    x->xs = xs_open(0);
    if (!x->xs || fc_domains_xen_init(&x->domains, x->xch, x->xs)) {
        fc_error("cannot talk to xenstore: %s", strerror(errno));
        return FC_ESYS;
    }
    int rc = fc_dirtylog_xen_new(x->xch, &x->log);
    if (rc)
        fc_error("cannot open Xen's device model interface: %s",
                 strerror(errno));
    return rc;
}

static void close_xen(struct xen *x)
{
    fc_dirtylog_xen_free(x->log);
    if (x->xs)
        xs_close(x->xs);
    if (x->xch)
        xc_interface_close(x->xch);
}

static void describe_xen(const struct xen *x, struct fc_daemon_xen *out)
{
    int version = xc_version(x->xch, XENVER_version, NULL);
    if (version > 0)
        snprintf(out->version, sizeof(out->version), "%d.%d", version >> 16,
                 version & 0xffff);
    if (strcmp(out->version, FC_XEN_VERSION))
        fc_warn("built for Xen " FC_XEN_VERSION ", running under Xen %s",
                out->version);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct program *p = arg;
    (void)what;
    if (sig == SIGHUP) {
        fc_info("reading the settings anew");
        fc_daemon_reload(&p->daemon);
        return;
    }
    fc_info("stopping on signal %d", (int)sig);
    sd_notify(0, "STOPPING=1");
    fc_daemon_stop(&p->daemon);
}

static int take_signals(struct program *p)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < 3; i++) {
        p->signals[i] = evsignal_new(p->base, signals[i], on_signal, p);
        if (!p->signals[i] || event_add(p->signals[i], NULL) < 0)
            return FC_ENOMEM;
    }
    return 0;
}

/* Keepers parse what other hosts send: as nobody. */
static void find_keeper_user(struct fc_daemon_config *config)
{
    const struct passwd *pw = getpwnam("nobody");
    config->keeper_uid = pw ? pw->pw_uid : 65534;
    config->keeper_gid = pw ? pw->pw_gid : 65534;
    config->engine_uid = config->keeper_uid;
    config->engine_gid = config->keeper_gid;
}

static int run(struct program *p, const struct fc_options *options,
               const struct xen *x, int *ready)
{
    struct fc_daemon_config config = {
        .config_path =
            options->config_path ? options->config_path : FC_CONFIG_PATH,
        .config_optional = !options->config_path,
        .debug = options->debug,
        .socket_path = options->socket_path,
        .armed_dir = ARMED_DIR,
        .proc_root = "/proc",
        .sys_root = "/sys",
        .xl_path = XL_PATH,
        .disks_dir = DISKS_DIR,
        .disks_run = DISKS_RUN,
        .nbdkit = "nbdkit",
        .nbdkit_plugin = "forecopy",
        .block_tool = BLOCK_TOOL,
        .xen = {
            .domains = &fc_domains_xen_ops,
            .domains_user = (void *)(uintptr_t)&x->domains,
            .watch = &fc_xenwatch_xen_ops,
            .watch_user = (void *)(uintptr_t)&x->domains,
            .log = &fc_dirtylog_xen_ops,
            .log_user = x->log,
            .mem = &fc_guestmem_xen_ops,
        },
    };
    describe_xen(x, &config.xen);
    find_keeper_user(&config);
    int rc = take_signals(p);
    if (!rc)
        rc = fc_daemon_init(&p->daemon, p->base, &config);
    if (!rc) {
        fc_info("forecopyd " FC_VERSION " is ready (Xen %s, %u domains)",
                config.xen.version, p->daemon.domains.count);
        sd_notify(0, "READY=1");
        fc_background_ready(ready);
        event_base_dispatch(p->base);
    }
    fc_daemon_dispose(&p->daemon);
    return rc;
}

int main(int argc, char **argv)
{
    struct fc_options options;
    static struct program program;
    struct xen xen = { 0 };
    int ready = -1, rc = 0;

    switch (fc_options_parse(argc, argv, &options)) {
    case FC_OPTIONS_DONE:
        return 0;
    case FC_OPTIONS_WRONG:
        return 2;
    case FC_OPTIONS_RUN:
        break;
    }
    fc_log_init("forecopyd", options.debug ? FC_LOG_DEBUG : FC_LOG_INFO);
    /* systemd starts us in the background itself. */
    bool foreground = options.foreground || getenv("NOTIFY_SOCKET");
    if (!foreground && fc_background_start(&ready)) {
        fc_error("cannot go to the background: %s", strerror(errno));
        return 1;
    }
    fc_background_log(foreground);

    int lock = fc_background_lock(RUN_DIR, LOCK_FILE);
    if (lock < 0) {
        fc_error("%s", lock == FC_EBUSY ? "another forecopyd is running"
                                        : "cannot use " RUN_DIR);
        return 1;
    }
    if (mkdir(STATE_DIR, 0700) < 0 && errno != EEXIST)
        fc_warn("cannot make " STATE_DIR ": %s", strerror(errno));
    program.base = event_base_new();
    rc = program.base ? open_xen(&xen) : FC_ENOMEM;
    if (!rc)
        rc = run(&program, &options, &xen, &ready);
    close_xen(&xen);
    for (unsigned i = 0; i < 3; i++)
        if (program.signals[i])
            event_free(program.signals[i]);
    if (program.base)
        event_base_free(program.base);
    fc_close(&lock);
    return rc ? 1 : 0;
}
