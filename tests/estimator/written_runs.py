"""Runs as a supervisor writes them, made by the program history_writer, for the tests of what is read back."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'cluster'))
import needs  # noqa: E402  (found by the line above)
import processes  # noqa: E402

DEADLINE_S = processes.DEADLINE_S
BINARIES = pathlib.Path(os.environ.get('BASIN_BINARY_DIR', 'build/release'))
BASIN = str(BINARIES / 'bin' / 'basin')
WRITER = str(BINARIES / 'tests' / 'history_writer')


def record(run_id, experiment='exp', state='Running', created=1764370000.0, **fields):
    """A run's record with a ps and two workers, as RunHistory::Record takes it."""
    tasks = [{'role': 'ps', 'index': 0, 'host': 'node-a', 'address': '10.0.0.1:2222', 'pid': 100},
             {'role': 'worker', 'index': 0, 'host': 'node-a', 'address': '10.0.0.1:2223', 'pid': 101},
             {'role': 'worker', 'index': 1, 'host': 'node-b', 'address': '10.0.0.2:2222', 'pid': 102}]
    whole = {'run_id': run_id, 'experiment': experiment, 'state': state, 'created': text_of(created), 'target': 'local',
             'tasks': tasks, **fields}
    return whole


def text_of(seconds):
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds)) + f'.{round(seconds * 1000) % 1000:03d}Z'


def metric(name, value, step=None, when=1764370000.0):
    line = {'name': name, 'value': value, 'time': when}
    if step is not None:
        line['step'] = step
    return json.dumps(line) + '\n'


class Supervisor:
    """A history_writer under way: it holds the run's lock until end()."""

    def __init__(self, runs, experiment, run_id):
        self.folder = pathlib.Path(runs, experiment, run_id)
        self.process = subprocess.Popen([WRITER, str(runs), experiment, run_id], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def do(self, **call):
        self.process.stdin.write(json.dumps(call) + '\n')

    def piece(self, task, data, stream='log', **fields):
        self.do(piece={'stream': stream, 'task': task, 'data': data, **fields})

    def settle(self):
        """Returns when all calls so far have been carried out."""
        self.do(wait=True)
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line == 'ready\n', line + self.process.stderr.read()

    def end(self):
        out, errors = self.process.communicate()
        assert self.process.returncode == 0, errors
        result = json.loads(out.splitlines()[-1])
        result['errors'] = errors
        return result

    def kill(self):
        self.process.kill()
        self.process.communicate()


class RunsTest(unittest.TestCase):
    """With a folder of runs, a HOME and a current folder of the test's own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.base = pathlib.Path(folder.name).resolve()
        self.runs = self.base / 'runs'
        self.work = self.base / 'work'
        self.work.mkdir()
        self.environment = {**os.environ, 'HOME': str(self.base / 'home'), 'BASIN_RUNS': str(self.runs)}
        for name in ('XDG_CACHE_HOME', 'BASIN_METRICS_FILE'):
            self.environment.pop(name, None)

    def supervise(self, run_id, experiment='exp'):
        return Supervisor(self.runs, experiment, run_id)

    def ended(self, run_id, experiment='exp', state='Completed', created=1764370000.0, **fields):
        """A run that is over; returns its folder."""
        supervisor = self.supervise(run_id, experiment)
        supervisor.do(record=record(run_id, experiment, 'Running', created), now=created)
        supervisor.do(record=record(run_id, experiment, state, created, ended=text_of(created + 90), **fields), now=created + 90)
        supervisor.end()
        return supervisor.folder

    def basin(self, *arguments, code=0, **options):
        done = subprocess.run([BASIN, *arguments], capture_output=True, text=True, env=self.environment, cwd=self.work,
                              timeout=DEADLINE_S, **options)
        self.assertEqual(done.returncode, code, f'basin {" ".join(arguments)}\n{done.stdout}{done.stderr}')
        self.errors = done.stderr
        return done.stdout

    def json(self, *arguments, **options):
        return json.loads(self.basin(*arguments, '--json', **options))


class EndedRunTest(RunsTest):
    """With run-1, which has ended and left logs, metrics and a model."""

    def setUp(self):
        super().setUp()
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1', git={'azureml.git.branch': 'main'}), now=1764370000)
        supervisor.piece('worker/0', 'zero 1\nzero 2\nzero 3\n')
        supervisor.piece('worker/1', 'one 1\nhalf a line')
        supervisor.piece('worker/0', 'epoch 1\n', 'script_log', path='train.log', chief=True)
        supervisor.piece('worker/0', metric('loss', 2, 1, 10) + metric('loss', 0.5, 2, 11), 'metrics')
        supervisor.piece('worker/1', metric('loss', 1, 2, 12) + metric('a,"b"', 'NaN', None, 13), 'metrics')
        supervisor.piece('worker/0', 'weights', 'output', path='model/net.bin', last=True, chief=True)
        supervisor.piece('worker/0', '#!/bin/sh\n', 'output', path='model/run.sh', last=True, executable=True, chief=True)
        supervisor.do(record=record('run-1', state='Completed', ended=text_of(1764370060), exit_code=0,
                                    git={'azureml.git.branch': 'main'}), now=1764370060)
        supervisor.end()
        self.folder = supervisor.folder
