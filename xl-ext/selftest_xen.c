/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>

#include "helper.h"

/* That the addresses are there says that the libraries were found and have
 * these calls: the program is linked with immediate binding in mind. */
int fc_helper_self_test(void)
{
    uintptr_t calls[] = {
        (uintptr_t)xc_interface_open,     (uintptr_t)xc_domain_save,
        (uintptr_t)xc_domain_restore,     (uintptr_t)xc_logdirty_control,
        (uintptr_t)xenforeignmemory_open,
    };
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (!calls[i])
            return 1;
    return 0;
}
