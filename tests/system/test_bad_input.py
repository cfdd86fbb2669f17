# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Bad input: one clear line, the documented exit status, and a socket that stays open for those who wait."""

import os
import pathlib
import re
import shutil
import socket

import pytest

import lib

STATUS_INVALID, STATUS_PERMISSION, STATUS_COMMAND, STATUS_CONFIGURED = 2, 4, 5, 6
STATUS_UNAVAILABLE = 69

SCRATCH = pathlib.Path('/run/fcgi-pool-test-bad-input')

# What the manual page promises of each option: a value that is none, and what the line must say was expected.
BAD_VALUES = {
    'workers': (['--workers=0', '--workers=six', '--workers=-1', '--workers=16385', '--workers=4x', '--workers=5:3', '--workers=0:0',
                 '--workers=1:'],
                'a number from 1 to 16384'),
    'name': (['--name=my pool', '--name=' + 65 * 'x'], '1 to 64 of the characters'),
    'ready': (['--ready=soon', '--ready=0'], 'auto, exec, notify or a time span'),
    'stop-signal': (['--stop-signal=SIGWHAT', '--stop-signal=0', '--stop-signal=CHLD', '--stop-signal=65'], 'a signal'),
    'stop-timeout': (['--stop-timeout=5parsecs', '--stop-timeout=-1s', '--stop-timeout='], 'a time span'),
    'start-timeout': (['--start-timeout=0', '--start-timeout=1h 3x'], 'a time span above 0'),
    'crash-budget': (['--crash-budget=10', '--crash-budget=x/10s', '--crash-budget=10/0'], 'N/SPAN'),
    'listener': (['--listener=maybe'], 'blocking or nonblocking'),
    'worker-capabilities': (['--worker-capabilities=CAP_FLY'], 'capabilities(7)'),
    'retire': (['--retire=later'], 'idle or signal'),
    'surge': (['--surge=0', '--surge=101%'], 'a number from 1'),
    'probe': (['--probe=ping'], 'a path that begins with /'),
    'max-lifetime': (['--max-lifetime=old'], 'a time span above 0'),
    'max-memory': (['--max-memory=12X', '--max-memory=0', '--max-memory=-1M'], 'a size above 0'),
    'request-timeout': (['--request-timeout=0'], 'a time span above 0'),
}


@pytest.fixture
def scratch():
    """A directory that every user may enter."""
    SCRATCH.mkdir(mode=0o755)
    yield SCRATCH
    shutil.rmtree(SCRATCH)


def good_command():
    return [lib.tool('fcgi-echo')]


def complaints(unit, cursor, **fields):
    """Lines of the helper itself that say error or worse."""
    return [entry for entry in lib.journal(unit, cursor, SYSLOG_IDENTIFIER='fcgi-pool', **fields)
            if int(entry['PRIORITY']) <= 3]


def helper_lines(unit, cursor):
    return lib.messages(unit, cursor, SYSLOG_IDENTIFIER='fcgi-pool')


def write_file(path, text, mode):
    path.write_text(text)
    path.chmod(mode)
    return str(path)


class BadPool(lib.Pool):
    """A pool that cannot start as it is; its socket is open."""

    def __init__(self, command=None, options=(), **others):
        if 'exec_start' in others:
            # Whatever it is that executes the helper.
            others['service'] = 'SyslogIdentifier=fcgi-pool'
        super().__init__('bad', good_command() if command is None else command, options, start='socket', **others)

    def repair(self, **changes):
        self.command, self.options, self.exec_start, self.user = good_command(), [], None, 'www-data'
        self.extra_service = None
        for name, value in changes.items():
            setattr(self, name, value)
        self.write_units()


def refused(pool, status, *words, only_line=True, repair=None):
    """The start fails as documented, the socket stays open, and who waits there is served after the repair."""
    cursor = lib.journal_cursor()
    assert pool.start(check=False).returncode != 0
    assert pool.show_result() == ('exit-code', str(status))

    # When it has lived for moments only, journald may look at its datagrams too late to tell the unit; a line on stderr
    # has it for sure. There is no other pool here.
    lines = complaints(pool.service if only_line else None, cursor)
    assert len(lines) == 1, [line['MESSAGE'] for line in lines]
    for word in words:
        assert word in lines[0]['MESSAGE']
    if only_line:
        # Nothing was started, so there is nothing else to tell.
        assert helper_lines(pool.service, cursor) == [lines[0]['MESSAGE']]
    assert pool.processes() == []
    wait_is_served(pool, repair or pool.repair)
    return lines[0]


