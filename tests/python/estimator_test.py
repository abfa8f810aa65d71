"""An estimator's keywords become the fields of a job file. Nothing is run."""

import inspect
import os
import pathlib
import re
import tempfile
import unittest
import warnings

import built
import basin
from basin.core import ComputeTarget, Dataset, Environment, Experiment, Workspace
from basin.core.runconfig import MpiConfiguration, TensorflowConfiguration
from basin.train.dnn import Mpi, ParameterServer, TensorFlow
from basin.train.estimator import Estimator
from basin.train.job import KEYWORDS


class Fields(unittest.TestCase):
    def test_what_is_not_given_is_left_to_basin(self):
        self.assertEqual(Estimator('src', entry_script='a.py').job(),
                         {'source_directory': os.path.abspath('src'), 'entry_script': 'a.py'})

    def test_every_field_of_the_table_is_passed_on(self):
        given = {
            'entry_script': 'train.py', 'node_count': 2, 'process_count_per_node': 3, 'worker_count': 4,
            'parameter_server_count': 1, 'chief_count': 1, 'evaluator_count': 1, 'distributed_backend': 'ps',
            'use_gpu': True, 'workers_per_gpu': 2, 'use_docker': False, 'custom_docker_image': 'image',
            'user_managed': False, 'conda_packages': ['a'], 'pip_packages': ['b==1'],
            'conda_dependencies_file': 'c.yml', 'pip_requirements_file': 'r.txt', 'environment_variables': {'A': 'b'},
            'shm_size': '2g', 'max_run_duration_seconds': 60, 'resume_from': 'latest', 'parameter_server': 'script',
            'setup': ['module load x'], 'secrets': ['KEY'], 'roles': {'ps': {'nodes': 1}},
            'network': {'ports': '20000-20100'}, 'training': {'rule': {'name': 'adam'}}, 'cancel_grace_seconds': 9,
            'snapshot_limit_mb': 500, 'slurm': {'partition': 'gpu', 'extra': ['--exclusive']},
            'kubernetes': {'namespace': 'ml'}, 'framework_version': '2.15'}
        job = TensorFlow(source_directory='/src', compute_target='cluster', **given).job()
        self.assertEqual(job, {'source_directory': '/src', 'compute_target': 'cluster', **given})

    def test_a_checkpoint_to_resume_from_is_a_path_from_here(self):
        for given, expected in (('ckpt/7', os.path.abspath('ckpt/7')), ('/shared/ckpt', '/shared/ckpt'),
                                (pathlib.Path('ckpt'), os.path.abspath('ckpt')),
                                ('~/ckpt', os.path.expanduser('~/ckpt')), ('latest', 'latest')):
            with self.subTest(given):
                self.assertEqual(Estimator('.', resume_from=given).job()['resume_from'], expected)

    def test_script_params_keep_their_order_and_take_inputs(self):
        data = Dataset.File.from_files('/data/mnist')
        job = Estimator('.', script_params={'--z': 0.01, '--data': data.as_named_input('mnist').as_mount(), '--a': 50,
                                            '--flag': '', '--on': True}).job()
        self.assertEqual(list(job['script_params'].items()),
                         [('--z', 0.01), ('--data', {'input': 'mnist'}), ('--a', 50), ('--flag', ''), ('--on', 'True')])
        self.assertEqual(job['inputs'], [{'name': 'mnist', 'path': '/data/mnist'}])

    def test_inputs_have_three_forms(self):
        job = Estimator('.', inputs=[{'name': 'a', 'path': 'x'}, Dataset.File.from_files(['/b']).as_named_input('b'),
                                     basin.DataReference('/store', 'c', path_on_datastore='d').as_download()]).job()
        self.assertEqual(job['inputs'], [{'name': 'a', 'path': os.path.abspath('x')}, {'name': 'b', 'path': '/b'},
                                         {'name': 'c', 'path': '/store/d'}])
        for wrong, expected in (('/data', 'inputs: expected dataset'), ({'name': '1a', 'path': '/x'}, "input name '1a'")):
            with self.subTest(expected), self.assertRaisesRegex(basin.InvalidArgument, expected):
                Estimator('.', inputs=[wrong])
        with self.assertRaisesRegex(basin.InvalidArgument, 'a is there twice, as /x and /y'):
            Estimator('.', inputs=[{'name': 'a', 'path': '/x'}, {'name': 'a', 'path': '/y'}])
        with self.assertRaisesRegex(basin.Unimplemented, 'https://host/x: only paths'):
            Dataset.File.from_files('https://host/x')
        with self.assertRaisesRegex(basin.InvalidArgument, '2 paths'):
            Dataset.File.from_files(['/a', '/b'])
        with self.assertRaisesRegex(basin.Unimplemented, 'path_on_compute'):
            Dataset.File.from_files('/a').as_named_input('a').as_mount('/mnt/a')

    def test_distributed_training_has_all_its_spellings(self):
        ps = {'ParameterServer': {'worker_count': 2, 'parameter_server_count': 3}}
        for given, expected in (
                (ParameterServer(worker_count=2, parameter_server_count=3), ps),
                (TensorflowConfiguration(worker_count=2, parameter_server_count=3), ps),
                (ParameterServer(), {'ParameterServer': {}}), (ParameterServer, {'ParameterServer': {}}),
                (ParameterServer(worker_count=1), {'ParameterServer': {'worker_count': 1}}),
                (MpiConfiguration(), {'Mpi': {}}), (Mpi(process_count_per_node=2), {'Mpi': {'process_count_per_node': 2}}),
                (MpiConfiguration, {'Mpi': {}}), (ps, ps), ('Mpi', 'Mpi')):
            with self.subTest(given=given):
                self.assertEqual(Estimator('.', distributed_training=given).job()['distributed_training'], expected)
        changed = TensorflowConfiguration()
        changed.worker_count = 5
        self.assertEqual(changed.to_job()['ParameterServer']['worker_count'], 5)
        with self.assertRaisesRegex(basin.InvalidArgument, 'distributed_training: expected'):
            Estimator('.', distributed_training=3)

    def test_a_target_and_an_environment_may_be_objects(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'e.yml')
            pathlib.Path(path).write_text('dependencies: [python]\n')
            job = Estimator(folder, compute_target=ComputeTarget(None, 'cluster'),
                            environment_definition=Environment.from_conda_specification('e', path)).job()
            self.assertEqual((job['compute_target'], job['environment_definition']), ('cluster', 'e.yml'))
            with self.assertRaisesRegex(basin.NotFound, 'none.yml does not exist'):
                Environment.from_conda_specification('e', os.path.join(folder, 'none.yml'))


