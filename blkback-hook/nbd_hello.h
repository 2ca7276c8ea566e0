/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_NBD_HELLO_H
#define FC_NBD_HELLO_H

#include <stdint.h>

/*
 * The client's half of the NBD handshake, for a socket that the kernel's nbd
 * driver is to use afterwards: fixed newstyle, NBD_OPT_GO, simple replies,
 * no TLS. The protocol is the NBD project's (doc/proto.md).
 *
 * The server is ours, but it parses another host's bytes and may have been
 * taken over: nothing it says is believed past its bounds.
 */
#define FC_NBD_EXPORT_MAX 255 /* bytes of a name */

/* transmission flags that matter here; all 16 are handed on */
#define FC_NBD_HAS_FLAGS 1u
#define FC_NBD_READ_ONLY 2u
#define FC_NBD_SEND_FLUSH 4u

struct fc_nbd_export {
    uint64_t size;  /* bytes */
    uint16_t flags; /* FC_NBD_... and the protocol's others */
    uint32_t min_block, preferred_block, max_block; /* bytes; 0: not said */
};

/*
 * Connects to a unix socket, waiting up to `timeout_ms` for a place in its
 * queue. A descriptor (close-on-exec), or FC_ESYS with errno (EAGAIN: the time
 * is over), FC_ETOOBIG when the path is too long. Logs nothing.
 */
int fc_nbd_connect(const char *path, int timeout_ms);

/*
 * Shakes hands on `fd` within `timeout_ms` in all. 0 with the export; it has
 * flags, a size above 0, and block sizes that are sane where said. Else
 * logged: FC_EFORMAT what the server sent cannot be, FC_EEOF it closed,
 * FC_EIO, FC_ETIMEOUT, FC_EPEER it refused, FC_ETOOBIG a reply beyond its
 * cap, FC_EINVAL the export's name is too long.
 */
int fc_nbd_hello(int fd, const char *export_name, int timeout_ms,
                 struct fc_nbd_export *export_r);

#endif
