<?php
// SPDX-License-Identifier: LGPL-2.1-or-later
// SPDX-FileCopyrightText: fcgi-pool contributors

// The echo contract (echo-contract.h) for php-cgi. PHP cannot end its process with a code of choice, so
// exit= kills it by SIGKILL (posix extension), whatever the code.

function env_or_dash(string $name): string {
        $value = getenv($name, true);
        return $value === false || $value === '' ? '-' : $value;
}

function pattern(int $start, int $size): string {
        $text = '';
        while (strlen($text) < $size)
                $text .= sprintf("%015d\n", $start++);
        return substr($text, 0, $size);
}

$body = file_get_contents('php://input');

$until = hrtime(true) + (int) ($_GET['sleep'] ?? 0) * 1000000;
while (($left = $until - hrtime(true)) > 0)
        usleep(max(1, intdiv($left, 1000)));

$until = hrtime(true) + (int) ($_GET['burn'] ?? 0) * 1000000;
while (hrtime(true) < $until)
        ;

if (isset($_GET['stderr']))
        file_put_contents('php://stderr', $_GET['stderr'] . "\n");
if (isset($_GET['exit']))
        posix_kill(getmypid(), 9);

header('Content-Type: text/plain');
if (isset($_GET['status']))
        http_response_code((int) $_GET['status']);

printf("pid=%d\nslot=%s generation=%s\nbody-length=%d body-crc=%08x\n", getmypid(),
       env_or_dash('FCGI_POOL_SLOT'), env_or_dash('FCGI_POOL_GENERATION'), strlen($body), crc32($body));
if (isset($_GET['env'])) {
        $value = getenv($_GET['env'], true);
        printf("env-%s=%s\n", $_GET['env'], $value === false ? '' : $value);
}
echo pattern((int) ($_GET['start'] ?? 0), (int) ($_GET['size'] ?? 0));
