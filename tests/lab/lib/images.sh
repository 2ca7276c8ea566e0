# SPDX-License-Identifier: LGPL-2.1-or-later
# The guest's kernel and initramfs, and the disk image of the hosts.
# shellcheck shell=bash

LAB_CFLAGS=(-O2 -g -std=gnu11 -Wall -Wextra -Wshadow -Werror)
IMAGE_MB=1536

# Modules the hosts load from their own disk, by folder or file under kernel/.
DOM0_MODULES=(
    drivers/block drivers/md drivers/xen drivers/net/tun.ko drivers/net/tap.ko
    drivers/net/virtio_net.ko drivers/net/net_failover.ko drivers/net/veth.ko
    drivers/net/dummy.ko drivers/net/ifb.ko drivers/net/xen-netback
    drivers/net/xen-netfront.ko drivers/char/hw_random drivers/virtio
    net/core net/802 net/llc net/bridge net/sched net/netfilter net/ipv4
    net/ipv6 fs/ext4 fs/jbd2 fs/mbcache.ko fs/fuse fs/overlayfs lib crypto
    arch/x86/crypto
)

bin_key() { key_of "$LAB"/tools/*.c "$LAB"/guest/*.[ch] "$LAB/lib/images.sh" \
    "$(tools_root_key)"; }
bin_dir() { echo "$OUT/bin-$PAIR-$(bin_key)"; }
guest_dir() {
    echo "$OUT/guest-$PAIR-$(key_of "$(bin_key)" "$(dom0_root_key)" \
        "$(tools_root_key)" "$LAB/guest/init" "${GUEST_KERNEL_ROOT:-}")"
}
image_path() {
    echo "$OUT/dom0-$PAIR-$(key_of "$(basename "$(guest_dir)")" \
        "$LAB"/dom0/*).img"
}

# Our own programs: static, so that they run on every system here.
build_bin() {
    local dir src name
    dir=$(bin_dir)
    [[ -d $dir ]] && return
    say "compiling the lab's programs"
    rm -rf "$dir.new"
    mkdir -p "$dir.new"
    for src in "$LAB"/tools/fc-*.c "$LAB"/guest/*.c; do
        name=$(basename "$src" .c)
        [[ $name = sqlitework ]] && continue
        gcc "${LAB_CFLAGS[@]}" -static -o "$dir.new/$name" "$src" -lpthread ||
            die "cannot compile $src"
    done
    # These use libraries of the release: Xen's unstable ones, SQLite.
    for src in "$LAB"/tools/xen-*.c; do build_in_root "$src" -lxenctrl; done
    build_in_root "$LAB/guest/sqlitework.c" -lsqlite3
    mv "$dir.new" "$dir"
}

# build_in_root SOURCE LIBRARY: compiled in the tools root, into bin_dir's .new
build_in_root() {
    local src=$1 name tools
    name=$(basename "$src" .c)
    tools=$(tools_root)
    mkdir -p "$tools/tmp/$name"
    cp "$src" "$LAB"/guest/*.h "$tools/tmp/$name/"
    chroot "$tools" gcc "${LAB_CFLAGS[@]}" \
        -o "/tmp/$name/$name" "/tmp/$name/$name.c" "$2" ||
        die "cannot compile $src"
    cp "$tools/tmp/$name/$name" "$(bin_dir).new/"
    rm -rf "$tools/tmp/$name"
}

# copy_modules KERNEL_DIR DEST NAME...: modules and all they depend on,
# decompressed, flat; DEST/order lists them as they have to be loaded.
copy_modules() {
    local kernel=$1 dest=$2 release dom0 line m
    shift 2
    dom0=$(dom0_root)
    release=$(basename "$kernel"/usr/lib/modules/*)
    mkdir -p "$dest"
    if [[ ! -e $kernel/usr/lib/modules/$release/modules.dep ]]; then
        index_modules "$kernel" "$release"
    fi
    # Asked of the release's own modprobe: `insmod PATH` lines in order.
    mkdir -p "$dom0/tmp/kernel"
    for m in "$@"; do
        # shellcheck disable=SC2016 # the inner shell's variables
        unshare --mount sh -c 'mount --bind "$1" "$2/tmp/kernel" &&
            chroot "$2" modprobe -d /tmp/kernel/usr -S "$3" -D "$4"' \
            sh "$kernel" "$dom0" "$release" "$m" ||
            die "no kernel module $m in $release"
    done | while read -r line; do
        [[ $line = insmod* ]] || continue
        line=${line#insmod }
        echo "${line%% *}"
    done | awk '!seen[$0]++' | while read -r line; do
        line=$kernel/${line#/tmp/kernel/}
        m=$(basename "$line")
        m=${m%.xz}
        case $line in
        *.xz) xz -dc "$line" >"$dest/$m" ;;
        *) cp "$line" "$dest/$m" ;;
        esac
        echo "$m" >>"$dest/order"
    done
    rmdir "$dom0/tmp/kernel"
}

index_modules() {
    local kernel=$1 release=$2 dom0
    dom0=$(dom0_root)
    mkdir -p "$dom0/tmp/index"
    # shellcheck disable=SC2016 # the inner shell's variables
    unshare --mount sh -c 'mount --bind "$1" "$2/tmp/index" &&
        chroot "$2" depmod -b /tmp/index/usr "$3"' sh "$kernel" "$dom0" "$release" ||
        die "depmod of $release failed"
    rmdir "$dom0/tmp/index"
}

pack_cpio() { (cd "$1" && find . | cpio --quiet -o -H newc) >"$2"; }

# A program of the tools root with the libraries it needs.
copy_program() {
    local tools=$1 program=$2 dest=$3 lib
    mkdir -p "$dest$(dirname "$program")"
    cp -L "$tools$program" "$dest$program"
    chroot "$tools" ldd "$program" | grep -o '/[^ ]*' | while read -r lib; do
        mkdir -p "$dest$(dirname "$lib")"
        cp -L "$tools$lib" "$dest$lib"
    done
}

build_guest() {
    local dir kernel bin stage tools disk
    dir=$(guest_dir)
    [[ -d $dir ]] && return
    say "making the guest's kernel and initramfs"
    kernel=$(dom0_root).kernel
    bin=$(bin_dir)
    tools=$(tools_root)
    rm -rf "$dir.new"
    stage=$dir.new/stage
    mkdir -p "$stage/bin" "$stage/usr/bin" "$stage/sbin" "$stage/dev"
    cp "$(command -v busybox)" "$stage/bin/busybox"
    cp "$LAB/guest/init" "$stage/init"
    chmod 755 "$stage/init"
    ln -s busybox "$stage/bin/sh"
    printf '#!/bin/sh\nexec /bin/busybox poweroff -f\n' >"$stage/sbin/poweroff"
    chmod 755 "$stage/sbin/poweroff"
    mknod "$stage/dev/console" c 5 1
    cp "$bin/heartbeat" "$bin/memguard" "$stage/usr/bin/"
    strip "$stage/usr/bin/"*
    copy_modules "$kernel" "$stage/modules" xen-netfront
    pack_cpio "$stage" "$dir.new/small.cpio"
    disk=$dir.new/disk
    cp -a "$stage" "$disk"
    cp "$bin/diskguard" "$disk/usr/bin/"
    strip "$disk/usr/bin/diskguard"
    copy_modules "$kernel" "$disk/modules.disk" xen-blkfront
    pack_cpio "$disk" "$dir.new/disk.cpio"
    rm "$disk/usr/bin/diskguard"
    copy_modules "$kernel" "$disk/modules.disk" ext4
    copy_program "$tools" /usr/sbin/mke2fs "$disk"
    cp "$bin/sqlitework" "$tools/tmp/sqlitework"
    copy_program "$tools" /tmp/sqlitework "$disk"
    mv "$disk/tmp/sqlitework" "$disk/usr/bin/"
    rm "$tools/tmp/sqlitework"
    pack_cpio "$disk" "$dir.new/sqlite.cpio"
    rm -rf "$disk"
    cp "$bin/rediswork" "$stage/usr/bin/"
    strip "$stage/usr/bin/rediswork"
    copy_program "$tools" /usr/bin/redis-server "$stage"
    copy_program "$tools" /usr/bin/redis-cli "$stage"
    copy_program "$tools" /usr/bin/redis-benchmark "$stage"
    pack_cpio "$stage" "$dir.new/redis.cpio"
    cp "$kernel/vmlinux" "$dir.new/vmlinux"
    strip -g "$dir.new/vmlinux" || die "cannot strip the guest's kernel"
    rm -rf "$stage"
    mv "$dir.new" "$dir"
}

# The disk image, the hosts' kernel, their initramfs and Xen, side by side:
# FILE.img, FILE.vmlinux, FILE.cpio, FILE.xen.
build_image() {
    local image root kernel release stage m f
    image=$(image_path)
    [[ -f $image ]] && return
    say "making the disk image of the Xen $PAIR hosts"
    root=$(dom0_root)
    kernel=$root.kernel
    release=$(basename "$kernel"/usr/lib/modules/*)
    stage=$OUT/stage-$PAIR
    rm -rf "$stage" "$stage.boot"
    # Hard links: whatever is changed below is replaced, not written into.
    cp -al "$root" "$stage"
    rm -rf "$stage"/var/lib/apt/lists/* "$stage"/var/cache/apt/* \
        "$stage"/usr/share/{doc,man,locale,info,bash-completion,perl,zoneinfo}/* \
        "$stage"/usr/lib/xen-*/boot "${stage:?}"/boot/* "$stage"/tmp/*
    mkdir -p "$stage/lab/guest" "$stage/usr/lib/modules/$release" \
        "$stage/root/.ssh" "$stage/proc/xen" "$stage/var/guests"
    for m in "${DOM0_MODULES[@]}"; do
        for f in "kernel/$m" "kernel/$m.xz"; do
            [[ ! -e $kernel/usr/lib/modules/$release/$f ]] || echo "$f"
        done
    done | tar -C "$kernel/usr/lib/modules/$release" -T - -cf - |
        tar -C "$stage/usr/lib/modules/$release" -xf -
    find "$stage/usr/lib/modules/$release" -name '*.xz' -exec xz -d {} +
    cp "$kernel/usr/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} \
        "$stage/usr/lib/modules/$release/"
    index_modules "$stage" "$release"

    install -m 755 "$LAB/dom0/boot" "$LAB/dom0/stop" "$LAB/dom0/daemon" \
        "$(bin_dir)/fc-rsh" "$stage/lab/"
    for m in "$(bin_dir)"/xen-*; do install -m 755 "$m" "$stage/lab/"; done
    ln -sf /lab/fc-rsh "$stage/usr/bin/fc-rsh"
    ln -sf /bin/busybox "$stage/lab/init"
    cp "$(guest_dir)"/* "$stage/lab/guest/"
    rm -f "$stage"/etc/{inittab,hosts,hostname,fstab,resolv.conf}
    cp "$LAB/dom0/inittab" "$stage/etc/inittab"
    : >"$stage/etc/fstab"
    echo "127.0.0.1 localhost" >"$stage/etc/hosts"
    for m in 1 2 3 4; do
        echo "$(host_ip $m) host$m" >>"$stage/etc/hosts"
    done
    ssh_setup "$stage"
    rm -f "$stage/etc/xen/xl.conf"
    cp "$LAB/dom0/xl.conf" "$stage/etc/xen/xl.conf"
    install -m 755 "$LAB/dom0/vif-lab" "$stage/etc/xen/scripts/vif-lab"
    echo "options nbd nbds_max=16 max_part=0" >"$stage/etc/modprobe.d/lab.conf"

    mkdir -p "$stage.boot/bin"
    cp "$(command -v busybox)" "$stage.boot/bin/busybox"
    install -m 755 "$LAB/dom0/initramfs-init" "$stage.boot/init"
    copy_modules "$kernel" "$stage.boot/modules" virtio_pci virtio_blk ext4
    pack_cpio "$stage.boot" "${image%.img}.cpio"
    gzip -dc "$root"/boot/xen-*-amd64.gz >"${image%.img}.xen"
    cp "$kernel/vmlinux" "${image%.img}.vmlinux"

    rm -f "$image.new"
    truncate -s "${IMAGE_MB}M" "$image.new"
    mke2fs -q -t ext4 -O ^metadata_csum,^64bit -E lazy_itable_init=1 -m 0 \
        -d "$stage" "$image.new" ||
        die "cannot make the disk image"
    rm -rf "$stage" "$stage.boot"
    mv "$image.new" "$image"
    drop_old
}

# What earlier builds left goes, but for what a lab that is up runs on.
drop_old() {
    local old name keep
    keep=$(for old in "$(bin_dir)" "$(guest_dir)" "$(tools_root)" \
        "$(dom0_root)" "$(image_path)"; do basename "${old%.img}"; done
        cat "$OUT"/run/*/lab.env 2>/dev/null || true)
    for old in "$OUT"/{bin,guest,dom0,tools}-"$PAIR"-*; do
        name=${old##*/}
        [[ $name =~ ^[a-z0-9.-]*-[0-9a-f]{12} ]] || continue
        grep -qF -- "${BASH_REMATCH[0]}" <<<"$keep" || rm -rf "$old"
    done
}

# One key for all: from outside to the hosts and between them.
ssh_setup() {
    local stage=$1 key=$OUT/ssh_key
    [[ -f $key ]] || ssh-keygen -q -t ed25519 -N '' -C forecopy-lab -f "$key"
    install -m 600 "$key" "$stage/root/.ssh/id_ed25519"
    install -m 644 "$key.pub" "$stage/root/.ssh/authorized_keys"
    rm -f "$stage"/etc/ssh/ssh_host_* "$stage/etc/ssh/sshd_config"
    ssh-keygen -q -t ed25519 -N '' -C host -f "$stage/etc/ssh/ssh_host_ed25519_key"
    cp "$LAB/dom0/sshd_config" "$stage/etc/ssh/sshd_config"
    rm -f "$stage/etc/ssh/ssh_config"
    cp "$LAB/dom0/ssh_config" "$stage/etc/ssh/ssh_config"
}

build_all() {
    mkdir -p "$OUT"
    exec 9>"$OUT/lock"
    flock -w 1200 9 || die "another build holds $OUT/lock since 20 minutes"
    build_roots
    build_bin
    build_guest
    build_image
    exec 9>&-
}
