"""A job on one GPU, each of its tasks a process of its own: basin-ps with its variables in the device's memory, and so many workers.

usage: gpu_cluster.py --programs FOLDER --workers N -- ARGUMENTS OF basin-worker

Prints one line of JSON: `seconds` from the start to the end of the last process, and `ps`, what the ps says of what it was given. Exit code: 0; 1
where a process has failed, with what it said.
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time


def free_ports(count):
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(('127.0.0.1', 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def run(programs, workers, arguments, folder):
    """(exit code, seconds, what the ps said)"""
    addresses = [f'127.0.0.1:{port}' for port in free_ports(1 + workers)]
    cluster = {'ps': addresses[:1], 'worker': addresses[1:]}
    commands = [('ps', 0, [programs / 'bin/basin-ps', '--device', 'cuda'])]
    commands += [('worker', index, [programs / 'bin/basin-worker', '--device', 'cuda', *arguments]) for index in range(workers)]
    started = time.monotonic()
    tasks = []
    try:
        for kind, index, command in commands:
            with open(folder / f'{kind}-{index}', 'wb') as said:
                environment = dict(os.environ, TF_CONFIG=json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': index}}))
                tasks.append(subprocess.Popen([str(word) for word in command], env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT))
        codes = [task.wait() for task in tasks[1:]]
        codes.append(1 if any(codes) else tasks[0].wait())  # a ps waits for workers that have failed
    finally:
        for task in tasks:
            if task.poll() is None:
                task.kill()
                task.wait()
    seconds = time.monotonic() - started
    said = {path.name: path.read_text(errors='replace') for path in folder.iterdir()}
    if any(codes):
        for name, text in sorted(said.items()):
            print(f'{name}:\n{text[-2000:]}', file=sys.stderr)
    return int(any(codes)), seconds, said['ps-0']


def main():
    parser = argparse.ArgumentParser(prog='gpu_cluster.py', description='One job on one GPU, a process a task: how long it takes.')
    parser.add_argument('--programs', type=pathlib.Path, required=True, help='the folder that has bin/')
    parser.add_argument('--workers', type=int, required=True)
    parser.add_argument('arguments', nargs='*', help="basin-worker's, behind --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        code, seconds, said = run(options.programs, options.workers, options.arguments, pathlib.Path(folder))
    if code == 0:
        end = [line.split('the run is over: ', 1)[1] for line in said.splitlines() if 'the run is over: ' in line]
        print(json.dumps({'seconds': seconds, 'ps': end[0] if end else ''}))
    return code


if __name__ == '__main__':
    sys.exit(main())
