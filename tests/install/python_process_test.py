"""libbasin.so inside Python processes that have already imported a package with another protobuf and another Abseil."""

import os
import tempfile
import unittest

import installed
import virtual_environment

PROGRAM = f'{installed.SOURCE}/tests/install/python_process.py'


class PythonProcess(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        installed.install(cls.folder.name)
        cls.library = installed.library_of(cls.folder.name)

    def trains_beside(self, package, requirement):
        try:
            python = virtual_environment.python_with(requirement)
        except virtual_environment.NotThere as reason:
            self.skipTest(str(reason))
        output = installed.run_beside_ps(self.folder.name, [python, '-B', PROGRAM, package, self.library])
        self.assertIn(f'pushed and pulled beside {package}', output)

    def test_works_beside_onnx(self):
        self.trains_beside('onnx', 'onnx==1.19.1')

    @unittest.skipUnless(os.environ.get('BASIN_TEST_TENSORFLOW'), 'BASIN_TEST_TENSORFLOW is not set (tests/run.sh --all sets it)')
    @unittest.skipUnless(os.environ.get('BASIN_PROTOBUF_HIDDEN') == 'ON',
                         'built with the shared protobuf, which TensorFlow replaces by its own (see cmake/Dependencies.cmake)')
    def test_works_beside_tensorflow(self):
        self.trains_beside('tensorflow', 'tensorflow-cpu==2.21.0')


if __name__ == '__main__':
    unittest.main(verbosity=2)
