#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The manual would promise options and settings that are not there, or be silent
# about some that are.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${FC_BUILD:-build}
man=docs/man
. tests/unit/tap.sh

same() { # same NAME FILE FILE: as sets of lines
    local differences
    differences=$(diff <(sort -u "$2") <(sort -u "$3"))
    result $? "$1" "< program, > manual
$differences"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# What a program or a page says, one a line: "--option", or for the client
# "SUBCOMMAND --option". Every subcommand has -h, and the page says so once.
dump_options() { # dump_options PROGRAM
    case $1 in
    forecopyd) awk -F '\t' '$1 != "-" { print "-" $1 } { print "--" $2 }' ;;
    forecopy) sed -E 's/^forecopy //; /^[a-z-]+ (-h|--help)$/d' ;;
    *) cat ;;
    esac
}
page_options() { # page_options PROGRAM PAGE
    awk '/^=head1/ { verb = "" }
        /^=head2/ { verb = $2 " "; print $2 }
        /^=item B<-/ {
            gsub(/[^ ]*I<[^>]*>[^ ]*/, "")
            while (match($0, /B<-[^> ]*/)) {
                print verb substr($0, RSTART + 2, RLENGTH - 2)
                $0 = substr($0, RSTART + RLENGTH)
            }
        }' "$2" | case $1 in
    forecopy | forecopy-block) cat ;;
    *) grep '^-' ;;
    esac
}

options() { # options PROGRAM PAGE [ARGUMENT...]
    local program=$1 page=$2
    shift 2
    if ! "$build/$program" "$@" --dump-options >"$tmp/dump" 2>"$tmp/err" ||
        [[ ! -s $tmp/dump ]]; then
        result 1 "$program lists its options" "$(cat "$tmp/err")"
        return
    fi
    dump_options "$program" <"$tmp/dump" >"$tmp/program"
    page_options "$program" "$page" >"$tmp/page"
    same "options of $program${1:+ $*}" "$tmp/program" "$tmp/page"
}

options xl $man/xl-migrate-predictive.8.pod migrate --predictive
for p in forecopyd forecopy forecopy-save-helper forecopy-transport \
    forecopy-block; do
    options $p $man/$p.8.pod
done
for p in forecopy-eval forecopy-train; do
    options $p $man/$p.1.pod
done

# Settings: name, and the line below it: unit, range, default, scope.
"$build/forecopyd" --dump-settings >"$tmp/settings" 2>"$tmp/err"
[[ -s $tmp/settings ]]
result $? 'forecopyd lists its settings' "$(cat "$tmp/err")"
awk -F '\t' '
    function size(v,   i) {
        for (i = 0; v >= 1024 && v % 1024 == 0 && i < 4; i++)
            v /= 1024
        return v substr("KMGT", i, i ? 1 : 0)
    }
    function show(v) { return $3 == "bytes" ? size(v) : v }
    {
        range = $3 == "text" ? "text" : $4 ", " show($5) " to " show($6)
        print $1 ": " range ", default " $7 "; of the host" \
            ($2 == "guest" ? " or a guest" : "")
    }' "$tmp/settings" >"$tmp/program"
awk '/^=item B</ { key = $2; gsub(/B<|>/, "", key); next }
    key && NF { print key ": " $0; key = "" }' \
    $man/forecopy.conf.5.pod >"$tmp/page"
same 'settings of forecopy.conf(5)' "$tmp/program" "$tmp/page"

# The file that is installed shows the defaults, quotes aside.
awk -F '\t' '{ print "#" $1 " = " $7 }' "$tmp/settings" >"$tmp/program"
grep '^#[a-z_]* = ' dom0d/forecopy.conf | tr -d '"' >"$tmp/page"
same 'defaults in forecopy.conf' "$tmp/program" "$tmp/page"

# The plugin's parameters, as `nbdkit --help` shows them.
plugin=$build/nbdkit-forecopy-plugin.so
[[ $plugin == /* ]] || plugin=./$plugin
nbdkit --help "$plugin" 2>"$tmp/err" | grep -oE "(^| )[a-z-]+=[A-Za-z|]+" |
    sed "s/^ *//; s/=.*//" >"$tmp/program"
[[ -s $tmp/program ]]
result $? "the plugin lists its parameters" "$(cat "$tmp/err")"
grep "^=item" $man/nbdkit-forecopy-plugin.1.pod | grep -oE "B<[a-z-]+=" |
    sed "s/B<//; s/=//" >"$tmp/page"
same "parameters of nbdkit-forecopy-plugin" "$tmp/program" "$tmp/page"

for page in "$man"/*.pod; do
    problems=$(podchecker -warnings "$page" 2>&1)
    result $? "syntax of ${page##*/}" "$problems"
done

# bash completion knows the same options
"$build/xl" migrate --predictive --dump-options >"$tmp/program" 2>/dev/null
missing=$(grep -vxFf <(grep -oE -e '--?[a-z-]+' debian/completion/forecopy-xl) \
    "$tmp/program")
result $(($(grep -c . <<<"$missing") != 0)) 'completion of xl' "$missing"

tap_end
