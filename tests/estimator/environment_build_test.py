"""`basin environment-build` with the real venv and pip, on a wheel that the test makes: no network is needed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
import zipfile

BASIN = os.path.join(os.environ['BASIN_BINARY_DIR'], 'bin', 'basin')


def make_wheel(folder, name, version, code):
    """A wheel of one module; returns its path."""
    info = f'{name}-{version}.dist-info'
    path = os.path.join(folder, f'{name}-{version}-py3-none-any.whl')
    with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr(f'{name}.py', code)
        wheel.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        wheel.writestr(f'{info}/RECORD', f'{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n')
    return path


class EnvironmentBuildTest(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix='basin-test-')
        self.addCleanup(scratch.cleanup)
        self.folder = scratch.name
        self.base = os.path.join(self.folder, 'base')
        self.wheel = make_wheel(self.folder, 'tinypkg', '1.0', 'ANSWER = 42\n')
        self.processes = 0

    def start(self, requirements, constraints=()):
        self.processes += 1
        spec = os.path.join(self.folder, f'spec-{self.processes}.json')
        result = os.path.join(self.folder, f'result-{self.processes}.json')
        with open(spec, 'w', encoding='utf-8') as file:
            json.dump({'kind': 'pip', 'requirements': ['--no-index', *requirements], 'constraints': list(constraints)}, file)
        process = subprocess.Popen([BASIN, 'environment-build', '--spec', spec, '--base', self.base, '--result', result],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.result_file = result
        self.addCleanup(lambda: (process.kill(), process.wait(), process.stdout.close(), process.stderr.close()))
        return process

    def end(self, process):
        """(exit code, the result, standard output, standard error)"""
        output, errors = process.communicate(timeout=600)
        with open(process.result_file, encoding='utf-8') as file:
            return process.returncode, json.load(file), output, errors

    def left(self):
        folder = os.path.join(self.base, 'environments')
        return sorted(name for name in os.listdir(folder) if not name.endswith('.lock'))

    def answer(self, python):
        return subprocess.run([python, '-c', 'import tinypkg; print(tinypkg.ANSWER)'], capture_output=True, text=True).stdout

    def test_is_built_once_and_reused(self):
        code, first, output, errors = self.end(self.start([self.wheel]))
        self.assertEqual(code, 0, errors)
        self.assertEqual(self.answer(first['python']), '42\n')
        self.assertEqual(first['python'], os.path.join(first['prefix'], 'bin', 'python'))
        self.assertFalse(first['reused'])
        self.assertIn('Successfully installed tinypkg-1.0', output)
        self.assertEqual(os.stat(self.base).st_mode & 0o777, 0o700)
        code, second, output, errors = self.end(self.start([self.wheel]))
        self.assertEqual((code, second), (0, {**first, 'reused': True}), errors)
        self.assertNotIn('installed', output)
        self.assertEqual(self.left(), [os.path.basename(first['prefix'])])

    def test_two_at_once_build_it_once(self):
        both = [self.end(process) for process in [self.start([self.wheel]), self.start([self.wheel])]]
        self.assertEqual([code for code, _, _, _ in both], [0, 0], both)
        self.assertEqual(sorted(result['reused'] for _, result, _, _ in both), [False, True])
        self.assertEqual(sum('Successfully installed' in output for _, _, output, _ in both), 1)
        self.assertEqual(self.answer(both[0][1]['python']), '42\n')

    def test_a_killed_builder_leaves_no_ruin(self):
        process = self.start([self.wheel])
        # Its virtual environment has begun to exist.
        for line in process.stdout:
            if '-m venv' in line:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        self.assertFalse(os.path.exists(process.result_file))
        code, result, _, errors = self.end(self.start([self.wheel]))
        self.assertEqual(code, 0, errors)
        self.assertFalse(result['reused'])
        self.assertEqual(self.answer(result['python']), '42\n')

    def test_pips_last_words_are_in_the_error(self):
        code, result, _, errors = self.end(self.start(['no-such-package==3']))
        self.assertEqual(code, 1)
        self.assertIn('pip install failed with exit code 1\n', result['problem'])
        self.assertIn('No matching distribution found for no-such-package==3', result['problem'])
        self.assertIn('environment pip-', errors)
        self.assertEqual(self.left(), [])

    def test_constraints_hold(self):
        make_wheel(self.folder, 'tinypkg', '2.0', 'ANSWER = 43\n')
        code, result, _, errors = self.end(self.start([f'--find-links={self.folder}', 'tinypkg'], ['tinypkg<2']))
        self.assertEqual(code, 0, errors)
        self.assertEqual(self.answer(result['python']), '42\n')

    def test_wrong_words_are_refused(self):
        help_text = subprocess.run([BASIN, '--help'], capture_output=True, text=True).stdout
        self.assertNotIn('environment-build', help_text)
        with open(os.path.join(self.folder, 'bad'), 'w', encoding='utf-8') as file:
            file.write('{}')
        result = os.path.join(self.folder, 'result')
        process = subprocess.run([BASIN, 'environment-build', '--spec', file.name, '--base', self.base, '--result', result],
                                 capture_output=True, text=True)
        self.assertEqual(process.returncode, 2)
        self.assertIn('an environment', process.stderr)


if __name__ == '__main__':
    sys.exit(unittest.main())
