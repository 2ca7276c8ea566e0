/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"
#include "err.h"
#include "frontend_daemon.h"
#include "frontend_disks.h"
#include "frontend_exec.h"
#include "frontend_migrate.h"
#include "frontend_remote.h"
#include "frontend_report.h"
#include "frontend_run.h"
#include "procscan.h"
#include "session.h"

/*
 * A predictive migration is a plain one with three things around it: the
 * daemon told, the destination asked, our helper and transport put in. Any
 * of them missing makes it plain (or, with --fallback fail, not happen at
 * all) before xl has been started; the process then becomes xl. The
 * daemon's connection and the lock are close-on-exec and so end with it.
 *
 * Three cases are refused, for plain would do harm: another migration of the
 * guest is at work, by the lock, by the daemon's word, or by a save helper's
 * command line.
 *
 * With disks there is no plain migration to fall back to, for xl would start
 * the guest on whatever the destination has under the same paths: what makes
 * others plain is a refusal there. Disks come first, and memory goes on being
 * staged meanwhile:
 *
 *   disk-begin, wait for "converged"   an error, a ^C, the daemon's end: the
 *                                      connection's end is an abort
 *   migrate-begin, xl                  at the receiver's ready message the
 *                                      transport asks for the flip; when xl
 *                                      fails before, or the flip does, the
 *                                      guest goes on here
 *   disk-end                           "unknown" where xl says that the
 *                                      domain's state is undefined: it broke
 *                                      off after the flip, and its domain here
 *                                      still has the name of one that left
 *
 * Stop signals are blocked from the copy on and looked for where something can
 * be done about them; one that comes after xl's end must not cost the report.
 */

#define RUN_DIR "/run/forecopy"
#define TRANSPORT_PATH "/usr/lib/forecopy/forecopy-transport"
#define STATUS_REFUSED 1
#define STATUS_INTERRUPTED 130
#define FIRST_FREE_FD 3

struct migration {
    const struct fc_front_args *args;
    struct fc_session session;
    struct fc_front_guest guest;
    struct json_object *estimate;
    int daemon, lock;
    int status[2], back[2]; /* [0] is the front end's or the helper's */
    char helper[PATH_MAX];
    const char *transport;
    struct fc_front_disks disks;
    sigset_t mask;   /* of signals, as it was */
    bool mask_saved; /* stop signals are blocked */
    uint64_t started_ms;
    char why[FC_FRONT_WHY];
};

static const char *env_or(const char *name, const char *fallback)
{
    const char *value = getenv(name);
    return value && *value ? value : fallback;
}

static void migration_init(struct migration *m,
                           const struct fc_front_args *args)
{
    *m = (struct migration){
        .args = args,
        .daemon = -1,
        .lock = -1,
        .status = { -1, -1 },
        .back = { -1, -1 },
        .transport = env_or("FORECOPY_TRANSPORT", TRANSPORT_PATH),
        .started_ms = fc_now_ms(),
    };
    fc_front_disks_init(&m->disks);
    fc_session_defaults(&m->session);
}

static void migration_dispose(struct migration *m)
{
    for (int i = 0; i < 2; i++) {
        fc_close(&m->status[i]);
        fc_close(&m->back[i]);
    }
    fc_close(&m->session.staged_fd);
    fc_close(&m->lock);
    fc_close(&m->daemon);
    fc_front_guest_dispose(&m->guest);
    fc_front_disks_dispose(&m->disks);
    json_object_put(m->estimate);
    m->estimate = NULL;
}

/* What the command line says overrides the settings. */
static void apply_args(struct fc_session *s, const struct fc_front_args *args)
{
    if (args->max_downtime_ms >= 0)
        s->max_downtime_ms = (uint32_t)args->max_downtime_ms;
    if (args->deadline_s >= 0)
        s->deadline_s = (uint32_t)args->deadline_s;
    if (args->abort_at_deadline >= 0)
        s->abort_at_deadline = args->abort_at_deadline;
    if (args->fail_when_plain >= 0)
        s->fail_when_plain = args->fail_when_plain;
}

