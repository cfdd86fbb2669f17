# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""fcgi-pool in its template unit, as it is installed."""

import os
import pathlib

import lib
import survival
from contender import BACKLOG, SLICE, Contender, install


class FcgiPool(Contender, lib.TemplatePool):
    """pool: further options of fcgi-pool; size: its --workers=, if that is not the number of workers at the start"""
    key, title = 'fcgi-pool', 'fcgi-pool'
    env = {}

    def __init__(self, n_workers=4, *, pool=(), size=None, service=(), **options):
        self.pool_arguments = [f'--workers={n_workers if size is None else size}', *pool]
        self.service_arguments = list(service)
        super().__init__(n_workers, **options)

    def pool_options(self):
        return {'command': [self.app], 'options': self.pool_arguments, 'socket': [f'Backlog={BACKLOG}'],
                'unit': ['StartLimitIntervalSec=0'], 'service': [f'Slice={SLICE}', *self.service_arguments],
                'env': self.env}

    def reinstall(self):
        """There is no package of Debian's: what one would do."""
        survival.reinstall([self])


class FcgiPoolPhp(FcgiPool):
    """With php-cgi, which runs the same script as php-fpm."""
    key, title = 'fcgi-pool-php', 'fcgi-pool, php-cgi'
    program = os.path.realpath('/usr/bin/php-cgi')
    env = {'PHP_FCGI_MAX_REQUESTS': '0'}

    def files_of_application(self):
        return {'app': pathlib.Path('/usr/bin/php-cgi'), 'index.php': install('echo.php')}

    def request(self):
        return {'param': f'SCRIPT_FILENAME={self.application.current}/index.php'}
