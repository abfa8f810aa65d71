"""bench/gpu.sh, which needs no build folder, runs every test with the label gpu, and ends what hangs."""

import contextlib
import io
import json
import os
import pathlib
import re
import select
import sys
import tempfile
import time
import unittest
from unittest import mock

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / 'bench'))
sys.dont_write_bytecode = True
import gpu  # noqa: E402


class GpuTests(unittest.TestCase):
    def test_all_tests_that_need_a_device_are_run(self):
        programs, scripts = set(), set()
        for path in SOURCE.glob('tests/*/CMakeLists.txt'):
            text = path.read_text(encoding='utf-8')
            programs |= set(re.findall(r'basin_test\((\w+)[^)]*\$\{BASIN_GPU_LABEL\}', text))
            programs |= set(re.findall(r'basin_tests_of\(gpu (\w+)\)', text))
            scripts |= {f'tests/{path.parent.name}/{name}.py' for name in re.findall(r'basin_cluster_test\((gpu_\w+)', text)}
        self.assertGreater(len(programs), 5)
        self.assertEqual(set(gpu.TESTS), programs)
        self.assertEqual(set(gpu.SCRIPTS), scripts)
        for names in gpu.SANITIZED.values():
            self.assertLessEqual(set(names), programs)

    def test_each_suite_of_the_client_is_run(self):
        suites = set()
        for path in (SOURCE / 'tests/client').glob('gpu_*_test.cc'):
            suites |= set(re.findall(r'INSTANTIATE_TEST_SUITE_P\(\w+, (\w+),', path.read_text(encoding='utf-8')))
        self.assertGreater(len(suites), 2)
        filters = [tests.strip('*') for tests in gpu.TESTS['gpu_client_test']]
        self.assertEqual(sorted(next(tests for tests in filters if tests in suite) for suite in suites), sorted(filters))

    def test_parts_end_one_after_another_within_eight_minutes(self):
        ends = [gpu.TESTS_END_S, gpu.KERNELS_END_S, gpu.BETWEEN_END_S, gpu.STEPS_END_S, gpu.LIMIT_S, 8 * 60]
        self.assertEqual(ends, sorted(set(ends)))


class RunTests(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.run_program = gpu.Run(self.folder)

    def program(self, text, name='program'):
        path = self.folder / name
        path.write_text(f'#!/bin/sh\n{text}\n')
        path.chmod(0o755)
        return name

    def test_says_how_it_ended_and_what_was_said(self):
        self.assertEqual(self.run_program(self.program('echo "$1 $A"; echo two >&2; exit 3'), 'one', environment={'A': 'b'}), (3, 'one b\ntwo\n'))
        self.assertIsNone(self.run_program('nothing')[0])

    def test_what_hangs_is_ended_with_what_it_has_started(self):
        for way in ('sleep 600 & echo $!; wait', 'sleep 600 & echo $!'):  # hangs; ends, and its child keeps its output open
            started = time.monotonic()
            code, output = self.run_program(self.program(way), limit_s=1)
            self.assertLess(time.monotonic() - started, 300)
            self.assertEqual(code, None if 'wait' in way else 0)
            self.assertTrue(self.ends(int(output.split()[0])))

    def ends(self, pid):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        with os.fdopen(descriptor) as process:
            return bool(select.select([process], [], [], 60)[0])

    def test_what_the_sanitizer_finds_fails(self):
        for kind in ('tests', 'tools'):
            (self.folder / kind).mkdir()
        for name in gpu.TESTS:
            self.program('echo "$1"', f'tests/{name}')
        self.program('echo "========= ERROR SUMMARY: 1 error"; [ "$2" != "$FIND_IN" ] || exit 66; while [ "${1#/}" = "$1" ]; do shift; done; exec "$@"',
                     'tools/compute-sanitizer')
        path = f'{self.folder}/tools:{os.environ["PATH"]}'
        for finds, code in (('none', 0), ('racecheck', 1)):
            results = gpu.Results(self.folder / 'results.json')
            with mock.patch.dict(os.environ, {'PATH': path, 'FIND_IN': finds}), contextlib.redirect_stdout(io.StringIO()):
                self.assertEqual(gpu.run_sanitizer(gpu.Run(self.folder), results), code)
            found = json.loads((self.folder / 'results.json').read_text(encoding='utf-8'))['sanitizer']
            self.assertEqual({(one['tool'], one['test']) for one in found}, {(tool, name) for tool, names in gpu.SANITIZED.items() for name in names})
            self.assertEqual({one['exit_code'] for one in found if one['tool'] == finds}, {66} if code else set())
            self.assertEqual({one['summary'][0] for one in found}, {'========= ERROR SUMMARY: 1 error'})

    def test_a_job_of_processes_is_timed_with_what_its_ps_said(self):
        (self.folder / 'bin').mkdir()
        self.program('echo "basin-ps: the run is over: 7 updates applied"', 'bin/basin-ps')
        self.program('echo "$TF_CONFIG $*" >&2; exec echo "$*" >>"$TOLD"', 'bin/basin-worker')
        told = self.folder / 'told'
        run = lambda *words: self.run_program('bench/gpu_cluster.py', '--programs', str(self.folder), '--workers', '3', '--', *words, environment={'TOLD': str(told)})
        code, output = run('--epochs', '2')
        self.assertEqual(code, 0, output)
        said = json.loads(output)
        self.assertEqual(said['ps'], '7 updates applied')
        self.assertGreater(said['seconds'], 0)
        self.assertEqual(told.read_text(encoding='utf-8'), 3 * '--device cuda --epochs 2\n')
        # A worker that fails is told of, and nobody waits for its ps.
        self.program('exec sleep 600', 'bin/basin-ps')
        self.program('echo "$TF_CONFIG"; echo no such flag >&2; exit 2', 'bin/basin-worker')
        code, output = run('--wrong')
        self.assertEqual(code, 1)
        self.assertIn('no such flag', output)
        self.assertRegex(output, r'"worker": \["127\.0\.0\.1:\d+", "127\.0\.0\.1:\d+", "127\.0\.0\.1:\d+"\]')

    def test_no_part_takes_the_time_of_the_next(self):
        self.run_program.part(1e-9)
        self.assertEqual(self.run_program(self.program('true')), (None, 'no time was left for it'))
        self.run_program.part(gpu.LIMIT_S)
        self.assertEqual(self.run_program(self.program('true')), (0, ''))


if __name__ == '__main__':
    unittest.main()
