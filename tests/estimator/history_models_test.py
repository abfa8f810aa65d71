"""What is copied out of runs: downloads and registered models."""

import fcntl
import json
import os
import pathlib
import subprocess
import unittest

from written_runs import BASIN, DEADLINE_S, EndedRunTest, record


class Download(EndedRunTest):
    def test_download_of_a_file_a_folder_and_all(self):
        self.assertEqual(self.json('download', 'run-1', 'outputs/model/net.bin'), {'path': 'net.bin', 'bytes': 7, 'files': 1})
        self.assertEqual((self.work / 'net.bin').read_text(), 'weights')
        self.basin('download', 'run-1', 'model/net.bin', '--to', 'deep/er/other.bin')
        self.assertEqual((self.work / 'deep/er/other.bin').read_text(), 'weights')
        self.basin('download', 'run-1', 'model/run.sh', '--to', 'deep')
        self.assertTrue(os.access(self.work / 'deep/run.sh', os.X_OK))
        self.assertEqual(self.json('download', 'run-1', 'outputs/model', '--to', 'copy')['files'], 2)
        self.assertEqual((self.work / 'copy/net.bin').read_text(), 'weights')
        self.basin('download', 'run-1', '--all')
        self.assertEqual((self.work / 'run-1/outputs/model/net.bin').read_text(), 'weights')
        self.assertEqual((self.work / 'run-1/logs/train.log').read_text(), 'epoch 1\n')
        self.assertFalse((self.work / 'run-1/token').exists())

    def test_download_refuses_what_is_not_the_runs_to_give(self):
        os.symlink('/etc/passwd', self.folder / 'outputs' / 'link')
        for path, said in {'token': 'not handed out', '../run-1/run.json': 'below the run', '/etc/passwd': 'below the run',
                           'outputs/link': 'leads out of', 'outputs/model/nte.bin': 'did you mean outputs/model/net.bin?'}.items():
            self.basin('download', 'run-1', path, code=2)
            self.assertIn(said, self.errors, path)
        self.basin('download', 'run-1', code=2)
        self.basin('download', 'run-1', 'logs', '--all', code=2)
        self.assertEqual(list(self.work.iterdir()), [])


