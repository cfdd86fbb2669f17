# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""fcgi-poolctl check finds each setting that breaks a promise, and finds nothing where all is well."""

import json
import os
import pathlib
import re
import shutil

import pytest

import lib

EXAMPLES = pathlib.Path('/usr/share/doc/fcgi-pool/examples')
SOURCE = pathlib.Path(__file__).resolve().parents[2]
STATUS_FINDINGS, STATUS_INVALID, STATUS_NOT_INSTALLED, STATUS_NOT_CONFIGURED = 1, 2, 5, 6
STATUS_UNAVAILABLE = 69


def check(*units, expected=None, user=None):
    """What it prints as JSON."""
    prefix = ['setpriv', f'--reuid={user}', '--clear-groups'] if user else []
    result = lib.run([*prefix, 'fcgi-poolctl', 'check', '--json=short', *units], check=False)
    findings = json.loads(result.stdout)
    assert result.returncode == (bool(findings) if expected is None else expected), result.stderr
    return findings


def summary(findings):
    """(severity, setting=value) of each."""
    return [(finding['severity'], f'{finding["setting"]}={finding["value"]}') for finding in findings]


class Checked(lib.Pool):
    """Units without a finding, and what is changed in them; they are not started."""

    def __init__(self, name='checked', options=(), *, service=None, socket=None, unit=None, restart='always', **others):
        super().__init__(name, ['/bin/true'], ['--workers=6', *options], start=None, restart=restart, unit=unit,
                         service=['RestartSec=1s', lib.as_lines(service)],
                         socket=['RemoveOnStop=yes', lib.as_lines(socket)], **others)

    def socket_text(self):
        return super().socket_text().replace('[Socket]', 'StartLimitIntervalSec=0\n[Socket]')

    def check(self, **options):
        return check(self.service, **options)


def test_examples_and_template_are_clean():
    """The units that are shipped have no finding."""
    files = [*EXAMPLES.glob('*.service'), *EXAMPLES.glob('*.socket')]
    services = [path.name for path in files if path.suffix == '.service']
    assert len(services) == 6 and len(files) == 12
    try:
        for path in files:
            shutil.copy(path, lib.SYSTEMD_UNITS)
        lib.daemon_reload()
        assert check('fcgi-pool@blog.service', *services) == []
    finally:
        for path in files:
            (lib.SYSTEMD_UNITS / path.name).unlink(missing_ok=True)
        lib.daemon_reload()


def test_base_is_clean():
    """What the cases below change has no finding before."""
    with Checked() as pool:
        assert pool.check() == []