static void write_report(const struct fc_front_args *args,
                         struct json_object *report)
{
    if (!args->report)
        return;
    if (json_object_to_file_ext(args->report, report, JSON_C_TO_STRING_PRETTY))
        fprintf(stderr, "forecopy: cannot write the report %s: %s\n",
                args->report, strerror(errno));
}

static int go_plain(struct migration *m, bool retried)
{
    struct fc_front_outcome outcome = {
        .domain = m->args->domain,
        .host = m->args->host,
        .mode = "plain",
        .uuid = m->guest.status ? m->guest.uuid_text : NULL,
        .reason = m->why[0] ? m->why : NULL,
        .retried = retried,
        .estimate = m->estimate,
    };

    struct json_object *report = fc_front_outcome_json(&outcome);
    write_report(m->args, report);
    json_object_put(report);

    const char **argv = fc_front_plain_argv(m->args);
    if (!argv) {
        fprintf(stderr, "forecopy: out of memory\n");
        return STATUS_REFUSED;
    }
    migration_dispose(m);
    int status = fc_front_exec_xl(argv);
    free(argv);
    return status;
}

static void end_disks(struct migration *m, enum fc_front_disks_end end)
{
    char why[FC_FRONT_WHY];
    if (fc_front_disks_finish(&m->disks, end, why))
        fprintf(stderr,
                "forecopy: the end of the disks' migration could not be told: "
                "%s\n",
                why);
}

/* Nothing of the guest was touched, for the reason in m->why. */
static int refuse_disks(struct migration *m)
{
    char why[FC_FRONT_WHY];
    /* a daemon that is not told sees it by the connection's end */
    (void)fc_front_disks_finish(&m->disks, FC_FRONT_DISKS_KEPT, why);
    fprintf(stderr,
            "forecopy: %s; not migrating, the guest goes on here: its disks "
            "cannot go by plain xl\n",
            m->why);
    return STATUS_REFUSED;
}

/* Prediction is impossible for the reason in m->why. */
static int fall_back(struct migration *m)
{
    if (m->args->with_disks)
        return refuse_disks(m);
    if (m->session.fail_when_plain) {
        fprintf(stderr, "forecopy: %s; not migrating (--fallback fail)\n",
                m->why);
        return STATUS_REFUSED;
    }
    fprintf(stderr, "forecopy: %s; migrating as plain xl\n", m->why);
    return go_plain(m, false);
}

static int refuse(struct migration *m)
{
    end_disks(m, FC_FRONT_DISKS_KEPT);
    fprintf(stderr, "forecopy: %s\n", m->why);
    return STATUS_REFUSED;
}

/* 0, or FC_EBUSY with m->why when somebody else migrates the guest. */
static int exclude_others(struct migration *m)
{
    const char *dir = env_or("FORECOPY_RUN_DIR", RUN_DIR);
    char path[PATH_MAX];

    if (mkdir(dir, 0700) && errno != EEXIST)
        fprintf(stderr, "forecopy: cannot make %s: %s\n", dir, strerror(errno));
    snprintf(path, sizeof(path), "%s/migrate-%s.lock", dir, m->guest.uuid_text);
    m->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (m->lock < 0) {
        snprintf(m->why, sizeof(m->why), "cannot open the lock %.200s: %s",
                 path, strerror(errno));
        return FC_ESYS;
    }
    if (flock(m->lock, LOCK_EX | LOCK_NB)) {
        snprintf(m->why, sizeof(m->why),
                 "another predictive migration of %s "
                 "is at work",
                 m->args->domain);
        return FC_EBUSY;
    }
    pid_t pid = fc_procscan_saver("/proc", m->guest.domid);
    if (pid > 0) {
        snprintf(m->why, sizeof(m->why),
                 "another save or migration of %s is "
                 "at work (process %ld)",
                 m->args->domain, (long)pid);
        return FC_EBUSY;
    }
    return 0;
}

