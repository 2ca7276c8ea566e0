/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "err.h"

#define FIRST_KEPT 3
#define MOVED_ABOVE 64 /* beyond every place that is filled */
#define MAX_FDS 64     /* three standard, the kept, two for each channel */

static void default_signals(void)
{
    sigset_t none;
    for (int sig = 1; sig < SIGRTMAX; sig++)
        signal(sig, SIG_DFL); /* fails for SIGKILL and SIGSTOP, as it may */
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static int move_fds(int *keep, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        keep[i] = fcntl(keep[i], F_DUPFD_CLOEXEC, MOVED_ABOVE);
        if (keep[i] < 0)
            return FC_ESYS;
    }
    for (unsigned i = 0; i < count; i++) {
        if (dup2(keep[i], FIRST_KEPT + (int)i) < 0)
            return FC_ESYS;
        keep[i] = FIRST_KEPT + (int)i;
    }
    if (close_range(FIRST_KEPT + count, ~0u, 0) < 0)
        return FC_ESYS;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
        return FC_ESYS;
    return close(null) < 0 ? FC_ESYS : 0;
}

static int drop_user(uid_t uid, gid_t gid)
{
    if (geteuid() != 0)
        return 0;
    if (!uid || !gid) {
        errno = EINVAL;
        return FC_ESYS;
    }
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        return FC_ESYS;
    if (setuid(0) == 0) {
        errno = EPERM;
        return FC_ESYS;
    }
    return 0;
}

int fc_jail_drop(int *keep, unsigned count, const char *name, uid_t uid,
                 gid_t gid)
{
    const struct rlimit core = { 0, 0 }, files = { MAX_FDS, MAX_FDS };
    default_signals();
    int rc = move_fds(keep, count);
    if (rc)
        return rc;
    rc = drop_user(uid, gid);
    if (rc)
        return rc;
    if (prctl(PR_SET_NAME, name) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        setrlimit(RLIMIT_CORE, &core) < 0 ||
        setrlimit(RLIMIT_NOFILE, &files) < 0)
        return FC_ESYS;
    return 0;
}

static const int allowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(close),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom), /* malloc of newer C libraries */
    SCMP_SYS(restart_syscall),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack), /* the address sanitizer, before exit */
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

int fc_jail_seal(int store_fd)
{
    const struct {
        int call;
        struct scmp_arg_cmp arg;
    } limited[] = {
        { SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
        { SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
        { SCMP_SYS(fallocate), SCMP_A0(SCMP_CMP_EQ, (unsigned)store_fd, 0) },
        { SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_GETFL, 0) },
        { SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, F_SETFL, 0) },
    };
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = ctx ? 0 : -ENOMEM;
    for (unsigned i = 0; !r && i < sizeof(allowed) / sizeof(allowed[0]); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    for (unsigned i = 0; !r && i < sizeof(limited) / sizeof(limited[0]); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, limited[i].call, 1,
                             limited[i].arg);
    if (!r)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    if (!r)
        return 0;
    errno = -r;
    return FC_ESYS;
}