# Which part of the units, the lines, and what is found: severity and setting=value.
FAULT, REMARK = 'fault', 'remark'
CASES = [
    ('service', 'Type=exec', (FAULT, 'Type=exec')),
    ('service', 'ExitType=cgroup', (FAULT, 'ExitType=cgroup')),
    ('service', 'NotifyAccess=all', (REMARK, 'NotifyAccess=all')),
    ('service', 'KillMode=control-group', (FAULT, 'KillMode=control-group')),
    ('service', 'KillMode=mixed', (FAULT, 'KillMode=mixed')),
    ('service', 'KillMode=none', (FAULT, 'KillMode=none')),
    ('service', 'KillSignal=SIGQUIT', (FAULT, 'KillSignal=SIGQUIT')),
    ('service', 'RestartKillSignal=SIGTERM', (FAULT, 'RestartKillSignal=SIGTERM')),
    ('service', 'RestartKillSignal=SIGHUP', (FAULT, 'RestartKillSignal=SIGHUP')),
    ('service', 'SendSIGKILL=no', (FAULT, 'SendSIGKILL=no')),
    ('service', 'Restart=no', (FAULT, 'Restart=no')),
    ('service', 'Restart=on-abnormal', (FAULT, 'Restart=on-abnormal')),
    ('service', 'Restart=on-failure', (REMARK, 'Restart=on-failure')),
    ('service', 'RestartSec=0', (FAULT, 'RestartSec=0')),
    ('service', 'RestartSec=1min', (REMARK, 'RestartSec=1min')),
    ('service', 'RestartPreventExitStatus=255 69', (FAULT, 'RestartPreventExitStatus=69')),
    ('service', 'RuntimeMaxSec=1d', (FAULT, 'RuntimeMaxSec=1d')),
    ('service', 'SuccessExitStatus=', (REMARK, 'SuccessExitStatus=')),
    ('service', 'TimeoutStartFailureMode=terminate', (REMARK, 'TimeoutStartFailureMode=terminate')),
    ('service', 'OOMPolicy=stop', (FAULT, 'OOMPolicy=stop')),
    ('service', 'Delegate=no', (FAULT, 'Delegate=no')),
    ('service', 'ProtectControlGroups=yes', (FAULT, 'ProtectControlGroups=yes')),
    ('service', 'FileDescriptorStoreMax=0', (FAULT, 'FileDescriptorStoreMax=0')),
    ('service', 'FileDescriptorStoreMax=20', (REMARK, 'FileDescriptorStoreMax=20')),
    ('service', 'LimitNOFILE=100', (FAULT, 'LimitNOFILE=100')),
    ('service', 'TasksMax=8', (FAULT, 'TasksMax=8')),
    ('service', 'User=', (FAULT, 'User=')),
    ('service', 'User=root', (FAULT, 'User=root')),
    ('service', 'DynamicUser=yes', (FAULT, 'DynamicUser=yes')),
    ('service', 'RemoveIPC=yes', (FAULT, 'RemoveIPC=yes')),
    ('service', 'PrivateTmp=yes', (FAULT, 'PrivateTmp=yes')),
    ('service', 'PrivateUsers=yes', (FAULT, 'PrivateUsers=')),
    ('service', 'PrivateNetwork=yes', (REMARK, 'PrivateNetwork=yes')),
    ('service', 'PrivateIPC=yes', (REMARK, 'PrivateIPC=yes')),
    ('service', 'RuntimeDirectory=', (FAULT, 'RuntimeDirectory=')),
    ('service', 'ExecReload=', (REMARK, 'ExecReload=')),
    ('service', 'ExecReload=\nExecReload=/bin/kill -HUP $MAINPID', (REMARK, 'ExecReload=')),
    ('service', 'RuntimeDirectoryPreserve=no', (FAULT, 'RuntimeDirectoryPreserve=no')),
    ('service', 'SystemCallFilter=@system-service\nSystemCallFilter=~pidfd_getfd', (FAULT, 'SystemCallFilter=~pidfd_getfd')),
    ('service', 'SystemCallFilter=~@debug', (FAULT, 'SystemCallFilter=~pidfd_getfd')),
    ('service', 'RestrictAddressFamilies=AF_UNIX AF_INET', (REMARK, 'RestrictAddressFamilies=~AF_NETLINK')),
    ('service', 'RestrictAddressFamilies=~AF_UNIX', (FAULT, 'RestrictAddressFamilies=~AF_UNIX')),
    ('unit', 'StartLimitIntervalSec=1min', (FAULT, 'StartLimitIntervalSec=1min')),
    ('unit', 'Requires=', (FAULT, 'Requires=')),
    ('socket', 'FlushPending=yes', (FAULT, 'FlushPending=yes')),
    ('socket', 'RemoveOnStop=no', (REMARK, 'RemoveOnStop=no')),
    ('socket', 'TriggerLimitIntervalSec=2s', (FAULT, 'TriggerLimitIntervalSec=2s')),
    ('socket', 'ListenDatagram=/run/checked.dgram', (FAULT, 'ListenDatagram=/run/checked.dgram')),
    ('socket', 'ListenSequentialPacket=/run/checked.seq', (FAULT, 'ListenSequentialPacket=/run/checked.seq')),
    ('socket', 'ListenNetlink=kobject-uevent 1', (FAULT, 'ListenNetlink=kobject-uevent 1')),
    ('socket', 'ListenFIFO=/run/checked.fifo', (REMARK, 'ListenFIFO=/run/checked.fifo')),
    ('socket', 'ListenStream=vsock:2:1234', (FAULT, 'ListenStream=vsock:2:1234')),
    ('socket', 'ListenStream=/run/checked/checked.sock', (FAULT, 'ListenStream=/run/checked/checked.sock')),
    ('socket', '[Unit]\nStartLimitIntervalSec=10s', (REMARK, 'StartLimitIntervalSec=10s')),
]
# What an older systemd does not know it ignores, and so there is nothing to be found.
CASES_254 = [
    ('service', 'FileDescriptorStorePreserve=no', (FAULT, 'FileDescriptorStorePreserve=no')),
    ('service', 'FileDescriptorStorePreserve=yes', (REMARK, 'FileDescriptorStorePreserve=yes')),
    ('service', 'Type=notify-reload', (FAULT, 'Type=notify-reload')),
]
CASES_257 = [
    ('service', 'ProtectControlGroups=private', (FAULT, 'ProtectControlGroups=private')),
    ('service', 'PrivatePIDs=yes', (FAULT, 'PrivatePIDs=yes')),
    ('service', 'PrivateTmp=disconnected', None),
]


