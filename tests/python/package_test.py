"""The package as a whole: version, installing, types, what it imports, what it exports."""

import ast
import importlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import built
import basin
import needs

SOURCES = sorted((built.PACKAGE / 'basin').rglob('*.py'))
MAY_IMPORT_NUMPY = built.PACKAGE / 'basin' / 'client'


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


class Package(unittest.TestCase):
    def test_its_version_is_the_projects_and_the_librarys(self):
        project = re.search(r'project\(basin VERSION ([\d.]+)', (built.SOURCE / 'CMakeLists.txt').read_text()).group(1)
        self.assertEqual(basin.__version__, project)
        from basin.client.library import library
        self.assertEqual(library().basin_version().decode(), project)

    def test_is_installed_by_pip_from_the_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            # Of a copy: a build leaves its traces beside what it builds.
            source = os.path.join(folder, 'python')
            run('cp', '-r', built.PACKAGE, source, check=True)
            python = os.path.join(folder, 'environment', 'bin', 'python')
            run(sys.executable, '-m', 'venv', os.path.dirname(os.path.dirname(python)), check=True)
            done = run(python, '-m', 'pip', 'install', '--disable-pip-version-check', source)
            if done.returncode != 0 and os.environ.get('BASIN_TEST_NO_INSTALL'):
                needs.skip('setuptools has to be fetched, and nothing may be')
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            program = 'import basin, basin.core.run, basin.train.dnn, basin.data; print(basin.__version__, basin.__file__)'
            environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
            done = run(python, '-c', program, cwd=folder, env=environment)
            self.assertEqual(done.returncode, 0, done.stderr)
            version, place = done.stdout.split()
            self.assertEqual(version, basin.__version__)
            installed = pathlib.Path(place).parent
            self.assertIn('site-packages', installed.parts)
            self.assertEqual({str(path.relative_to(installed)) for path in installed.rglob('*') if path.suffix in ('.py', '.typed')},
                             {str(path.relative_to(built.PACKAGE / 'basin')) for path in SOURCES} | {'py.typed'})

    def test_finds_library_and_program_beside_itself(self):
        """As they lie after cmake --install, and in the bundle: bin, lib, python/basin."""
        with tempfile.TemporaryDirectory() as prefix:
            for folder in ('bin', 'lib', 'python'):
                os.mkdir(os.path.join(prefix, folder))
            run('cp', '-r', built.PACKAGE / 'basin', os.path.join(prefix, 'python'), check=True)
            run('cp', os.environ['BASIN_LIBRARY'], os.path.join(prefix, 'lib', 'libbasin.so'), check=True)
            os.symlink(os.environ['BASIN_PROGRAM'], os.path.join(prefix, 'bin', 'basin'))
            program = ('from basin.client.library import library; from basin.program import find_program\n'
                       'print(library()._name, find_program())')
            environment = {name: value for name, value in os.environ.items() if not name.startswith('BASIN_')}
            done = run(sys.executable, '-B', '-c', program, env={**environment, 'PYTHONPATH': f'{prefix}/python'})
            self.assertEqual(done.stdout.split(), [f'{prefix}/lib/libbasin.so', f'{prefix}/bin/basin'], done.stderr)

    def test_its_types_are_right(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run(sys.executable, '-m', 'mypy', '--cache-dir', folder, cwd=built.PACKAGE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_program_that_uses_it_is_checked(self):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, 'program.py')
            pathlib.Path(program).write_text(
                'import basin\nmodel = basin.Model()\nw = model.dense("w", (2, 3), basin.Zeros())\n'
                'client = basin.Client.connect(transport="tcp")\nclient.declare(model)\nclient.pull(w).wait(timeout=3)\n'
                'client.barrier(3)\nrun: str = basin.Experiment(name="e").submit(basin.Estimator("."))\n')
            done = run(sys.executable, '-m', 'mypy', '--strict', '--cache-dir', folder, program,
                       env={**os.environ, 'MYPYPATH': str(built.PACKAGE)})
        errors = re.findall(r'program\.py:(\d+): error: .*\[([\w-]+)\]', done.stdout)
        self.assertEqual(errors, [('7', 'arg-type'), ('8', 'assignment')], done.stdout)

    def test_is_python_3_9(self):
        for path in SOURCES:
            with self.subTest(path.name):
                tree = ast.parse(path.read_text(encoding='utf-8'), feature_version=(3, 9))
                if path.name != '__init__.py' and any(isinstance(node, ast.AnnAssign) or getattr(node, 'returns', None)
                                                      for node in ast.walk(tree)):
                    # Annotations stay text, so that newer forms in them do no harm.
                    self.assertIn('from __future__ import annotations', path.read_text(encoding='utf-8'))

    def test_imports_the_standard_library_alone_and_the_client_numpy(self):
        for path in SOURCES:
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                    [node.module or ''] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    top = name.split('.')[0]
                    allowed = top in sys.stdlib_module_names or top == 'basin' or \
                        (top == 'numpy' and MAY_IMPORT_NUMPY in path.parents)
                    self.assertTrue(allowed, f'{path}: imports {name}')

    def test_every_name_that_it_exports_is_there(self):
        for name in basin.__all__:
            self.assertIsNotNone(getattr(basin, name), name)
        with self.assertRaisesRegex(AttributeError, "no attribute 'Estimater'"):
            basin.Estimater
        self.assertLessEqual(set(basin._MODULE_OF), set(basin.__all__))

    def test_the_documentation_uses_what_there_is(self):
        text = (built.SOURCE / 'docs' / 'python.md').read_text()
        blocks = re.findall(r'```python\n(.*?)```', text, re.S)
        self.assertGreaterEqual(len(blocks), 4)
        for block in blocks:
            compile(block, 'docs/python.md', 'exec')
            for module, names in re.findall(r'^from (basin[\w.]*) import (.+)$', block, re.M):
                for name in names.split(', '):
                    self.assertTrue(hasattr(importlib.import_module(module), name), f'{module}.{name}')
        for name in set(re.findall(r'`?basin\.([A-Z]\w+)', text)):
            self.assertTrue(hasattr(basin, name), name)
        section = text.split('## From the Azure SDK v1')[1]
        for module, names in re.findall(r'^\| `(basin[\w.]+)` \| (`.+`) \|$', section, re.M):
            for name in re.findall(r'`(\w+)`', names):
                self.assertTrue(hasattr(importlib.import_module(module), name), f'{module}.{name}')

    def test_every_module_is_imported_alone(self):
        for path in SOURCES:
            module = '.'.join(path.relative_to(built.PACKAGE).with_suffix('').parts).replace('.__init__', '')
            with self.subTest(module):
                done = run(sys.executable, '-c', f'import {module}', env=built.environment())
                self.assertEqual(done.returncode, 0, done.stderr)
                importlib.import_module(module)


if __name__ == '__main__':
    unittest.main()
