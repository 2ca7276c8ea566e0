/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRANSPORT_H
#define FC_TRANSPORT_H

/*
 * What forecopy-transport does between a command's output and xl: frames of
 * the back channel go to back_fd, all else to out_fd, until from_fd ends.
 * Frames that nobody takes are dropped. 0; FC_EIO when out_fd cannot be
 * written any more.
 *
 * With `flip` (may be NULL) the receiver's ready message waits until flip(user)
 * has returned 0; nothing is read meanwhile. Its error, or FC_EFORMAT when
 * something else than xl's receiver speaks (transport_gate.h), ends the relay
 * at once, and out_fd has got nothing of that message.
 */
int fc_transport_relay(int from_fd, int out_fd, int back_fd,
                       int (*flip)(void *user), void *user);

#endif
