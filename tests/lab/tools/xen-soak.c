/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xen-soak DOMID ROUNDS: turns a guest's dirty log on, cleans it four times
 * and turns it off, over and over: what kills guests on an emulator that
 * delivers an interrupt twice.  Runs in dom0.  Prints a line each ten rounds
 * and one verdict; exits 1 when the domain is gone or a call fails.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <xenctrl.h>

#define CLEANS 4
#define PAUSE_MS 100 /* lets the guest dirty pages between two cleans */

static void pause_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000,
                          .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&ts, NULL);
}

int main(int argc, char **argv)
{
    DECLARE_HYPERCALL_BUFFER(unsigned long, bitmap);
    xc_interface *xch;
    xc_shadow_op_stats_t stats;
    xen_pfn_t max_gpfn;
    unsigned long pages, bytes, dirty = 0;
    uint32_t domid;
    int rounds;

    if (argc != 3) {
        fprintf(stderr, "usage: xen-soak DOMID ROUNDS\n");
        return 2;
    }
    domid = (uint32_t)atoi(argv[1]);
    rounds = atoi(argv[2]);
    xch = xc_interface_open(NULL, NULL, 0);
    if (!xch || xc_domain_maximum_gpfn(xch, domid, &max_gpfn) < 0) {
        perror("xen-soak: cannot reach the domain");
        return 1;
    }
    pages = max_gpfn + 1;
    bytes = (pages + 63) / 64 * 8;
    bitmap = xc_hypercall_buffer_alloc_pages(xch, bitmap, (bytes + 4095) / 4096);
    if (!bitmap) {
        perror("xen-soak: bitmap");
        return 1;
    }
    for (int i = 1; i <= rounds; i++) {
        const char *what = "ENABLE_LOGDIRTY";
        long long r = xc_shadow_control(
            xch, domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0);

        for (int k = 0; k < CLEANS && r >= 0; k++) {
            pause_ms(PAUSE_MS);
            what = "CLEAN";
            r = xc_logdirty_control(xch, domid, XEN_DOMCTL_SHADOW_OP_CLEAN,
                                    HYPERCALL_BUFFER(bitmap), pages, 0,
                                    &stats);
            if (r >= 0)
                dirty += stats.dirty_count;
        }
        if (r >= 0) {
            what = "OFF";
            r = xc_shadow_control(xch, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL,
                                  0);
        }
        if (r < 0) {
            printf("soak: domain %u, round %d of %d: %s failed: %s\n", domid,
                   i, rounds, what, strerror(errno));
            return 1;
        }
        if (i % 10 == 0) {
            fprintf(stderr, "soak: round %d\n", i);
        }
    }
    printf("soak: domain %u: %d rounds, %lu pages seen dirty\n", domid,
           rounds, dirty);
    return 0;
}
