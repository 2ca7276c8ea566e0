/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CLIENT_OUT_H
#define FC_CLIENT_OUT_H

#include <json-c/json.h>
#include <stdio.h>

/*
 * What forecopy(8) prints. Everything shown came from a daemon, and in parts
 * from guests and other hosts: control characters are shown as '?', missing or
 * mistyped members as '-'.
 */

/* The object as JSON on one line. */
void fc_out_json(FILE *out, struct json_object *o);

/* `text` without control characters. */
void fc_out_text(FILE *out, const char *text);

/* The table of `guests`, an array as in the reply to "status". */
void fc_out_guests(FILE *out, struct json_object *guests);

/* "name value" and "KEY = VALUE" lines, sorted. */
void fc_out_counters(FILE *out, struct json_object *counters);
void fc_out_settings(FILE *out, struct json_object *settings);

/* An array of strings, one a line. */
void fc_out_lines(FILE *out, struct json_object *lines);

#endif
