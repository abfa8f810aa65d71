"""Virtual environments with packages from PyPI, kept in ~/.cache/basin and named by what is in them."""

import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

CACHE = pathlib.Path.home() / '.cache' / 'basin'
# Debian's Python, whatever else is first on PATH, for that is what the hosts of tests/estimator have too.
FINDS_ENVIRONMENT = {'BASIN_CACHE': str(CACHE), 'PATH': '/usr/bin:/bin'}


class NotThere(Exception):
    """It would have to be made, and BASIN_TEST_NO_INSTALL forbids that, or PyPI is out of reach; the text says which."""


def python_with(*requirements):
    """The python of an environment that holds these requirements (pinned, such as 'onnx==1.17.0'); made where missing."""
    name = hashlib.sha256('\n'.join([platform.python_version(), sys.executable, *requirements]).encode()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / f'venv-{name}'
    python, complete = folder / 'bin' / 'python', folder / 'complete'
    with open(CACHE / f'venv-{name}.lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return str(python)
        if os.environ.get('BASIN_TEST_NO_INSTALL'):
            raise NotThere(f'{folder} with {", ".join(requirements)} is not there, and nothing may be installed')
        # What an interrupted run has left is no use.
        shutil.rmtree(folder, ignore_errors=True)
        print(f'making {folder} with {", ".join(requirements)}', flush=True)
        subprocess.run([sys.executable, '-m', 'venv', folder], check=True, stdin=subprocess.DEVNULL)
        try:
            subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *requirements],
                           check=True, stdin=subprocess.DEVNULL)
        except subprocess.CalledProcessError as error:
            raise NotThere(f'{", ".join(requirements)} cannot be installed: {error}') from None
        complete.write_text('\n'.join(requirements) + '\n')
    return str(python)


def python_of_job(*requirements):
    """The python of the environment that Basin makes for a job with these pip_packages: made where missing, and found by jobs
    that run with FINDS_ENVIRONMENT."""
    with tempfile.TemporaryDirectory() as folder:
        spec, result = pathlib.Path(folder, 'spec.json'), pathlib.Path(folder, 'result.json')
        spec.write_text(json.dumps({'kind': 'pip', 'requirements': requirements, 'constraints': []}))
        command = [f'{os.environ["BASIN_BINARY_DIR"]}/bin/basin', 'environment-build', '--spec', spec, '--base', CACHE, '--result', result]
        # Where nothing may be installed, pip looks into an empty folder instead of an index.
        nothing = {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': folder} if os.environ.get('BASIN_TEST_NO_INSTALL') else {}
        print(f'making or finding an environment with {", ".join(requirements)} below {CACHE}', flush=True)
        done = subprocess.run(command, env={**os.environ, **FINDS_ENVIRONMENT, **nothing}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise NotThere(f'{", ".join(requirements)} cannot be installed: {done.stderr}')
        return json.loads(result.read_text())['python']
