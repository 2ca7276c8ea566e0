/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "err.h"

static const struct {
    int rc;
    const char *name;
    const char *text;
} table[] = {
    { FC_OK, "FC_OK", "no error" },
    { FC_ESYS, "FC_ESYS", "system call failed" },
    { FC_ENOMEM, "FC_ENOMEM", "out of memory" },
    { FC_EINVAL, "FC_EINVAL", "invalid argument" },
    { FC_ELIMIT, "FC_ELIMIT", "limit reached" },
    { FC_ETIMEOUT, "FC_ETIMEOUT", "timed out" },
    { FC_ECANCEL, "FC_ECANCEL", "stopped on request" },
    { FC_EIO, "FC_EIO", "input or output failed" },
    { FC_EEOF, "FC_EEOF", "the other end closed the connection" },
    { FC_EFORMAT, "FC_EFORMAT", "malformed input" },
    { FC_EVERSION, "FC_EVERSION", "unsupported version" },
    { FC_ECHECK, "FC_ECHECK", "checksum does not match" },
    { FC_ETOOBIG, "FC_ETOOBIG", "too long" },
    { FC_ENOENT, "FC_ENOENT", "not held" },
    { FC_EFULL, "FC_EFULL", "the store's budget is reached" },
    { FC_ENODOM, "FC_ENODOM", "no such domain" },
    { FC_ENOLOG, "FC_ENOLOG", "Xen cannot log this domain's dirty pages" },
    { FC_EBUSY, "FC_EBUSY", "busy" },
    { FC_EPERM, "FC_EPERM", "not permitted" },
    { FC_EDAEMON, "FC_EDAEMON", "forecopyd does not answer" },
    { FC_EPEER, "FC_EPEER", "the other host refused or failed" },
};

const char *fc_strerror(int rc)
{
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].rc == rc)
            return table[i].text;
    return "unknown error";
}

const char *fc_errname(int rc)
{
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].rc == rc)
            return table[i].name;
    return "FC_EUNKNOWN";
}