def cases(since, items):
    return [pytest.param(since, *item, id=item[1].replace('\n', ' ')) for item in items]


def without_requires(text):
    return re.sub('^Requires=.*\n', '', text, flags=re.MULTILINE)


SETTINGS = cases(252, CASES) + cases(254, CASES_254) + cases(257, CASES_257)


def make_case(n, part, lines):
    """The units of a case, with a name of its own in place of "checked"."""
    pool = Checked(f'checked-{n}', **{part: lines.replace('checked', f'checked-{n}')})
    if lines == 'Requires=':
        # Dependencies add up and cannot be taken back.
        pool.service_text = lambda: without_requires(Checked.service_text(pool))
    return pool


@pytest.fixture(scope='module')
def settings(systemd_version):
    """{id: (pool, what is found, what is found after the drop-ins that it prints)}; systemd reads all units at once."""
    pools = {}
    try:
        with lib.one_reload():
            for n, case in enumerate(SETTINGS):
                since, part, lines, _ = case.values
                if systemd_version >= since:
                    pools[case.id] = make_case(n, part, lines).__enter__()
        findings = {name: pool.check() for name, pool in pools.items()}
        with lib.one_reload():
            for name, pool in pools.items():
                for finding in findings[name]:
                    pool.drop_in([f'[{finding["section"]}]', finding['remedy']], finding['unit'])
        yield {name: (pool, findings[name], pool.check()) for name, pool in pools.items()}
    finally:
        with lib.one_reload():
            for pool in pools.values():
                pool.clean_up()


@pytest.mark.parametrize('since, part, lines, expected', SETTINGS)
def test_each_setting(request, systemd_version, settings, since, part, lines, expected):
    """One wrong setting is found, and nothing else; the drop-in that it prints puts it right."""
    if systemd_version < since:
        pytest.skip(f'systemd {since} has it')
    pool, findings, afterwards = settings[request.node.callspec.id]
    assert afterwards == []
    if expected is None:
        assert findings == []
        return
    severity, setting = expected
    if setting == 'PrivateUsers=':
        setting += 'yes' if systemd_version < 257 else 'self'
    assert summary(findings) == [(severity, setting.replace('checked', pool.name))]
    assert findings[0]['unit'] == (pool.socket if part == 'socket' else pool.service)


