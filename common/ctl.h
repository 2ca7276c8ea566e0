/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CTL_H
#define FC_CTL_H

#include <json-c/json.h>
#include <stddef.h>
#include <stdint.h>

/* Control socket, docs/formats/control.md: the client's side and the framing
 * that both sides share. */
#define FC_CTL_PATH "/run/forecopy/control.sock"
#define FC_CTL_MAX_LINE 65536u      /* of a request */
#define FC_CTL_MAX_REPLY (1u << 20) /* many guests' status */
#define FC_CTL_MAX_FDS 2
#define FC_CTL_MAX_DEPTH 8

/*
 * Connects within `timeout_ms`. `path` NULL: the environment's
 * FORECOPY_SOCKET, else FC_CTL_PATH. Returns a descriptor or FC_EDAEMON (errno
 * says why).
 */
int fc_ctl_connect(const char *path, int timeout_ms);

/*
 * One request and its reply on `sock`. `fds` (may be NULL) go with the
 * request; descriptors in the reply come in fds_r (FC_CTL_MAX_FDS entries, -1
 * where none; the caller closes them; NULL: closed here). Returns 0 with the
 * reply (the caller puts it) when it says ok; FC_EDAEMON when nobody answered
 * within timeout_ms; the reply's own code when it says no, with `*reply_r` set
 * so that its "error" can be shown.
 */
int fc_ctl_call(int sock, struct json_object *request, const int *fds, int nfds,
                struct json_object **reply_r, int *fds_r, int timeout_ms);

/* Parses one line (no newline). NULL when it is no object, too deep or has
 * bytes after it; `*why_r` then says which. */
struct json_object *fc_ctl_parse(const char *line, size_t len,
                                 const char **why_r);

/*
 * The object as one line with its newline, in memory of the caller's to
 * free(). NULL when it would be longer than `max` or memory is short.
 */
char *fc_ctl_line(struct json_object *o, size_t max, size_t *len_r);

/* The code for an "FC_E…" name; FC_EPEER when unknown. */
int fc_ctl_code(const char *name);

/* Accessors with defaults that never fail on a wrong type. member: NULL when
 * there is none; what it returns is the object's. */
struct json_object *fc_json_member(struct json_object *o, const char *key);
const char *fc_json_str(struct json_object *o, const char *key,
                        const char *fallback);
int64_t fc_json_int(struct json_object *o, const char *key, int64_t fallback);
double fc_json_double(struct json_object *o, const char *key, double fallback);
int fc_json_bool(struct json_object *o, const char *key, int fallback);

/* Adds a member; the text is copied. */
void fc_json_put_int(struct json_object *o, const char *key, int64_t v);
void fc_json_put_double(struct json_object *o, const char *key, double v);
void fc_json_put_text(struct json_object *o, const char *key, const char *v);
void fc_json_put_bool(struct json_object *o, const char *key, int v);

#endif
