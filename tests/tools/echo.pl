#!/usr/bin/perl
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors

# The echo contract (echo-contract.h) with Perl's FCGI module. The parameters of a request go into %request,
# so that %ENV stays the environment of the process.

use strict;
use warnings;
use Compress::Zlib ();
use FCGI;
use POSIX ();
use Time::HiRes qw(clock_gettime clock CLOCK_MONOTONIC sleep);

sub now { return clock_gettime(CLOCK_MONOTONIC) }

sub parameters {
        my %p;
        for (split /&/, shift // '') {
                my ($name, $value) = split /=/, $_, 2;
                next unless defined $value;
                $value =~ tr/+/ /;
                $value =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
                $p{$name} = $value;
        }
        return %p;
}

sub pattern {
        my ($start, $size) = @_;
        my $text = '';
        $text .= sprintf "%015d\n", $start++ while length $text < $size;
        return substr $text, 0, $size;
}

my %request;
my $fcgi = FCGI::Request(\*STDIN, \*STDOUT, \*STDERR, \%request);

while ($fcgi->Accept() >= 0) {
        my ($length, $crc, $chunk) = (0, 0, '');
        while ((my $n = read STDIN, $chunk, 65536) // 0) {
                $length += $n;
                $crc = Compress::Zlib::crc32($chunk, $crc);
        }

        my %p = parameters($request{QUERY_STRING});
        if (my $ms = $p{sleep}) {
                my $until = now() + $ms / 1000;
                while ((my $left = $until - now()) > 0) { sleep $left }
        }
        if (my $ms = $p{burn}) {
                my $until = clock() + $ms / 1000;
                1 while clock() < $until;
        }
        print STDERR "$p{stderr}\n" if defined $p{stderr};
        POSIX::_exit($p{exit}) if defined $p{exit};

        printf "Status: %d %s\r\nContent-Type: text/plain\r\n\r\n",
                $p{status} // 200, defined $p{status} ? 'Asked for' : 'OK';
        printf "pid=%d\nslot=%s generation=%s\nbody-length=%d body-crc=%08x\n",
                $$, $ENV{FCGI_POOL_SLOT} // '-', $ENV{FCGI_POOL_GENERATION} // '-', $length, $crc;
        printf "env-%s=%s\n", $p{env}, $ENV{$p{env}} // '' if defined $p{env};
        print pattern($p{start} // 0, $p{size}) if $p{size};
        $fcgi->Finish();
}
