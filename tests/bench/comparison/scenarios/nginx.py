# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The same through nginx."""

import time

import scenario
from retirement import HttpLoad
from scenario import Figure
from test_seed import Nginx

TITLE = 'Reload behind nginx'
QUESTION = 'As the reload under load, but clients are those of nginx, which is told never to try again.'
METHOD = '''nginx with fastcgi_next_upstream off and no connections kept to workers, six clients in a closed loop on
HTTP, 20 ms each; two reloads by the verb that users have. "lost" is every answer that is not 200.'''
FIGURES = [Figure('failed', 'requests lost', total=True, plot=True), Figure('events', 'reloads', best=None, total=True),
           Figure('requests', 'requests', best=None, total=True), Figure('max', 'slowest', 'ms')]
ROUNDS = 2
PORT = 8086
N_RELOADS = 2
PAUSE = 1.5
KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 'spawn-fcgi', 's6', 'start-server', 'fcgi-pool-php',
        'php-fpm', 'php-fpm-30s', 'uwsgi', 'uwsgi-hup')


def entries():
    return scenario.entries(*KEYS)


def location(contender):
    script = contender.request().get('param', 'SCRIPT_FILENAME=/echo').partition('=')[2]
    return (f'location / {{ include fastcgi_params; fastcgi_param SCRIPT_FILENAME {script}; '
            f'fastcgi_next_upstream off; fastcgi_pass unix:{contender.listen[0]}; }}')


def measure(entry, quick):
    n = 1 if quick else N_RELOADS
    with entry.make() as contender, Nginx(location(contender), port=PORT), \
            HttpLoad(f'127.0.0.1:{PORT}', clients=scenario.N_CLIENTS, query=f'sleep={scenario.HANDLER_MSEC}') as load:
        time.sleep(scenario.LEAD)
        for _ in range(n):
            old = contender.workers()
            contender.replace_workers()
            contender.wait_replaced(old)
            # uWSGI looks once a second whether it is told to reload, and not before it is through with the last one.
            time.sleep(PAUSE)
        result = load.stop()
    return {'failed': result['failed'], 'events': n, 'requests': result['started'],
            'max': result['latency_usec']['max'] / 1000, 'raw': result}