def test_many_at_once():
    """Several wrong settings are all found; text and JSON say the same."""
    with Checked(service=['KillMode=mixed', 'Restart=on-failure'], socket='FlushPending=yes') as pool:
        findings = pool.check()
        assert sorted(summary(findings)) == [(FAULT, 'FlushPending=yes'), (FAULT, 'KillMode=mixed'),
                                             (REMARK, 'Restart=on-failure')]
        result = lib.run(['fcgi-poolctl', 'check', pool.service], check=False)
        assert result.returncode == STATUS_FINDINGS and result.stderr == ''
        for finding in findings:
            head = f'{finding["unit"]}: {finding["severity"]}: {finding["setting"]}={finding["value"]}'
            indented = [finding['consequence'], '    [' + finding['section'] + ']', '    ' + finding['remedy']]
            assert '\n'.join([head, *('    ' + line for line in indented)]) + '\n' in result.stdout
        assert 'Faults: 2, remarks: 1.' in result.stdout
        plain = lib.run(['fcgi-poolctl', '--no-legend', '--no-pager', 'check', pool.service], check=False).stdout
        assert result.stdout.startswith(plain) and 'remarks:' not in plain
        pretty = lib.run(['fcgi-poolctl', 'check', '--json=pretty', pool.service], check=False).stdout
        assert json.loads(pretty) == findings and len(pretty.splitlines()) > len(findings)


# --- the command line ---

@pytest.mark.parametrize('options, service, expected', [
    (['--workers=300'], 'LimitNOFILE=1000', (FAULT, 'LimitNOFILE=1000')),
    (['--workers=2:300'], 'LimitNOFILE=1000', (FAULT, 'LimitNOFILE=1000')),
    (['--workers=20'], 'LimitNOFILE=1000', None),
    (['--allow-root'], 'User=root', None),
    (['--retire=signal'], 'SystemCallFilter=~pidfd_getfd', (REMARK, 'SystemCallFilter=~pidfd_getfd')),
    (['--listener=nonblocking'], 'NonBlocking=no', (FAULT, 'NonBlocking=no')),
    (['--listener=blocking'], 'NonBlocking=yes', (FAULT, 'NonBlocking=yes')),
    (['--listener=nonblocking'], 'NonBlocking=yes', None),
])
def test_options(options, service, expected):
    """Settings that must fit the options are held against those of ExecStart=."""
    with Checked(options=options, service=service) as pool:
        assert summary(pool.check()) == ([expected] if expected else [])


def test_fewer_workers_than_sockets():
    """A pool that the helper would refuse for having fewer workers than sockets is found."""
    with Checked(options=['--workers=2'], listen=['/run/checked.sock', '127.0.0.1:9181', '[::1]:9181'],
                 socket='ReusePort=yes') as pool:
        assert summary(pool.check()) == [(FAULT, 'ExecStart=--workers=2')]


def test_variables_of_the_template():
    """Options in the file of a template's instance count, as systemd would put them in."""
    with lib.TemplatePool('checked', ['/bin/true'], ['--workers=300'], start=None, service='LimitNOFILE=1000') as pool:
        assert summary(check(pool.service)) == [(FAULT, 'LimitNOFILE=1000')]
        pool.options = ['--workers=3']
        pool.write_units()
        assert check(pool.service) == []


def test_file_that_may_not_be_read():
    """Who may not read the file gets the other findings, and one line about it."""
    with lib.TemplatePool('checked', ['/bin/true'], ['--workers=300'], start=None,
                          service=['LimitNOFILE=1000', 'OOMPolicy=stop']) as pool:
        path = lib.ENV_DIRECTORY / 'checked.env'
        path.chmod(0o600)
        result = lib.run(['setpriv', '--reuid=nobody', '--clear-groups', 'fcgi-poolctl', 'check', '--json=short', pool.service],
                         check=False)
        assert summary(json.loads(result.stdout)) == [(FAULT, 'OOMPolicy=stop')]
        assert result.returncode == STATUS_FINDINGS
        line, = result.stderr.splitlines()
        assert str(path) in line and 'Permission denied' in line
        path.chmod(0o644)
        assert len(check(pool.service, user='nobody')) == 2


# --- which units ---

