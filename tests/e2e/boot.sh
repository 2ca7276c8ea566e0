#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The first on the hosts: the images and the package, which tests/check makes
# meanwhile, are made, and two Xen hosts boot with them.
set -eu -o pipefail
cd "$(dirname "$0")/../.."

echo 1..2
not_ok() {
    echo "not ok $1"
    tail -n 40 "$2" | sed 's/^/# /'
    exit 1
}

what='1 - the images of the hosts and the package are made'
flock -w 1800 "$FC_LAB_PACKAGE.lock" true ||
    not_ok "$what, which took more than 1800 s" "$FC_LAB_PACKAGE.log"
[[ -s $FC_LAB_PACKAGE ]] || not_ok "$what" "$FC_LAB_PACKAGE.log"
echo "ok $what"

what='2 - two hosts boot'
tests/lab/lab up --name "$FC_LAB" --deb "$(tail -n 1 "$FC_LAB_PACKAGE")" \
    >"$FC_LAB_PACKAGE.up.log" 2>&1 || not_ok "$what" "$FC_LAB_PACKAGE.up.log"
echo "ok $what"
