# SPDX-License-Identifier: LGPL-2.1-or-later
# What differs between the pairs of Xen and Debian release.  Each runs under the
# QEMU of its own release: under QEMU 10.0, PVH guests of Xen 4.17 halt at once.
# shellcheck shell=bash disable=SC2034

use_pair() {
    PAIR=$1
    case $PAIR in
    4.20)
        SUITE=trixie
        XEN_PACKAGES=(xen-utils-4.20 xen-hypervisor-4.20-amd64 libxenmisc4.20)
        ;;
    4.17)
        SUITE=bookworm
        XEN_PACKAGES=(xen-utils-4.17 xen-hypervisor-4.17-amd64 libxenmisc4.17)
        ;;
    *) wrong_usage "no pair '$PAIR': 4.20 or 4.17" ;;
    esac
}

# The package names of a suite's own time: Debian 13 renamed some libraries.
for_suite() {
    if [[ $SUITE = bookworm ]]; then
        sed -e 's/libaio1t64/libaio1/' -e 's/\(libevent[a-z0-9.-]*\)t64/\1/g'
    else
        cat
    fi
}
