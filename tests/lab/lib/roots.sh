# SPDX-License-Identifier: LGPL-2.1-or-later
# The Debian roots everything else is taken from.
# shellcheck shell=bash disable=SC2153

MIRROR=${FC_LAB_MIRROR:-http://deb.debian.org}

# debian_root DIR SUITE PACKAGES [KERNEL]: a root by mmdebstrap, made whole or
# not at all.  KERNEL: also download the release's kernel package and lay it
# out under DIR.kernel (never installed: that would build an initramfs).
debian_root() {
    local dir=$1 suite=$2 packages=$3 kernel=${4:-} cache hooks=()
    cache=$OUT/apt-cache/$suite
    mkdir -p "$cache"
    if [[ $kernel ]]; then
        # shellcheck disable=SC2016 # expanded by mmdebstrap's shell
        hooks=(--customize-hook='chroot "$1" sh -c "cd /var/cache/apt/archives &&
            apt-get download -qq \$(apt-cache depends linux-image-amd64 |
                sed -n \"s/.*Depends: \(linux-image-[0-9].*\)/\1/p\" | head -n 1)"')
    fi
    rm -rf "$dir.new" "$dir.kernel"
    # shellcheck disable=SC2016 # expanded by mmdebstrap's shell
    mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Retries "3"' \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --skip=download/empty --skip=essential/unlink \
        --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
        --setup-hook="sync-in '$cache' /var/cache/apt/archives" \
        "${hooks[@]}" \
        --customize-hook="sync-out /var/cache/apt/archives '$cache'" \
        "$suite" "$dir.new" \
        "deb $MIRROR/debian $suite main" \
        "deb $MIRROR/debian-security $suite-security main" \
        >"$dir.log" 2>&1 || {
        tail -n 20 "$dir.log" >&2
        die "mmdebstrap of $suite failed; whole log: $dir.log"
    }
    rm -rf "$dir.new"/var/cache/apt/archives/*.deb
    if [[ $kernel ]]; then
        unpack_kernel "$dir" "$cache"
    fi
    rm -rf "$dir"
    mv "$dir.new" "$dir"
}

# The newest kernel package of the cache, its image unpacked to plain ELF
# (no decompression under emulation) and its modules decompressed.
unpack_kernel() {
    local dir=$1 cache=$2 deb
    # shellcheck disable=SC2012 # apt's file names hold no odd characters
    deb=$(ls -t "$cache"/linux-image-[0-9]*.deb | head -n 1)
    dpkg-deb -x "$deb" "$dir.kernel"
    [[ -d $dir.kernel/usr/lib/modules ]] || {
        mkdir -p "$dir.kernel/usr/lib"
        mv "$dir.kernel/lib/modules" "$dir.kernel/usr/lib/modules"
    }
    kernel_elf "$dir.kernel"/boot/vmlinuz-* "$dir.kernel/vmlinux"
}

# kernel_elf BZIMAGE ELF: the payload of a bzImage.  Its place and size stand
# in the setup header (payload_offset, payload_length; Linux boot protocol).
kernel_elf() {
    local image=$1 elf=$2 sects offset length start
    sects=$(od -An -tu1 -j 497 -N 1 "$image")
    offset=$(od -An -tu4 -j 584 -N 4 "$image")
    length=$(od -An -tu4 -j 588 -N 4 "$image")
    start=$(((sects + 1) * 512 + offset))
    dd if="$image" of="$elf.packed" bs=1M iflag=skip_bytes,count_bytes \
        skip="$start" count=$((length - 4)) status=none
    # The payload's last four bytes are its unpacked size, none of the format.
    case $(od -An -tx1 -N 4 "$elf.packed" | tr -d ' ') in
    28b52ffd) zstd -qdcf "$elf.packed" >"$elf" ;;
    fd377a58) xz -dc "$elf.packed" >"$elf" ;;
    1f8b*) gzip -dc "$elf.packed" >"$elf" ;;
    *) die "$image: unknown compression of the kernel" ;;
    esac
    rm -f "$elf.packed"
}

tools_root_key() {
    key_of "$LAB/tools.packages" "$LAB/lib/roots.sh" "$LAB/lib/emulator.sh" "$SUITE"
}
dom0_root_key() {
    key_of "$LAB/dom0.packages" "$LAB/lib/roots.sh" "$LAB/lib/pairs.sh" "$PAIR"
}
tools_root() { echo "$OUT/tools-$PAIR-$(tools_root_key)"; }
dom0_root() { echo "$OUT/dom0-$PAIR-$(dom0_root_key)"; }

build_roots() {
    local tools dom0 pids=() p failed=0
    tools=$(tools_root)
    dom0=$(dom0_root)
    if [[ ! -d $tools ]]; then
        say "making the tools root ($SUITE: QEMU, compiler)"
        debian_root "$tools" "$SUITE" "$(package_list "$LAB/tools.packages")" &
        pids+=($!)
    fi
    if [[ ! -d $dom0 ]]; then
        say "making the root of the Xen $PAIR hosts ($SUITE)"
        debian_root "$dom0" "$SUITE" "$(
            { package_list "$LAB/dom0.packages" | for_suite
              printf '%s\n' "${XEN_PACKAGES[@]}"; } | paste -sd, -)" kernel &
        pids+=($!)
    fi
    for p in "${pids[@]}"; do wait "$p" || failed=1; done
    ((failed == 0)) || exit 1
    [[ -e $tools/usr/bin/qemu-system-x86_64.orig ]] || mend_emulator "$tools"
}