def wait_is_served(pool, repair):
    """Clients that come while nothing works wait, through failed start after failed start, and are answered."""
    assert (lib.show(pool.socket, 'ActiveState'), lib.show(pool.socket, 'SubState')) == ('active', 'listening')
    cursor = lib.journal_cursor()
    with lib.BackgroundLoad(pool, clients=3, requests=6, timeout=60) as load:
        # Each connection makes systemd try again. A start that fails late is one of many tries, too.
        lib.wait_journal(since=cursor, unit=pool.service, count=2, SYSLOG_IDENTIFIER='fcgi-pool', PRIORITY=3, timeout=30)
        assert lib.show(pool.socket, 'ActiveState') == 'active'
        repair()
        result = load.finish()
    assert (result['ok'], result['failed']) == (6, 0), result
    pool.wait_show('ActiveState', 'active')


def show_result(pool):
    properties = lib.show_all(pool.service, 'Result', 'ExecMainStatus')
    return properties['Result'], properties['ExecMainStatus']


BadPool.show_result = show_result


# --- the command line ---

def test_unknown_option():
    """A misspelt option is refused with status 2, by name, with the nearest option that exists."""
    with BadPool(options=['--worker=2']) as pool:
        refused(pool, STATUS_INVALID, '--worker=2', 'unknown option', 'did you mean --workers?')


@pytest.mark.parametrize('option', BAD_VALUES)
def test_bad_value(option):
    """A bad number, span, size, signal or word is refused with status 2; the line has the option and what was expected."""
    values, expected = BAD_VALUES[option]
    with BadPool(options=[values[0]]) as pool:
        refused(pool, STATUS_INVALID, f'{values[0]}: ', f'expected {expected}' if expected[0] != 'c' else expected)


@pytest.mark.parametrize('value', [value for values, _ in BAD_VALUES.values() for value in values[1:]])
def test_other_bad_values(helper, value):
    """Every other kind of bad value is refused the same way, by the program itself."""
    name = value[2:].split('=')[0]
    result = lib.run([helper, value, '--', '/bin/true'], check=False)
    assert result.returncode == STATUS_INVALID
    assert result.stdout == '' and len(result.stderr.splitlines()) == 1
    assert f'--{name}=' in result.stderr and BAD_VALUES[name][1] in result.stderr


@pytest.mark.parametrize('command', [None, []], ids=['no dashes', 'dashes'])
def test_no_command(command):
    """No command is refused with status 2 and the usage."""
    with BadPool() as pool:
        pool.command = command
        pool.write_units()
        refused(pool, STATUS_INVALID, 'no command given', 'expected fcgi-pool [OPTIONS...] -- COMMAND')


class Template(lib.TemplatePool):
    show_result = show_result

    def write_env(self):
        if self.command:
            super().write_env()

    def repair(self):
        directory = pathlib.Path('/usr/local/lib/fcgi-pool-test-bad-input')
        directory.mkdir(parents=True, exist_ok=True)
        # Where the sandbox of the template does not hide it.
        self.command = [shutil.copy(lib.tool('fcgi-echo'), directory)]
        self.write_env()


def test_template_without_file():
    """An instance of the template without its file is refused with status 2, and the line says which variable is empty."""
    with Template('bad', None, start='socket', service='Restart=no') as pool:
        try:
            refused(pool, STATUS_INVALID, 'no command given', 'FCGI_POOL_COMMAND')
        finally:
            shutil.rmtree('/usr/local/lib/fcgi-pool-test-bad-input', ignore_errors=True)


# --- the command ---

@pytest.mark.parametrize('command, words', [
    ('/nonexistent/application', ['no such file']),
    ('no-such-application', ['not found in PATH', '/usr/bin']),
    ('/usr/bin', ['is a directory']),
    ('/dev/null', ['not a regular file']),
])
def test_missing_command(command, words):
    """A command that does not exist or is no file is refused with status 5, by name."""
    with BadPool([command]) as pool:
        refused(pool, STATUS_COMMAND, command, 'expected an executable file', *words)


def test_command_not_executable(scratch):
    """A file without the right to execute it is refused with status 5."""
    path = write_file(scratch / 'application', '#!/bin/sh\n', 0o644)
    with BadPool([path]) as pool:
        refused(pool, STATUS_COMMAND, path, 'not executable', 'expected an executable file')


def test_command_of_another_user(scratch):
    """A file that only root may execute is refused with status 5: it is the unit's user that counts."""
    path = write_file(scratch / 'application', '#!/bin/sh\n', 0o700)
    with BadPool([path]) as pool:
        refused(pool, STATUS_COMMAND, path, 'not executable')


