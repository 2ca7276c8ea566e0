/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "luggage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "armed.h"
#include "channel.h"
#include "err.h"
#include "learned.h"
#include "predict.h"
#include "wire.h"

#define HEAD_BYTES 4u /* the profile's length */

int fc_luggage_pack(const struct fc_predict *p, uint8_t **bytes_r,
                    size_t *len_r)
{
    uint8_t *learned = NULL, *bytes = NULL;
    size_t learned_len = 0;
    /* a scorer that learns nothing has nothing to send but the profile */
    int rc = fc_scorer_engine(p->args.scorer)
                 ? fc_predict_learned(p, &learned, &learned_len)
                 : 0;
    size_t cap = HEAD_BYTES + FC_PROFILE_BYTES + learned_len;
    if (!rc && cap > FC_CHANNEL_MAX_MODEL)
        rc = FC_ETOOBIG;
    if (!rc && !(bytes = malloc(cap)))
        rc = FC_ENOMEM;
    ssize_t n = rc ? rc
                   : fc_profile_encode(&p->profile, bytes + HEAD_BYTES,
                                       FC_PROFILE_BYTES);
    if (n < 0) {
        free(bytes);
        free(learned);
        return (int)n;
    }
    fc_le_store(bytes, (uint64_t)n, HEAD_BYTES);
    if (learned_len)
        memcpy(bytes + HEAD_BYTES + n, learned, learned_len);
    free(learned);
    *bytes_r = bytes;
    *len_r = HEAD_BYTES + (size_t)n + learned_len;
    return 0;
}

static int check_learned(const uint8_t *bytes, size_t len, char *why,
                         size_t why_len)
{
    struct fc_model_problem problem = { "out of memory" };
    struct fc_learned *l = malloc(sizeof(*l));
    int rc = l ? fc_learned_parse(bytes, len, l, &problem) : FC_ENOMEM;
    if (!rc)
        fc_learned_dispose(l);
    else
        snprintf(why, why_len, "what was learned: %s", problem.text);
    free(l);
    return rc;
}

int fc_luggage_parse(const uint8_t *bytes, size_t len, struct fc_luggage *l,
                     char *why, size_t why_len)
{
    struct fc_reader r = fc_reader_of(bytes, len);
    uint32_t profile_len = fc_get_u32(&r);
    const uint8_t *profile = fc_get_bytes(&r, profile_len);
    if (r.bad || !profile) {
        snprintf(why, why_len, "the profile does not fit");
        return FC_EFORMAT;
    }
    l->learned = r.p;
    l->learned_len = fc_reader_left(&r);
    int rc = fc_profile_decode(profile, profile_len, &l->profile, why, why_len);
    if (!rc && l->learned_len)
        rc = check_learned(l->learned, l->learned_len, why, why_len);
    return rc;
}

int fc_luggage_unpack(struct fc_armed_db *db, const uint8_t *uuid,
                      const uint8_t *bytes, size_t len, uint64_t now_s,
                      char *why, size_t why_len)
{
    struct fc_luggage l;
    int rc = fc_luggage_parse(bytes, len, &l, why, why_len);
    if (rc)
        return rc;
    rc = fc_armed_db_profile_put(db, uuid, &l.profile);
    if (!rc && l.learned_len)
        rc = fc_armed_db_learned_put(db, uuid, l.learned, l.learned_len, now_s,
                                     true);
    if (rc)
        snprintf(why, why_len, "%s", fc_strerror(rc));
    return rc;
}
