#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The stream bench would measure a broken file, or not find libxc's stream in
# what `xl save` writes.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${FC_BUILD:-$PWD/build}
[[ $build == /* ]] || build=$PWD/$build
bench=$build/bench/bench_stream
if [[ ! -x $bench ]] || ! command -v lz4 >/dev/null ||
    ! command -v jq >/dev/null; then
    echo '1..0 # SKIP bench_stream is not built (make test-programs), or no lz4 or jq'
    exit 0
fi
. tests/unit/tap.sh
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1 # it writes build/bench/stream.json

# make_file CASE >FILE: a saved guest of 2000 pages, or one with that fault
make_file() {
    perl -e '
        my $case = shift;
        binmode STDOUT;
        sub record { my ($type, $body) = @_;
            pack("VV", $type, length $body) . $body .
                "\0" x (-length($body) % 8) }
        my $pages = sub { my ($first, $n) = @_;
            pack("VV", $n, 0) . join("", map { pack("Q<", $_) }
                $first .. $first + $n - 1) . join("", map {
                    $_ % 4 ? pack("V", $_ * 2654435761 % 2**32) x 1024
                           : "\0" x 4096 } $first .. $first + $n - 1) };
        my $head = "\xff" x 8 . "XENF" . pack("Nvx6", 3, 0);
        my $type = $case eq "pv" ? 1 : 2;
        my $s = $head . pack("VvvVV", $type, 12, 0, 4, 17) .
            record(0x10, "") . record(1, $pages->(0, 1000)) .
            record(1, $pages->(1000, 1000)) . record(9, "x" x 33);
        $s .= record(14, "") if $case eq "checkpoint";
        $s .= record(1, pack("VV", 5, 0) . "\0" x 40) if $case eq "lengths";
        $s .= pack("VV", 9, 200 << 20) if $case eq "huge";
        $s .= record(0, "") unless $case =~ /endless/;
        substr($s, -60000) = "" if $case eq "short";
        $s = $head if $case eq "head";
        $s = "GIF89a" . "\0" x 100 if $case eq "gif";
        if ($case =~ /^xl/) {
            my $config = "{ \"c_info\": {} }\0";
            my $start = "LibxlFmt" . pack("NN", 2, 0);
            $start = "LibxlFm!" . pack("NN", 2, 0) if $case eq "xl-magic";
            $start .= record(1, "") unless $case eq "xl-empty";
            $s = "" if $case eq "xl-empty";
            $s = "Xen saved domain, xl format\n \0 \r" .
                pack("VVVV", 0x01020304, 3, 0, length $config) . $config .
                $start . $s .
                ($case =~ /endless/ ? "" : record(2, "toolstack") . record(0, ""));
        }
        print $s;' "$1"
}

for kind in plain xl; do
    make_file $kind >"$kind"
    "$bench" $kind >out 2>&1
    result $? "$kind file: runs" "$(<out)"
    grep -q '2000 pages, 500 of them zero' out
    result $? "$kind file: counts its pages" "$(<out)"
    jq -e --arg k $kind 'map(.metric) as $m | length == 16 and
        all(.bench == "stream" and .input == $k and has("ratio")) and
        (["throughput", "bytes_per_second_per_core", "peak_rss_bytes"] - $m ==
         [])' build/bench/stream.json >json 2>&1
    result $? "$kind file: its JSON" "$(<json)"
done

refused() { # refused CASE TEXT
    make_file "$1" >bad
    "$bench" bad >out 2>&1
    [[ $? == 1 ]] && grep -qF -- "bench_stream: bad: at byte $2" out
    result $? "$1: refused with what and where" "$(<out)"
}
refused pv '24: not of a PVH or HVM guest (type 1)'
refused checkpoint '8208128: a checkpointed stream'
refused lengths '8208128: a PAGE_DATA record whose lengths do not add up'
refused huge '8208128: a record of 209715200 bytes: libxc allows 134217728'
refused endless '8208128: the stream ends without an END record'
refused short '4104064: a record of 4104008 bytes goes past the file'
refused head "0: no libxc v2 stream and no file of \`xl save\`: too short"
refused gif "0: no libxc v2 stream and no file of \`xl save\`: it does not"
refused xl-endless '8208217: the stream ends without an END record'
refused xl-magic '65: no libxl stream after'
refused xl-empty "113: libxl's stream ends without"
"$bench" /nowhere >out 2>&1
[[ $? == 1 ]] && grep -q '/nowhere: No such file' out
result $? 'a missing file is named' "$(<out)"
"$bench" . >out 2>&1
[[ $? == 1 ]] && grep -q ' \.: at byte 0: not a file with contents' out
result $? 'a directory is refused' "$(<out)"

tap_end
