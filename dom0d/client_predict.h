/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_CLIENT_PREDICT_H
#define FC_CLIENT_PREDICT_H

#include "client.h"

/*
 * What forecopy(8) shows of the predictor: replies to "rank", "heatmap" and
 * "when". As all replies they may hold anything.
 */
void fc_client_show_rank(FILE *out, struct json_object *reply);
void fc_client_show_when(FILE *out, struct json_object *reply);

/* Text, or with --output a file; the exit status. */
int fc_client_show_heatmap(struct fc_client_task *c, struct json_object *reply);

#endif
