"""Jobs from Python by the real `basin`: planned, run, watched, canceled, looked at afterwards."""

import contextlib
import glob
import io
import json
import os
import signal
import subprocess
import sys
import unittest

import running
from running import basin, built, processes
from basin.core import Experiment, Model, Run, Workspace

DATA = '/usr/share/datasets/fashion-mnist'
EXAMPLE = built.SOURCE / 'examples' / '06_python'
LOGS = '''
import os, sys, time
from basin.core import Run
run = Run.get_context(allow_offline=False)
print('hello from', os.environ['BASIN_ROLE'], sys.argv[1:], flush=True)
for step in range(3):
    run.log('loss', 1 / (1 + step), step=step)
run.log('accuracy', 0.9)
os.makedirs('outputs', exist_ok=True)
with open('outputs/model.txt', 'w') as file:
    file.write('weights of ' + run.id)
'''
FAILS = 'import sys\nprint("about to fail", flush=True)\nsys.exit("no luck")\n'
STAYS = 'import time\nprint("up", flush=True)\ntime.sleep(600)\n'


class Plans(running.RunCase):
    def test_a_built_in_program_is_planned(self):
        estimator = basin.Estimator(entry_script='basin:mlp', script_params={'--epochs': 1}, distributed_backend='PS',
                                    distributed_training=basin.ParameterServer(worker_count=3, parameter_server_count=2),
                                    inputs=[{'name': 'data', 'path': self.folder}])
        plan = Experiment(Workspace(), 'plans').plan(estimator, script_params={'--hidden': 64})
        self.assertEqual([(task['role'], task['index']) for task in plan['tasks']],
                         [('ps', 0), ('ps', 1), ('worker', 0), ('worker', 1), ('worker', 2)])
        words = ' '.join(plan['tasks'][2]['argv'])
        self.assertIn('--epochs 1 --hidden 64', words.replace('=', ' '))
        self.assertFalse(os.path.exists(self.path('runs')))

    def test_the_projects_targets_file_is_found(self):
        self.write('targets.yaml', 'here:\n  kind: ssh\n  nodes: [h1]\nboth:\n  kind: ssh\n  nodes: [h3]\n')
        named = self.write('named/all.yaml', 'there:\n  kind: ssh\n  nodes: [h4]\nboth:\n  kind: ssh\n  nodes: [h5]\n')
        host = lambda target, **workspace: Experiment(Workspace(**workspace), 'plans').plan(basin.Estimator(
            entry_script='basin:mlp', compute_target=target, distributed_backend='ps',
            inputs=[{'name': 'data', 'path': self.folder}]))['tasks'][0]['host']
        self.assertEqual(host('here'), 'h1')
        # The workspace's file comes first, and takes nothing away.
        self.assertEqual(host('there', targets=named), 'h4')
        self.assertEqual(host('both', targets=named), 'h5')
        self.assertEqual(host('here', targets=named), 'h1')
        self.assertEqual(host('both'), 'h3')

    def test_an_unknown_target_is_to_be_defined_in_a_file_that_stays(self):
        experiment = Experiment(Workspace(), 'refusals')
        estimator = basin.Estimator(entry_script='basin:mlp', compute_target='clsuter')
        with self.assertRaisesRegex(basin.InvalidJob, f'known: local.*; define it in {self.path("targets.yaml")} or '):
            experiment.plan(estimator)
        self.write('targets.yaml', 'cluster:\n  kind: ssh\n  nodes: [h1]\n')
        with self.assertRaisesRegex(basin.InvalidJob, 'did you mean "cluster"') as caught:
            experiment.plan(estimator)
        for word in ('--hosts', 'basin-job-'):
            self.assertNotIn(word, str(caught.exception))
        # A project's targets are nothing to who runs here.
        self.write('targets.yaml', 'cluster: [\n')
        experiment.plan(basin.Estimator(entry_script='basin:mlp', inputs=[{'name': 'data', 'path': self.folder}]))

    def test_counts_are_the_estimators_where_the_configuration_has_none(self):
        def roles(configuration, **counts):
            plan = Experiment(Workspace(), 'plans').plan(basin.Estimator(
                entry_script='basin:mlp', inputs=[{'name': 'data', 'path': self.folder}],
                distributed_training=configuration, **counts))
            return [task['role'] for task in plan['tasks']]
        self.assertEqual(roles(basin.ParameterServer(), worker_count=3), ['ps', 'worker', 'worker', 'worker'])
        self.assertEqual(roles(basin.ParameterServer(worker_count=2), parameter_server_count=2),
                         ['ps', 'ps', 'worker', 'worker'])
        self.assertEqual(roles(basin.ParameterServer()), ['ps', 'worker'])
        with self.assertRaisesRegex(basin.InvalidJob, 'worker_count: 1 conflicts with worker_count: 3'):
            roles(basin.ParameterServer(worker_count=1), worker_count=3)

    def test_a_relative_checkpoint_lies_below_this_folder(self):
        self.write('src/train.py', LOGS)
        estimator = basin.Estimator('src', entry_script='train.py', resume_from='ckpt/7')
        plan = Experiment(Workspace(), 'plans').plan(estimator)
        argv = plan['tasks'][0]['argv']
        self.assertEqual(argv[argv.index('--resume-from') + 1], self.path('ckpt', '7'))

    def test_basins_refusals_come_through_in_its_words(self):
        experiment = Experiment(Workspace(), 'refusals')
        for given, words in (({'worker_count': 0, 'distributed_backend': 'ps'}, 'worker_count'),
                             ({'distributed_backend': 'gloo'}, 'unknown backend "gloo"'),
                             ({'node_count': 2}, 'node_count'),
                             ({'restart_policy': 'always'}, 'a task that ends badly fails the run'),
                             ({'slurm': {'partiton': 'x'}}, 'did you mean "partition"'),
                             ({'kubernetes': {'namspace': 'x'}}, 'did you mean "namespace"'),
                             ({'conda_packages': ['a'], 'conda_dependencies_file': 'c.yml'}, 'conflicts with conda_packages'),
                             ({'inputs': [{'name': 'd', 'path': '/nowhere'}], 'distributed_backend': 'ps'}, '/nowhere does not exist')):
            with self.subTest(words), self.assertRaises(basin.InvalidJob) as caught:
                experiment.plan(basin.Estimator(entry_script='basin:mlp', **given))
            self.assertIn(words, str(caught.exception))
            self.assertNotIn(os.sep + 'basin-job-', str(caught.exception))


    def test_advice_is_for_who_writes_python(self):
        experiment = Experiment(Workspace(), 'refusals')
        mlp = {'entry_script': 'basin:mlp', 'distributed_backend': 'ps'}
        for given, words in (
                ({**mlp, 'inputs': [{'name': 'ab', 'path': '/nowhere'}]},
                 "inputs: ab: /nowhere does not exist; correct the path in the estimator's inputs, or give inputs=[...] "
                 'anew at submit'),
                ({'source_directory': 'none', 'entry_script': 'train.py'},
                 f"source_directory: {self.path('none')} does not exist; name the folder of the entry script, from the "
                 "program's working directory"),
                ({**mlp, 'node_count': 2}, 'or compute_target to a target of several machines'),
                ({**mlp, 'compute_target': 'none'}, 'basin/targets.yaml')):
            with self.subTest(words), self.assertRaises(basin.InvalidJob) as caught:
                experiment.plan(basin.Estimator(**given))
            self.assertTrue(str(caught.exception).endswith(words), str(caught.exception))


