"""The bundle: what is in it, that it is made alike each time, and that it works on a machine without our packages."""

import hashlib
import json
import os
import pathlib
import re
import stat
import sys
import tempfile
import unittest

import debian_root
import installed

sys.path.insert(0, f'{installed.SOURCE}/tests/cluster')
import clusters  # noqa: E402  its little data set
import needs  # noqa: E402
import processes  # noqa: E402

BYTES_MAX = 60 * 2**20
GLIBC = re.compile(r'(ld-linux|lib(c|m|pthread|dl|rt|resolv|util|anl|mvec|nss_\w+))\b.*\.so')
CUDA = re.compile(r'lib(cu|nv|npp)')
PROGRAMS = {'basin', 'basin-ps', 'basin-worker'}
JOB = """experiment: bundle
entry_script: basin:mlp
script_params: {--hidden: "16", --epochs: 1000, --batch-size: 64}
inputs: [{name: data, path: /opt/given}]
distributed_backend: ps
parameter_server_count: 2
worker_count: 2
training: {rule: {name: adam, learning_rate: 0.01}}
"""
# Every program and library of the bundle with what the loader of this machine finds for it.
LIST_LIBRARIES = r'''
for file in /opt/basin-*/bin/* /opt/basin-*/lib/*; do
  echo "file $file"
  /lib64/ld-linux-x86-64.so.2 --list "$file" || exit 1
done
'''


def make(archive, folder):
    installed.run([f'{installed.SOURCE}/cmake/bundle.sh', f'{installed.BINARY}/bundle/content.txt', version(), folder, archive])


def version():
    with open(f'{installed.BINARY}/CMakeCache.txt', encoding='utf-8') as cache:
        return re.search(r'^CMAKE_PROJECT_VERSION:STATIC=(.*)$', cache.read(), re.MULTILINE).group(1)


def digest_of(folder):
    """As cmake/bundle.sh says it is made, done once more."""
    lines = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            inside = os.path.relpath(path, folder)
            if inside == 'BUNDLE':
                continue
            if os.path.islink(path):
                lines.append((os.fsencode(inside), f'l {os.readlink(path)} {inside}\n'))
            else:
                content = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
                lines.append((os.fsencode(inside), f'f {stat.S_IMODE(os.stat(path).st_mode):o} {content} {inside}\n'))
    return hashlib.sha256(''.join(line for _, line in sorted(lines)).encode()).hexdigest()


