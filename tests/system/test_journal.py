# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What the journal, a log file and STATUS= say about a pool is complete, attributed and true."""

import os
import pathlib
import re
import signal

import pytest

import lib
from test_bad_input import Companion
from test_readiness import Gate
from test_supervision import IDS, SOURCE, Switch, echo, kill_all, misbehave, wait_grown_up

LONG_LINE = 4998 * 'x'


def fields_of(entry, *names):
    return tuple(entry.get(name) for name in names)


# --- what workers write ---

def test_lines_of_workers():
    """Lines of a worker have NAME[SLOT] as identifier and the worker's own pid; stdout, stderr and level prefixes arrive."""
    with lib.Pool('log', misbehave('lines'), ['--workers=3']) as pool:
        slots = pool.slots()
        # What is read from a stream later than its writer's death may be nobody's.
        pool.wait_journal(f'^{LONG_LINE}$', count=3)
        pool.stop()
        for slot, pid in slots.items():
            entries = pool.journal(SYSLOG_IDENTIFIER=f'log[{slot}]')
            assert [fields_of(entry, 'MESSAGE', 'PRIORITY') for entry in entries] == [
                ('stdout: a line', '6'), ('stderr: a line', '6'), ('stderr: with a level prefix', '3'), ('stdout: two', '6'),
                ('stdout: lines', '6'), (LONG_LINE, '6'), ('stdout: no newlinestderr: no newline', '6')]
            for entry in entries:
                assert fields_of(entry, '_PID', '_SYSTEMD_UNIT', '_TRANSPORT', '_COMM') == (str(pid), pool.service, 'stdout', 'misbehave')


def test_halves_do_not_mix():
    """Lines that two workers write in halves, at the same time, stay whole."""
    script = '/bin/sh -c \'printf "first half of $FCGI_POOL_SLOT, "; read line <{}/$FCGI_POOL_SLOT; echo "second half of $FCGI_POOL_SLOT"; exec {}\''
    with Gate('log') as gate:
        command = ['/bin/sh', '-c', script.split("'")[1].format(gate.directory, ' '.join(misbehave('serve')))]
        with lib.Pool('log', command, ['--workers=3'], start='socket') as pool:
            lib.systemctl('start', '--no-block', pool.service)
            # A worker is at its gate when it has written its first half: the last one opened is the first to be read on.
            for slot in (2, 0, 1):
                gate.open(slot)
            pool.wait_show('ActiveState', 'active')
            for slot in range(3):
                assert pool.messages(SYSLOG_IDENTIFIER=f'log[{slot}]') == [f'first half of {slot}, second half of {slot}']


def test_last_words():
    """What a worker wrote last, without an end of line, is in the journal when it has died, with its pid."""
    with Switch('log', broken='printf "last words"; exit 1') as switch, lib.Pool('log', switch.command, ['--workers=1']) as pool:
        victim, = pool.workers()
        wait_grown_up([victim])
        cursor = lib.journal_cursor()
        switch.off()
        os.kill(victim, signal.SIGKILL)
        pool.wait_journal(since=cursor, MESSAGE_ID=IDS['MESSAGE_WORKER_DIED'], EXIT_STATUS=1)
        switch.on()
        # The next one has nothing to say.
        pool.wait_journal(since=cursor, WORKER_STATE='ready')
        dead = pool.journal(cursor, MESSAGE_ID=IDS['MESSAGE_WORKER_DIED'], EXIT_STATUS=1)[-1]['WORKER_PID']
        # Not by unit: the journal cannot tell that of a process that is gone.
        lib.wait_journal('^last words$', cursor, SYSLOG_IDENTIFIER='log[0]', _PID=dead)


def test_restart_of_the_journal():
    """After a restart of journald the lines of workers arrive, those of old ones and of new ones."""
    with Gate('log') as gate:
        command = ['/bin/sh', '-c', f'echo begin; (read line <{gate.directory}/$FCGI_POOL_SLOT; echo later) & exec {" ".join(misbehave("serve"))}']
        with lib.Pool('log', command, ['--workers=2']) as pool:
            slots = pool.slots()
            wait_grown_up(slots.values())
            lib.systemctl('restart', 'systemd-journald.service')
            cursor = lib.journal_cursor()
            gate.open(1)
            pool.wait_journal('^later$', cursor, SYSLOG_IDENTIFIER='log[1]')
            os.kill(slots[0], signal.SIGKILL)
            pool.wait_journal('^begin$', cursor, SYSLOG_IDENTIFIER='log[0]')
            assert pool.slots()[1] == slots[1]
            gate.open(0)


