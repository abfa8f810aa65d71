"""bench/gpu.sh, which needs no build folder, runs every test with the label gpu."""

import pathlib
import re
import sys
import unittest

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


if __name__ == '__main__':
    unittest.main()