@pytest.mark.parametrize('text, words', [('#!/nonexistent/interpreter\n', 'No such file or directory'),
                                         ('no program\n', 'Exec format error')], ids=['interpreter', 'format'])
def test_command_that_exec_refuses(scratch, text, words):
    """What only execve(2) can find out ends the start at once with status 5, the command and the kernel's reason."""
    path = write_file(scratch / 'application', text, 0o755)
    with BadPool([path], ['--workers=3']) as pool:
        cursor = lib.journal_cursor()
        refused(pool, STATUS_COMMAND, path, 'could not execute', words, only_line=False)
        # At once: nobody waits for a pause to try again what cannot succeed.
        first = lib.journal(None, cursor, WORKER_SLOT=0, WORKER_STATE='starting')[0]
        assert len(lib.journal(None, cursor, _PID=first['_PID'], WORKER_SLOT=0, WORKER_STATE='starting')) == 1


@pytest.mark.parametrize('arguments, words', [(['exit', '3'], 'exited with status 3'), (['exit', '0'], 'exited with status 0'),
                                              (['crash', 'abort'], 'was killed by SIGABRT')])
def test_command_that_ends_at_once(arguments, words):
    """A command that exits at once, with whatever status, ends the start after three attempts with status 69."""
    with BadPool([lib.tool('misbehave'), *arguments], ['--workers=2'], service='LimitCORE=0') as pool:
        line = refused(pool, STATUS_UNAVAILABLE, 'Start failed', words, '3 failures in a row', only_line=False)
        assert re.search(r'worker [01] ', line['MESSAGE'])


def test_command_that_never_gets_ready():
    """A worker that is not ready in time ends the start with status 69, and the line names the option to raise."""
    with BadPool([lib.tool('misbehave'), 'never-ready'], ['--workers=2', '--start-timeout=300ms']) as pool:
        refused(pool, STATUS_UNAVAILABLE, 'Start failed', '--start-timeout=300ms', only_line=False)


# --- the sockets ---

def test_no_listener():
    """A service that is passed no socket is refused with status 6 and told about .socket units."""
    with BadPool(exec_start=f'/usr/bin/env --unset=LISTEN_FDS /usr/bin/fcgi-pool -- {good_command()[0]}') as pool:
        refused(pool, STATUS_CONFIGURED, 'no listener', 'expected at least one listening stream socket', '.socket')


def test_no_socket_unit():
    """A service that has no socket unit at all is refused with status 6."""
    cursor = lib.journal_cursor()
    lib.UNITS_OF_TEST.append('bare.service')
    try:
        lib.run(['systemd-run', '--quiet', '--unit=bare.service', '--property=Type=notify', '--property=User=www-data',
                 '/usr/bin/fcgi-pool', '--', *good_command()], check=False)
        lib.wait_show('bare.service', 'ActiveState', 'failed')
        assert lib.show('bare.service', 'ExecMainStatus') == str(STATUS_CONFIGURED)
        line, = helper_lines('bare.service', cursor)
        assert 'no listener' in line
    finally:
        lib.systemctl('reset-failed', 'bare.service', check=False)


def test_socket_of_another_process():
    """Sockets that LISTEN_PID promises to another process are not taken; the line has both pids."""
    program = f'{lib.tool("listen-exec")} --unix=@bad --listen-pid=1 -- /usr/bin/fcgi-pool -- {good_command()[0]}'
    with BadPool(exec_start=program) as pool:
        refused(pool, STATUS_CONFIGURED, 'no listener', 'LISTEN_PID=1 ')


class Companion:
    """A second socket unit for the same service, for the length of a with block."""

    def __init__(self, pool, name, lines):
        self.pool, self.name = pool, name
        self.text = f'[Socket]\nService={pool.service}\n{lib.as_lines(lines)}'

    def __enter__(self):
        self.pool.write(lib.SYSTEMD_UNITS / self.name, self.text)
        lib.daemon_reload()
        lib.systemctl('start', self.name)
        return self

    def stop(self):
        lib.systemctl('stop', self.name)

    def __exit__(self, *_):
        lib.systemctl('stop', self.name, check=False)
        lib.systemctl('reset-failed', self.name, check=False)


@pytest.mark.parametrize('lines, word', [('ListenDatagram=/run/bad-2.sock', 'a datagram socket'),
                                         ('ListenSequentialPacket=/run/bad-2.sock', 'a sequential-packet socket'),
                                         ('ListenNetlink=kobject-uevent 1', 'socket')], ids=['datagram', 'packets', 'netlink'])
