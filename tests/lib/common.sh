# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
#
# What tests/run and tests/demo share: messages, the checkout's place, packages of the host. Sourced, never
# run.

# shellcheck disable=SC2034 # for those who source this
SOURCE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck disable=SC2034
TEST_CACHE=${FCGI_POOL_TEST_CACHE:-/var/cache/fcgi-pool-tests}

say() {
        printf '%s\n' "$*" >&2
}

die() {
        say "${0##*/}: $*"
        exit 1
}

require_root() {
        [[ $EUID -eq 0 ]] || die "must run as root: it boots containers with their own systemd"
}

# host_install PACKAGE... : installs what is missing, and nothing else. Package lists are fetched only when
# something is missing.
host_install() {
        local package log missing=()

        for package; do
                [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
                        missing+=("$package")
        done
        [[ ${#missing[@]} -gt 0 ]] || return 0

        command -v apt-get >/dev/null || die "needs ${missing[*]}, and there is no apt-get to install them"
        say "Installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        # Lists may be there but older than the archive: try with what is there, then once more with new
        # ones.
        if ! log=$(host_apt install --no-install-recommends "${missing[@]}" 2>&1) &&
           ! log=$({ host_apt update && host_apt install --no-install-recommends "${missing[@]}"; } 2>&1); then
                say "$log"
                die "cannot install ${missing[*]}"
        fi
}

host_apt() {
        apt-get --quiet=2 --yes -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null
}
