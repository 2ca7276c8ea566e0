/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_KEEPER_MSG_H
#define FC_KEEPER_MSG_H

#include "keeper.h"

/*
 * Packets between daemon and keeper, little endian. Both ends come from one
 * binary, yet the daemon checks what it gets: the keeper is not trusted.
 *
 * Command: u32 type, u32 zero, u64 value; CHANNEL with two descriptors.
 * Event: u32 type, u32 detail, then by type.
 */
#define FC_KEEPER_COMMAND_BYTES 16u

enum fc_keeper_command {
    FC_KEEPER_CMD_CHANNEL = 1, /* value: the channel's id */
    FC_KEEPER_CMD_BUDGET = 2,  /* value: bytes */
    FC_KEEPER_CMD_SHUTDOWN = 3,
    FC_KEEPER_CMD_FREE = 4,
};

/* The packet's length; `out` has FC_KEEPER_PACKET bytes. */
size_t fc_keeper_event_make(const struct fc_keeper_event *event, uint8_t *out);

/* 0 or FC_EFORMAT. */
int fc_keeper_command_parse(const void *packet, size_t len,
                            enum fc_keeper_command *command_r,
                            uint64_t *value_r);

#endif
