#!/usr/bin/perl
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors

# A FastCGI worker with FCGI.pm (Debian: libfcgi-perl): one request at a time, from the listener on fd 0.
#
# FCGI.pm is libfcgi, whose SIGTERM handler cuts short a request body or a response that is under way. So the signal is held
# back while there is a request; it then ends the process between two requests.

use strict;
use warnings;
use FCGI;
use POSIX qw(SIGTERM SIG_BLOCK SIG_UNBLOCK);

my $sigterm = POSIX::SigSet->new(SIGTERM);
my %env;
my $request = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%env);

while ($request->Accept() >= 0) {
        POSIX::sigprocmask(SIG_BLOCK, $sigterm);
        my ($msec) = ($env{QUERY_STRING} // '') =~ /(?:^|&)sleep=(\d{1,5})/;
        select(undef, undef, undef, $msec / 1000) if $msec;
        print "Content-Type: text/plain\r\n\r\nhello from pid $$\n";
        $request->Finish();
        POSIX::sigprocmask(SIG_UNBLOCK, $sigterm);
}
