"""libbasin.so inside Python processes that have already imported a package with another protobuf and another Abseil."""

import os
import sys
import tempfile
import unittest

import installed
import virtual_environment

sys.path.insert(0, f'{installed.SOURCE}/tests/cluster')
import needs  # noqa: E402

PROGRAM = f'{installed.SOURCE}/tests/install/python_process.py'


class PythonProcess(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        installed.install(cls.folder.name)
        cls.library = installed.library_of(cls.folder.name)

    def trains_beside(self, package, requirement, find=virtual_environment.python_with):
        try:
            python = find(requirement)
        except virtual_environment.NotThere as reason:
            needs.skip(str(reason))
        output = installed.run_beside_ps(self.folder.name, [python, '-B', PROGRAM, package, self.library])
        self.assertIn(f'pushed and pulled beside {package}', output)

    def test_works_beside_onnx(self):
        self.trains_beside('onnx', 'onnx==1.19.1')

    @unittest.skipUnless(os.environ.get('BASIN_TEST_TENSORFLOW'), 'BASIN_TEST_TENSORFLOW is not set (tests/run.sh --all sets it)')
    @needs.needs(os.environ.get('BASIN_PROTOBUF_HIDDEN') == 'ON',
                 'built with the shared protobuf, which TensorFlow replaces by its own (see cmake/Dependencies.cmake)')
    def test_works_beside_tensorflow(self):
        # The environment of examples/05_tensorflow: installing it takes the longest of all.
        self.trains_beside('tensorflow', 'tensorflow-cpu==2.21.0', virtual_environment.python_of_job)


if __name__ == '__main__':
    unittest.main(verbosity=2)
