"""Experiments, runs and models: what they ask `basin` for, and what they make of its answers. A stand-in answers."""

import io
import os
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout

import built  # noqa: F401  (sets the paths)
import basin
import stand_in
from basin.core import Experiment, Model, Run, Workspace
from basin.exceptions import ActivityFailedException


class RunCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        before = os.environ['BASIN_PROGRAM']
        self.addCleanup(os.environ.__setitem__, 'BASIN_PROGRAM', before)
        self.basin = stand_in.StandIn(self.folder)
        self.runs = os.path.join(self.folder, 'runs')
        self.run_folder = os.path.join(self.runs, 'e', 'r1')
        os.makedirs(os.path.join(self.run_folder, 'logs'))
        self.experiment = Experiment(Workspace(runs=self.runs), 'e')
        self.run = Run(self.experiment, 'r1')
        self.shows('Running')

    def record(self, state, **more):
        return {'run_id': 'r1', 'experiment': 'e', 'state': state, 'folder': self.run_folder, 'target': 'local',
                'portal_url': f'file://{self.run_folder}/index.html', 'created': '2026-01-02T03:04:05Z', **more}

    def shows(self, *states, **more):
        self.basin.answer('show r1 --json', *[self.record(state, **more) for state in states])


class Submit(RunCase):
    ESTIMATOR = basin.Estimator('/src', entry_script='ä.py')

    def test_starts_detached_and_returns_the_run(self):
        self.basin.answer('submit', self.record('Running'))
        run = self.experiment.submit(self.ESTIMATOR, tags={'who': 'me'}, script_params={'--lr': 0.1})
        self.assertEqual((run.id, run.get_portal_url()), ('r1', f'file://{self.run_folder}/index.html'))
        self.assertEqual(run.tags, {'who': 'me'})
        call, = self.basin.calls()
        self.assertEqual(call['words'][2:], ['--detach', '--json'])
        self.assertEqual(call['runs'], self.runs)
        self.assertEqual(call['job'], {'experiment': 'e', 'source_directory': '/src', 'entry_script': 'ä.py',
                                       'script_params': {'--lr': 0.1}})
        self.assertFalse(os.path.exists(call['words'][1]))

    def test_a_wrong_job_is_refused_in_basins_words(self):
        self.basin.answer('submit', code=2, err='basin: error: JOB:3:1: use_gpu: node h1 has no GPU\n')
        with self.assertRaises(basin.InvalidJob) as caught:
            self.experiment.submit(self.ESTIMATOR)
        self.assertEqual((str(caught.exception), caught.exception.exit_code),
                         ('the estimator: use_gpu: node h1 has no GPU', 2))
        self.assertIsInstance(caught.exception, ValueError)

    def test_other_failures_are_no_fault_of_the_job(self):
        self.basin.answer('submit', code=1, err='basin: the disk is full\n')
        with self.assertRaisesRegex(basin.CommandFailed, '^the disk is full$') as caught:
            self.experiment.submit(self.ESTIMATOR)
        self.assertNotIsInstance(caught.exception, basin.InvalidJob)

    def test_a_run_that_failed_at_its_start_is_a_run(self):
        self.basin.answer('submit', self.record('Failed', reason='no such package'), code=1, err='basin: no\n')
        self.shows('Failed', reason='no such package')
        run = self.experiment.submit(self.ESTIMATOR)
        with self.assertRaisesRegex(ActivityFailedException, 'run r1 failed: no such package'):
            run.wait_for_completion()

    def test_the_plan_is_a_dry_run(self):
        self.basin.answer('submit', {'tasks': []})
        self.assertEqual(self.experiment.plan(self.ESTIMATOR), {'tasks': []})
        self.assertEqual(self.basin.calls()[0]['words'][2:], ['--dry-run', '--json'])

    def test_the_workspaces_targets_are_passed_on(self):
        self.basin.answer('submit', self.record('Running'))
        Experiment(Workspace(targets='/etc/targets.yaml'), 'e').submit(self.ESTIMATOR)
        self.assertEqual(self.basin.calls()[0]['words'][2:], ['--detach', '--targets', '/etc/targets.yaml', '--json'])

    def test_without_the_program_the_places_are_listed(self):
        os.environ['BASIN_PROGRAM'] = '/nowhere/basin'
        with self.assertRaisesRegex(basin.ProgramNotFound, r'set BASIN_PROGRAM.*/nowhere/basin \(BASIN_PROGRAM\)'):
            self.experiment.submit(self.ESTIMATOR)


