"""A stranger's programs against the installed library: built in two ways, and run beside a living ps."""

import glob
import os
import pathlib
import shutil
import tempfile
import unittest

import installed

EXAMPLE = f'{installed.SOURCE}/examples/01_push_pull/main.cc'
WARNINGS = ['-Wall', '-Wextra', '-Wpedantic', '-Werror']


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.prefix = f'{cls.folder.name}/prefix'
        installed.install(cls.prefix)
        cls.library = installed.library_of(cls.prefix)

    def test_each_public_header_compiles_alone(self):
        headers = sorted(glob.glob(f'{self.prefix}/include/basin/*.h'))
        self.assertIn(f'{self.prefix}/include/basin/client.h', headers)
        for header in headers:
            # Twice: it must guard itself.
            text = f'#include <basin/{os.path.basename(header)}>\n' * 2 + 'int main() { return 0; }\n'
            source = pathlib.Path(self.folder.name, 'alone.cc')
            source.write_text(text)
            installed.run(['c++', '-std=c++17', *WARNINGS, '-fsyntax-only', f'-I{self.prefix}/include', str(source)])

    def test_the_c_header_is_c(self):
        source = pathlib.Path(self.folder.name, 'alone.c')
        source.write_text('#include <basin/basin.h>\nint main(void) { return 0; }\n')
        installed.run(['cc', '-std=c11', *WARNINGS, '-fsyntax-only', f'-I{self.prefix}/include', str(source)])

    def test_the_library_exports_its_c_abi_alone(self):
        symbols = [line.split()[-1] for line in
                   installed.run(['nm', '-D', '--defined-only', self.library]).splitlines()]
        self.assertTrue(any(symbol.startswith('basin_') for symbol in symbols), symbols)
        foreign = [symbol for symbol in symbols if not symbol.startswith('basin_')]
        self.assertEqual(foreign, [], 'hide them (version script): in a process with another library they would collide')

    def test_installed_programs_start_after_a_move(self):
        moved = f'{self.folder.name}/moved'
        shutil.copytree(self.prefix, moved, symlinks=True)
        for program in os.listdir(f'{moved}/bin'):
            with self.subTest(program):
                self.assertNotEqual(installed.run([f'{moved}/bin/{program}', '--help']), '')

    def test_a_cmake_project_finds_builds_and_runs(self):
        project = f'{self.folder.name}/stranger'
        shutil.copytree(f'{installed.SOURCE}/tests/install/stranger', project)
        shutil.copy(EXAMPLE, f'{project}/main.cc')
        installed.run(['cmake', '-S', project, '-B', f'{project}/build', f'-DCMAKE_PREFIX_PATH={self.prefix}'])
        installed.run(['cmake', '--build', f'{project}/build'])
        output = installed.run_beside_ps(self.prefix, [f'{project}/build/stranger'])
        self.assertIn('y = 3.', output)

    def test_a_cxx_program_with_pkg_config_builds_and_runs(self):
        output = self.build_with_pkg_config_and_run(['c++', '-std=c++17', *WARNINGS, EXAMPLE])
        self.assertIn('y = 3.', output)

    def test_a_c_program_with_pkg_config_builds_and_runs(self):
        source = f'{installed.SOURCE}/tests/install/stranger/push_pull.c'
        output = self.build_with_pkg_config_and_run(['cc', '-std=c11', *WARNINGS, source])
        self.assertIn('pushed and pulled from C', output)

    def build_with_pkg_config_and_run(self, compiler):
        folder = os.path.dirname(self.library)
        flags = installed.run(['pkg-config', '--cflags', '--libs', 'basin'],
                              env={**os.environ, 'PKG_CONFIG_PATH': f'{folder}/pkgconfig'}).split()
        program = f'{self.folder.name}/with_pkg_config'
        installed.run([*compiler, '-o', program, *flags])
        return installed.run_beside_ps(self.prefix, [program], {'LD_LIBRARY_PATH': folder})


if __name__ == '__main__':
    unittest.main(verbosity=2)
