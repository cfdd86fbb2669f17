# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""An application of which new versions are deployed: a directory behind a symbolic link that is replaced atomically."""

import os
import pathlib
import shutil

# What is no good, by a shell script in place of the program: how it fails.
BROKEN = {
    'exits at once': 'exit 3',
    'never ready': 'exec sleep 600',
}


class Application:
    """files: {name: path of the file that a good version has under this name, or its text}"""

    def __init__(self, directory, files):
        self.directory, self.files, self.n_versions = pathlib.Path(directory), files, 0

    @property
    def current(self):
        return self.directory / 'current'

    def create(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o755, parents=True)
        self.deploy_good()

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def deploy(self, files):
        self.n_versions += 1
        directory = self.directory / f'version-{self.n_versions}'
        directory.mkdir(mode=0o755)
        for name, content in files.items():
            if isinstance(content, pathlib.Path):
                (directory / name).symlink_to(content)
            else:
                (directory / name).write_text(content)
                (directory / name).chmod(0o755)
        new = self.directory / 'new'
        new.symlink_to(directory.name)
        os.rename(new, self.current)

    def deploy_good(self):
        self.deploy(self.files)

    def deploy_broken(self, how):
        self.deploy({**self.files, 'app': f'#!/bin/sh\n{BROKEN[how]}\n'})