def test_socket_of_wrong_type(lines, word):
    """A socket that is no stream is refused with status 6; the line has its number, its name and what was expected."""
    with BadPool() as pool, Companion(pool, 'bad-second.socket', [lines, 'FileDescriptorName=odd', 'RemoveOnStop=yes']) as second:
        line = refused(pool, STATUS_CONFIGURED, word, 'expected a listening stream socket', 'ListenStream=', repair=second.stop)
        assert re.match(r'fd [34] \(odd\): ', line['MESSAGE'])


def test_connected_socket():
    """A connection in place of a listener is refused with status 6 and told about Accept=no."""
    program = f'{lib.tool("listen-exec")} --connected --name=talk -- /usr/bin/fcgi-pool -- {good_command()[0]}'
    with BadPool(exec_start=program) as pool:
        refused(pool, STATUS_CONFIGURED, 'fd 3 (talk): ', 'a connected socket', 'expected a listening one', 'Accept=no')


def test_accept_yes(cursor):
    """A socket unit with Accept=yes gets the same answer, and goes on listening."""
    files = {'each.socket': '[Socket]\nListenStream=/run/each.sock\nAccept=yes\nRemoveOnStop=yes\n',
             'each@.service': f'[Service]\nType=notify\nUser=www-data\nExecStart=/usr/bin/fcgi-pool -- {good_command()[0]}\n'}
    lib.UNITS_OF_TEST.append('each.socket')
    try:
        for name, text in files.items():
            (lib.SYSTEMD_UNITS / name).write_text(text)
        lib.daemon_reload()
        lib.systemctl('start', 'each.socket')
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect('/run/each.sock')
                assert client.recv(1) == b''
        entries = lib.wait_journal('a connected socket was passed, .*Accept=no', cursor, count=2, PRIORITY=3,
                                   SYSLOG_IDENTIFIER='fcgi-pool')
        for entry in entries:
            # PID 1 has seen the status.
            lib.wait_journal(since=cursor, UNIT=entry['_SYSTEMD_UNIT'], EXIT_CODE='exited', EXIT_STATUS=STATUS_CONFIGURED)
        assert lib.show('each.socket', 'ActiveState') == 'active'
    finally:
        lib.systemctl('stop', 'each.socket', check=False)
        for name in files:
            (lib.SYSTEMD_UNITS / name).unlink(missing_ok=True)
        lib.daemon_reload()
        lib.systemctl('reset-failed', 'each@*.service', 'each.socket', check=False)


def test_fewer_workers_than_listeners():
    """A pool with a listener that no worker would serve is refused with status 2; the line has both numbers."""
    with BadPool(options=['--workers=2'], listen=['/run/bad.sock', '127.0.0.1:9131', '[::1]:9131']) as pool:
        refused(pool, STATUS_INVALID, '--workers=2: ', '3 listeners', repair=lambda: pool.repair(options=['--workers=3']))


# --- the surroundings ---

def test_root():
    """Root is refused with status 4, and the line names the two ways out."""
    with BadPool(user='root') as pool:
        refused(pool, STATUS_PERMISSION, 'root', 'User=', '--allow-root')


def test_capability_not_held():
    """A capability that the unit does not give cannot be promised to workers: status 4, and what to add to the unit."""
    with BadPool(options=['--worker-capabilities=CAP_NET_BIND_SERVICE']) as pool:
        refused(pool, STATUS_PERMISSION, '--worker-capabilities=CAP_NET_BIND_SERVICE', 'AmbientCapabilities=CAP_NET_BIND_SERVICE')


def test_too_few_files():
    """A limit on files that the workers would hit is refused with status 6; the line has both numbers and the setting."""
    with BadPool(options=['--workers=50'], service='LimitNOFILE=100') as pool:
        line = refused(pool, STATUS_CONFIGURED, 'RLIMIT_NOFILE is 100', '50 workers', 'LimitNOFILE=')
        expected = int(re.search(r'at least (\d+)', line['MESSAGE']).group(1))
    # What the line asks for is enough.
    with lib.Pool('bad', good_command(), ['--workers=50'], service=f'LimitNOFILE={expected}') as pool:
        assert pool.status_text == '50/50 workers ready'


def test_control_characters(helper):
    """Control characters and long values in an option cannot forge or flood a line of the journal."""
    result = lib.run([helper, '--workers=1\n<0>forged\x1b[2J' + 5000 * 'x', '--', '/bin/true'], check=False)
    assert result.returncode == STATUS_INVALID
    assert len(result.stderr.splitlines()) == 1 and len(result.stderr) < 600
    assert '\\n<0>forged\\033[2J' in result.stderr and os.linesep not in result.stderr.rstrip('\n')
