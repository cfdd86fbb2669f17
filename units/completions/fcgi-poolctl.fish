# SPDX-FileCopyrightText: fcgi-pool contributors
# SPDX-License-Identifier: LGPL-2.1-or-later
# fish completion for fcgi-poolctl(1)

function __fcgi_poolctl_units
    fcgi-poolctl --no-legend list 2>/dev/null | string replace -r '^\S+\s+(\S+).*' '$1'
end

set -l verbs status list reload reexec set-workers recycle hold resume check metrics probe
complete -c fcgi-poolctl -f
complete -c fcgi-poolctl -s h -l help -d 'Show a summary'
complete -c fcgi-poolctl -l version -d 'Show the version'
complete -c fcgi-poolctl -l no-legend -d 'Print no headers and sums'
complete -c fcgi-poolctl -l no-pager -d 'Do not page'
complete -c fcgi-poolctl -l json -x -a 'pretty short off' -d 'Print JSON'
complete -c fcgi-poolctl -n "not __fish_seen_subcommand_from $verbs" -a "$verbs"
complete -c fcgi-poolctl -n '__fish_seen_subcommand_from status reload reexec set-workers recycle hold resume check metrics' -a '(__fcgi_poolctl_units)'
complete -c fcgi-poolctl -n '__fish_seen_subcommand_from recycle' -a all
complete -c fcgi-poolctl -n '__fish_seen_subcommand_from probe' -F
