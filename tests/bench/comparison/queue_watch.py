# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""How many clients wait at a UNIX listener, asked every millisecond, and when nobody does any more."""

import itertools
import pathlib
import re
import socket
import struct
import threading
import time

# A client that comes back may find its worker still at the end of its last request: less than BLINK seconds on end do
# not count. Empty is a queue that stays so for STAY seconds.
BLINK, STAY = 0.05, 0.5

# sock_diag(7)
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 20, 1
UDIAG_SHOW_RQLEN, UNIX_DIAG_RQLEN = 1 << 4, 4
ATTRIBUTES = 32  # behind struct nlmsghdr and struct unix_diag_msg


class QueueWatch(threading.Thread):
    """with QueueWatch(path) as watch: ...; then watch.samples are (monotonic time, depth), one per millisecond."""

    def __init__(self, path):
        super().__init__(daemon=True)
        # The listener has flag __SO_ACCEPTCON; its connections have the same path.
        inode = int(re.search(rf' 00010000 \d+ \d+ +(\d+) {re.escape(path)}$',
                              pathlib.Path('/proc/net/unix').read_text(), re.MULTILINE).group(1))
        self.request = struct.pack('=IHHII' 'BBHIIIII', 40, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0, socket.AF_UNIX,
                                   0, 0, 0, inode, UDIAG_SHOW_RQLEN, 0xffffffff, 0xffffffff)
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self.samples, self.over = [], threading.Event()

    def depth(self):
        self.socket.send(self.request)
        answer = self.socket.recv(4096)
        assert struct.unpack_from('=H', answer, 4)[0] == SOCK_DIAG_BY_FAMILY, 'the listener has gone'
        offset = ATTRIBUTES
        while True:
            length, kind = struct.unpack_from('=HH', answer, offset)
            if kind == UNIX_DIAG_RQLEN:
                return struct.unpack_from('=I', answer, offset + 4)[0]
            offset += (length + 3) & ~3

    def run(self):
        while not self.over.is_set():
            self.samples.append((time.monotonic(), self.depth()))
            time.sleep(0.001)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.socket.close()


def seconds_until_empty(samples):
    """From the first sample, which is 0, until the queue was empty and stayed so; None: it never was."""
    begin = empty = samples[0][0]
    turns = [next(group)[0] for _, group in itertools.groupby(samples, lambda sample: sample[1] > 0)]
    for since, until in itertools.zip_longest(turns[1::2], turns[2::2], fillvalue=samples[-1][0]):
        if since - empty >= STAY:
            break
        # The first time is the burst itself, however short.
        if empty == begin or until - since >= BLINK:
            empty = until
    return None if empty == samples[-1][0] else empty - begin