static int find_programs(struct migration *m)
{
    if (fc_front_helper_path(m->helper)) {
        snprintf(m->why, sizeof(m->why),
                 "there is no forecopy-save-helper "
                 "for the running Xen");
        return FC_ENOENT;
    }
    if (!fc_front_self_test(m->helper)) {
        snprintf(m->why, sizeof(m->why), "%.200s fails its self-test",
                 m->helper);
        return FC_ENOENT;
    }
    if (access(m->transport, X_OK)) {
        snprintf(m->why, sizeof(m->why), "cannot run %.200s: %s", m->transport,
                 strerror(errno));
        return FC_ENOENT;
    }
    return 0;
}

/* Also removes a NAME--incoming that an attempt before has left. */
static int prepare(struct migration *m)
{
    struct json_object *reply;
    char reason[FC_FRONT_REASON];

    if (!m->args->ssh[0])
        return 0;
    int rc = fc_front_remote_prepare(m->args, &m->guest, &reply, m->why);
    if (rc)
        return rc;
    int64_t removed = fc_json_int(reply, "removed", 0);
    if (removed > 0)
        fprintf(stderr,
                "forecopy: removed %s--incoming (domain %lld) at %s, "
                "left by an earlier attempt\n",
                m->guest.name, (long long)removed, m->args->host);
    snprintf(reason, sizeof(reason), "%s", fc_json_str(reply, "reason", ""));
    if (reason[0])
        fprintf(stderr, "forecopy: forecopy at %s: %s\n", m->args->host,
                fc_front_scrub(reason));
    json_object_put(reply);
    return 0;
}

/* A pair whose ends are above the standard descriptors. 0 or FC_ESYS. */
static int make_pair(int type, int pair[2])
{
    int fds[2];
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds))
        return FC_ESYS;
    for (int i = 0; i < 2; i++) {
        pair[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        fc_close(&fds[i]);
    }
    return pair[0] < 0 || pair[1] < 0 ? FC_ESYS : 0;
}

static int make_channels(struct migration *m)
{
    if (make_pair(SOCK_SEQPACKET, m->status) ||
        make_pair(SOCK_STREAM, m->back)) {
        snprintf(m->why, sizeof(m->why), "cannot make a socket pair: %s",
                 strerror(errno));
        return FC_ESYS;
    }
    m->session.status_fd = m->status[1];
    m->session.back_fd = m->back[0];
    memcpy(m->session.uuid, m->guest.uuid, sizeof(m->session.uuid));
    return 0;
}

static void hand_over(struct fc_front_run *run, int *fd)
{
    if (*fd >= 0)
        run->inherit[run->ninherit++] = *fd;
    *fd = -1;
}

/* Runs xl with everything in place. 0, or an error with m->why. */
static int run_xl(struct migration *m, struct fc_front_run *run)
{
    char session[FC_SESSION_TEXT], xl[PATH_MAX];
    char *rune = NULL, *word = NULL;
    const char **argv = NULL;
    int rc = FC_ENOMEM;

    rune = fc_front_rune(m->args, isatty(STDERR_FILENO));
    if (rune)
        argv = fc_front_session_argv(m->args, m->transport, m->back[1], rune,
                                     &word);
    if (!argv)
        goto out;
    rc = fc_session_format(&m->session, session);
    if (rc)
        goto out;

    fc_front_xl_path(xl);
    *run = (struct fc_front_run){
        .xl = xl,
        .argv = argv,
        .helper = m->helper,
        .session = session,
        .domid = m->guest.domid,
        .status_fd = m->status[0],
        .disks = m->disks.migration[0] ? m->disks.migration : NULL,
        .mask = m->mask_saved ? &m->mask : NULL,
        .tty = isatty(STDERR_FILENO),
    };
    hand_over(run, &m->status[1]);
    hand_over(run, &m->back[0]);
    hand_over(run, &m->back[1]);
    hand_over(run, &m->session.staged_fd);
    rc = fc_front_run(run);
    run->xl = run->session = run->disks = NULL;
    run->mask = NULL;
    run->argv = NULL;
out:
    if (rc)
        snprintf(m->why, sizeof(m->why), "cannot start xl: %s",
                 rc == FC_ESYS ? strerror(errno) : fc_strerror(rc));
    free(argv);
    free(word);
    free(rune);
    return rc;
}

