/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_TRANSPORT_GATE_H
#define FC_TRANSPORT_GATE_H

#include <stddef.h>

/*
 * What xl's receiver says to xl, with a gate before the words on which the
 * guest is handed over. From Xen's tools/xl (xl.h and xl_migrate.c; the same
 * in 4.17 and 4.20): a banner of 54 bytes, the stream, a ready message of 34
 * bytes with its zero byte, later a report. xl compares the first two byte by
 * byte and gives up at the first that differs, so the gate knows exactly which
 * byte may come next, and closes for good at any other: an xl that speaks
 * otherwise must not hand a guest over without its disks.
 *
 * Set the callbacks, all else zero. One thread.
 */
struct fc_gate {
    /* Bytes for xl, in order. */
    void (*pass)(void *user, const void *bytes, size_t len);
    /* Called once, when all of the ready message has come and none of it was
     * passed. 0 lets it through. */
    int (*flip)(void *user);
    void *user;

    enum { FC_GATE_BANNER, FC_GATE_READY, FC_GATE_OPEN, FC_GATE_SHUT } state;
    size_t matched; /* bytes of the banner or of the ready message */
    int rc;         /* once shut */
};

/*
 * All that the receiver says, in order and in pieces of any size. 0;
 * FC_EFORMAT at bytes that xl's receiver does not send; or what flip() said.
 * After an error nothing passes any more and every call returns it again.
 */
int fc_gate_feed(struct fc_gate *g, const void *bytes, size_t len);

#endif
