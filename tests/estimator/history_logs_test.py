"""basin logs for programs, and of a run whose folder goes."""

import json
import shutil
import subprocess
import unittest

from written_runs import BASIN, EndedRunTest, RunsTest, metric, record, text_of


class LogsOfAnEndedRun(EndedRunTest):
    def json_lines(self, *arguments):
        return [json.loads(line) for line in self.basin('logs', *arguments, '--json').splitlines()]

    def test_each_line_is_one_object(self):
        def line(worker, text):
            return {'task': f'worker/{worker}', 'file': f'logs/worker-{worker}.txt', 'text': text}

        (self.folder / 'logs/environment-h0.txt').write_text('building\n')
        self.assertEqual(self.json_lines('run-1'),
                         [{'task': None, 'file': 'logs/environment-h0.txt', 'text': 'building'}, line(0, 'zero 1'),
                          line(0, 'zero 2'), line(0, 'zero 3'), line(1, 'one 1'), line(1, 'half a line')])
        self.assertEqual(self.json_lines('run-1', '--task', 'worker/1', '--tail', '1', '-f'), [line(1, 'half a line')])
        (self.folder / 'logs/worker-1.txt').write_bytes(b'"\xff"\t\x1b[0m 50%\r\n\n' + '\u00e9'.encode() * 150_001 + b'\nlast\n')
        shown = self.json_lines('run-1', '--task', 'worker/1')
        self.assertEqual([one['text'] for one in shown[:2]], ['"\ufffd"\t\x1b[0m 50%\r', ''])
        self.assertEqual(shown[-1], line(1, 'last'))
        self.assertEqual(''.join(one['text'] for one in shown[2:-1]), '\u00e9' * 150_001)
        self.assertGreater(len(shown[2:-1]), 1, 'a very long line comes in pieces')
        self.assertEqual([one.get('goes_on', False) for one in shown[2:-1]], [True] * (len(shown[2:-1]) - 1) + [False])


class LogsOfALivingRun(RunsTest):
    def test_objects_come_as_the_lines_do(self):
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1'), now=1)
        supervisor.piece('worker/0', 'first\nthe e')
        supervisor.settle()
        follower = subprocess.Popen([BASIN, 'logs', 'run-1', '-f', '--json'], env=self.environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(follower.stdout.close)
        self.assertEqual(json.loads(follower.stdout.readline())['text'], 'first')
        supervisor.piece('worker/0', 'nd')
        supervisor.do(record=record('run-1', state='Completed', ended=text_of(9)), now=9)
        supervisor.end()
        self.assertEqual(json.loads(follower.stdout.read())['text'], 'the end')
        self.assertEqual(follower.wait(timeout=60), 0)

    def test_whoever_follows_logs_of_a_run_that_is_removed_is_told(self):
        supervisor = self.supervise('run-1')
        supervisor.do(record=record('run-1'), now=1)
        supervisor.piece('worker/0', 'first\n')
        supervisor.settle()
        follower = subprocess.Popen([BASIN, 'logs', 'run-1', '-f'], env=self.environment, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
        self.assertEqual(follower.stdout.readline(), 'worker/0   | first\n')
        shutil.rmtree(supervisor.folder)
        _, errors = follower.communicate(timeout=60)
        self.assertIn(f"error: the run's folder {supervisor.folder} was removed", errors)
        self.assertEqual(follower.returncode, 1)
        # Nothing that still comes makes it anew.
        supervisor.piece('worker/0', 'second\n')
        supervisor.piece('worker/1', metric('loss', 1, 1), 'metrics')
        supervisor.do(record=record('run-1', state='Failed', ended=text_of(9)), now=9)
        supervisor.settle()
        supervisor.kill()
        self.assertFalse(supervisor.folder.exists())


if __name__ == '__main__':
    unittest.main()
