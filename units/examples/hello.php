<?php
// SPDX-License-Identifier: LGPL-2.1-or-later
// SPDX-FileCopyrightText: fcgi-pool contributors

// A page for php-cgi, which speaks FastCGI itself: nothing in here knows about it.

header('Content-Type: text/plain');
usleep(1000 * max(0, min(60000, (int) ($_GET['sleep'] ?? 0))));
echo 'hello from pid ', getmypid(), "\n";