class Runs(RunCase):
    def test_waits_for_the_end(self):
        self.shows('Preparing', 'Running', 'Completed', ended='2026-01-02T03:05:05Z', git={'azureml.git.branch': 'main'})
        details = self.run.wait_for_completion()
        self.assertEqual((details['status'], details['runId'], details['properties']),
                         ('Completed', 'r1', {'azureml.git.branch': 'main'}))
        self.assertNotIn('error', details)

    def test_prints_logs_as_they_come(self):
        self.shows('Running', 'Completed')
        for name, text in (('worker-0', b'one\ntwo \xff\nlast'), ('mpirun-0', b'ranks\n'), ('environment-0', b'pip\n'),
                           # What Basin itself says, and what the script has put into ./logs.
                           ('agent-0', b'agent\n'), ('worker-00', b'mine\n'), ('progress', b'mine\n')):
            with open(os.path.join(self.run_folder, 'logs', f'{name}.txt'), 'wb') as file:
                file.write(text)
        said = io.StringIO()
        with redirect_stdout(said):
            self.run.wait_for_completion(show_output=True)
        self.assertEqual(said.getvalue().splitlines(), [
            'RunId: r1', f'Web View: file://{self.run_folder}/index.html', '[environment-0] pip', '[mpirun-0] ranks',
            '[worker-0] one', '[worker-0] two \ufffd', '[worker-0] last', 'Run r1: Completed'])

    def test_a_failed_run_raises_unless_told_not_to(self):
        self.shows('Failed', reason='worker 1 was killed')
        with self.assertRaisesRegex(basin.RunFailed, 'worker 1 was killed; its logs are in'):
            self.run.wait_for_completion()
        details = self.run.wait_for_completion(raise_on_error=False)
        self.assertEqual((details['status'], details['error']), ('Failed', 'worker 1 was killed'))

    def test_a_run_that_nobody_supervises_is_not_waited_for(self):
        reason = 'nobody supervises this run any more; its last state was Running; go on with it: basin attach r1'
        self.basin.answer('show r1 --json', self.record('Running'), self.record('NotResponding', reason=reason))
        said = io.StringIO()
        with redirect_stderr(said), self.assertRaisesRegex(basin.RunFailed, f'^run r1: {reason}$'):
            self.run.wait_for_completion()
        self.assertEqual(said.getvalue(), f'run r1 does not respond: {reason}\n')
        with redirect_stderr(said):
            details = self.run.wait_for_completion(raise_on_error=False)
        self.assertEqual((details['status'], details['error']), ('NotResponding', reason))

    def test_a_run_that_responds_again_is_waited_for(self):
        gone, away = (self.record('NotResponding', reason=reason) for reason in ('nobody supervises this run any more', 'node h1 is away'))
        self.basin.answer('show r1 --json', gone, away, away, self.record('Running'), self.record('Completed'))
        said = io.StringIO()
        with redirect_stderr(said):
            self.assertEqual(self.run.wait_for_completion()['status'], 'Completed')
        self.assertEqual(said.getvalue().splitlines(), ['run r1 does not respond: nobody supervises this run any more',
                                                        'run r1 does not respond: node h1 is away'])

    def test_a_canceled_run_is_returned(self):
        self.shows('Canceled')
        self.assertEqual(self.run.wait_for_completion()['status'], 'Canceled')

    def test_is_canceled(self):
        self.basin.answer('cancel r1 --json', {'run_id': 'r1', 'state': 'CancelRequested'})
        self.run.cancel()
        self.assertEqual(self.basin.words(), ['cancel r1 --json'])

    def test_metrics_logged_once_are_values_and_others_lists_in_time_order(self):
        point = lambda value, time, task: {'value': value, 'time': time, 'task': task, 'step': None}
        self.basin.answer('metrics r1 --json', {'accuracy': [point(0.9, 9, 'worker/0')], 'bad': [point('-Infinity', 1, 'worker/0')],
                                                'loss': [point(2, 1.0, 'worker/0'), point(1, 3.0, 'worker/0'), point(1.5, 2.0, 'worker/1')]})
        self.assertEqual(self.run.get_metrics(), {'accuracy': 0.9, 'bad': float('-inf'), 'loss': [2, 1.5, 1]})
        self.assertEqual(self.run.get_metrics('accuracy'), {'accuracy': 0.9})

    def test_files_are_listed_and_downloaded(self):
        self.shows('Completed', files=['outputs/model.h5', 'outputs/sub/x', 'logs/worker-0.txt'])
        self.basin.answer('download', {'path': 'x', 'bytes': 1})
        self.assertEqual(self.run.get_file_names(), ['outputs/model.h5', 'outputs/sub/x', 'logs/worker-0.txt'])
        target = os.path.join(self.folder, 'here')
        self.run.download_file('outputs/model.h5', os.path.join(target, 'm.h5'))
        self.run.download_file('outputs/model.h5', target)  # a folder by now
        self.run.download_files('outputs/', target)
        self.assertEqual([line for line in self.basin.words() if line.startswith('download')], [
            f'download r1 outputs/model.h5 --to {target}/m.h5 --json',
            f'download r1 outputs/model.h5 --to {target}/model.h5 --json',
            f'download r1 outputs/model.h5 --to {target}/outputs/model.h5 --json',
            f'download r1 outputs/sub/x --to {target}/outputs/sub/x --json'])
        self.basin.answer('download', code=2, err='basin: error: none: the run in /f has no such file; there are a, b\n')
        with self.assertRaisesRegex(basin.NotFound, '^none: the run in /f has no such file; there are a, b$'):
            self.run.download_file('none', target)

    def test_details_name_the_logs(self):
        self.shows('Completed', files=['outputs/m', 'logs/worker-0.txt'])
        self.assertEqual(self.run.get_details()['logFiles'],
                         {'logs/worker-0.txt': f'{self.run_folder}/logs/worker-0.txt'})

    def test_runs_of_an_experiment_are_found_by_tags(self):
        other = {**self.record('Completed'), 'run_id': 'r0', 'experiment': 'other'}
        self.basin.answer('runs --experiment=e --limit 0 --json', [self.record('Running')])
        self.basin.answer('runs --limit 0 --json', [self.record('Running'), other])
        self.run.tag('kind', 'try')
        self.assertEqual([run.id for run in self.experiment.get_runs()], ['r1'])
        self.assertEqual([run.id for run in self.experiment.get_runs(tags={'kind': 'try'})], ['r1'])
        self.assertEqual(list(self.experiment.get_runs(tags={'kind': 'other'})), [])
        self.assertEqual(sorted(self.experiment.workspace.experiments), ['e', 'other'])

    def test_a_run_is_found_by_what_names_it(self):
        self.basin.answer('show latest --json', self.record('Completed'))
        run = self.experiment.workspace.get_run('latest')
        self.assertEqual((run.id, run.experiment.name), ('r1', 'e'))
        self.basin.answer('show none --json', code=2, err='basin: no run none\n')
        with self.assertRaisesRegex(basin.NotFound, 'no run none'):
            Run.get(self.experiment.workspace, 'none')