class Models(EndedRunTest):
    def test_a_part_of_a_file_never_passes_as_the_file(self):
        (self.folder / 'outputs/model/big.bin.basin-partial').write_text('half')
        for path in ('outputs/model/big.bin.basin-partial', 'outputs/model/big.bin', 'model/big.bin'):
            self.basin('download', 'run-1', path, code=2)
            self.assertIn('only a part of this file has come', self.errors)
        self.basin('download', 'run-1', 'model', '--to', 'copy')
        self.assertIn('1 file is left out, of which only a part has come: big.bin', self.errors)
        self.assertEqual(sorted(file.name for file in (self.work / 'copy').iterdir()), ['net.bin', 'run.sh'])
        self.basin('models', 'register', 'net', '--run', 'run-1', '--path', 'model', code=2)
        self.assertIn('only a part of big.bin has come', self.errors)
        self.assertEqual(self.json('models', 'list'), [])
        self.basin('models', 'register', 'net', '--run', 'run-1', '--path', 'model/net.bin')
        supervisor = self.supervise('run-2')
        supervisor.do(record=record('run-2'), now=1)
        supervisor.piece('worker/0', 'weights', 'output', path='net.bin', last=True, chief=True)
        supervisor.settle()
        self.basin('models', 'register', 'net', '--run', 'run-2', '--path', 'net.bin', code=2)
        self.assertIn('run run-2 is Running: what it leaves is not complete yet', self.errors)
        supervisor.end()

    def test_what_a_killed_command_has_left_goes_with_the_next(self):
        self.basin('models', 'register', 'net', '--run', 'run-1', '--path', 'model')
        store = self.runs / '.models/net'
        for name in ('.new-0123', '.gone-4567', '.new-held'):
            (store / name / 'files').mkdir(parents=True)
        held = os.open(store / '.new-held', os.O_RDONLY | os.O_DIRECTORY)  # another command is at work on it
        self.addCleanup(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.basin('models', 'register', 'net', '--run', 'run-1', '--path', 'model')
        self.assertEqual(sorted(os.listdir(store)), ['.new-held', '1', '2'])
        (store / '.gone-4567').mkdir()
        self.basin('models', 'delete', 'net:1')
        self.assertEqual(sorted(os.listdir(store)), ['.new-held', '1.deleted', '2'])
        for name in ('.deleted-run-0', '.deleted-run-1'):
            (self.runs / 'exp' / name / 'outputs').mkdir(parents=True)
        self.basin('delete', 'run-1')
        self.assertFalse((self.runs / 'exp').exists())

    def test_models_count_up_and_keep_where_they_came_from(self):
        first = self.json('models', 'register', 'net', '--run', 'run-1', '--path', 'outputs/model', '--tag', 'a=1=2', '--tag', 'b=',
                          '--property', 'p=q', '--description', 'the first')
        self.assertEqual((first['version'], first['run_id'], first['tags'], first['properties'], first['description']),
                         (1, 'run-1', {'a': '1=2', 'b': ''}, {'p': 'q'}, 'the first'))
        second = self.json('models', 'register', 'net', '--run', 'latest', '--path', 'model/net.bin')
        self.assertEqual(second['version'], 2)
        content = subprocess.run(['b2sum', '-l', '256'], input=b'weights', capture_output=True, check=True).stdout.split()[0].decode()
        self.assertEqual(second['checksum'], 'blake2b-256:' + content)
        self.assertEqual((pathlib.Path(second['folder']) / 'net.bin').read_text(), 'weights')
        # The run may go, the model stays.
        self.basin('delete', 'run-1')
        self.assertFalse(self.folder.exists())
        self.assertEqual([model['version'] for model in self.json('models', 'list', 'net')], [1, 2])
        self.assertEqual(self.json('models', 'show', 'net'), second)
        self.assertEqual(self.json('models', 'show', 'net:1'), first)
        self.assertRegex(self.basin('models', 'list'), r'(?m)^net:2 .* run-1')
        self.assertEqual(self.json('models', 'download', 'net')['path'], 'net.bin')
        self.assertEqual((self.work / 'net.bin').read_text(), 'weights')
        self.basin('models', 'download', 'net:1', '--to', 'folder')
        self.assertEqual((self.work / 'folder/net.bin').read_text(), 'weights')
        (pathlib.Path(second['folder']) / 'net.bin').write_text('other')
        self.basin('models', 'download', 'net:2', code=1)
        self.assertIn('is not what was registered', self.errors)
        self.basin('models', 'show', 'net:3', code=2)
        self.assertIn('there are the versions 1, 2', self.errors)
        self.basin('models', 'show', 'nett', code=2)
        self.assertIn('did you mean net?', self.errors)
        self.basin('models', 'delete', 'net', code=2)
        self.basin('models', 'delete', 'net:2')
        self.ended('run-2')
        (self.runs / 'exp/run-2/outputs/x').write_text('x')
        self.assertEqual(self.json('models', 'register', 'net', '--run', 'run-2', '--path', 'x')['version'], 3,
                         'a number is never used again')

    def test_a_model_without_a_path_is_named_by_it(self):
        model = self.json('models', 'register', 'outputs/model/net.bin', '--run', 'run-1')
        self.assertEqual((model['name'], model['path'], model['version']), ('outputs/model/net.bin', 'outputs/model/net.bin', 1))
        self.basin('models', 'register', 'sklearn-sample', '--run', 'run-1', code=2)
        self.assertIn('sklearn-sample: the run in', self.errors)
        self.assertIn('outputs/model/net.bin, outputs/model/run.sh', self.errors)
        for wrong in ('.hidden', '../up', 'a b', ''):
            self.basin('models', 'register', wrong, '--run', 'run-1', '--path', 'model', code=2)
        self.basin('models', 'register', 'x', '--run', 'run-1', '--path', 'model', '--tag', 'notag', code=2)

    def test_many_registering_at_once_get_a_version_each(self):
        many = [subprocess.Popen([BASIN, 'models', 'register', 'net', '--run', 'run-1', '--path', 'model', '--json'],
                                 env=self.environment, stdout=subprocess.PIPE) for _ in range(12)]
        versions = sorted(json.loads(one.communicate(timeout=DEADLINE_S)[0])['version'] for one in many)
        self.assertEqual(versions, list(range(1, 13)))
        for model in self.json('models', 'list'):
            self.assertEqual((pathlib.Path(model['folder']) / 'model/net.bin').read_text(), 'weights')


if __name__ == '__main__':
    unittest.main()
