# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The echo contract (echo-contract.h) for WSGI servers. The process is the server's: exit= ends it."""

import os
import time
import urllib.parse
import zlib


def sleep(until):
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)


def burn(until):
    while time.process_time() < until:
        pass


def application(environ, start_response):
    query = {name: values[-1] for name, values in urllib.parse.parse_qs(environ.get('QUERY_STRING', '')).items()}

    def number(name):
        return int(query.get(name, 0))

    body = environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))
    if 'stderr' in query:
        print(query['stderr'], file=environ['wsgi.errors'])
    sleep(time.monotonic() + number('sleep') / 1000)
    burn(time.process_time() + number('burn') / 1000)
    if 'exit' in query:
        os._exit(number('exit'))

    slot, generation = (os.environ.get(f'FCGI_POOL_{name}', '-') for name in ('SLOT', 'GENERATION'))
    text = (f'pid={os.getpid()}\nslot={slot} generation={generation}\n'
            f'body-length={len(body)} body-crc={zlib.crc32(body):08x}\n')
    if 'env' in query:
        text += f'env-{query["env"]}={os.environ.get(query["env"], "")}\n'
    start, size = number('start'), number('size')
    pattern = ''.join(f'{start + i:015d}\n' for i in range(-(-size // 16)))[:size]
    start_response(f'{query.get("status", 200)} OK', [('Content-Type', 'text/plain')])
    return [(text + pattern).encode()]