static int exit_status(const struct fc_front_run *run)
{
    if (WIFSIGNALED(run->wait_status))
        return 128 + WTERMSIG(run->wait_status);
    int status = WEXITSTATUS(run->wait_status);
    return status && run->interrupted ? STATUS_INTERRUPTED : status;
}

/* xl gives the domain this name before it tells the destination to go on, and
 * the old one back when that says no. */
static bool is_named_away(struct migration *m)
{
    static const char away[] = "--migratedaway";
    struct fc_front_guest guest;
    char why[FC_FRONT_WHY];
    int sock = fc_front_daemon_connect(why);
    if (sock < 0)
        return true;
    bool is = true;
    if (!fc_front_daemon_guest(sock, m->guest.uuid_text, &guest, why)) {
        size_t len = strlen(guest.name), tail = strlen(away);
        is = guest.domid != m->guest.domid ||
             (len >= tail && !strcmp(guest.name + len - tail, away));
    }
    fc_front_guest_dispose(&guest);
    fc_close(&sock);
    return is;
}

/* Who has the disks now that xl has ended. */
static enum fc_front_disks_end judge_disks(struct migration *m, bool success)
{
    char why[FC_FRONT_WHY];
    if (!m->disks.migration[0])
        return FC_FRONT_DISKS_KEPT;
    int rc = fc_front_disks_ask(&m->disks, why);
    if (success)
        return FC_FRONT_DISKS_MOVED;
    if ((!rc && !fc_front_disks_flipped(&m->disks)) || !is_named_away(m))
        return FC_FRONT_DISKS_KEPT;
    if (rc) {
        fprintf(stderr, "forecopy: who has the disks is not known: %s\n", why);
        return FC_FRONT_DISKS_UNKNOWN;
    }
    fprintf(stderr,
            "forecopy: xl broke off after the disks were handed over to %s, "
            "and they stay handed over; see where the guest runs, then "
            "`forecopy disks %s`\n",
            m->args->host, m->args->domain);
    return FC_FRONT_DISKS_UNKNOWN;
}

static void report(struct migration *m, const struct fc_front_run *run,
                   bool retry)
{
    int status = exit_status(run);
    struct fc_front_outcome outcome = {
        .domain = m->args->domain,
        .uuid = m->guest.uuid_text,
        .host = m->args->host,
        .mode = run->mode[0] ? run->mode : "predictive",
        .reason = run->reason[0] ? run->reason : NULL,
        .success = !status,
        .interrupted = run->interrupted,
        .retried = retry,
        .finished = true,
        .exit_status = status,
        .elapsed_ms = run->ended_ms - run->started_ms,
        .handover_ms = run->suspended ? run->ended_ms - run->suspended_ms : 0,
        .estimate = m->estimate,
        .summary = run->summary,
    };
    char why[FC_FRONT_WHY];

    enum fc_front_disks_end disks = judge_disks(m, !status);
    end_disks(m, disks);
    outcome.disks = fc_front_disks_facts(&m->disks, disks);
    struct json_object *j = fc_front_outcome_json(&outcome);
    write_report(m->args, j);
    if (m->args->json && !retry)
        puts(json_object_to_json_string_ext(j, JSON_C_TO_STRING_PRETTY));
    else
        fc_front_outcome_text(&outcome, stderr);
    json_object_put(outcome.disks);
    if (fc_front_daemon_end(m->daemon, m->guest.uuid_text, !status, j, why))
        fprintf(stderr,
                "forecopy: the end of the migration could not be "
                "told: %s\n",
                why);
}

/* After our helper failed: whether the guest is still here to be migrated. */
static bool still_here(const struct migration *m)
{
    struct fc_front_guest guest;
    char why[FC_FRONT_WHY];
    int sock = fc_front_daemon_connect(why);
    if (sock < 0)
        return false;
    bool here = !fc_front_daemon_guest(sock, m->guest.uuid_text, &guest, why) &&
                guest.domid == m->guest.domid;
    fc_front_guest_dispose(&guest);
    fc_close(&sock);
    return here;
}

