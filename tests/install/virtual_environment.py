"""Virtual environments with packages from PyPI, kept in ~/.cache/basin and named by what is in them."""

import fcntl
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys


class NotThere(Exception):
    """It would have to be made, and BASIN_TEST_NO_INSTALL forbids that."""


def python_with(*requirements):
    """The python of an environment that holds these requirements (pinned, such as 'onnx==1.17.0'); made where missing."""
    name = hashlib.sha256('\n'.join([platform.python_version(), sys.executable, *requirements]).encode()).hexdigest()[:16]
    cache = pathlib.Path.home() / '.cache' / 'basin'
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f'venv-{name}'
    python, complete = folder / 'bin' / 'python', folder / 'complete'
    with open(cache / f'venv-{name}.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return str(python)
        if os.environ.get('BASIN_TEST_NO_INSTALL'):
            raise NotThere(f'{folder} with {", ".join(requirements)} is not there, and nothing may be installed')
        # What an interrupted run has left is no use.
        shutil.rmtree(folder, ignore_errors=True)
        print(f'making {folder} with {", ".join(requirements)}', flush=True)
        subprocess.run([sys.executable, '-m', 'venv', folder], check=True, stdin=subprocess.DEVNULL)
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *requirements],
                       check=True, stdin=subprocess.DEVNULL)
        complete.write_text('\n'.join(requirements) + '\n')
    return str(python)
