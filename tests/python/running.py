"""Jobs by the real `basin`, for tests: where runs go, and what this machine can do."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import built
import basin
import needs
import processes


def has_conda():
    return any(shutil.which(name) for name in ('micromamba', 'mamba', 'conda'))


def has_gpu():
    return os.path.exists('/dev/nvidia0')


@functools.lru_cache(None)
def _reaches_pypi():
    """Whether pip can fetch here: asked of pip itself, which knows its own index and proxy."""
    if os.environ.get('BASIN_TEST_NO_INSTALL'):
        return False
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', folder, 'six'],
                              capture_output=True).returncode == 0


pypi = needs.needs(_reaches_pypi, 'PyPI is out of reach')

class RunCase(unittest.TestCase):
    """A test with a folder for runs and one for what is cached; no process of it outlives it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        _, mark = processes.marked_environment()
        # Tasks find the packages of this test's own Python: its folder comes first on PATH.
        changed = {'BASIN_RUNS': self.path('runs'), 'BASIN_CACHE': self.path('cache'), processes.MARK: mark,
                   'PATH': f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'}
        for name, value in changed.items():
            before = os.environ.get(name)
            self.addCleanup(os.environ.__setitem__ if before is not None else os.environ.pop, name,
                            *([before] if before is not None else [None]))
            os.environ[name] = value
        self.addCleanup(self.nothing_is_left, mark)

    def nothing_is_left(self, mark):
        mine = lambda: [pid for pid in processes.marked_pids(mark) if pid != os.getpid()]
        try:
            processes.wait_until(lambda: not mine(), 'no process of the test is left')
        finally:
            for pid in mine():
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(pid, 9)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def completes(self, run):
        """Waits for it; its logs are the message where it does not complete."""
        details = run.wait_for_completion(raise_on_error=False)
        if details['status'] != 'Completed':
            said = []
            for folder, _, names in os.walk(os.path.join(run.folder, 'logs')):
                for name in sorted(names):
                    with open(os.path.join(folder, name), errors='replace') as file:
                        said.append(f'--- {name}\n{file.read()[-3000:]}')
            self.fail(f'{details["status"]}: {details.get("error")}\n' + '\n'.join(said))
        return details


__all__ = ['RunCase', 'basin', 'built', 'processes', 'has_conda', 'has_gpu', 'needs', 'pypi']
