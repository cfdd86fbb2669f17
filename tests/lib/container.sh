# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
#
# Throw-away containers with systemd as PID 1. Sourced after common.sh; one container per shell at a time.
#
#   container_start IMAGE OUTPUT   boots a copy-on-write view of IMAGE; the checkout is /src, OUTPUT is /out
#   container_run COMMAND...       runs COMMAND inside, with a clean environment
#   container_stop                 ends it at once and removes every trace; runs at exit by itself
#
# Nothing registers with the host: no machined, no D-Bus, no unit (a scope excepted, where the host's PID 1
# is systemd). Every container gets a cgroup of its own, else two would share one payload cgroup; cgroup v2
# is asked for by name, since systemd-nspawn would mirror the v1 part of a host that has both. The overlay
# lives in a private mount namespace and every process dies with its parent, so that even SIGKILL of the
# caller leaves nothing but a directory.

# shellcheck disable=SC2034 # for those who source this
CONTAINER_HOST_PACKAGES=(systemd-container)

CONTAINER_DIRECTORY='' CONTAINER_LEADER='' CONTAINER_BOOT='' CONTAINER_CGROUP=''
CONTAINER_PAYLOAD='' CONTAINER_READY='' CONTAINER_COMMAND=''
# name=value pairs for container_run
CONTAINER_ENVIRONMENT=()