def test_names():
    """A pool may be named by its service, its socket, or without a suffix; twice is once."""
    with Checked(service='OOMPolicy=stop') as pool:
        found = pool.check()
        assert len(found) == 1
        assert check(pool.socket) == check(pool.name) == check(pool.service, pool.socket, pool.name) == found
    with lib.TemplatePool('checked', ['/bin/true'], start=None, service='OOMPolicy=stop') as pool:
        found = check(pool.service)
        assert summary(found) == [(FAULT, 'OOMPolicy=stop')]
        assert check('checked') == check('fcgi-pool@checked') == check(pool.socket) == found


def test_running_pool():
    """Whether it runs makes no difference."""
    with lib.Pool('checked', [lib.tool('fcgi-echo')], ['--workers=2'], service='OOMPolicy=stop') as pool:
        before = check(pool.service)
        assert (FAULT, 'OOMPolicy=stop') in summary(before)
        pool.stop()
        lib.systemctl('stop', pool.socket)
        assert check(pool.service) == before


def test_sockets_of_another_name():
    """Sockets that activate the service under another name belong to the pool."""
    with Checked() as pool:
        pool.write(lib.SYSTEMD_UNITS / 'checked-second.socket',
                   '[Unit]\nStartLimitIntervalSec=0\n[Socket]\nService=checked.service\nListenStream=/run/checked-second.sock\n'
                   'RemoveOnStop=yes\nTriggerLimitIntervalSec=0\nFlushPending=yes\n')
        pool.drop_in('[Unit]\nRequires=checked-second.socket\n')
        assert summary(pool.check()) == [(FAULT, 'FlushPending=yes')]
        assert pool.check() == check('checked-second.socket')


def test_no_socket():
    """A service that no socket activates is found."""
    with Checked() as pool:
        pool.service_text = lambda: without_requires(Checked.service_text(pool)).replace('After=', 'Before=')
        pool.write_units()
        (lib.SYSTEMD_UNITS / pool.socket).unlink()
        lib.daemon_reload()
        findings = pool.check()
        assert summary(findings) == [(FAULT, 'Sockets=')]
        assert findings[0]['remedy'] == 'Sockets=checked.socket'


def test_accept():
    """Accept=yes is found, though the socket belongs to no service then."""
    with Checked(socket='Accept=yes') as pool:
        pool.write(lib.SYSTEMD_UNITS / 'checked@.service', pool.service_text())
        lib.daemon_reload()
        assert summary(pool.check()) == summary(check(pool.socket)) == [(FAULT, 'Accept=yes')]


def test_changed_on_disk():
    """Unit files that systemd has not read again are pointed at."""
    with Checked() as pool:
        lib.systemctl('start', pool.socket)
        path = lib.SYSTEMD_UNITS / pool.service
        path.write_text(path.read_text() + 'OOMPolicy=stop\n')
        # The file must look younger than what systemd has read.
        stamp = path.stat().st_mtime + 10
        os.utime(path, (stamp, stamp))
        result = lib.run(['fcgi-poolctl', 'check', pool.service])
        assert 'No findings: checked.service' in result.stdout
        line, = result.stderr.splitlines()
        assert pool.service in line and 'daemon-reload' in line


# --- bad input ---

