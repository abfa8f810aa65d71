"""The six samples of the pages, with nothing but their imports changed: the job file, the plan, the refusal, the run."""

import ast
import json
import os
import re
import shutil
import unittest

import running
from running import basin, built

SAMPLES = built.SOURCE / 'tests' / 'python' / 'samples'


def text_of(name):
    """The sample, ready to run: `azureml` becomes `basin` in its imports, and nothing else is touched."""
    before = (SAMPLES / f'{name}.py').read_text()
    return re.sub(r'^from azureml\.', 'from basin.', before, flags=re.M)


class SampleCase(running.RunCase):
    def setUp(self):
        super().setUp()
        for project in ('my-tf-proj', 'my-keras-proj', 'my-sklearn-proj'):
            shutil.copytree(SAMPLES / project, self.path(project))
        self.write('data/one.txt', ''.join(f'{i % 7} {i % 2 * 10} {i % 2}\n' for i in range(60)))
        self.names = {'data_folder': self.path('data')}
        exec(text_of('before'), self.names)

    def sample(self, name, **switched):
        """The estimator that the sample makes; `switched` changes keywords of its call, None takes them away."""
        tree = ast.parse(text_of(name))
        if switched:
            call = tree.body[-1].value
            kept = [keyword for keyword in call.keywords if keyword.arg not in switched]
            more = [ast.keyword(arg, ast.parse(repr(value), mode='eval').body)
                    for arg, value in switched.items() if value is not None]
            call.keywords = kept + more
            ast.fix_missing_locations(tree)
        exec(compile(tree, name, 'exec'), self.names)
        return self.names[tree.body[-1].targets[0].id]

    @property
    def experiment(self):
        return self.names['experiment']

    def refused(self, estimator, *words):
        """Refused before anything starts, with exit code 2 and all these words."""
        with self.assertRaises(basin.InvalidJob) as caught:
            self.experiment.plan(estimator)
        self.assertEqual(caught.exception.exit_code, 2)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertFalse(os.path.exists(self.path('runs')))


class Texts(unittest.TestCase):
    def test_nothing_of_a_sample_but_its_imports_is_changed(self):
        for path in sorted(SAMPLES.glob('*.py')):
            before, after = path.read_text().splitlines(), text_of(path.stem).splitlines()
            changed = [(old, new) for old, new in zip(before, after) if old != new]
            self.assertEqual(len(before), len(after))
            for old, new in changed:
                self.assertTrue(old.startswith('from azureml.'), old)
                self.assertEqual(old.replace('azureml', 'basin', 1), new)


class JobFiles(SampleCase):
    TF = {'experiment': 'estimators', 'compute_target': 'local', 'entry_script': 'train.py', 'use_gpu': True}
    PARAMS = {'--batch-size': 50, '--learning-rate': 0.01}

    def test_each_becomes_the_job_that_it_describes(self):
        tf, keras, sklearn = (self.path(f'my-{name}-proj') for name in ('tf', 'keras', 'sklearn'))
        two = {'node_count': 2, 'process_count_per_node': 1}
        expected = {
            'tensorflow_one_node': {**self.TF, 'source_directory': tf, 'script_params': self.PARAMS,
                                    'conda_packages': ['scikit-learn']},
            'tensorflow_mpi': {**self.TF, **two, 'source_directory': tf, 'script_params': {}, 'distributed_backend': 'mpi'},
            'tensorflow_parameter_server': {
                **self.TF, 'source_directory': tf, 'script_params': {}, 'node_count': 2, 'worker_count': 2,
                'parameter_server_count': 1, 'distributed_backend': 'ps'},
            'keras_pip': {**self.TF, 'source_directory': keras, 'entry_script': 'keras_train.py',
                          'script_params': self.PARAMS, 'pip_packages': ['keras']},
            'sklearn_named_input': {
                'experiment': 'estimators', 'compute_target': 'local', 'source_directory': sklearn,
                'entry_script': 'train.py', 'script_params': {'--data-folder': {'input': 'mnist'}, '--regularization': 0.8},
                'inputs': [{'name': 'mnist', 'path': self.path('data')}], 'conda_packages': ['scikit-learn']},
            'keras_mpi_image': {
                'experiment': 'estimators', 'compute_target': 'local', 'source_directory': keras,
                'entry_script': 'train.py', **two, 'distributed_training': {'Mpi': {}},
                'conda_packages': ['tensorflow', 'keras'], 'custom_docker_image': 'continuumio/miniconda'},
        }
        for name, job in expected.items():
            with self.subTest(name):
                self.assertEqual(self.experiment.job(self.sample(name)), job)


