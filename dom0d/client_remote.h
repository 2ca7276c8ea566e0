/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CLIENT_REMOTE_H
#define FC_CLIENT_REMOTE_H

/*
 * Commands at the destination, by the way that channels go: the template of
 * the setting channel_command, with other words in place of
 * "forecopy receive %u".
 */
#define FC_REMOTE_COMMAND 1024

struct fc_remote {
    char before[FC_REMOTE_COMMAND]; /* of the words */
    char after[FC_REMOTE_COMMAND];
};

/* By ssh, until a template is given. */
void fc_remote_init(struct fc_remote *r);

/* 0, or FC_EFORMAT when the template has no place for other words; the one
 * before stays. */
int fc_remote_use(struct fc_remote *r, const char *template);

/*
 * A line for sh(1) that runs `words` at `host`; %h becomes the host, %% a
 * percent sign. 0, FC_EINVAL when `host` is not the name or address of a host,
 * or FC_ETOOBIG.
 */
int fc_remote_command(const struct fc_remote *r, const char *host,
                      const char *words, char command[FC_REMOTE_COMMAND]);

#endif
