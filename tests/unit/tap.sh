# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# TAP for tests in shell: sourced; `tap_end` comes last.
n=0 failed=0

result() { # result STATUS NAME [DETAILS]
    n=$((n + 1))
    if [[ $1 == 0 ]]; then
        echo "ok $n - $2"
    else
        failed=1
        echo "not ok $n - $2"
        sed 's/^/# /' <<<"${3:-}"
    fi
}

tap_end() {
    echo "1..$n"
    exit "$failed"
}