class Models(RunCase):
    RECORD = {'name': 'm', 'version': 2, 'path': 'outputs/model.h5', 'folder': '/f', 'run_id': 'r1', 'checksum': 'c',
              'tags': {'a': 'b'}, 'properties': {}, 'description': 'd', 'created': 't'}

    def test_are_registered_from_a_run(self):
        self.basin.answer('models register', self.RECORD)
        model = self.run.register_model('m', 'outputs/model.h5', tags={'a': 'b'}, properties={'p': 1}, description='d e')
        self.assertEqual((model.id, model.version, model.tags, model.run_id), ('m:2', 2, {'a': 'b'}, 'r1'))
        self.assertEqual(self.basin.calls()[-1]['words'], [
            'models', 'register', 'm', '--run', 'r1', '--path', 'outputs/model.h5', '--tag', 'a=b', '--property', 'p=1',
            '--description', 'd e', '--json'])
        self.run.register_model(model_name='sklearn-sample', model_path=None)
        self.assertEqual(self.basin.words()[-1], 'models register sklearn-sample --run r1 --json')
        with self.assertRaisesRegex(basin.InvalidArgument, "tag 'a=b' has a = in its name"):
            self.run.register_model('m', tags={'a=b': 1})

    def test_an_id_that_names_no_version_is_refused(self):
        workspace = self.experiment.workspace
        for wrong in ('x/y:b', 'm:', 'm:0', 'm:-1', 'm:1.5', 'm:\u0662'):
            with self.subTest(wrong), self.assertRaisesRegex(basin.InvalidArgument, 'expected NAME:VERSION'):
                Model(workspace, id=wrong)
        with self.assertRaisesRegex(basin.InvalidArgument, "'m:1' names another version than version=2"):
            Model(workspace, id='m:1', version=2)
        self.assertEqual(self.basin.calls(), [])
        self.basin.answer('models show m:2 --json', self.RECORD)
        self.assertEqual(Model(workspace, id='m:2', version=2).id, 'm:2')
        self.basin.answer('models show m --json', self.RECORD)
        self.assertEqual(Model(workspace, id='m').id, 'm:2')

    def test_are_looked_up_listed_and_downloaded(self):
        older = {**self.RECORD, 'version': 1, 'tags': {}}
        other = {**self.RECORD, 'name': 'n', 'version': 7}
        self.basin.answer('models list --json', [self.RECORD, older, other])
        self.basin.answer('models show m --json', self.RECORD)
        self.basin.answer('models show m:1 --json', older)
        workspace = self.experiment.workspace
        self.assertEqual(Model(workspace, 'm').version, 2)
        self.assertEqual(Model(workspace, id='m:1').version, Model(workspace, 'm', version=1).version)
        self.assertEqual(basin.Model(workspace, 'm').version, 2)
        ids = lambda models: [model.id for model in models]
        self.assertEqual(ids(Model.list(workspace, 'm')), ['m:2', 'm:1'])
        self.assertEqual(ids(Model.list(workspace, tags={'a': 'b'}, latest=True)), ['m:2', 'n:7'])
        self.assertEqual(sorted(workspace.models), ['m', 'n'])
        self.basin.answer('models download m:2', {'path': f'{self.folder}/to/model.h5', 'bytes': 3})
        target = os.path.join(self.folder, 'to')
        self.assertEqual(Model(workspace, 'm').download(target), f'{target}/model.h5')
        self.assertEqual(self.basin.words()[-1], f'models download m:2 --to {target}/model.h5 --json')
        open(f'{target}/model.h5', 'w').close()
        with self.assertRaisesRegex(basin.AlreadyExists, 'exist_ok'):
            Model(workspace, 'm').download(target)
        Model(workspace, 'm').download(target, exist_ok=True)
        self.basin.answer('models show none --json', code=2, err='basin: no model none\n')
        with self.assertRaisesRegex(basin.NotFound, 'no model none'):
            Model(workspace, 'none')


if __name__ == '__main__':
    unittest.main()