class Runs(running.RunCase):
    def submit(self, script, **more):
        self.write('src/train.py', script)
        return Experiment(Workspace(), 'tries').submit(
            basin.Estimator(self.path('src'), entry_script='train.py', user_managed=True, **more))

    def test_a_run_from_submit_to_the_registered_model(self):
        run = self.submit(LOGS, script_params={'--lr': 0.5, '--verbose': ''})
        self.assertTrue(os.path.exists(run.get_portal_url()[len('file://'):]))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            run.wait_for_completion(show_output=True)
        lines = [line for line in said.getvalue().splitlines() if line.startswith('[')]
        self.assertEqual(lines, ["[worker-0] hello from worker ['--lr', '0.5', '--verbose']"])
        details = self.completes(run)
        self.assertEqual((details['runId'], details['target']), (run.id, 'local'))
        self.assertEqual(run.get_metrics(), {'loss': [1, 1 / 2, 1 / 3], 'accuracy': 0.9})
        self.assertIn('outputs/model.txt', run.get_file_names())
        run.download_file('outputs/model.txt', self.path('here.txt'))
        with open(self.path('here.txt')) as file:
            self.assertEqual(file.read(), f'weights of {run.id}')
        with self.assertRaisesRegex(basin.NotFound, 'outputs/none: .*outputs/model.txt'):
            run.download_file('outputs/none')
        for name, why in (('../x', "expected a path below the run's folder"), ('token', 'is not handed out')):
            with self.assertRaisesRegex(basin.InvalidJob, why):
                run.download_file(name, self.path('x'))
        logs = [name for name in run.get_file_names() if name.startswith('logs/') and name.endswith('.txt')]
        said = ''.join(open(os.path.join(run.folder, name), errors='replace').read() for name in logs)
        self.assertIn("['--lr', '0.5', '--verbose']", said)

        model = run.register_model('tries', 'outputs/model.txt', tags={'kind': 'text'}, description='a try')
        found = Model(run.workspace, 'tries')
        self.assertEqual((found.id, found.tags, found.run_id, found.description),
                         (model.id, {'kind': 'text'}, run.id, 'a try'))
        with open(found.download(self.path('models'))) as file:
            self.assertEqual(file.read(), f'weights of {run.id}')
        self.assertEqual([run.id for run in run.experiment.get_runs()], [run.id])
        self.assertEqual(Run.get(run.workspace, run.id[:-2]).id, run.id)

    def test_all_runs_are_found_however_many_there_are(self):
        run = self.submit(LOGS)
        self.completes(run)
        with open(os.path.join(run.folder, 'run.json')) as file:
            record = json.load(file)
        for experiment, year in (('older', 2001), *(('tries', 2002 + i) for i in range(24))):
            run_id = f'{year}0101-000000-abcdef'
            folder = self.path('runs', experiment, run_id)
            self.write(os.path.join(folder, 'run.json'), json.dumps({
                **record, 'run_id': run_id, 'experiment': experiment, 'folder': folder,
                'created': f'{year}-01-01T00:00:00.000Z', 'ended': f'{year}-01-01T00:00:01.000Z'}))
        found = [run.id for run in run.experiment.get_runs()]
        self.assertEqual(found, [run.id, *(f'{year}0101-000000-abcdef' for year in range(2025, 2001, -1))])
        self.assertEqual(sorted(run.workspace.experiments), ['older', 'tries'])
        self.assertEqual([run.id for run in run.workspace.experiments['older'].get_runs()], ['20010101-000000-abcdef'])
        self.assertEqual(list(Experiment(run.workspace, 'none').get_runs()), [])

    def test_a_large_source_directory_is_refused_unless_its_limit_is_raised(self):
        self.write('src/data', 'more than a MB'.ljust(1 << 20))
        with self.assertRaisesRegex(basin.CommandFailed, 'the limit is 1 MB'):
            self.submit(LOGS, snapshot_limit_mb=1)
        self.completes(self.submit(LOGS, snapshot_limit_mb=2))

    def test_a_failing_script_fails_the_run_and_its_last_words_are_kept(self):
        run = self.submit(FAILS)
        with self.assertRaisesRegex(basin.RunFailed, run.id):
            run.wait_for_completion()
        self.assertEqual(run.get_status(), 'Failed')
        said = ''
        for name in run.get_file_names():
            if name.startswith('logs/'):
                with open(os.path.join(run.folder, name), errors='replace') as file:
                    said += file.read()
        self.assertIn('about to fail\nno luck', said)

    def test_a_run_is_canceled(self):
        run = self.submit(STAYS)
        self.assertNotIn(run.get_status(), ('Completed', 'Failed', 'Canceled'))
        run.cancel()
        self.assertEqual(run.wait_for_completion()['status'], 'Canceled')

    def test_a_run_whose_supervisor_was_killed_is_not_waited_for(self):
        run = self.submit(STAYS, cancel_grace_seconds=1)
        lock = os.stat(os.path.join(run.folder, 'supervisor.lock'))
        os.kill(self.process_that_has_open(lock), signal.SIGKILL)
        with self.assertRaisesRegex(basin.RunFailed, f'nobody supervises this run.*basin attach {run.id}'):
            run.wait_for_completion()
        attached = subprocess.Popen([os.environ['BASIN_PROGRAM'], 'attach', run.id], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(attached.wait)
        processes.wait_until(lambda: run.get_status() == 'Running', 'the run is supervised again')
        run.cancel()
        self.assertEqual(run.wait_for_completion()['status'], 'Canceled')

    def process_that_has_open(self, file):
        for pid in processes.marked_pids(os.environ[processes.MARK]):
            for path in glob.glob(f'/proc/{pid}/fd/*'):
                with contextlib.suppress(OSError):  # closed in between
                    if os.path.samestat(os.stat(path), file):
                        return pid
        self.fail('nobody has it open')

    def test_it_goes_on_when_the_program_that_submitted_it_has_ended(self):
        self.write('src/train.py', LOGS)
        program = ('from basin.core import Experiment, Workspace\nfrom basin.train.estimator import Estimator\n'
                   f'estimator = Estimator({self.path("src")!r}, entry_script="train.py", user_managed=True)\n'
                   'print(Experiment(Workspace(), "tries").submit(estimator, tags={"from": "a program"}).id)\n')
        done = subprocess.run([sys.executable, '-c', program], env=built.environment(), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        run = Workspace().get_run(done.stdout.strip())
        self.completes(run)
        self.assertEqual([run.id for run in run.experiment.get_runs(tags={'from': 'a program'})], [run.id])

    @running.needs.needs(os.path.isdir(DATA), f'{DATA} is not there (Debian package dataset-fashion-mnist)')
    def test_the_example_learns_as_a_job(self):
        estimator = basin.Estimator(
            str(EXAMPLE), entry_script='train.py', user_managed=True, distributed_backend='ps',
            parameter_server_count=2, worker_count=2, environment_variables={'OPENBLAS_NUM_THREADS': '1'},
            script_params={'--data': basin.Dataset.File.from_files(DATA).as_named_input('data').as_mount(),
                           '--epochs': 4})
        run = Experiment(Workspace(), 'example').submit(estimator)
        self.completes(run)
        metrics = run.get_metrics()
        self.assertGreater(metrics['test_accuracy'], 0.86)
        self.assertGreater(len(metrics['loss']), 1)
        self.assertIn('outputs/model.npz', run.get_file_names())

    @running.needs.needs(os.path.isdir(DATA), f'{DATA} is not there (Debian package dataset-fashion-mnist)')
    @running.pypi
    def test_the_examples_job_file_runs(self):
        done = subprocess.run([os.environ['BASIN_PROGRAM'], 'submit', str(EXAMPLE / 'job.yaml'), '--param',
                               '--epochs=2', '--json'], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        run = Workspace().get_run('latest')
        self.assertGreater(run.get_metrics()['test_accuracy'], 0.8)


if __name__ == '__main__':
    unittest.main()
