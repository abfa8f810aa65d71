"""The build, installed into a folder of its own, and a ps from there with a program beside it."""

import glob
import json
import os
import socket
import subprocess
import time

SOURCE = os.environ['BASIN_SOURCE_DIR']
BINARY = os.environ['BASIN_BINARY_DIR']
# Generous: the machine may be loaded. Nothing is measured.
PATIENCE_S = 400


def run(command, **options):
    """Runs it to its end and returns its output; a failure shows the whole output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
                          stdin=subprocess.DEVNULL, timeout=PATIENCE_S, **options)
    if done.returncode != 0:
        raise AssertionError(f'{" ".join(command)} ended with {done.returncode}:\n{done.stdout}')
    return done.stdout


def install(prefix):
    run(['cmake', '--install', BINARY, '--prefix', prefix])


def library_of(prefix):
    found = glob.glob(f'{prefix}/lib*/**/libbasin.so', recursive=True)
    assert len(found) == 1, f'expected one libbasin.so below {prefix}, found {found}'
    return found[0]


def free_port():
    """A port that nobody has now. Somebody may take it before it is used: run_beside_ps tries again then."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def tf_config(ps_port, role):
    return json.dumps({'cluster': {'ps': [f'127.0.0.1:{ps_port}'], 'worker': [f'127.0.0.1:{free_port()}']},
                       'task': {'type': role, 'index': 0}})


def run_beside_ps(prefix, command, environment=None):
    """Starts the installed basin-ps, runs the command as the only worker, and returns its output.

    Both must end with 0: the program by itself, the ps because the run is finished.
    """
    for attempt in range(5):
        port = free_port()
        ps = subprocess.Popen([f'{prefix}/bin/basin-ps'], env={**os.environ, 'TF_CONFIG': tf_config(port, 'ps')},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        try:
            # The port may have been taken in between; then the ps ends at once and says so.
            if wait_until_listening(ps, port):
                output = run(command, env={**os.environ, **(environment or {}), 'TF_CONFIG': tf_config(port, 'worker')})
                said, _ = ps.communicate(timeout=PATIENCE_S)
                assert ps.returncode == 0, f'basin-ps ended with {ps.returncode}:\n{said}'
                return output
            said, _ = ps.communicate(timeout=PATIENCE_S)
            assert 'in use' in said, f'basin-ps ended with {ps.returncode} before it listened:\n{said}'
        finally:
            if ps.poll() is None:
                ps.kill()
                print('basin-ps, killed; it had said:\n' + ps.communicate()[0], flush=True)
    raise AssertionError('no free port in 5 attempts')


def wait_until_listening(ps, port):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and ps.poll() is None:
        if is_listened_on(port, ps.pid):
            return True
        time.sleep(0.05)
    assert ps.poll() is not None, f'basin-ps does not listen on 127.0.0.1:{port} after {PATIENCE_S} s'
    return False


def is_listened_on(port, pid):
    """Whether the process itself listens there; asked of the kernel, without connecting."""
    with open('/proc/net/tcp', encoding='ascii') as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == '0A' and int(row[1].split(':')[1], 16) == port}
    try:
        for name in os.listdir(f'/proc/{pid}/fd'):
            target = os.readlink(f'/proc/{pid}/fd/{name}')
            if target.startswith('socket:[') and target[8:-1] in inodes:
                return True
    except FileNotFoundError:
        return False  # it has just ended, or closed that descriptor
    return False
