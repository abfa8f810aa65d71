"""The commands about runs, on runs as a supervisor writes them: what users and the Python front read."""

import json
import os
import shutil
import sqlite3
import subprocess
import time
import unittest

from written_runs import BASIN, DEADLINE_S, WRITER, EndedRunTest, RunsTest, Supervisor, metric, needs, record, text_of


class RunsCommand(RunsTest):
    def ids(self, *arguments):
        return [run['run_id'] for run in self.json('runs', *arguments)]

    def index(self):
        return next((self.base / 'home/.cache/basin').glob('runs-*.sqlite'))

    def test_newest_first_by_experiment_state_and_limit(self):
        self.assertEqual(self.json('runs'), [])
        self.assertIn('no runs in', self.basin('runs'))
        self.ended('a', 'one', created=1000)
        self.ended('b', 'two', 'Failed', created=3000, reason='it broke')
        self.ended('c', 'one', 'Canceled', created=2000)
        for _ in range(2):  # without the index and with it
            self.assertEqual(self.ids(), ['b', 'c', 'a'])
            self.assertEqual(self.ids('--experiment', 'one'), ['c', 'a'])
            self.assertEqual(self.ids('--state', 'failed'), ['b'])
            self.assertEqual(self.ids('--limit', '2'), ['b', 'c'])
        self.assertRegex(self.basin('runs'), r'(?m)^b +two +Failed')
        self.basin('runs', '--state', 'Fialed', code=2)
        self.assertIn('did you mean Failed?', self.errors)

    def test_a_run_goes_on_while_it_is_listed(self):
        supervisor = self.supervise('a')
        supervisor.do(record=record('a'), now=1764370000)
        supervisor.settle()
        self.assertEqual(self.json('runs')[0]['state'], 'Running')
        supervisor.kill()
        self.assertEqual(self.json('runs')[0]['state'], 'NotResponding')
        self.assertEqual(self.ids('--state', 'NotResponding'), ['a'])
        self.assertIn('basin attach a', self.basin('show', 'a'))
        again = self.supervise('a')
        again.do(record=record('a', state='Completed', ended=text_of(1764370009)), now=1764370009)
        again.end()
        self.assertEqual([run['state'] for run in self.json('runs')], ['Completed'])

    def test_the_index_may_be_deleted_damaged_or_wrong(self):
        for number in range(20):
            self.ended(f'run-{number:02}', created=1000 + number)
        expected = [f'run-{number:02}' for number in reversed(range(20))]
        self.assertEqual(self.ids(), expected)
        index = self.index()
        self.assertEqual(index.stat().st_mode & 0o77, 0)

        def rows():
            with sqlite3.connect(index) as database:
                return database.execute('SELECT count(*) FROM runs').fetchone()[0]

        self.assertEqual(rows(), 20, 'the index is in use')
        whole = index.read_bytes()
        damages = {
            'deleted': index.unlink,
            'no database': lambda: index.write_bytes(b'no database at all' * 1000),
            'cut': lambda: index.write_bytes(whole[:len(whole) // 2]),
            'zeros': lambda: index.write_bytes(whole[:4096] + bytes(len(whole) - 4096)),
            'empty': lambda: index.write_bytes(b''),
        }
        for name, damage in damages.items():
            damage()
            self.assertEqual(self.ids(), expected, name)
            self.assertEqual(rows(), 20, name)
        for change in ("UPDATE runs SET state = 'Failed'", 'UPDATE runs SET created_ms = 7 WHERE name = "exp/run-03"',
                       'DELETE FROM runs WHERE name = "exp/run-04"', 'PRAGMA user_version = 99', 'DROP TABLE runs',
                       'INSERT INTO runs VALUES ("%s", "exp/ghost", "1", 5, "Failed", 1)' % self.runs):
            with sqlite3.connect(index) as database:
                database.execute(change)
            database.close()
            self.assertEqual(self.ids('--state', 'Completed'), expected, change)
            self.assertEqual(self.ids('--state', 'Failed'), [], change)
        # A folder that is gone is gone from the list, one that was replaced is read anew.
        shutil.rmtree(self.runs / 'exp' / 'run-19')
        shutil.rmtree(self.runs / 'exp' / 'run-18')
        self.ended('run-18', state='Failed', created=5)
        self.assertEqual(self.ids(), expected[2:] + ['run-18'])
        self.assertEqual(self.ids('--state', 'Failed'), ['run-18'])
        # A place where none can be kept is no reason to fail.
        shutil.rmtree(self.base / 'home')
        (self.base / 'home').write_text('a file')
        self.assertEqual(self.ids(), expected[2:] + ['run-18'])

    def test_what_cannot_be_read_is_not_called_none(self):
        self.runs.write_text('no folder')
        self.basin('runs', code=2)
        self.assertIn(f'list {self.runs}: Not a directory', self.errors)
        self.basin('show', 'latest', code=2)
        self.assertIn(f'list {self.runs}: Not a directory', self.errors)

    def test_damaged_runs_are_told_of(self):
        self.ended('whole')
        self.ids()
        self.assertEqual(self.errors, '')
        for name in ('cut', 'other'):
            folder = self.ended(name)
            (folder / 'run.json').write_text('{"run_id": "c')
            (folder / 'journal.jsonl').write_text('')
        made_now = self.runs / 'exp/made-now'
        made_now.mkdir()
        (made_now / 'job.json').write_text('{}')
        (self.runs / 'exp/no-run').mkdir()
        for _ in range(2):  # without the index and with it
            self.assertEqual(self.ids(), ['whole'])
            self.assertEqual(self.errors.count('warning'), 1)
            self.assertIn(f'2 runs are not shown: {self.runs}/exp/cut and 1 more cannot be read', self.errors)
        os.utime(made_now / 'job.json', (1000, 1000))  # its submit was killed long ago
        self.ids()
        self.assertIn('3 runs are not shown', self.errors)

    def test_latest_names_a_newer_run_that_is_damaged(self):
        self.ended('20251128-1', created=1000)
        self.ended('20251128-2', created=2000)
        for damaged in ('20251128-0', '20251128-3'):
            folder = self.ended(damaged, created=3000)
            (folder / 'run.json').write_text('{"run_id": "2')
            (folder / 'journal.jsonl').write_text('')
        for command in ('show', 'logs', 'metrics'):
            self.basin(command, 'latest')
            self.assertEqual(self.errors, f'basin: warning: latest passes over what may be newer: {self.runs}/exp/20251128-3: no run: '
                             'neither run.json nor journal.jsonl tells of one; bring run.json or journal.jsonl back, or remove what '
                             'is left: basin delete --force 20251128-3\n')
        self.assertEqual(self.json('show', 'exp/latest')['run_id'], '20251128-2')
        self.basin('delete', 'latest', code=2)
        self.assertIn('run latest: which one that is is not certain: ', self.errors)
        self.assertIn('or give the id of the run that you mean', self.errors)
        self.basin('delete', '--force', '20251128-3')
        self.assertEqual(self.json('show', 'latest')['run_id'], '20251128-2')
        self.assertEqual(self.errors, '')
        self.basin('delete', 'latest')
        self.assertEqual(self.ids(), ['20251128-1'])

    def test_two_submitters_and_readers_at_once(self):
        writers = [Supervisor(self.runs, 'exp', f'run-{number:02}') for number in range(6)]
        for number, writer in enumerate(writers):
            writer.do(record=record(f'run-{number:02}', created=1000 + number), now=1000)
            writer.do(record=record(f'run-{number:02}', created=1000 + number, state='Completed', ended=text_of(2000)), now=2000)
        readers = [subprocess.Popen([BASIN, 'runs', '--json'], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for _ in range(6)]
        for writer in writers:
            self.assertEqual(writer.end()['health'], '')
        for reader in readers:
            out, errors = reader.communicate(timeout=DEADLINE_S)
            self.assertEqual((reader.returncode, errors), (0, b''))
            json.loads(out)
        self.assertEqual(self.ids(), [f'run-{number:02}' for number in reversed(range(6))])

    def test_a_run_is_found_by_id_prefix_experiment_or_latest(self):
        self.ended('20250101-aaaa', 'one', created=2000)
        self.ended('20250101-bbbb', 'two', created=3000)
        self.ended('20240101-cccc', 'one', created=1000)
        for name, expected in {'20250101-aaaa': '20250101-aaaa', '2024': '20240101-cccc', 'one/2025': '20250101-aaaa',
                               'two/20250101-bbbb': '20250101-bbbb', 'latest': '20250101-bbbb', 'one/latest': '20250101-aaaa'}.items():
            self.assertEqual(self.json('show', name)['run_id'], expected, name)
        self.basin('show', '2025', code=2)
        self.assertIn('2 runs are called so: one/20250101-aaaa, two/20250101-bbbb', self.errors)
        self.basin('show', '20250101-abaa', code=2)
        self.assertIn('did you mean 20250101-aaaa?', self.errors)
        for wrong in ('nothing-like-it', '../one', 'one/../two', 'three/latest'):
            self.basin('show', wrong, code=2)
            self.assertIn('there is none of this name', self.errors)


class OneRun(EndedRunTest):
    def test_show_is_the_record_and_the_files(self):
        shown = self.json('show', 'run-1')
        self.assertEqual(shown['files'], ['logs/tensorboard/worker-0/' + self.events(0), 'logs/tensorboard/worker-1/' + self.events(1),
                                          'logs/train.log', 'logs/worker-0.txt', 'logs/worker-1.txt', 'outputs/model/net.bin',
                                          'outputs/model/run.sh'])
        self.assertEqual(shown['metrics'], {'loss': 1, 'a,"b"': 'NaN'})
        self.assertEqual(shown['portal_url'], (self.folder / 'index.html').as_uri())
        self.assertEqual(shown['folder'], str(self.folder))
        self.assertEqual((shown['state'], shown['exit_code'], shown['duration_s']), ('Completed', 0, 60))
        self.assertEqual(shown['git'], {'azureml.git.branch': 'main'})
        self.assertEqual([change['state'] for change in shown['history']], ['Running', 'Completed'])
        text = self.basin('show', 'run-1')
        for part in ('Completed', 'worker 1', 'node-b', '10.0.0.2:2222', 'outputs/model/net.bin', 'azureml.git.branch  main'):
            self.assertIn(part, text)

    def events(self, worker):
        return next((self.folder / f'logs/tensorboard/worker-{worker}').iterdir()).name

    def test_logs_of_all_tasks_or_one_and_their_ends(self):
        self.assertEqual(self.basin('logs', 'run-1'), 'worker/0   | zero 1\nworker/0   | zero 2\nworker/0   | zero 3\n'
                                                      'worker/1   | one 1\nworker/1   | half a line\n')
        self.assertEqual(self.basin('logs', 'run-1', '--task', 'worker/0', '--tail', '2'), 'zero 2\nzero 3\n')
        self.assertEqual(self.basin('logs', 'run-1', '--task', 'worker-1', '--tail', '1'), 'half a line\n')
        self.assertEqual(self.basin('logs', 'run-1', '--tail', '0', '-f'), '')
        self.basin('logs', 'run-1', '--task', 'ps/7', code=2)
        self.assertIn('there are worker/0, worker/1', self.errors)

    def test_a_log_of_progress_bars_is_shown_as_it_is(self):
        supervisor = self.supervise('bars')
        supervisor.do(record=record('bars'), now=1764370000)
        supervisor.piece('worker/0', ' 10%\r 20%\r100%\nwindows\r\n' + 'x' * 200000)
        supervisor.piece('worker/1', 'one\n')
        supervisor.do(record=record('bars', state='Completed', ended=text_of(1764370060)), now=1764370060)
        supervisor.end()
        done = subprocess.run([BASIN, 'logs', 'bars', '--task', 'worker/0'], capture_output=True, env=self.environment, timeout=DEADLINE_S)
        self.assertEqual(done.stdout, b' 10%\r 20%\r100%\nwindows\r\n' + b'x' * 200000 + b'\n')
        done = subprocess.run([BASIN, 'logs', 'bars'], capture_output=True, env=self.environment, timeout=DEADLINE_S)
        lines = done.stdout.split(b'\n')
        self.assertEqual(lines[:2], [b'worker/0   |  10%\r 20%\r100%', b'worker/0   | windows\r'])
        self.assertEqual(lines[-2:], [b'worker/1   | one', b''])
        self.assertGreater(len(lines), 5, 'what has no end is shown in pieces')
        self.assertEqual(b''.join(line.removeprefix(b'worker/0   | ') for line in lines[2:-2]), b'x' * 200000)

    def test_metrics_as_text_csv_and_json(self):
        text = self.basin('metrics', 'run-1')
        self.assertRegex(text, r'(?m)^loss +worker/0 +0.5 +0.5 +2 +2 +█▁$')
        self.assertEqual(self.basin('metrics', 'run-1', '--csv'),
                         'name,task,step,time,value\nloss,worker/0,1,10.000,2\nloss,worker/0,2,11.000,0.5\n'
                         'loss,worker/1,2,12.000,1\n"a,""b""",worker/1,,13.000,nan\n')
        self.assertEqual(self.json('metrics', 'run-1', '--name', 'loss'),
                         {'loss': [{'step': 1, 'value': 2, 'time': 10, 'task': 'worker/0'},
                                   {'step': 2, 'value': 0.5, 'time': 11, 'task': 'worker/0'},
                                   {'step': 2, 'value': 1, 'time': 12, 'task': 'worker/1'}]})
        self.assertEqual(self.json('metrics', 'run-1')['a,"b"'][0]['step'], None)
        self.basin('metrics', 'run-1', '--name', 'lss', code=2)
        self.assertIn('did you mean loss?', self.errors)

    def test_delete_refuses_what_goes_on(self):
        supervisor = self.supervise('run-2')
        supervisor.do(record=record('run-2'), now=1)
        supervisor.settle()
        self.basin('delete', 'run-1', 'run-2', '--force', code=2)
        self.assertIn('basin cancel run-2', self.errors)
        self.assertTrue(self.folder.exists(), 'one that is refused keeps the others')
        supervisor.kill()
        self.basin('delete', 'run-2', code=2)
        self.assertIn('--force', self.errors)
        self.assertEqual(self.json('delete', 'run-1', 'run-2', '--force'), {'deleted': ['run-1', 'run-2']})
        self.assertEqual(self.json('runs'), [])
        self.assertFalse((self.runs / 'exp').exists())


class KeptOnNodes(RunsTest):
    def test_delete_removes_or_names_what_was_kept_on_nodes(self):
        here = self.base / 'cache/runs/held/node-0'
        stranger = self.base / 'project/node-0'
        for folder in (here, stranger):
            folder.mkdir(parents=True)
            (folder / 'large.bin').write_text('x')
        supervisor = self.supervise('held')
        supervisor.do(record=record('held'), now=1764370000)
        for host, folder, local in (('here', here, True), ('here', here, True), ('h1', '/scratch/basin/runs/held/node-1', False), ('here', stranger, True)):
            supervisor.do(journal='kept', fields={'host': host, 'folder': str(folder), 'local': local}, now=1764370001)
        supervisor.do(record=record('held', state='Completed', ended=text_of(1764370060)), now=1764370060)
        supervisor.end()
        said = self.basin('delete', 'held')
        self.assertEqual(said.splitlines(), [f'deleted {supervisor.folder}', f'deleted {here}',
                                             'kept on node h1, unless you have removed it: /scratch/basin/runs/held/node-1',
                                             f'kept on node here, unless you have removed it: {stranger}'])
        self.assertFalse(here.parent.exists())
        self.assertTrue((stranger / 'large.bin').exists(), "no folder of this run's")


class Living(RunsTest):
    def test_logs_of_a_task_are_waited_for(self):
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1', state='Preparing'), now=1)
        supervisor.settle()
        self.basin('logs', 'run-1', '--task', 'worker/0', code=2)
        self.basin('logs', 'run-1', '-f', '--task', 'worker/7', code=2)
        self.assertIn('there are ps/0, worker/0, worker/1', self.errors)
        follower = subprocess.Popen([BASIN, 'logs', 'run-1', '-f', '--task', 'worker-0'], env=self.environment,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        supervisor.piece('worker/0', '10%\r')
        supervisor.settle()
        self.assertEqual(follower.stdout.read(4), b'10%\r', 'a progress bar is seen while it moves')
        supervisor.piece('worker/0', '100%\n')
        supervisor.do(record=record('run-1', state='Completed', ended=text_of(9)), now=9)
        supervisor.end()
        self.assertEqual(follower.communicate(timeout=DEADLINE_S), (b'100%\n', b''))
        self.assertEqual(follower.returncode, 0)

    def test_logs_of_a_run_that_is_submitted_at_this_moment_are_waited_for(self):
        (self.runs / 'exp/run-1/logs').mkdir(parents=True)
        follower = subprocess.Popen([BASIN, 'logs', 'run-1', '-f', '--task', 'worker/0'], env=self.environment,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self.assertRaises(subprocess.TimeoutExpired):
            follower.wait(timeout=0.5)
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1', state='NotStarted', tasks=[]), now=1)
        supervisor.piece('worker/0', 'first\n')
        supervisor.do(record=record('run-1', state='Completed', ended=text_of(9)), now=9)
        supervisor.end()
        self.assertEqual(follower.communicate(timeout=DEADLINE_S), (b'first\n', b''))
        self.assertEqual(follower.returncode, 0)

    def test_logs_follow_until_the_run_ends(self):
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1'), now=1)
        supervisor.piece('worker/0', 'first\n')
        supervisor.settle()
        follower = subprocess.Popen([BASIN, 'logs', 'run-1', '-f'], env=self.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.assertEqual(follower.stdout.readline(), 'worker/0   | first\n')
        supervisor.piece('worker/1', 'a line in ')
        supervisor.settle()
        supervisor.piece('worker/1', 'two pieces\n')
        supervisor.settle()
        self.assertEqual(follower.stdout.readline(), 'worker/1   | a line in two pieces\n')
        supervisor.piece('worker/0', 'the end')
        supervisor.do(record=record('run-1', state='Completed', ended=text_of(9)), now=9)
        supervisor.end()
        self.assertEqual(follower.stdout.read(), 'worker/0   | the end\n')
        self.assertEqual(follower.wait(timeout=DEADLINE_S), 0)

    def test_scripts_report_metrics(self):
        file = self.base / 'metrics.jsonl'
        self.basin('metric', 'log', 'loss', '0.5', code=2)
        self.assertIn('no task of a run', self.errors)
        self.environment['BASIN_METRICS_FILE'] = str(file)
        self.basin('metric', 'log', 'loss', '-0.5', '--step', '12')
        self.basin('metric', 'log', 'my "metric"', 'nan')
        self.basin('metric', 'log', 'loss', 'low', code=2)
        self.assertIn('"low" is no number', self.errors)
        self.basin('metric', 'log', '', '1', code=2)
        self.basin('metric', 'log', 'a\nb', '1', code=2)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        self.assertEqual([(line['name'], line['value'], line.get('step')) for line in lines],
                         [('loss', -0.5, 12), ('my "metric"', 'NaN', None)])
        self.assertLess(abs(lines[0]['time'] - time.time()), 60)
        self.assertEqual(file.stat().st_mode & 0o77, 0)
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1'), now=1)
        supervisor.piece('chief/0', file.read_text(), 'metrics')
        supervisor.end()
        self.assertEqual(self.json('metrics', 'run-1')['loss'][0]['value'], -0.5)


class FullDisk(RunsTest):
    def inside(self):
        """What a command begins with that sees a file system of 1 MiB as the folder of runs, in a mount namespace of its own."""
        self.runs.mkdir()
        script = f'mount -t tmpfs -o size=1m,mode=0700 none {self.runs} && exec "$@"'
        inside = ['unshare', '--mount', *(['--user', '--map-root-user'] if os.getuid() else []), 'sh', '-c', script, 'sh']
        if subprocess.run([*inside, 'true'], capture_output=True).returncode != 0:
            needs.skip('no mount namespaces here')
        return inside

    def test_the_room_for_the_end_is_kept_for_the_end(self):
        inside = self.inside()
        # Others fill the disk again and again, while the page is due and states change.
        calls = [{'record': record('run-1', state='Preparing'), 'now': 1764370000}, {'job': {'text': 'x' * 60000}}]
        for number in range(1, 6):
            now = 1764370000 + 10 * number
            calls += [{'fill': f'{self.runs}/others-{number}'},
                      {'record': record('run-1', state='Running' if number % 2 else 'NotResponding'), 'now': now}, {'time': now + 6}]
        calls += [{'fill': f'{self.runs}/others-last'},
                  {'record': record('run-1', state='Failed', reason='r' * 20000, exit_code=1, ended=text_of(1764370060)),
                   'now': 1764370060}]
        (self.base / 'calls').write_text(''.join(json.dumps(call) + '\n' for call in calls))
        commands = (f'{WRITER} {self.runs} exp run-1 < {self.base}/calls >/dev/null && {BASIN} show run-1 --json && '
                    f'cat {self.runs}/exp/run-1/journal.jsonl')
        done = subprocess.run([*inside, 'sh', '-c', commands], capture_output=True, text=True, env=self.environment, timeout=DEADLINE_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        shown, end = json.JSONDecoder().raw_decode(done.stdout)
        self.assertEqual((shown['state'], shown['exit_code']), ('Failed', 1))
        self.assertEqual([change['state'] for change in shown['history']],
                         ['Preparing', 'Running', 'NotResponding', 'Running', 'NotResponding', 'Running', 'Failed'])
        self.assertIn('"state":"Failed"', done.stdout[end:])

    def test_the_run_goes_on_and_its_history_stays_readable(self):
        inside = self.inside()
        calls = [{'record': record('run-1'), 'now': 1764370000}]
        calls += [{'piece': {'task': 'worker/0', 'data': f'line {number}\n'}} for number in range(3)]
        calls += [{'bytes': 100000, 'piece': {'task': 'worker/1'}} for _ in range(20)]
        calls += [{'piece': {'stream': 'metrics', 'task': 'worker/0', 'data': metric('loss', 1, 1)}},
                  {'bytes': 100000, 'piece': {'stream': 'output', 'task': 'worker/0', 'path': 'model.bin', 'last': True, 'chief': True}},
                  {'journal': 'node_lost', 'fields': {'node': 1}, 'now': 1764370050},
                  {'record': record('run-1', state='Failed', reason='the disk is full', exit_code=1, ended=text_of(1764370060)),
                   'now': 1764370060}]
        (self.base / 'calls').write_text(''.join(json.dumps(call) + '\n' for call in calls))
        commands = (f'{WRITER} {self.runs} exp run-1 < {self.base}/calls && {BASIN} show run-1 --json && echo ---- && '
                    f'{BASIN} logs run-1 --task worker/0 && {BASIN} runs && test ! -e {self.runs}/exp/run-1/outputs/model.bin')
        done = subprocess.run([*inside, 'sh', '-c', commands], capture_output=True, text=True, env=self.environment, timeout=DEADLINE_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        first, rest = done.stdout.split('\n', 1)
        self.assertGreater(json.loads(first)['unstored'], 3)
        self.assertEqual(done.stderr.count('is not complete'), 1, done.stderr)
        self.assertIn('No space left on device', done.stderr)
        shown = json.loads(rest.split('----')[0])
        self.assertEqual((shown['state'], shown['reason'], shown['exit_code']), ('Failed', 'the disk is full', 1))
        self.assertIn('line 0\nline 1\nline 2\n', rest)
        self.assertRegex(rest, r'(?m)^run-1 +exp +Failed')


if __name__ == '__main__':
    unittest.main()