class Keywords(unittest.TestCase):
    def test_they_are_the_fields_of_the_job_file(self):
        text = (built.SOURCE / 'estimator' / 'job' / 'job_fields.cc').read_text()
        table = lambda name: re.search(rf'{name}\[\] = {{(.*?)\n}};', text, re.S).group(1)
        fields = set(re.findall(r'^ *"(\w+)",$', table('kFields'), re.M))
        later = set(re.findall(r'^ *{"(\w+)",', table('kLaterFields'), re.M))
        older = set(re.findall(r'^ *{"\w+", "(\w+)"}', table('kOlderSpellings'), re.M))
        self.assertTrue({'entry_script', 'slurm'} <= fields and 'vm_size' in later and len(older) == 3)
        fields.remove('experiment')  # whose Experiment it is submitted by says that
        named = lambda kind: {name for name, one in inspect.signature(kind).parameters.items()
                              if one.kind != one.VAR_KEYWORD}
        self.assertEqual(named(Estimator), fields - {'framework_version'})
        self.assertEqual(named(TensorFlow), fields)
        self.assertEqual(set(KEYWORDS), fields | later | older)

    def test_an_unknown_one_names_the_nearest(self):
        with self.assertRaisesRegex(TypeError, r"Estimator\(\) got an unexpected keyword argument 'node_cuont'; did you mean 'node_count'\?"):
            Estimator('.', node_cuont=2)
        with self.assertRaisesRegex(TypeError, r"TensorFlow\(\).*'framwork_version'; did you mean 'framework_version'"):
            TensorFlow('.', framwork_version='2')

    def test_older_spellings_work_with_a_warning(self):
        for old, new in (('conda_dependencies_file_path', 'conda_dependencies_file'),
                         ('pip_requirements_file_path', 'pip_requirements_file'),
                         ('custom_docker_base_image', 'custom_docker_image')):
            with self.subTest(old), warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter('always')
                self.assertEqual(Estimator('/s', **{old: 'x'}).job(), {'source_directory': '/s', new: 'x'})
                self.assertEqual([(one.category, one.filename) for one in seen], [(DeprecationWarning, __file__)])
                with self.assertRaisesRegex(basin.InvalidArgument, 'are the same'):
                    Estimator('/s', **{old: 'x', new: 'y'})

    def test_what_only_azure_has_is_refused_by_name_unless_it_asks_for_nothing(self):
        Estimator('.', vm_size=None, source_directory_data_store=None, _disable_validation=True)
        for name in ('vm_size', 'vm_priority', 'image_registry_details', 'source_directory_data_store'):
            with self.subTest(name), self.assertRaisesRegex(basin.InvalidArgument, f'{name}: found .x.'):
                Estimator('.', **{name: 'x'})