class Plans(SampleCase):
    def test_one_node_is_one_process_with_the_samples_arguments(self):
        task, = self.experiment.plan(self.sample('tensorflow_one_node', use_gpu=None))['tasks']
        self.assertEqual((task['role'], task['index'], task['tf_config']), ('worker', 0, ''))
        self.assertEqual(task['argv'], ['{python}', '{task}/train.py', '--batch-size', '50', '--learning-rate', '0.01'])

    def test_a_named_input_is_its_path(self):
        task, = self.experiment.plan(self.sample('sklearn_named_input'))['tasks']
        self.assertEqual(task['argv'], ['{python}', '{task}/train.py', '--data-folder', self.path('data'),
                                        '--regularization', '0.8'])
        for name in ('AZUREML_DATAREFERENCE_mnist', 'BASIN_INPUT_MNIST'):
            self.assertEqual(task['environment'][name], self.path('data'))

    def test_two_nodes_have_a_rank_each(self):
        self.write('targets.yaml', 'two:\n  kind: ssh\n  nodes: [h1, h2]\n')
        plan = self.experiment.plan(self.sample('keras_mpi_image', compute_target='two'))
        ranks = [(task['index'], task['host'], task['image']) for task in plan['tasks'] if task['role'] == 'worker']
        self.assertEqual(ranks, [(0, 'h1', 'continuumio/miniconda'), (1, 'h2', 'continuumio/miniconda')])

    def test_mpi_has_a_rank_a_process_and_mpirun(self):
        for more in ({'process_count_per_node': 3}, {'process_count_per_node': None, 'distributed_backend': None,
                                                     'distributed_training': {'Mpi': {'process_count_per_node': 3}}}):
            plan = self.experiment.plan(self.sample('tensorflow_mpi', use_gpu=None, node_count=1, **more))
            self.assertEqual([(task['role'], task['index']) for task in plan['tasks']],
                             [('worker', 0), ('worker', 1), ('worker', 2), ('mpirun', 0)])
            self.assertEqual([task['tf_config'] for task in plan['tasks']], [''] * 4)

    def test_ranks_run_in_the_image_and_mpirun_does_not(self):
        plan = self.experiment.plan(self.sample('keras_mpi_image', node_count=1, process_count_per_node=2))
        self.assertEqual([(task['role'], task.get('image')) for task in plan['tasks']],
                         [('worker', 'continuumio/miniconda'), ('worker', 'continuumio/miniconda'), ('mpirun', None)])


class Refusals(SampleCase):
    def test_two_nodes_on_one_machine_say_so(self):
        self.refused(self.sample('tensorflow_parameter_server', use_gpu=None), 'node_count', '2 nodes', 'local')
        self.refused(self.sample('tensorflow_mpi', use_gpu=None), 'node_count', '2 nodes', 'local')
        self.refused(self.sample('keras_mpi_image'), 'node_count: 2 nodes', 'the target local has one machine')

    @unittest.skipIf(running.has_gpu(), 'this machine has a GPU')
    def test_a_gpu_that_is_not_there_is_named_with_its_node(self):
        self.refused(self.sample('tensorflow_one_node'), 'use_gpu', 'GPU')
        self.refused(self.sample('tensorflow_parameter_server', node_count=1), 'use_gpu', 'GPU')
        self.refused(self.sample('keras_pip'), 'use_gpu', 'GPU')

    @unittest.skipIf(running.has_conda(), 'this machine has a conda')
    def test_conda_packages_without_a_conda_fail_clearly(self):
        """Whether a node has one is known when its environment is made."""
        for estimator in (self.sample('sklearn_named_input'), self.sample('tensorflow_one_node', use_gpu=None)):
            try:
                with self.assertRaises(basin.RunFailed) as caught:
                    self.experiment.submit(estimator).wait_for_completion()
            except basin.InvalidJob as error:
                self.assertIn('conda', str(error))
            else:
                self.assertIn('conda', str(caught.exception))


class Runs(SampleCase):
    """What this machine has what it takes for: use_gpu off, one node, packages from PyPI."""

    def test_the_parameter_server_sample(self):
        estimator = self.sample('tensorflow_parameter_server', use_gpu=None, node_count=1)
        tasks = self.experiment.plan(estimator)['tasks']
        self.assertEqual(sorted((task['role'], task['index']) for task in tasks), [('ps', 0), ('worker', 0), ('worker', 1)])
        run = self.experiment.submit(estimator)
        self.completes(run)
        self.assertEqual(run.get_metrics()['reached'], -2.0)
        run.download_file('outputs/cluster.json')
        with open('cluster.json') as file:
            found = json.load(file)
        self.assertEqual({role: len(hosts) for role, hosts in found['cluster'].items()}, {'ps': 1, 'worker': 2})
        self.assertEqual(found['task'], ['worker', 0])

    @running.pypi
    def test_the_keras_sample(self):
        run = self.experiment.submit(self.sample('keras_pip', use_gpu=None, pip_packages=['keras', 'scipy', 'jax']))  # Keras on numpy needs them
        self.completes(run)
        self.assertEqual(run.get_metrics(), {'sum': 50 * 3 * 4.0, 'learning_rate': 0.01})

    @running.pypi
    def test_the_sklearn_sample_and_what_follows_it(self):
        estimator = self.sample('sklearn_named_input', conda_packages=None, pip_packages=['scikit-learn'])
        self.names['estimator'] = estimator
        # The page's next lines. Its model_path=None makes the name the path, which this run does not have: the error
        # lists what it has.
        with self.assertRaisesRegex(basin.Error, r'outputs/model\.pkl'):
            exec(text_of('after'), self.names)
        run = self.names['run']
        self.assertTrue(run.get_portal_url().startswith('file://'))
        self.assertEqual(run.get_metrics(), {'regularization rate': 0.8, 'accuracy': 1.0})
        self.assertIn('outputs/model.pkl', run.get_file_names())
        model = run.register_model(model_name='sklearn-sample', model_path='outputs/model.pkl', tags={'area': 'mnist'})
        self.assertEqual((model.name, model.version, model.tags), ('sklearn-sample', 1, {'area': 'mnist'}))
        again = run.register_model(model_name='sklearn-sample', model_path='outputs/model.pkl')
        self.assertEqual(again.version, 2)
        found = basin.core.Model(self.names['ws'], 'sklearn-sample', version=1)
        self.assertGreater(os.path.getsize(found.download(self.path('models'))), 100)


if __name__ == '__main__':
    unittest.main()