static int retry_plain(struct migration *m, const struct fc_front_run *run)
{
    snprintf(m->why, sizeof(m->why), "%s", run->reason);
    fprintf(stderr, "forecopy: the fault was ours; once more as plain xl\n");

    char reason[FC_FRONT_WHY];
    memcpy(reason, m->why, sizeof(reason));
    if (prepare(m))
        fprintf(stderr, "forecopy: %s\n", m->why);
    memcpy(m->why, reason, sizeof(reason));
    return go_plain(m, true);
}

static int supervise(struct migration *m)
{
    struct fc_front_run run = { 0 };

    if (run_xl(m, &run))
        return fall_back(m);
    bool retry = fc_front_run_ours(&run) && !m->session.fail_when_plain &&
                 !m->args->with_disks && still_here(m);
    int status = exit_status(&run);
    report(m, &run, retry);
    if (retry)
        status = retry_plain(m, &run);
    fc_front_run_dispose(&run);
    return status;
}

/* What is left of the deadline is the memory's. */
static void shorten_deadline(struct migration *m)
{
    uint64_t gone_s = (fc_now_ms() - m->started_ms) / 1000;
    if (m->session.deadline_s)
        m->session.deadline_s = gone_s < m->session.deadline_s
                                    ? m->session.deadline_s - (uint32_t)gone_s
                                    : 1;
}

/* 0 when the disks may be handed over; else an exit status, all said. */
static int copy_disks(struct migration *m)
{
    struct fc_front_disks_wait w = {
        .deadline_ms = m->session.deadline_s
                           ? m->started_ms + m->session.deadline_s * 1000ull
                           : 0,
        .abort_at_deadline = m->session.abort_at_deadline,
        .tty = isatty(STDERR_FILENO),
    };
    sigset_t stop;

    if (prepare(m) ||
        fc_front_disks_begin(&m->disks, m->args, m->guest.uuid_text, m->why))
        return refuse_disks(m);
    fc_front_stop_signals(&stop);
    sigprocmask(SIG_BLOCK, &stop, &m->mask);
    m->mask_saved = true;

    int rc = fc_front_disks_wait(&m->disks, &w, m->why);
    shorten_deadline(m);
    if (!rc)
        return 0;
    if (rc != FC_ECANCEL)
        return refuse_disks(m);
    fprintf(stderr, "forecopy: stopping; the guest goes on here\n");
    end_disks(m, FC_FRONT_DISKS_KEPT);
    return STATUS_INTERRUPTED;
}

static int migrate(struct migration *m)
{
    const struct fc_front_args *args = m->args;

    apply_args(&m->session, args);
    m->daemon = fc_front_daemon_connect(m->why);
    if (m->daemon < 0)
        return fall_back(m);
    int rc = fc_front_daemon_guest(m->daemon, args->domain, &m->guest, m->why);
    if (rc)
        return fall_back(m);
    fc_front_daemon_settings(m->daemon, m->guest.uuid_text, &m->session);
    apply_args(&m->session, args);

    rc = exclude_others(m);
    if (rc == FC_EBUSY)
        return refuse(m);
    if (rc || find_programs(m))
        return fall_back(m);
    int status = args->with_disks ? copy_disks(m) : 0;
    if (status)
        return status;
    rc = fc_front_daemon_begin(
        m->daemon, m->guest.uuid_text, args->ssh[0] ? args->host : NULL,
        args->no_stage, args->with_disks, &m->session, &m->estimate, m->why);
    if (rc == FC_EBUSY)
        return refuse(m);
    if (rc || (!args->with_disks && prepare(m)) || make_channels(m))
        return fall_back(m);
    return supervise(m);
}

int fc_front_migrate(const struct fc_front_args *args)
{
    struct migration m;

    migration_init(&m, args);
    int status = migrate(&m);
    migration_dispose(&m);
    return status;
}
