# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What is installed is complete and clean, and the template units do what the manual pages say."""

import os
import pathlib
import pwd
import re
import shutil
import signal
import tarfile

import pytest

import lib
from survival import MESSAGE
from test_seed import holds_connection, unix_sockets

SOURCE = pathlib.Path(__file__).resolve().parents[2]
UNITS = next(path for path in map(pathlib.Path, ('/usr/lib/systemd/system', '/lib/systemd/system'))
             if (path / 'fcgi-pool@.service').exists())
EXAMPLES = pathlib.Path('/usr/share/doc/fcgi-pool/examples')
EXAMPLE_SERVICES = sorted(EXAMPLES.glob('*.service'))
MAN = pathlib.Path('/usr/share/man')


@pytest.fixture(scope='module')
def echo():
    """The C echo program where the sandbox of the template does not hide it."""
    directory = pathlib.Path('/usr/local/lib/fcgi-pool-tests')
    directory.mkdir(parents=True, exist_ok=True)
    path = shutil.copy(lib.tool('fcgi-echo'), directory / 'fcgi-echo')
    yield str(path)
    os.unlink(path)


# --- what is installed ---

@pytest.mark.parametrize('name', ['template', *(path.stem for path in EXAMPLE_SERVICES)])
def test_verify(name):
    """systemd-analyze verify has nothing to say about the units."""
    units = ['fcgi-pool@blog.service', 'fcgi-pool@blog.socket'] if name == 'template' else \
        [str(EXAMPLES / f'{name}.{kind}') for kind in ('service', 'socket')]
    # Manual pages are another test's: not every machine has a man to ask.
    result = lib.run(['systemd-analyze', '--man=no', 'verify', *units], check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_examples_are_six():
    """There is an example for each of the six kinds of programs."""
    assert [path.stem.removeprefix('hello-') for path in EXAMPLE_SERVICES] == ['c', 'cgi', 'gin', 'go', 'perl', 'php']


@pytest.mark.parametrize('path', [UNITS / 'fcgi-pool@.service', *EXAMPLE_SERVICES], ids=lambda path: path.stem)
def test_no_limit_closes_the_socket(path):
    """No limit of systemd's that ends in a closed socket is left at its default."""
    # Which of them is reached first depends on the rates of a bad day: see each said, rather than one of them work.
    assert 'StartLimitIntervalSec=0' in path.read_text().splitlines()
    assert 'TriggerLimitIntervalSec=0' in path.with_suffix('.socket').read_text().splitlines()


def exposure(*args):
    output = lib.run(['systemd-analyze', '--no-pager', 'security', *args]).stdout
    return float(re.search(r'Overall exposure level for \S+: ([\d.]+) ', output).group(1))


def test_exposure_of_template():
    """systemd-analyze security gives the template 1.5 or better."""
    assert exposure('fcgi-pool@blog.service') <= 1.5


@pytest.mark.parametrize('path', EXAMPLE_SERVICES, ids=lambda path: path.stem)
def test_exposure_of_examples(path):
    """The examples say that their sandbox is that of the template: it is no worse."""
    assert '# The sandbox, as in fcgi-pool@.service.' in path.read_text().splitlines()
    assert exposure('--offline=true', str(path)) <= 1.5


@pytest.mark.parametrize('path', [UNITS / 'fcgi-pool@.service', UNITS / 'fcgi-pool@.socket', *EXAMPLE_SERVICES,
                                  *sorted(EXAMPLES.glob('*.socket'))], ids=lambda path: path.name)
def test_manual_pages(path):
    """Every manual page of ours that a unit names is installed and can be read."""
    pages = re.findall(r'man:(fcgi-pool[\w-]*)\((\d)\)', path.read_text())
    assert pages
    for name, section in pages:
        page = next((MAN / f'man{section}').glob(f'{name}.{section}*'))
        if shutil.which('mandoc'):
            assert f'{name.upper()}({section})' in lib.run(['mandoc', '-Tascii', str(page)]).stdout
        if shutil.which('man'):
            assert lib.run(['man', '--where', section, name]).stdout.strip() == str(page)


def test_user():
    """sysusers has made the user that pools run as: no login, no home."""
    lines = lib.run('systemd-sysusers --cat-config').stdout
    assert re.search(r'^u fcgi-pool - ', lines, re.MULTILINE)
    user = pwd.getpwnam('fcgi-pool')
    assert user.pw_shell.endswith('/nologin') and user.pw_dir == '/'
    assert 0 < user.pw_uid < 1000


def test_catalog():
    """Every message that has an id has an explanation in the installed catalog, and there are no others."""
    ids = set(re.findall(r'"([0-9a-f]{32})"', (SOURCE / 'src/common/message-ids.h').read_text()))
    assert ids
    catalog = lib.run(['journalctl', '--list-catalog']).stdout
    installed = set(re.findall(r'^([0-9a-f]{32}) fcgi-pool: ', catalog, re.MULTILINE))
    assert installed == ids


# --- the program ---

def test_help(helper):
    """--help goes to standard output and names every option of the manual page, and no other."""
    result = lib.run([helper, '--help'])
    assert result.stderr == '' and result.stdout == lib.run([helper, '-h']).stdout
    page = (MAN / 'man8/fcgi-pool.8').read_text()
    options = set(re.findall(r'(?<=--)[a-z][a-z-]+', result.stdout))
    # In mdoc a dash of an option is the macro's: ".It Fl Fl workers Ns = ..."; a dash within may be escaped.
    documented = set(re.findall(r'\bFl \\?-([a-z][a-z-]+)', page.replace('\\-', '-').replace('Fl Fl ', 'Fl -')))
    assert options == documented
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_version(helper):
    """--version says which version was built."""
    version = re.search(r"version : '([\d.]+)'", (SOURCE / 'meson.build').read_text()).group(1)
    result = lib.run([helper, '--version'])
    assert (result.stdout, result.stderr) == (f'fcgi-pool {version}\n', '')


def test_check(helper, echo):
    """--check says what would run and runs nothing."""
    result = lib.run(['setpriv', '--reuid=fcgi-pool', '--regid=fcgi-pool', '--clear-groups', helper, '--check',
                      '--workers=6', '--name=shop', '--stop-signal=SIGUSR1', '--', echo, 'an argument'])
    assert result.stderr == ''
    fields = dict(line.split(':', 1) for line in result.stdout.splitlines())
    fields = {name: value.strip() for name, value in fields.items()}
    assert fields['pool'] == 'shop'
    assert fields['command'].startswith(f'{echo} ') and 'an argument' in fields['command']
    assert fields['workers'] == '6'
    assert 'SIGUSR1' in fields['stop'] and '30s' in fields['stop']
    assert 'none passed' in fields['listener']


def test_check_with_listener(helper, echo):
    """--check with sockets, as in a unit, names them."""
    result = lib.run([lib.tool('listen-exec'), '--tcp4=0', '--', helper, '--check', '--workers=1', '--', echo])
    assert re.search(r'^listener: +127\.0\.0\.1:\d+ ', result.stdout, re.MULTILINE)
    assert 'root' in result.stderr


@pytest.mark.parametrize('arguments, status', [(['--workers=0', '--', '/bin/true'], 2), ([], 2),
                                               (['--', '/nonexistent'], 5), (['--probe=x', '--', '/bin/true'], 2)])
def test_check_fails(helper, arguments, status):
    """--check fails as the start would: one line, the documented exit status."""
    result = lib.run([helper, '--check', *arguments], check=False)
    assert result.returncode == status
    assert result.stdout == '' and len(result.stderr.splitlines()) == 1


# --- the template ---

def test_two_lines_and_enable(echo):
    """A file of two lines and `systemctl enable --now` are all it takes."""
    pool = lib.TemplatePool('blog', [echo], ['--workers=3'], start=None)
    units = [pool.socket, pool.service]
    with pool:
        assert len((lib.ENV_DIRECTORY / 'blog.env').read_text().splitlines()) == 2
        try:
            lib.systemctl('enable', '--now', *units)
            assert pool.status_text == '3/3 workers ready'
            workers = pool.workers()
            assert len(workers) == 3
            assert lib.load(pool, clients=3, requests=60, query='sleep=5')['failed'] == 0
            for pid in [pool.main_pid, *workers]:
                assert lib.proc_status(pid, 'Uid').split() == [str(pwd.getpwnam('fcgi-pool').pw_uid)] * 4
                capabilities = {lib.proc_status(pid, f'Cap{name}') for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')}
                assert capabilities == {'0' * 16}
                assert lib.proc_status(pid, 'NoNewPrivs') == '1'
                assert lib.proc_status(pid, 'Seccomp') == '2'
            assert [lib.systemctl('is-enabled', unit).stdout.strip() for unit in units] == ['enabled'] * 2
            assert [entry['MESSAGE'] for entry in pool.journal() if int(entry['PRIORITY']) <= 4] == []
        finally:
            lib.systemctl('disable', '--now', *units)
        assert pool.processes() == []
        assert not os.path.exists('/run/fcgi-pool/blog.sock') and not os.path.exists('/run/fcgi-pool/blog')


def test_instances_are_apart(echo):
    """Restart, stop and start of one instance do not disturb another."""
    with lib.TemplatePool('one', [echo], ['--workers=2']) as one, \
            lib.TemplatePool('two', [echo], ['--workers=2']) as two:
        def picture():
            inodes = [os.stat(path).st_ino for path in ('/run/fcgi-pool/two.sock', '/run/fcgi-pool/two')]
            return two.main_pid, two.workers(), inodes, os.listdir('/run/fcgi-pool/two')

        before = picture()
        with lib.BackgroundLoad(two, clients=3, duration=100) as load:
            one.restart()
            assert lib.load(one, clients=2, requests=20)['failed'] == 0
            lib.systemctl('stop', one.socket, one.service)
            assert not os.path.exists('/run/fcgi-pool/one.sock') and not os.path.exists('/run/fcgi-pool/one')
            assert picture() == before
            lib.systemctl('start', one.socket, one.service)
            result = load.stop()
        assert result['failed'] == 0 and result['ok'] > 0, result
        assert {int(pid) for pid in result['pids']} == set(before[1])
        assert picture() == before


def test_service_and_socket_belong_together(echo):
    """Starting the service starts its socket; stopping the socket stops the service."""
    with lib.TemplatePool('pair', [echo], ['--workers=2'], start=None) as pool:
        pool.start()
        assert lib.show(pool.socket, 'ActiveState') == 'active'
        assert lib.load(pool, requests=10)['failed'] == 0
        lib.systemctl('stop', pool.socket)
        pool.wait_show('ActiveState', 'inactive')
        assert pool.processes() == []


def test_started_by_the_first_connection(echo):
    """With the socket alone, the first connection starts the pool and is answered."""
    with lib.TemplatePool('lazy', [echo], ['--workers=2'], start='socket') as pool:
        assert pool.active_state == 'inactive'
        result = lib.load(pool, requests=1)
        assert (result['ok'], result['failed']) == (1, 0), result
        pool.wait_show('ActiveState', 'active')
        assert {int(pid) for pid in result['pids']} < set(pool.wait_workers(2))


@pytest.mark.parametrize('retire', ['signal', 'idle'])
def test_restart_keeps_the_queue(echo, retire):
    """Clients in the queue during systemctl restart are answered by the new workers, running requests by the old.
    Those may take some more from the queue unless they are told to stop at once."""
    with lib.TemplatePool('queue', [echo], ['--workers=2', f'--retire={retire}']) as pool:
        before = pool.wait_workers(2)
        path = pool.listen[0]
        with lib.BackgroundLoad(pool, clients=6, requests=6, query='sleep=3000') as load:
            # Both ends of two connections that are accepted, one end of four that are not: the client's has no name.
            lib.wait_until(lambda: all(holds_connection(pid, path) for pid in before) and len(unix_sockets(path)) == 6,
                           what='two connections with the workers, four in the queue')
            pool.restart()
            result = load.finish()
        after = pool.wait_workers(2, without=before)
        assert (result['ok'], result['failed']) == (6, 0), result
        if retire == 'signal':
            assert {int(pid): n for pid, n in result['pids'].items() if int(pid) in before} == dict.fromkeys(before, 1)
        assert {int(pid) for pid in result['pids']} <= set(before) | set(after)


@pytest.mark.parametrize('restricted', [True, False])
def test_no_worker_is_moved(echo, restricted):
    """Where a worker cannot be born in another cgroup the helper lives with the workers, and is not taken for one."""
    with lib.TemplatePool('birth', [echo], ['--workers=2'],
                          service=[f'RestrictNamespaces={"yes" if restricted else "no"}']) as pool:
        for _ in range(2):
            workers, helper = pool.workers(), pool.main_pid
            assert len(workers) == 2 and helper not in workers
            assert lib.cgroup_pids(pool.cgroup / 'workers') == sorted(workers + restricted * [helper])
            since = lib.journal_cursor()
            os.kill(helper, signal.SIGKILL)
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
            assert pool.workers() == workers and pool.main_pid != helper
        since = lib.journal_cursor()
        os.kill(workers[0], signal.SIGKILL)
        pool.wait_workers(2, without=workers[:1])
        pool.stop()
        assert not pool.processes()
        assert not pool.messages(since, MESSAGE_ID=MESSAGE['LEFTOVERS_KILLED'])


class WithoutFile(lib.TemplatePool):
    def write_env(self):
        assert not (lib.ENV_DIRECTORY / f'{self.name}.env').exists()


def test_missing_file(echo):
    """Without a file or drop-in the start fails with status 2 and one line; clients wait until there is a command."""
    with WithoutFile('nofile', [echo], ['--workers=2'], start='socket') as pool:
        cursor = lib.journal_cursor()
        assert pool.start(check=False).returncode != 0
        # In the journal: the next attempt comes after a second.
        lib.wait_journal(since=cursor, UNIT=pool.service, EXIT_CODE='exited', EXIT_STATUS='2')
        lines = pool.journal(cursor, SYSLOG_IDENTIFIER='fcgi-pool')
        complaints = [line['MESSAGE'] for line in lines if line['_PID'] == lines[0]['_PID']]
        assert len(complaints) == 1 and 'command' in complaints[0], complaints
        # More attempts than systemd's default start limit allows (5 in 10 s), and the socket still listens.
        with lib.BackgroundLoad(pool, clients=3, requests=3, timeout=60) as load:
            lib.wait_until(lambda: int(pool.show('NRestarts')) >= 6, 30, 'six restarts')
            assert lib.show(pool.socket, 'ActiveState') == 'active'
            lib.TemplatePool.write_env(pool)
            result = load.finish()
        assert (result['ok'], result['failed']) == (3, 0), result


def test_drop_ins_alone(echo):
    """Drop-ins in place of the file do as well, and an application's own variables reach it."""
    lines = ['Environment=FCGI_POOL_OPTIONS=--workers=2', f'Environment=FCGI_POOL_COMMAND={echo}',
             'Environment="GREETING=good day"']
    with WithoutFile('dropin', [echo], service=lines) as pool:
        assert len(pool.workers()) == 2
        text, _ = pool.request('env=GREETING')
        assert 'env-GREETING=good day\n' in text


def test_file_wins(echo):
    """What the file says wins over Environment= in a drop-in."""
    with lib.TemplatePool('wins', [echo], ['--workers=3'], service='Environment=FCGI_POOL_OPTIONS=--workers=2') as pool:
        assert len(pool.workers()) == 3


def test_access(echo):
    """Only the owner and the group of the socket may connect."""
    with lib.TemplatePool('access', [echo], ['--workers=1']):
        code = "import socket; socket.socket(socket.AF_UNIX).connect('/run/fcgi-pool/access.sock')"
        for user, allowed in (('www-data', True), ('nobody', False)):
            result = lib.run(['setpriv', f'--reuid={user}', '--regid=nogroup', '--clear-groups', 'python3', '-c', code],
                             check=False)
            assert (result.returncode == 0) == allowed, result.stderr


# --- the source ---

@pytest.mark.limit(300)
def test_dist(tmp_path):
    """meson dist makes an archive that builds what the checkout builds."""
    head = ['git', '-C', str(SOURCE), 'rev-parse', '--quiet', '--verify', 'HEAD']
    if not shutil.which('git') or lib.run(head, check=False).returncode != 0:
        pytest.skip('the source is not a git checkout with a commit')
    clone, build = tmp_path / 'clone', tmp_path / 'build'
    lib.run(['git', 'clone', '--quiet', '--no-hardlinks', str(SOURCE), str(clone)])
    lib.run(['meson', 'setup', '-Dtests=false', str(build), str(clone)])
    lib.run(['meson', 'dist', '-C', str(build), '--no-tests', '--formats=gztar'])
    archive, = (build / 'meson-dist').glob('fcgi-pool-*.tar.gz')
    with tarfile.open(archive) as tar:
        top, = {name.split('/')[0] for name in tar.getnames()}
        files = {member.name.removeprefix(f'{top}/') for member in tar if not member.isdir()}
    lib.run(['tar', '--extract', '--gzip', f'--directory={tmp_path}', f'--file={archive}'])
    assert files == set(lib.run(['git', '-C', str(clone), 'ls-files']).stdout.splitlines())
    lib.run(['meson', 'setup', '-Dtests=false', str(tmp_path / 'again'), str(tmp_path / top)])
    lib.run(['ninja', '-C', str(tmp_path / 'again')], timeout=200)
    version = lib.run([str(tmp_path / 'again/src/fcgi-pool'), '--version']).stdout
    assert version == top.replace('fcgi-pool-', 'fcgi-pool ') + '\n'
