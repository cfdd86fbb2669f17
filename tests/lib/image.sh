# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
#
# Root trees for the containers, made by mmdebstrap: one per suite and kind ("full" for tests/run, "demo" for
# tests/demo). A tree is named after the hash of everything that went into it, so a changed list or recipe
# makes a new one; it is built under another name and renamed when complete, and never written to afterwards.
# Sourced after common.sh.

IMAGE_HOST_PACKAGES=(mmdebstrap debian-archive-keyring)

# image_packages SUITE KIND
image_packages() {
        local base=(systemd systemd-sysv dbus procps curl nginx gcc libc6-dev meson ninja-build pkg-config libsystemd-dev
                    libcap-dev libfcgi-dev)
        local full=(php-cgi php-fpm libfcgi-perl fcgiwrap multiwatch spawn-fcgi golang-go golang-github-gin-gonic-gin-dev
                    clang python3 python3-pytest python3-dbus python3-systemd mandoc iproute2 strace valgrind libc6-dbg git
                    supervisor uwsgi-core uwsgi-plugin-python3 s6 execline libserver-starter-perl gnuplot-nox)

        # systemd.pc moved to a package of its own in 253; clang does not pull in its sanitizers and
        # libFuzzer.
        case $1 in
                bookworm) full+=(libclang-rt-14-dev) ;;
                trixie) base+=(systemd-dev) full+=(libclang-rt-19-dev) ;;
                *) die "unknown suite $1: bookworm or trixie" ;;
        esac

        printf '%s\n' "${base[@]}"
        [[ $2 != full ]] || printf '%s\n' "${full[@]}"
}

