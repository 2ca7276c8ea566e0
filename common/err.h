/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ERR_H
#define FC_ERR_H

/*
 * Error numbers. Functions return 0 (or a count) or one of these, negative.
 * errno is meaningful only with FC_ESYS and FC_EIO.
 */
enum fc_err {
    FC_OK = 0,

    /* general */
    FC_ESYS = -1,      /* a system call failed: see errno */
    FC_ENOMEM = -2,    /* out of memory */
    FC_EINVAL = -3,    /* the caller's argument is out of range */
    FC_ELIMIT = -4,    /* a bound of ours was reached */
    FC_ETIMEOUT = -5,  /* a bounded wait ran out */
    FC_ECANCEL = -6,   /* asked to stop */

    /* bytes from outside */
    FC_EIO = -20,      /* reading or writing failed: see errno */
    FC_EEOF = -21,     /* the other end closed */
    FC_EFORMAT = -22,  /* malformed input */
    FC_EVERSION = -23, /* a version that we do not speak */
    FC_ECHECK = -24,   /* checksum or hash does not match */
    FC_ETOOBIG = -25,  /* longer than its cap */

    /* pages and stores */
    FC_ENOENT = -40,   /* not held */
    FC_EFULL = -41,    /* the store's budget is reached */

    /* domains */
    FC_ENODOM = -60,   /* no such domain */
    FC_ENOLOG = -61,   /* Xen cannot log dirty pages for this domain */
    FC_EBUSY = -62,    /* somebody else is at work on it */
    FC_EPERM = -63,    /* the peer may not do this */
    FC_EDAEMON = -64,  /* forecopyd does not answer */
    FC_EPEER = -65,    /* the other host refused or failed */
};

/* A short English sentence for an fc_err, never NULL. */
const char *fc_strerror(int rc);

/* The constant's own name ("FC_EFORMAT"), for machine-read replies. */
const char *fc_errname(int rc);

#endif