class BundleCase(unittest.TestCase):
    """Makes the bundle once a class and unpacks it."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        processes.build_bundle()
        cls.name = f'basin-{version()}-linux-{os.uname().machine}'
        cls.archive = f'{installed.BINARY}/{cls.name}.tar.zst'
        installed.run(['sh', '-c', f'zstd -qdc "{cls.archive}" | tar -C "{folder.name}" -xf -'])
        cls.content = pathlib.Path(folder.name, cls.name)
        cls.temporary = folder.name


class Content(BundleCase):
    def test_small_enough_to_be_sent(self):
        self.assertLessEqual(os.path.getsize(self.archive), BYTES_MAX)

    def test_holds_the_programs_and_their_libraries_but_neither_glibc_nor_cuda(self):
        self.assertLessEqual(PROGRAMS, set(os.listdir(self.content / 'bin')))
        libraries = os.listdir(self.content / 'lib')
        self.assertIn('libbasin.so', libraries)
        self.assertIn('libstdc++.so.6', libraries)
        self.assertEqual([name for name in libraries if GLIBC.match(name) or CUDA.match(name)], [])
        self.assertEqual((self.content / 'LICENSE').read_bytes(), pathlib.Path(installed.SOURCE, 'LICENSE').read_bytes())

    def test_holds_the_python_package_as_it_is(self):
        package = pathlib.Path(installed.SOURCE, 'python', 'basin')
        there = {str(path.relative_to(package)) for path in package.rglob('*') if path.is_file() and '__pycache__' not in path.parts}
        self.assertIn('__init__.py', there)
        for name in there:
            self.assertEqual((self.content / 'python' / 'basin' / name).read_bytes(), (package / name).read_bytes(), name)

    def test_says_what_it_is(self):
        said = json.loads((self.content / 'BUNDLE').read_text())
        self.assertEqual(said['version'], version())
        self.assertEqual(said['machine'], os.uname().machine)
        self.assertEqual(said['digest'], digest_of(self.content))
        # The newest version of glibc's symbols that any of its files asks for.
        files = [path for folder in ('bin', 'lib') for path in (self.content / folder).iterdir()]
        text = installed.run(['readelf', '--version-info', '--wide', *map(str, files)])
        found = {tuple(map(int, one.split('.'))) for one in re.findall(r'\bGLIBC_([0-9.]+)\b', text)}
        self.assertEqual(said['glibc'], '.'.join(map(str, max(found))))

    def test_made_again_it_is_the_same_bytes(self):
        again = pathlib.Path(self.temporary, 'again')
        again.mkdir()
        make(str(again / 'again.tar.zst'), str(again / self.name))
        self.assertEqual((again / 'again.tar.zst').read_bytes(), pathlib.Path(self.archive).read_bytes())

    def test_nothing_of_the_machine_is_in_its_headers(self):
        listed = installed.run(['sh', '-c', f'zstd -qdc "{self.archive}" | tar --numeric-owner --full-time -tvf -']).splitlines()
        names = [line.split(maxsplit=5)[5].split(' -> ')[0] for line in listed]
        self.assertEqual([name for name in names if not name.startswith(self.name + '/')], [])
        for line in listed:
            mode, owner, _, day, time, _ = line.split(maxsplit=5)
            self.assertIn(mode, ('drwxr-xr-x', '-rwxr-xr-x', '-rw-r--r--', 'lrwxrwxrwx'), line)
            self.assertEqual((owner, day, time), ('0/0', '1970-01-01', '00:00:00'), line)


class BareDebian(BundleCase):
    """In a Debian without any of our packages."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            cls.root = debian_root.debian_root(f'{installed.BINARY}/tests/debian')
        except debian_root.NotThere as reason:
            needs.skip(str(reason))

    def inside(self, *command):
        with tempfile.TemporaryDirectory() as given:
            clusters.write_data(given)
            pathlib.Path(given, 'job.yaml').write_text(JOB)
            code, text = debian_root.run_inside(self.root, self.archive, given, command)
        self.assertEqual(code, 0, text)
        return text

    def test_the_root_has_none_of_our_packages(self):
        packages = self.inside('dpkg-query', '-W', '-f', '${Package}\n').split()
        self.assertIn('libc6', packages)
        self.assertEqual([name for name in packages if re.match(r'lib(absl|zmq|openblas|tbb|yaml-cpp|isal|xxhash.*dev)', name)], [])

    def test_every_file_finds_its_libraries_in_the_bundle(self):
        seen = 0
        for line in self.inside('sh', '-c', LIST_LIBRARIES).splitlines():
            found = re.match(r'\s+(\S+) => (.*?)( \(0x[0-9a-f]+\))?$', line)
            if found and not GLIBC.match(found.group(1)):
                self.assertTrue(found.group(2).startswith(f'/opt/{self.name}/'), line)
                seen += 1
        self.assertGreater(seen, 100)

    def test_programs_start(self):
        self.assertIn(version(), self.inside(f'{self.name}/bin/basin', '--version'))
        for program in sorted(os.listdir(self.content / 'bin')):
            with self.subTest(program):
                self.assertNotEqual(self.inside(f'{self.name}/bin/{program}', '--help'), '')

    def test_a_job_trains(self):
        # Long enough for both workers to take part; no evaluator, which may come later still.
        text = self.inside('sh', '-c', f'{self.name}/bin/basin submit given/job.yaml --json 2>/dev/null')
        record = json.loads(text)
        self.assertEqual(record['state'], 'Completed', text)
        self.assertEqual([(task['role'], task['exit_code']) for task in record['tasks']], [('ps', 0)] * 2 + [('worker', 0)] * 2)


if __name__ == '__main__':
    unittest.main(verbosity=2)