# The recipe: runs on the host with the root of the tree as first argument; part of the hash.
image_customize() {
        cat <<'RECIPE'
set -eu
root=$1

# What tests/bench/compare installs once more under load, while there is a network.
if [ -x "$root/usr/bin/supervisord" ]; then
        mkdir -p "$root/var/cache/fcgi-pool-tests"
        chroot "$root" sh -eu -c '
                cd /var/cache/fcgi-pool-tests
                apt-get download -qq supervisor multiwatch spawn-fcgi uwsgi-core s6 libserver-starter-perl fcgiwrap \
                        $(dpkg-query --search "/usr/sbin/php-fpm*" | cut -d: -f1)'
fi

# Not a first boot (that would apply presets and enable units), but a machine id of its own at every boot.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"

# What Debian enables and a test does not want to meet: servers on the ports and sockets of the tests,
# timers, consoles; a logind that has PID 1 announce everything on the bus.
for unit in nginx.service fcgiwrap.service fcgiwrap.socket supervisor.service; do
        chroot "$root" systemctl --quiet disable "$unit" 2>/dev/null || :
done
rm -f "$root"/etc/systemd/system/multi-user.target.wants/php*-fpm.service
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer logrotate.timer man-db.timer phpsessionclean.timer systemd-tmpfiles-clean.timer getty.target \
        console-getty.service systemd-networkd-wait-online.service systemd-networkd.service systemd-networkd.socket \
        systemd-resolved.service systemd-timesyncd.service systemd-update-utmp.service \
        systemd-update-utmp-runlevel.service systemd-pcrphase.service systemd-logind.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# They run at every daemon-reload, of which the tests have thousands, for what no container has: disks, consoles.
mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/usr/lib/systemd/system-generators/*; do
        ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done
rm -f "$root/etc/nginx/sites-enabled/default"
ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

# Tests assert on journal lines: none may be dropped. Time limits are those of a slow machine under load.
mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d"
printf '[Journal]\nStorage=persistent\nSystemMaxUse=2G\nRateLimitIntervalSec=0\nRateLimitBurst=0\n' \
        >"$root/etc/systemd/journald.conf.d/tests.conf"
printf '[Manager]\nDefaultTasksMax=infinity\nLogTarget=journal\n' >"$root/etc/systemd/system.conf.d/tests.conf"

# Nothing is left to update at boot.
touch "$root/etc/.updated" "$root/var/.updated"

# Go keeps no compiled standard library since 1.20: fill a build cache once instead of in every container.
if [ -x "$root/usr/bin/go" ]; then
        mkdir -p "$root/tmp/warm" "$root/var/cache/go-build"
        printf 'package main\n\nimport (\n\t_ "github.com/gin-gonic/gin"\n\t_ "net/http/fcgi"\n)\n\nfunc main() {}\n' \
                >"$root/tmp/warm/main.go"
        for cgo in 0 1; do
                chroot "$root" env HOME=/root GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS=-buildvcs=false \
                        GOCACHE=/var/cache/go-build CGO_ENABLED=$cgo sh -c 'cd /tmp/warm && go build -o warm .'
        done
        rm -rf "$root/tmp/warm"
fi
RECIPE
}

# image_path SUITE KIND : where the tree is or will be
image_path() {
        local hash

        hash=$({ image_packages "$1" "$2"; image_customize; dpkg --print-architecture; } | sha256sum)
        printf '%s/%s-%s%s\n' "$TEST_CACHE" "$1" "${hash:0:16}" "$([[ $2 == full ]] || printf -- '-%s' "$2")"
}

# image_sources SUITE : apt sources for SUITE on the mirrors this machine uses itself; nothing when it uses
# none for Debian.
image_sources() {
        local base security

        # shellcheck disable=SC2016 # apt expands these
        base=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
        # shellcheck disable=SC2016
        security=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian-Security' \
                2>/dev/null | head -n 1)
        [[ -n $base ]] || return 0

        printf 'deb %s %s main\n' "$base" "$1" "$base" "$1-updates"
        [[ -z $security ]] || printf 'deb %s %s-security main\n' "$security" "$1"
}

# image_build SUITE KIND : makes the tree unless it is there
image_build() {
        local suite=$1 kind=$2 path temporary packages sources proxy log options=()

        path=$(image_path "$suite" "$kind")
        [[ ! -d $path ]] || { touch "$path.used"; return 0; }

        mkdir -p "$TEST_CACHE"
        image_prune
        temporary=$(mktemp -d "$path.XXXXXX.tmp")
        log=$temporary.log
        image_customize >"$temporary.recipe"
        packages=$(image_packages "$suite" "$kind" | tr '\n' ',')
        sources=$(image_sources "$suite")

        # The tree's apt does not read this machine's configuration: hand its proxy on, for the building
        # only.
        proxy=$(apt-config dump --format '%v%n' Acquire::http::Proxy 2>/dev/null | head -n 1)
        [[ -z $proxy ]] || options+=(--aptopt="Acquire::http::Proxy \"$proxy\"")
        options+=(--mode=root --variant=minbase --format=directory --include="${packages%,}"
                  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"'
                  --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Check-Valid-Until "false"'
                  --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*'
                  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*'
                  --customize-hook="sh '$temporary.recipe' \"\$1\""
                  --skip=cleanup/apt/lists --skip=output/dev)

        # Twice at most: from the mirrors of this machine, then from mmdebstrap's own choice.
        if ! { [[ -n $sources ]] && image_debootstrap "$temporary" "$suite" "$log" "${options[@]}" <<<"$sources"; } &&
           ! image_debootstrap "$temporary" "$suite" "$log" "${options[@]}" </dev/null; then
                tail -n 40 "$log" >&2
                rm -rf --one-file-system "$temporary" "$temporary.recipe"
                say "cannot build the image $path; the full log is $log"
                return 1
        fi

        rm -f "$temporary.recipe" "$log"
        rm -rf "${temporary:?}"/var/lib/apt/lists/* "$temporary"/var/cache/apt/*.bin
        # Lost the race against another run: theirs is as good.
        mv --no-target-directory "$temporary" "$path" 2>/dev/null || rm -rf --one-file-system "$temporary"
        [[ -d $path ]] && touch "$path.used"
}

# image_prune : forgets trees that no run has used for two weeks, and unfinished ones of yesterday
image_prune() {
        local stamp

        find "$TEST_CACHE" -maxdepth 1 -name '*.used' -mtime +14 -print0 |
                while IFS= read -r -d '' stamp; do
                        rm -rf --one-file-system "${stamp%.used}" "$stamp"
                done
        find "$TEST_CACHE" -maxdepth 1 -name '*.tmp*' -mtime +1 -exec rm -rf --one-file-system {} +
}

# image_debootstrap DIRECTORY SUITE LOG OPTION... : sources on standard input, none for the default ones
image_debootstrap() {
        local directory=$1 suite=$2 log=$3 sources

        shift 3
        sources=$(cat)
        find "$directory" -xdev -mindepth 1 -delete
        if [[ -n $sources ]]; then
                mmdebstrap "$@" "$suite" "$directory" - <<<"$sources" >>"$log" 2>&1
        else
                mmdebstrap "$@" "$suite" "$directory" >>"$log" 2>&1 </dev/null
        fi
}

# image_prepare KIND SUITE... : all of them at once
image_prepare() {
        local kind=$1 suite pid pids=() result=0

        shift
        for suite; do
                [[ ! -d $(image_path "$suite" "$kind") ]] || continue
                host_install "${IMAGE_HOST_PACKAGES[@]}"
                say "Building the $suite image (once, a few minutes)"
        done
        for suite; do
                image_build "$suite" "$kind" &
                pids+=($!)
        done
        for pid in "${pids[@]}"; do
                wait "$pid" || result=1
        done
        return $result
}
