#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors

# Promise: fcgi-load counts every failure, by its kind, and no failure where there is none.
# Usage: selftest.sh DIRECTORY-OF-THE-BUILT-TOOLS. Programs that are missing are skipped, and said to be.

set -u

tools=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/tools-selftest.XXXXXX")
sock=$work/sock
out=$work/out
servers=
passed=0 failed=0 skipped=0

cleanup() {
        stop_servers
        rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

stop_servers() {
        for pid in $servers; do
                kill -KILL "$pid" 2>/dev/null
                wait "$pid" 2>/dev/null
        done
        servers=
}

# serve LISTENER-OPTION COMMAND...: starts it with the listener on fd 0; its address is then in $address.
serve() {
        listener=$1
        shift
        rm -f "$work/address"
        "$tools/listen-exec" "$listener" --inherit --report="$work/address" -- "$@" 2>"$work/stderr" &
        started=$!
        servers="$servers $started"
        wait_for "the listener" test -s "$work/address"
        address=$(cat "$work/address")
}

# wait_for WHAT COMMAND...: until the command succeeds, at most 10 s.
wait_for() {
        what=$1
        tries=0
        shift
        until "$@"; do
                tries=$((tries + 1))
                if [ "$tries" -gt 1000 ]; then
                        echo "FAILED: waited 10 s for $what"
                        exit 1
                fi
                sleep 0.01
        done
}

# The process holds at least N sockets.
has_sockets() {
        [ "$(find "/proc/$1/fd" -type l -lname 'socket:*' 2>/dev/null | wc -l)" -ge "$2" ]
}

# It is stopped while it does: it cannot come to an end with its request before what is done to it next.
stops_with_sockets() {
        kill -STOP "$1"
        has_sockets "$@" && return
        kill -CONT "$1"
        return 1
}

has_children() {
        [ -n "$(cat "/proc/$1/task/$1/children")" ]
}

# load OPTIONS...: the result is in $out, the exit status in $status.
load() {
        timeout -k 5 60 "$tools/fcgi-load" --connect="$address" --timeout=10 "$@" \
                >"$out" 2>"$work/load-stderr"
        status=$?
}

# field NAME: the number of that name; names are unique in the object apart from pids.
field() {
        sed -n "s/.*\"$1\":\([0-9][0-9]*\).*/\1/p" "$out"
}

# check NAME CONDITION...: the condition is a test(1) expression.
check() {
        name=$1
        shift
        if [ "$@" ]; then
                passed=$((passed + 1))
                echo "ok: $name"
        else
                failed=$((failed + 1))
                echo "FAILED: $name: [ $* ]: exit status $status"
                cat "$out" "$work/load-stderr" "$work/stderr"
        fi
}

skip() {
        skipped=$((skipped + 1))
        echo "skipped: $1: $2"
}

# expect_good NAME N: all N requests went well.
expect_good() {
        check "$1" "$status:$(field started):$(field ok):$(field failed)" = "0:$2:$2:0"
}

# expect_kind NAME KIND N: all N requests failed, and in that way.
expect_kind() {
        check "$1" "$status:$(field started):$(field ok):$(field failed):$(field "$2")" = "1:$3:0:$3:$3"
}

# The whole contract against one echo program, which has been started.
contract() {
        load --requests=200 --clients=4
        expect_good "$1: empty bodies" 200
        load --requests=40 --clients=4 --body=70001 --expect-body=100003
        expect_good "$1: large bodies both ways" 40
        load --requests=3 --body=1000 --split=1
        expect_good "$1: request written byte by byte" 3
        load --requests=4 --query=status=404 --expect-status=404 --expect-body=17
        expect_good "$1: status" 4
        load --requests=4 --query=status=404
        expect_kind "$1: unexpected status" wrong_status 4
        load --requests=2 --clients=2 --query='sleep=30&burn=5&env=PATH&stderr=said+so'
        expect_good "$1: sleep, burn, env, stderr" 2
        check "$1: sleep is slept" "$(field p50)" -ge 30000
}

run_echo() {
        name=$1
        shift
        serve --unix="$sock" "$@"
        contract "$name"
        stop_servers
}

check_echo_programs() {
        run_echo misbehave "$tools/misbehave" serve
        for program in fcgi-echo go-echo; do
                if [ -x "$tools/$program" ]; then
                        run_echo "$program" "$tools/$program"
                        [ "$program" != fcgi-echo ] || run_echo "$program --graceful" "$tools/$program" --graceful
                else
                        skip "$program" "not built"
                fi
        done
        if perl -MFCGI -e 1 2>/dev/null; then
                run_echo echo.pl perl "$tools/echo.pl"
        else
                skip echo.pl "no Perl module FCGI"
        fi
}

# Programs that need SCRIPT_FILENAME.
check_scripts() {
        if command -v php-cgi >/dev/null; then
                serve --unix="$sock" env PHP_FCGI_MAX_REQUESTS=0 php-cgi
                load --requests=100 --param=SCRIPT_FILENAME="$tools/echo.php" --body=5000 --expect-body=5000
                expect_good echo.php 100
                stop_servers
        else
                skip echo.php "no php-cgi"
        fi
        if command -v fcgiwrap >/dev/null; then
                serve --unix="$sock" fcgiwrap
                load --requests=10 --param=SCRIPT_FILENAME="$tools/echo.cgi" --body=5000 --expect-body=5000
                expect_good echo.cgi 10
                stop_servers
        else
                skip echo.cgi "no fcgiwrap"
        fi
}

check_families() {
        for option in --tcp4=0 --tcp6=0 --unix=@fcgi-pool-selftest-$$; do
                if [ "$option" = --tcp6=0 ] && ! grep -q '^0*1 ' /proc/net/if_inet6 2>/dev/null; then
                        skip "listener $option" "no IPv6 on the loopback device"
                        continue
                fi
                serve "$option" "$tools/misbehave" serve
                load --requests=500 --clients=8 --body=100 --expect-body=100
                expect_good "listener $option" 500
                stop_servers
        done
        if [ -x "$tools/fcgi-echo" ]; then
                serve --tcp4=0 "$tools/fcgi-echo"
                load --requests=500 --keep-conn --body=10 --expect-body=10
                expect_good "fcgi-echo: one kept connection" 500
                stop_servers
                serve --tcp4=0 "$tools/fcgi-echo" --graceful
                load --requests=500 --keep-conn --body=10 --expect-body=10
                expect_good "fcgi-echo --graceful: one kept connection" 500
                stop_servers
        fi
        if [ -x "$tools/go-echo" ]; then
                serve --unix="$sock" "$tools/go-echo"
                load --requests=500 --clients=8 --keep-conn --body=70000 --expect-body=70000
                expect_good "go-echo: kept connections" 500
                stop_servers
        fi
}

check_kinds() {
        for pair in body:wrong_body status:wrong_status short:wrong_body eof:eof id:protocol record:protocol end:protocol; do
                serve --unix="$sock" "$tools/misbehave" wrong "${pair%:*}"
                load --requests=10 --clients=2 --expect-body=1000
                expect_kind "mistake: ${pair%:*}" "${pair#*:}" 10
                stop_servers
        done

        serve --unix="$sock" "$tools/misbehave" wrong dribble
        load --requests=10 --clients=2 --body=3000 --expect-body=3000
        expect_good "odd records, byte by byte" 10
        stop_servers

        serve --unix="$sock" "$tools/misbehave" never-ready
        load --requests=2 --clients=2 --timeout=0.2
        expect_kind "no answer" timeout 2
        stop_servers

        load --requests=2
        expect_kind "no listener" refused 2
}

check_full_backlog() {
        rm -f "$work/address"
        "$tools/listen-exec" --backlog=1 --unix="$sock" --inherit --report="$work/address" -- \
                "$tools/misbehave" late 300 2>"$work/stderr" &
        servers=$!
        wait_for "the listener" test -s "$work/address"
        address=$(cat "$work/address")
        load --requests=50 --clients=50
        expect_good "full backlog is waited for" 50
        check "full backlog is counted" "$(field backlog_waits)" -gt 0
        stop_servers
}

# One of two workers on the same socket is killed while each holds a request: exactly one request is lost.
check_kill() {
        serve --unix="$sock" "$tools/misbehave" fork 1
        wait_for "a second worker" has_children "$started"
        child=$(tr -d ' ' <"/proc/$started/task/$started/children")
        timeout 60 "$tools/fcgi-load" --connect="$address" --clients=2 --requests=8 --query=sleep=300 \
                >"$out" &
        client=$!
        wait_for "a request in the second worker" stops_with_sockets "$child" 2
        kill -KILL "$child"
        wait "$client"
        status=$?
        check "killed worker: one request lost, the rest answered" \
                "$status:$(field started):$(field ok):$(field failed)" = "1:8:7:1"
        check "killed worker: seen as eof or reset" "$(($(field eof) + $(field reset)))" -eq 1
        stop_servers
}

# SIGTERM to the client: the requests in flight are finished.
check_client_stop() {
        serve --unix="$sock" "$tools/misbehave" threads 2
        "$tools/fcgi-load" --connect="$address" --clients=2 --duration=60 --query=sleep=50 >"$out" &
        client=$!
        wait_for "requests in both threads" has_sockets "$started" 3
        kill -TERM "$client"
        wait "$client"
        status=$?
        check "stopped client finishes what it started" \
                "$status:$(field failed):$(field ok)" = "0:0:$(field started)"
        stop_servers
}

check_go_term() {
        [ -x "$tools/go-echo" ] || return
        serve --unix="$sock" "$tools/go-echo"
        "$tools/fcgi-load" --connect="$address" --clients=4 --requests=4 --query=sleep=3000 >"$out" &
        client=$!
        wait_for "four requests in go-echo" has_sockets "$started" 5
        kill -TERM "$started"
        wait "$client"
        status=$?
        expect_good "go-echo: SIGTERM loses nothing" 4
        wait "$started"
        status=$?
        check "go-echo: SIGTERM ends it" "$status" -eq 0
        stop_servers
}

check_gin() {
        if ! [ -x "$tools/gin-echo" ] || ! command -v curl >/dev/null; then
                skip gin-echo "not built, or no curl"
                return
        fi
        rm -f "$work/address"
        "$tools/listen-exec" --tcp4=0 --name=http --report="$work/address" -- "$tools/gin-echo" \
                2>"$work/stderr" &
        servers=$!
        wait_for "the listener" test -s "$work/address"
        address=$(cat "$work/address")
        curl -s --max-time 10 "http://$address/?size=20&sleep=3000" >"$out" &
        client=$!
        # shellcheck disable=SC2086
        wait_for "a request in gin-echo" has_sockets $servers 2
        # shellcheck disable=SC2086
        kill -TERM $servers
        wait "$client"
        status=$?
        check "gin-echo: SIGTERM loses nothing" "$status:$(tail -c 4 "$out")" = 0:0000
        # shellcheck disable=SC2086
        wait $servers
        status=$?
        check "gin-echo: SIGTERM ends it" "$status" -eq 0
        servers=
}

check_http_load() {
        if ! [ -x "$tools/gin-echo" ]; then
                skip http-load "no gin-echo"
                return
        fi
        rm -f "$work/address"
        "$tools/listen-exec" --tcp4=0 --name=http --report="$work/address" -- "$tools/gin-echo" -naive \
                2>"$work/stderr" &
        servers=$!
        wait_for "the listener" test -s "$work/address"
        address=$(cat "$work/address")
        http_load --duration=0.3 --body=1000 --method=POST
        check "http-load: all is well" "$status:$(field failed):$(field started)" = "0:0:$(field ok)"
        check "http-load: there was something" "$(field ok)" -gt 0
        http_load --duration=0.3 --query=status=502
        check "http-load: wrong status" "$status:$(field ok):$(field failed)" = "1:0:$(field wrong_status)"
        http_load --duration=0.3 --query=size=1
        check "http-load: wrong body" "$status:$(field ok):$(field failed)" = "1:0:$(field wrong_body)"
        http_load --duration=0.3 --clients=1 --query=exit=0
        check "http-load: the server ends" "$status:$(field ok):$(field eof)" = 1:0:1
        wait "$servers"
        servers=
        http_load --duration=0.3
        check "http-load: nobody listens" "$status:$(field ok):$(field failed)" = "1:0:$(field refused)"
        check "http-load: somebody asked" "$(field refused)" -gt 0
}

http_load() {
        timeout -k 5 60 "$tools/http-load" --connect="$address" --clients=4 --timeout=10 "$@" \
                >"$out" 2>"$work/load-stderr"
        status=$?
}

check_surroundings() {
        serve --unix="$sock" "$tools/misbehave" fds
        load --print
        check "fds: the listener and nothing above stderr but the connection" \
                "$(grep -c '^fd ' "$out"):$(grep -c '^fd [0-9]* .* connection$' "$out")" = 4:1
        stop_servers
}

check_bench() {
        status=0
        "$tools/fork-exec-bench" --listen="$sock" --rounds=20 -- "$tools/misbehave" serve \
                >"$out" || status=$?
        check "fork-exec-bench" "$status:$(field rounds)" = 0:20
        if ! command -v multiwatch >/dev/null; then
                skip "fork-exec-bench --watch" "no multiwatch"
                return
        fi
        serve --unix="$sock" multiwatch -f 2 -r 1000000 -- "$tools/misbehave" serve
        "$tools/fork-exec-bench" --watch="$started" --rounds=20 --settle=5 >"$out" || status=$?
        check "fork-exec-bench --watch" "$status:$(field rounds)" = 0:20
        kill -TERM "$started"
        wait "$started"
        servers=
}

check_echo_programs
check_scripts
check_families
check_kinds
check_full_backlog
check_kill
check_client_stop
check_go_term
check_gin
check_http_load
check_surroundings
check_bench
echo "passed $passed, failed $failed, skipped $skipped"
[ "$failed" -eq 0 ]