class Overrides(unittest.TestCase):
    def test_script_params_and_inputs_join_the_estimators(self):
        data = Dataset.File.from_files('/data').as_named_input('data')
        estimator = Estimator('/s', script_params={'--a': 1, '--data': data}, inputs=[{'name': 'x', 'path': '/x'}])
        experiment = Experiment(Workspace(), 'e')
        other = Dataset.File.from_files('/other').as_named_input('data')
        job = experiment.job(estimator, script_params={'--a': 2, '--b': 3, '--data': other}, compute_target='cluster')
        self.assertEqual(job['script_params'], {'--a': 2, '--data': {'input': 'data'}, '--b': 3})
        self.assertEqual({one['name']: one['path'] for one in job['inputs']}, {'x': '/x', 'data': '/other'})
        self.assertEqual((job['experiment'], job['compute_target']), ('e', 'cluster'))
        self.assertEqual(experiment.job(estimator)['script_params']['--a'], 1)
        job = experiment.job(estimator, inputs=[{'name': 'x', 'path': '/y'}])
        self.assertIn({'name': 'x', 'path': '/y'}, job['inputs'])
        with self.assertRaisesRegex(basin.InvalidArgument, 'node_count cannot be given anew'):
            experiment.job(estimator, node_count=3)
        with self.assertRaisesRegex(basin.InvalidArgument, 'expected an Estimator, found dict'):
            experiment.job({})


class Workspaces(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        self.folder = os.path.realpath(folder.name)
        os.makedirs(os.path.join(self.folder, 'a', 'b'))
        os.chdir(os.path.join(self.folder, 'a', 'b'))

    def test_from_config_without_a_file_has_the_defaults(self):
        workspace = Workspace.from_config()
        self.assertEqual((workspace.name, workspace.runs, workspace.targets), ('local', None, None))

    def test_from_config_finds_the_nearest_file_above(self):
        Workspace('mine', runs=os.path.join(self.folder, 'runs')).write_config(self.folder)
        found = Workspace.from_config()
        self.assertEqual((found.name, found.runs), ('mine', os.path.join(self.folder, 'runs')))

    def test_an_azure_file_names_the_workspace_and_no_more(self):
        path = pathlib.Path(self.folder, 'config.json')
        path.write_text('{"subscription_id": "s", "resource_group": "r", "workspace_name": "w"}')
        self.assertEqual(Workspace.from_config(str(path)).name, 'w')
        path.write_text('{"runs": 3}')
        with self.assertRaisesRegex(basin.InvalidArgument, 'config.json: runs: expected a path, found 3'):
            Workspace.from_config(str(path))
        path.write_text('{,}')
        with self.assertRaisesRegex(basin.InvalidArgument, 'config.json: not JSON'):
            Workspace.from_config(str(path))
        with self.assertRaisesRegex(basin.NotFound, 'none.json does not exist'):
            Workspace.from_config(os.path.join(self.folder, 'none.json'))


if __name__ == '__main__':
    unittest.main()