# container_cgroup_mount : where cgroup v2 is mounted
container_cgroup_mount() {
        local fields point=''

        # Of several the shortest: others are views of single containers.
        while read -ra fields; do
                [[ " ${fields[*]} " == *' - cgroup2 '* ]] || continue
                [[ -n $point && ${#point} -le ${#fields[4]} ]] || point=${fields[4]}
        done </proc/self/mountinfo
        [[ -n $point ]] || { say "no cgroup v2 hierarchy is mounted"; return 1; }
        printf '%s\n' "$point"
}

container_start() {
        local image=$1 output=$2 launcher=() nspawn cgroup
        local nofile nproc

        [[ -z $CONTAINER_DIRECTORY ]] || { say "a container is running already"; return 1; }
        cgroup=$(container_cgroup_mount) || return 1
        CONTAINER_DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/fcgi-pool-container.XXXXXX") || return 1
        trap container_stop EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        mkdir -p "$CONTAINER_DIRECTORY"/layers/{upper,work,root}
        chmod 755 "$CONTAINER_DIRECTORY"{,/layers{,/upper}}

        if [[ -d /run/systemd/system ]]; then
                # The host's cgroups are systemd's: ask for one that is ours.
                launcher=(systemd-run --quiet --scope --collect --property=Delegate=yes --property=TasksMax=infinity
                          --unit="${CONTAINER_DIRECTORY##*/}" --)
        else
                CONTAINER_CGROUP=$cgroup/${CONTAINER_DIRECTORY##*/}
                mkdir "$CONTAINER_CGROUP" || return 1
        fi

        # What this process may have, the container may have: a thousand workers need more than 1024 files.
        nofile=$(ulimit -Hn)
        nproc=$(ulimit -Hu)
        nspawn=(systemd-nspawn --quiet --directory="$CONTAINER_DIRECTORY/layers/root" --boot --register=no --keep-unit
                --private-network --notify-ready=yes --console=read-only --link-journal=no --resolv-conf=off
                --timezone=off --machine=fcgi-pool-test --kill-signal=SIGRTMIN+3
                --rlimit=NOFILE="1024:${nofile/unlimited/infinity}" --rlimit=NPROC="${nproc/unlimited/infinity}"
                --rlimit=CORE=infinity
                --bind-ro="${SOURCE_ROOT//:/\\:}:/src" --bind="${output//:/\\:}:/out")

        # SYSTEMD_SECCOMP=0: systemd-nspawn's own filter refuses what a real machine allows (pidfd_getfd,
        # ptrace); units inside still get theirs. The parent of it all is this shell: the death of one is the
        # death of the next.
        exec {CONTAINER_READY}< <(
                [[ -z $CONTAINER_CGROUP ]] || echo "$BASHPID" >"$CONTAINER_CGROUP/cgroup.procs"
                exec setpriv --pdeathsig KILL "${launcher[@]}" \
                        env -i PATH="$PATH" SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network \
                        SYSTEMD_SECCOMP=0 \
                        "$SOURCE_ROOT/tests/lib/boot" "$CONTAINER_DIRECTORY/notify" 60 setpriv --pdeathsig KILL \
                        unshare --mount --propagation slave \
                        bash "$SOURCE_ROOT/tests/lib/overlay" "$image" "$CONTAINER_DIRECTORY/layers" "${nspawn[@]}" \
                        2>"$CONTAINER_DIRECTORY/console" </dev/null
        )
        CONTAINER_BOOT=$!
        if ! read -r -u "$CONTAINER_READY" CONTAINER_LEADER; then
                say "the container did not boot:"
                tail -n 30 "$CONTAINER_DIRECTORY/console" >&2
                container_stop
                return 1
        fi

        # Commands get a cgroup beside those of the units, inside the container's namespace: to be moved
        # there before entering, since a process cannot cross the border of a cgroup namespace from within.
        CONTAINER_PAYLOAD=$cgroup$(sed -n 's/^0:://p' "/proc/$CONTAINER_LEADER/cgroup")
        CONTAINER_PAYLOAD=${CONTAINER_PAYLOAD%/init.scope}
        mkdir -p "$CONTAINER_PAYLOAD/fcgi-pool-tests"
}

container_run() {
        local result=0

        [[ -n $CONTAINER_LEADER ]] || { say "no container is running"; return 1; }
        # In the background, since a shell handles signals only between commands in the foreground, but not
        # while it waits; and a shell's background commands would ignore SIGINT.
        (
                echo "$BASHPID" >"$CONTAINER_PAYLOAD/fcgi-pool-tests/cgroup.procs" || exit 1
                ulimit -Sn "$(ulimit -Hn)"
                # --root: systemd-nspawn may have moved the tree over the namespace's root instead of
                # pivoting.
                exec nsenter --target "$CONTAINER_LEADER" --all --root \
                        env -i --default-signal --chdir=/ HOME=/root LANG=C.UTF-8 \
                        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
                        TERM="${TERM:-dumb}" SHELL=/bin/bash USER=root SYSTEMD_PAGER=cat PAGER=cat \
                        GOCACHE=/var/cache/go-build GOPATH=/usr/share/gocode GO111MODULE=off GOFLAGS=-buildvcs=false \
                        PYTHONDONTWRITEBYTECODE=1 GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' \
                        "${CONTAINER_ENVIRONMENT[@]}" "$@"
        ) <&0 &
        CONTAINER_COMMAND=$!
        wait "$CONTAINER_COMMAND" || result=$?
        CONTAINER_COMMAND=''
        return $result
}

container_stop() {
        local result=$?

        [[ -n $CONTAINER_DIRECTORY ]] || return $result
        trap - EXIT
        trap '' INT TERM HUP
        # The death of PID 1 is the death of all; systemd-nspawn then clears up and ends, and so does what
        # waits for it.
        if [[ -n $CONTAINER_LEADER ]]; then
                kill -KILL "$CONTAINER_LEADER" 2>/dev/null
        elif [[ -n $CONTAINER_BOOT ]]; then
                kill -KILL "$CONTAINER_BOOT" 2>/dev/null
        fi
        # Each by itself: the shell would announce their deaths elsewhere.
        [[ -z $CONTAINER_COMMAND ]] || wait "$CONTAINER_COMMAND" 2>/dev/null
        [[ -z $CONTAINER_BOOT ]] || wait "$CONTAINER_BOOT" 2>/dev/null
        [[ -z $CONTAINER_READY ]] || exec {CONTAINER_READY}<&-
        if [[ -n $CONTAINER_CGROUP ]]; then
                find "$CONTAINER_CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null
        fi
        rm -rf --one-file-system "$CONTAINER_DIRECTORY"
        CONTAINER_DIRECTORY='' CONTAINER_LEADER='' CONTAINER_BOOT='' CONTAINER_CGROUP=''
        CONTAINER_PAYLOAD='' CONTAINER_READY='' CONTAINER_COMMAND=''
        trap - INT TERM HUP
        return $result
}