@pytest.mark.parametrize('arguments, status, words', [
    ([], STATUS_INVALID, ['no verb given', 'expected fcgi-poolctl [OPTIONS...] VERB']),
    (['chek', 'x'], STATUS_INVALID, ['chek: unknown verb', 'check']),
    (['check'], STATUS_INVALID, ['check: too few arguments', 'check UNIT...']),
    (['--jsn', 'check', 'x'], STATUS_INVALID, ['--jsn: unknown option']),
    (['check', 'x', '-x'], STATUS_INVALID, ['-x: unknown option']),
    (['--json=yaml', 'check', 'x'], STATUS_INVALID, ['--json=yaml', 'pretty, short or off']),
    (['check', '--json'], STATUS_INVALID, ['--json', 'value missing']),
    (['--no-legend=1', 'check', 'x'], STATUS_INVALID, ['--no-legend', 'takes no value']),
    (['check', ''], STATUS_INVALID, ['expected NAME.service']),
    (['check', 'a b'], STATUS_INVALID, ['"a b"', 'expected NAME.service']),
    (['check', 'fcgi-pool@.service'], STATUS_INVALID, ['fcgi-pool@.service', 'template', 'fcgi-pool@blog']),
    (['check', 'systemd-journald.service'], STATUS_INVALID, ['ExecStart=', 'systemd-journald', 'expected fcgi-pool']),
    (['check', 'systemd-journald.socket'], STATUS_INVALID, ['expected fcgi-pool']),
    (['check', 'no-such.service'], STATUS_NOT_INSTALLED, ['no-such.service', 'no such unit']),
    (['check', 'no-such.socket'], STATUS_NOT_INSTALLED, ['no-such.socket', 'no such unit']),
    (['check', '--', '--json=short'], STATUS_INVALID, ['']),
])
def test_bad_input(arguments, status, words):
    """Bad input gets one line that names what was wrong and what was expected, and the documented status."""
    result = lib.run(['fcgi-poolctl', *arguments], check=False)
    assert result.returncode == status
    line, = result.stderr.splitlines()
    assert result.stdout == ''
    for word in words:
        assert word in line


def test_unit_that_cannot_be_loaded():
    """A unit that systemd refuses is no pool without findings."""
    with Checked() as pool:
        pool.write(lib.SYSTEMD_UNITS / pool.service, '[Service]\nType=notify\n')
        lib.daemon_reload()
        result = lib.run(['fcgi-poolctl', 'check', pool.service], check=False)
        assert result.returncode == STATUS_NOT_CONFIGURED
        assert result.stdout == '' and 'bad-setting' in result.stderr and len(result.stderr.splitlines()) == 1


def test_some_of_several():
    """What cannot be checked does not keep the others from it, and its status is the one that counts."""
    with Checked(service='OOMPolicy=stop') as pool:
        assert summary(check('no-such.service', pool.service, expected=STATUS_NOT_INSTALLED)) == [(FAULT, 'OOMPolicy=stop')]


def test_no_bus():
    """Without the system bus there is one line and status 69."""
    result = lib.run(['fcgi-poolctl', 'check', 'checked.service'], check=False,
                     env={**os.environ, 'DBUS_SYSTEM_BUS_ADDRESS': 'unix:path=/nonexistent'})
    assert result.returncode == STATUS_UNAVAILABLE
    assert len(result.stderr.splitlines()) == 1 and 'system bus' in result.stderr


def test_full_disk():
    """What could not be written is no success."""
    with open('/dev/full', 'w') as full:
        result = lib.subprocess.run(['fcgi-poolctl', '--help'], stdout=full, stderr=lib.subprocess.PIPE, text=True)
    assert result.returncode == 71 and 'standard output' in result.stderr


# --- the program ---

def test_help():
    """--help and the manual page have the same options and verbs."""
    result = lib.run(['fcgi-poolctl', '--help'])
    assert result.stderr == '' and result.stdout == lib.run(['fcgi-poolctl', '-h']).stdout
    page = pathlib.Path('/usr/share/man/man1/fcgi-poolctl.1').read_text()
    assert set(re.findall(r'(?<=--)[a-z][a-z-]+', result.stdout)) == set(re.findall(r'\bFl \\?-([a-z][a-z-]+)', page))
    verbs = re.findall(r'^  ([a-z-]+) ', result.stdout.split('Options:')[0], re.MULTILINE)
    assert verbs == re.findall(r'^\.It Cm ([a-z-]+)', page, re.MULTILINE)


def test_version():
    """--version says which version was built."""
    version = re.search(r"version : '([\d.]+)'", (SOURCE / 'meson.build').read_text()).group(1)
    assert lib.run(['fcgi-poolctl', '--version']).stdout == f'fcgi-poolctl {version}\n'
