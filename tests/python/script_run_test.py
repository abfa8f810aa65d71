"""Run.get_context() inside a script: metrics, inputs, files; and outside of any run."""

import io
import json
import multiprocessing
import os
import tempfile
import unittest
from contextlib import redirect_stdout

import numpy

import built  # noqa: F401  (sets the paths)
import basin
from basin.core import Run


def log_many(who):
    run = Run.get_context()
    for step in range(500):
        run.log(f'loss of {who}', step, step=step)


class InATask(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.file = os.path.join(folder.name, 'metrics.jsonl')
        given = {'BASIN_RUN_ID': 'r7', 'BASIN_METRICS_FILE': self.file, 'AZUREML_DATAREFERENCE_mnist': '/data/mnist'}
        os.environ.update(given)
        for name in given:
            self.addCleanup(os.environ.pop, name)

    def lines(self):
        with open(self.file, encoding='utf-8') as file:
            return [json.loads(line) for line in file]

    def test_metrics_are_lines_of_the_metrics_file(self):
        run = Run.get_context()
        self.assertEqual(run.id, 'r7')
        run.log('loss', numpy.float32(0.5), step=3)
        run.log('größe', 7)
        run.log_list('lr', [1, 0.5])
        run.log_row('angle', x=1, y=2)
        found = self.lines()
        self.assertEqual([(line['name'], line['value'], line.get('step')) for line in found], [
            ('loss', 0.5, 3), ('größe', 7.0, None), ('lr', 1.0, None), ('lr', 0.5, None), ('angle.x', 1.0, None),
            ('angle.y', 2.0, None)])
        self.assertTrue(all(line['time'] > 1.6e9 for line in found))
        self.assertNotIn('step', found[1])

    def test_a_task_may_name_its_own_run_and_no_other(self):
        mine = Run(None, 'r7')
        mine.log('loss', 0.5, step=3)
        mine.log_list('lr', [1])
        mine.log_row('angle', x=1)
        self.assertEqual([(line['name'], line['value']) for line in self.lines()],
                         [('loss', 0.5), ('lr', 1.0), ('angle.x', 1.0)])
        with self.assertRaisesRegex(basin.FailedPrecondition,
                                    r'run r8 takes metrics from its own tasks, and this process is a task of run r7; '
                                    r'call Run\.get_context\(\)\.log\(\.\.\.\) in the entry script'):
            Run(None, 'r8').log('loss', 0.5)
        self.assertEqual(len(self.lines()), 3)

    def test_lines_of_several_processes_stay_whole(self):
        context = multiprocessing.get_context('fork')
        writers = [context.Process(target=log_many, args=(i,)) for i in range(4)]
        for one in writers:
            one.start()
        for one in writers:
            one.join()
        found = self.lines()
        self.assertEqual(len(found), 2000)
        for who in range(4):
            self.assertEqual([line['step'] for line in found if line['name'] == f'loss of {who}'], list(range(500)))

    def test_nan_and_infinity_are_lines_of_strict_json(self):
        run = Run.get_context()
        for value in (float('nan'), numpy.float32('inf'), -float('inf')):
            run.log('loss', value)
        with open(self.file) as file:
            found = [json.loads(line, parse_constant=self.fail)['value'] for line in file]
        self.assertEqual(found, ['NaN', 'Infinity', '-Infinity'])

    def test_what_is_no_number_or_no_name_is_refused(self):
        run = Run.get_context()
        with self.assertRaisesRegex(basin.InvalidArgument, "loss: expected a number, found 'high'"):
            run.log('loss', 'high')
        with self.assertRaisesRegex(basin.InvalidArgument, 'named by a text'):
            run.log(3, 1)
        for name in ('x' * 257, 'a\nb'):
            with self.assertRaisesRegex(basin.InvalidArgument, 'at most 256 bytes and no control'):
                run.log(name, 1)
        self.assertFalse(os.path.exists(self.file))

    def test_inputs_have_their_names(self):
        self.assertEqual(Run.get_context().input_datasets, {'mnist': '/data/mnist'})

    def test_files_are_put_where_they_are_kept(self):
        run = Run.get_context()
        with open('model', 'w') as file:
            file.write('weights')
        run.upload_file('outputs/sub/model', 'model')
        run.upload_file('outputs/bytes', io.BytesIO(b'b'))
        with open('outputs/sub/model') as file:
            self.assertEqual(file.read(), 'weights')
        for wrong in ('model2', '../outputs/x', '/tmp/x'):
            with self.subTest(wrong), self.assertRaisesRegex(basin.InvalidArgument, 'below outputs/ or logs/'):
                run.upload_file(wrong, 'model')


class Outside(unittest.TestCase):
    def test_prints_what_is_logged(self):
        said = io.StringIO()
        with redirect_stdout(said), Run.get_context() as run:
            run.log('loss', 0.25)
            run.log('loss', 1 / 8, step=4)
        self.assertEqual(said.getvalue(), 'metric loss = 0.25\nmetric loss = 0.125 at step 4\n')

    def test_a_run_takes_no_metrics_from_outside(self):
        for method, given in (('log', ('loss', 1)), ('log_list', ('loss', [1])), ('log_row', ('loss',))):
            with self.subTest(method), self.assertRaisesRegex(
                    basin.FailedPrecondition, rf'run r1 .*no task of a run; call Run\.get_context\(\)\.{method}\('):
                getattr(Run(None, 'r1'), method)(*given)

    def test_may_be_refused(self):
        with self.assertRaisesRegex(basin.FailedPrecondition, 'no task of a run'):
            Run.get_context(allow_offline=False)


if __name__ == '__main__':
    unittest.main()