@pytest.mark.parametrize('target', ['file', 'append', 'truncate'])
def test_log_file(target):
    """With StandardError= to a file, both the workers' lines and the helper's go there, and not to the journal."""
    path = pathlib.Path('/run/fcgi-pool-test-log')
    lines = [f'StandardOutput={target}:{path}', f'StandardError={target}:{path}']
    try:
        with lib.Pool('log', misbehave('lines'), ['--workers=2'], service=lines) as pool:
            victim = pool.workers()[0]
            wait_grown_up([victim])
            os.kill(victim, signal.SIGKILL)
            lib.wait_until(lambda: path.read_text().count('-> ready') == 3, what='the line about the new worker in the file')
            pool.stop()
            text = path.read_text()
            assert text.count('stdout: a line\n') == 3 and text.count('stderr: a line\n') == 3
            for line in ('Pool log is ready: 2 workers on /run/log.sock', 'Pool log has stopped, 0 workers had to be killed'):
                assert re.search(rf'^{line}$|{line}$', text, re.MULTILINE)
            assert re.search(rf'worker \d: pid {victim} was killed by SIGKILL after ', text)
            assert pool.journal(SYSLOG_IDENTIFIER='fcgi-pool') == [] and pool.journal(SYSLOG_IDENTIFIER='log[0]') == []
            # There is no journal stream, so nobody is told of one.
            assert 'JOURNAL_STREAM' not in text
    finally:
        path.unlink(missing_ok=True)


def test_log_to_null():
    """With no output at all the pool works, and its workers have something as fd 1 and 2."""
    with lib.Pool('log', misbehave('lines'), ['--workers=2'], service=['StandardOutput=null', 'StandardError=null']) as pool:
        for pid in pool.workers():
            assert [lib.fds(pid)[fd] for fd in (1, 2)] == ['/dev/null'] * 2
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0


# --- what the helper writes ---

def explanation(entry):
    """The catalog's text for an entry, as journalctl -x shows it."""
    text = lib.run(['journalctl', '--quiet', '--no-pager', '--catalog', '--lines=1', f'--cursor={entry["__CURSOR"]}']).stdout
    return '\n'.join(line[3:] for line in text.splitlines() if line.startswith('░░'))


# What needs a machine out of order, and is made to happen in test_reexec.py, test_degraded.py and test_orphans.py.
MADE_ELSEWHERE = {'MESSAGE_LEFTOVERS_KILLED', 'MESSAGE_REEXEC_FAILED', 'MESSAGE_DEGRADED', 'MESSAGE_STATE_LOST',
                  'MESSAGE_ORPHANS_FOUND', 'MESSAGE_ORPHANS_ENDED', 'MESSAGE_ORPHANS_LEFT'}


def events():
    """Makes nearly everything happen that has a kind of message of its own; gives the entries, by kind."""
    cursor = lib.journal_cursor()

    # A restart, a roll, the end of the guardian, a signal that comes in between.
    with lib.Pool('log', misbehave('late', 1500), ['--workers=2']) as pool:
        lib.systemctl('restart', pool.service)
        since = lib.journal_cursor()
        os.kill(pool.main_pid, signal.SIGHUP)
        pool.wait_journal(since=since, MESSAGE_ID=IDS['MESSAGE_ROLLING'])
        os.kill(pool.main_pid, signal.SIGHUP)
        pool.wait_journal(since=since, MESSAGE_ID=IDS['MESSAGE_SIGNAL_IGNORED'])
        kill_all(lib.cgroup_pids(pool.cgroup / 'guardian'))
        pool.wait_journal(since=since, MESSAGE_ID=IDS['MESSAGE_GUARDIAN_DIED'])

    # A start, a death, a crash loop, the end of the budget.
    with Switch('log') as switch, lib.Pool('log', switch.command, ['--workers=2', '--crash-budget=3/20s']) as pool:
        wait_grown_up(pool.workers())
        switch.off()
        kill_all(pool.workers())
        pool.wait_show('ActiveState', 'failed', 30)

    # A worker that does not stop, one that stops, one that flips the listener, a stranger.
    with lib.Pool('log', misbehave('ignore-term'), ['--retire=signal', '--workers=1', '--stop-timeout=100ms']) as pool:
        pool.stop()
    with lib.Pool('log', misbehave('nonblock'), ['--workers=1'], start='socket') as pool, \
            Companion(pool, 'log-fifo.socket', ['ListenFIFO=/run/log.fifo', 'RemoveOnStop=yes']):
        pool.start()
        pool.stop()

    # A pool that grows for a request, and one that is stuck.
    with lib.Pool('log', misbehave('serve'), ['--workers=0:1', '--request-timeout=300ms']) as pool, \
            lib.BackgroundLoad(pool, clients=1, requests=1, query='sleep=3600000') as load:
        pool.wait_journal(MESSAGE_ID=IDS['MESSAGE_WORKER_STUCK'])
        load.finish()

    # What cannot be executed, what does not get ready, what cannot be observed, what is no option.
    path = pathlib.Path('/run/fcgi-pool-test-log')
    path.write_bytes(pathlib.Path(lib.tool('misbehave')).read_bytes())
    path.chmod(0o711)
    try:
        with lib.Pool('log', [str(path), 'serve'], ['--workers=1']):
            pass
        path.write_text('#!/nonexistent/interpreter\n')
        path.chmod(0o755)
        for command, option in ((str(path), '--workers=1'), (misbehave('never-ready'), '--start-timeout=100ms'), (echo(), '--workers=none')):
            with lib.Pool('log', [command] if isinstance(command, str) else command, [option], start='socket') as pool:
                assert pool.start(check=False).returncode != 0
    finally:
        path.unlink()

    entries = {}
    for entry in lib.journal(since_cursor=cursor, SYSLOG_IDENTIFIER='fcgi-pool'):
        entries.setdefault(entry.get('MESSAGE_ID'), entry)
    return entries


