# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What tests ask PID 1 and the journal by the thousand, without a process for every question.

systemctl and journalctl are what people use, and the tests use them for what they do; but where page tables are slow,
to load one of them takes twenty times as long as the question itself.
"""

import contextlib
import json
import socket

import dbus
import systemd.journal

MANAGER_PATH = '/org/freedesktop/systemd1'
MANAGER = 'org.freedesktop.systemd1.Manager'
TIMEOUT = 60

# Those that `systemctl show` writes as they are: strings, and numbers without a unit.
PLAIN = {'ActiveState', 'ControlGroup', 'ExecMainStatus', 'LoadState', 'MainPID', 'NFileDescriptorStore', 'NRestarts',
         'Result', 'Slice', 'StatusText', 'SubState'}


# --- PID 1 ---

class Unanswered(Exception):
    """PID 1 does not know the unit or the property, or was executing itself anew."""


def _call(path, interface, method, argument):
    """Over the bus: of who connects to PID 1 directly, as systemctl does, libdbus 1.14 may wait for ever, as it sends
    its call right behind the end of the authentication."""
    try:
        return dbus.SystemBus().call_blocking('org.freedesktop.systemd1', path, interface, method, 's', [argument],
                                              timeout=TIMEOUT)
    except dbus.DBusException as error:
        raise Unanswered(error.get_dbus_name(), str(error)) from error


def _unit_path(unit):
    escaped = ''.join(c if c.isascii() and (c.isalpha() or c.isdigit() and i > 0) else f'_{ord(c):02x}'
                      for i, c in enumerate(unit))
    return f'{MANAGER_PATH}/unit/{escaped}'


def properties(unit, names):
    """{name: text} of some of the PLAIN properties, all of one moment."""
    found = _call(_unit_path(unit), 'org.freedesktop.DBus.Properties', 'GetAll', '')
    try:
        return {name: str(found[name]) for name in names}
    except KeyError as error:
        raise Unanswered(f'{unit} has no property {error}') from error


def is_loaded(unit):
    """Whether PID 1 has it in memory: only then does it not read its files when the unit is started."""
    try:
        _call(MANAGER_PATH, MANAGER, 'GetUnit', unit)
    except Unanswered as error:
        return error.args[0] != 'org.freedesktop.systemd1.NoSuchUnit'
    return True


def reset_failed(unit):
    """As `systemctl reset-failed`, of a unit that may not be there."""
    with contextlib.suppress(Unanswered):
        _call(MANAGER_PATH, MANAGER, 'ResetFailedUnit', unit)


# --- the journal ---

def sync_journal():
    """As `journalctl --sync`: what was sent before is there afterwards."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect('/run/systemd/journal/io.systemd.journal')
        connection.sendall(b'{"method":"io.systemd.Journal.Synchronize","parameters":{}}\0')
        reply = b''
        while not reply.endswith(b'\0'):
            data = connection.recv(4096)
            assert data, f'journald has closed the connection after {reply!r}'
            reply += data
    assert 'error' not in json.loads(reply[:-1]), reply


def _text(value):
    """A field as `journalctl --output=json` has it: text; of the monotonic timestamp and boot id, the first."""
    if isinstance(value, tuple):
        value = value[0]
    return value.decode(errors='replace') if isinstance(value, bytes) else str(value)


class _AllText(dict):
    """The converter of every field there may be."""

    def get(self, _name, _default=None):
        return _text


def open_journal():
    """A reader whose entries are dicts of text; of a field that an entry has several times, a list."""
    reader = systemd.journal.Reader()
    reader.converters = _AllText()
    reader.data_threshold = 0
    return reader
