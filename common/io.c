/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "err.h"

#define MAX_FDS 4

uint64_t fc_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t fc_now_ms(void)
{
    return fc_now_ns() / 1000000u;
}

static int wait_for(int fd, short events, int timeout_ms)
{
    uint64_t end = fc_now_ms() + (timeout_ms < 0 ? 0 : (uint64_t)timeout_ms);
    for (;;) {
        struct pollfd p = { .fd = fd, .events = events };
        int left = -1;
        if (timeout_ms >= 0) {
            uint64_t now = fc_now_ms();
            left = now < end ? (int)(end - now) : 0;
        }
        int r = poll(&p, 1, left);
        if (r > 0)
            return 1;
        if (r == 0)
            return 0;
        if (errno != EINTR)
            return FC_EIO;
    }
}

int fc_wait_readable(int fd, int timeout_ms)
{
    return wait_for(fd, POLLIN, timeout_ms);
}

int fc_wait_writable(int fd, int timeout_ms)
{
    return wait_for(fd, POLLOUT, timeout_ms);
}

int fc_pread_all(int fd, void *buf, size_t len, uint64_t offset)
{
    uint8_t *p = buf;
    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            return FC_EIO;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int fc_pwrite_all(int fd, const void *buf, size_t len, uint64_t offset)
{
    const uint8_t *p = buf;
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ENOSPC;
        if (n <= 0)
            return FC_EIO;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int fc_read_exact(int fd, void *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t r = read(fd, (char *)buf + done, len - done);
        if (r > 0) {
            done += (size_t)r;
        } else if (r == 0) {
            return done ? FC_EFORMAT : FC_EEOF;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (fc_wait_readable(fd, -1) < 0)
                return FC_EIO;
        } else if (errno != EINTR) {
            return FC_EIO;
        }
    }
    return 0;
}

int fc_write_all(int fd, const void *buf, size_t len)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
    return fc_writev_all(fd, &iov, 1);
}

int fc_writev_all(int fd, struct iovec *iov, int count)
{
    while (count > 0) {
        ssize_t r = writev(fd, iov, count);
        if (r < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                if (fc_wait_writable(fd, -1) < 0)
                    return FC_EIO;
            } else if (errno != EINTR) {
                return FC_EIO;
            }
            continue;
        }
        size_t n = (size_t)r;
        while (count > 0 && n >= iov->iov_len) {
            n -= iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= n;
        }
    }
    return 0;
}

static int set_flag(int fd, int get, int set, int flag, int on)
{
    int flags = fcntl(fd, get);
    if (flags < 0)
        return FC_ESYS;
    flags = on ? flags | flag : flags & ~flag;
    return fcntl(fd, set, flags) < 0 ? FC_ESYS : 0;
}

int fc_set_nonblock(int fd, int on)
{
    return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fc_set_cloexec(int fd, int on)
{
    return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

void fc_close(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
    *fd = -1;
}

int fc_memfd_new(const char *name, size_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return FC_ESYS;
    if (ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        fc_close(&fd);
        return FC_ESYS;
    }
    return fd;
}

ssize_t fc_send_fds(int sock, const void *buf, size_t len, const int *fds,
                    int nfds)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = (void *)(uintptr_t)buf, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (nfds < 0 || nfds > MAX_FDS) {
        errno = EINVAL;
        return -1;
    }
    if (nfds > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)nfds);
    }
    ssize_t r;
    do
        r = sendmsg(sock, &msg, MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    return r;
}

ssize_t fc_recv_fds(int sock, void *buf, size_t len, int *fds, int max_fds,
                    int *nfds_r)
{
    union {
        char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.buf,
                          .msg_controllen = sizeof(control.buf) };
    ssize_t r;
    *nfds_r = 0;
    do
        r = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return r;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + sizeof(int) * (size_t)i, sizeof(fd));
            if (*nfds_r < max_fds)
                fds[(*nfds_r)++] = fd;
            else
                close(fd);
        }
    }
    return r;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int fc_hex_parse(const char *text, uint8_t *out, size_t len)
{
    if (strlen(text) != 2 * len)
        return FC_EFORMAT;
    for (size_t i = 0; i < len; i++) {
        int hi = hex_digit(text[2 * i]), lo = hex_digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return FC_EFORMAT;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return 0;
}

void fc_hex_format(const uint8_t *in, size_t len, char *text)
{
    for (size_t i = 0; i < len; i++)
        sprintf(text + 2 * i, "%02x", in[i]);
    text[2 * len] = '\0';
}

/* Byte index after which the text form has a dash. */
static int dash_after(size_t i)
{
    return i == 3 || i == 5 || i == 7 || i == 9;
}

int fc_uuid_parse(const char *text, uint8_t uuid[FC_UUID_BYTES])
{
    if (strnlen(text, FC_UUID_TEXT) != FC_UUID_TEXT - 1)
        return FC_EFORMAT;
    const char *p = text;
    for (size_t i = 0; i < FC_UUID_BYTES; i++) {
        int hi = hex_digit(p[0]), lo = hex_digit(p[1]);
        if (hi < 0 || lo < 0)
            return FC_EFORMAT;
        uuid[i] = (uint8_t)(hi << 4 | lo);
        p += 2;
        if (dash_after(i) && *p++ != '-')
            return FC_EFORMAT;
    }
    return 0;
}

void fc_uuid_format(const uint8_t uuid[FC_UUID_BYTES], char text[FC_UUID_TEXT])
{
    for (size_t i = 0; i < FC_UUID_BYTES; i++) {
        sprintf(text, "%02x", uuid[i]);
        text += 2;
        if (dash_after(i))
            *text++ = '-';
    }
    *text = '\0';
}

int fc_random(void *buf, size_t len)
{
    return getrandom(buf, len, 0) == (ssize_t)len ? 0 : FC_ESYS;
}