def test_every_kind_of_line():
    """Every kind of line can be seen, has its fields, and journalctl -x explains it."""
    entries = events()
    names = {value: name for name, value in IDS.items()}
    # The line about bad input comes from the stream that is the helper's stderr, which has no fields.
    assert entries.pop(None)['MESSAGE'].startswith('--workers=none: ')
    assert {names.get(key, key) for key in entries} == set(IDS) - MADE_ELSEWHERE
    for key, entry in entries.items():
        text = explanation(entry)
        assert re.search(r'^Subject: \S.*', text, re.MULTILINE), names[key]
        assert re.search(r'^Defined-By: fcgi-pool$', text, re.MULTILINE)
        # Every @FIELD@ of the text is a field of the entry.
        assert not re.search(r'@\w*@', text), text
        assert entry.get('FCGI_POOL') == 'log', names[key]
        if names[key].startswith('MESSAGE_WORKER_'):
            assert entry['WORKER_SLOT'].isdigit(), names[key]


def test_catalog():
    """No kind of line lacks an explanation, and the catalog explains nothing that there is not."""
    text = (SOURCE / 'units/fcgi-pool.catalog').read_text()
    assert sorted(re.findall('^-- ([0-9a-f]{32})$', text, re.MULTILINE)) == sorted(IDS.values())


def test_all_ids_are_in_the_source():
    """The list of kinds that the tests go by is the product's."""
    text = (SOURCE / 'src/common/message-ids.h').read_text()
    assert len(IDS) == len(re.findall('#define', text)) == len(set(IDS.values()))


def test_match_by_pool():
    """FCGI_POOL=NAME finds the lines of a pool, all of them and no others, whatever its unit is called."""
    with lib.Pool('log', echo(), ['--workers=2', '--name=shop']) as one, lib.Pool('log2', echo(), ['--workers=2', '--name=blog']):
        victim = one.workers()[0]
        wait_grown_up([victim])
        os.kill(victim, signal.SIGKILL)
        one.wait_journal(WORKER_STATE='ready', count=3)
        one.stop()
        found = lib.journal(since_cursor=one.cursor, FCGI_POOL='shop')
        assert [entry['__CURSOR'] for entry in found] == \
            [entry['__CURSOR'] for entry in one.journal(SYSLOG_IDENTIFIER='fcgi-pool')]
        assert {entry['_SYSTEMD_UNIT'] for entry in found} == {one.service}
        assert [entry['MESSAGE_ID'] for entry in found][-1] == IDS['MESSAGE_POOL_STOPPED']


# --- STATUS= ---

def test_status():
    """STATUS= tells the truth: all ready, one that backs off, one that starts, and why a pool has ended."""
    with Switch('log', broken='exit 3') as switch, lib.Pool('log', switch.command, ['--workers=6', '--crash-budget=1000/1s']) as pool:
        assert pool.status_text == '6/6 workers ready'
        slots = pool.slots()
        wait_grown_up(slots.values())
        cursor = lib.journal_cursor()
        switch.off(4)
        os.kill(slots[4], signal.SIGKILL)
        pool.wait_journal(since=cursor, count=3, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'])
        pool.wait_show('StatusText', '5/6 workers ready, 1 backing off')
        switch.on(4)
        pool.wait_show('StatusText', '6/6 workers ready')
        pool.stop()

    with lib.Pool('log', misbehave('exit', 3), ['--workers=2'], start='socket') as pool:
        assert pool.start(check=False).returncode != 0
        assert re.fullmatch('Start failed: worker [01] exited with status 3 .*', pool.status_text)


def test_status_while_stopping():
    """STATUS= counts the workers that are still there while a pool stops."""
    with lib.Pool('log', misbehave('ignore-term'), ['--retire=signal', '--workers=3', '--stop-timeout=60s']) as pool:
        slots = pool.slots()
        lib.systemctl('stop', '--no-block', pool.service)
        pool.wait_show('StatusText', '0/3 workers ready, 3 retiring')
        assert pool.show('SubState') == 'stop-sigterm'
        os.kill(slots[1], signal.SIGKILL)
        pool.wait_show('StatusText', '0/3 workers ready, 2 retiring')
        kill_all([slots[0], slots[2]])
        pool.wait_show('ActiveState', 'inactive')
        assert pool.show('Result') == 'success'
