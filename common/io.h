/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_IO_H
#define FC_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* CLOCK_MONOTONIC, nanoseconds and milliseconds. */
uint64_t fc_now_ns(void);
uint64_t fc_now_ms(void);

/*
 * Reads exactly `len` bytes. 0; FC_EEOF when the stream ended before the first
 * byte; FC_EFORMAT when it ended inside; FC_EIO with errno. Retries EINTR;
 * waits with poll(2) on a non-blocking descriptor.
 */
int fc_read_exact(int fd, void *buf, size_t len);

/* Writes all bytes, likewise. FC_EIO with errno (EPIPE: peer gone). */
int fc_write_all(int fd, const void *buf, size_t len);
int fc_writev_all(int fd, struct iovec *iov, int count); /* changes iov */

/*
 * Exactly `len` bytes at `offset` of a file or device. 0 or FC_EIO with errno;
 * EIO for a read past the end, ENOSPC for a write that gets no further.
 */
int fc_pread_all(int fd, void *buf, size_t len, uint64_t offset);
int fc_pwrite_all(int fd, const void *buf, size_t len, uint64_t offset);

/*
 * Waits until fd is readable. 1 yes, 0 when `timeout_ms` ran out (-1: never),
 * FC_EIO with errno. A hang-up counts as readable.
 */
int fc_wait_readable(int fd, int timeout_ms);
int fc_wait_writable(int fd, int timeout_ms);

int fc_set_nonblock(int fd, int on); /* 0 or FC_ESYS */
int fc_set_cloexec(int fd, int on);  /* 0 or FC_ESYS */

/* Closes *fd when it is open and sets it to -1; errno is kept. */
void fc_close(int *fd);

/*
 * An anonymous memory file of `bytes`, sealed against shrinking and growing.
 * Returns the descriptor (close-on-exec) or FC_ESYS.
 */
int fc_memfd_new(const char *name, size_t bytes);

/* sendmsg/recvmsg of up to 4 descriptors with bytes; as sendmsg(2). Received
 * descriptors are close-on-exec; those past `max_fds` are closed. */
ssize_t fc_send_fds(int sock, const void *buf, size_t len, const int *fds,
                    int nfds);
ssize_t fc_recv_fds(int sock, void *buf, size_t len, int *fds, int max_fds,
                    int *nfds_r);

#define FC_UUID_BYTES 16
#define FC_UUID_TEXT 37 /* with the NUL */

/* Text form 8-4-4-4-12, lower case. Parse: 0 or FC_EFORMAT. */
int fc_uuid_parse(const char *text, uint8_t uuid[FC_UUID_BYTES]);
void fc_uuid_format(const uint8_t uuid[FC_UUID_BYTES],
                    char text[FC_UUID_TEXT]);

/* Hex of exactly `len` bytes; 0 or FC_EFORMAT. `text` gets 2*len+1 bytes. */
int fc_hex_parse(const char *text, uint8_t *out, size_t len);
void fc_hex_format(const uint8_t *in, size_t len, char *text);

/* Fills with random bytes of the kernel; 0 or FC_ESYS. */
int fc_random(void *buf, size_t len);

#endif
