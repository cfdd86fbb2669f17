# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Who takes part, a file for each kind of manager."""

from contenders.bare import Bare, BareStreams, SocketProxyd
from contenders.fcgi_pool import FcgiPool, FcgiPoolPhp
from contenders.fcgiwrap import Fcgiwrap
from contenders.multiwatch import Multiwatch, SpawnFcgi
from contenders.php_fpm import PhpFpm, PhpFpmDynamic, PhpFpmOndemand, PhpFpmPatient
from contenders.s6 import S6
from contenders.start_server import StartServer
from contenders.supervisor import Supervisor, SupervisorTuned
from contenders.systemd import Templates
from contenders.uwsgi import Uwsgi, UwsgiHup

ALL = {contender.key: contender for contender in (
    FcgiPool, Templates, Supervisor, SupervisorTuned, Multiwatch, SpawnFcgi, S6, StartServer, FcgiPoolPhp, PhpFpm,
    PhpFpmPatient, PhpFpmDynamic, PhpFpmOndemand, Uwsgi, UwsgiHup, Fcgiwrap,
    Bare, BareStreams, SocketProxyd)}
