"""The package's structs, functions and numbers are those of basin.h, as a C compiler sees them."""

import os
import re
import subprocess
import sys
import tempfile
import unittest

import built
from basin import errors
from basin.client import abi, arrays, library, model, moves

HEADER = built.SOURCE / 'worker' / 'client' / 'include' / 'basin' / 'basin.h'
TEXT = re.sub(r'/\*.*?\*/', '', HEADER.read_text(), flags=re.S)


# Fits(ours, the header's): the same function, where ours writes void* for a pointer to anything and no const.
FITS = """
#include <type_traits>
template <class Ours, class Theirs> struct Matches : std::is_same<Ours, Theirs> {};
template <class Theirs> struct Matches<void, Theirs> : std::true_type {};
template <class Ours, class Theirs> struct Matches<Ours*, Theirs*> : Matches<Ours, std::remove_const_t<Theirs>> {};
template <class Result, class TheirResult, class... Ours, class... Theirs>
constexpr bool Fits(Result (*)(Ours...), TheirResult (*)(Theirs...)) {
  if constexpr (sizeof...(Ours) != sizeof...(Theirs) || std::is_void_v<Result> != std::is_void_v<TheirResult>) {
    return false;
  } else {
    return Matches<Result, TheirResult>::value && (Matches<Ours, Theirs>::value && ...);
  }
}
"""
# (size_t and uint64_t are one type here, to ctypes as to the compiler.)
C_TYPES = {None: 'void', abi.c_void_p: 'void*', abi.c_char_p: 'char*', abi.c_int32: 'int32_t', abi.c_int64: 'int64_t',
           abi.c_uint32: 'uint32_t', abi.c_uint64: 'uint64_t', abi.c_size_t: 'size_t', abi.c_double: 'double', abi.c_float: 'float',
           **{struct: name for name, struct in abi.STRUCTS.items()}}


def c_type(kind):
    """As C writes the type of ctypes."""
    return C_TYPES[kind] if kind in C_TYPES else c_type(kind._type_) + '*'


def fits(name, result, arguments):
    """A condition in C++: the header declares the function so."""
    return f'Fits(({c_type(result)} (*)({", ".join(map(c_type, arguments))}))nullptr, (decltype(&{name}))nullptr)'


def compiled(statements):
    """What a C++ program with these statements prints, with basin.h included: words."""
    program = f'#include <stdio.h>\n#include <basin/basin.h>\n{FITS}\nint main(void) {{\n{statements}\nreturn 0;\n}}\n'
    with tempfile.TemporaryDirectory() as folder:
        binary = os.path.join(folder, 'program')
        done = subprocess.run([os.environ.get('CC', 'c++'), '-std=c++17', '-x', 'c++', '-', '-I', HEADER.parents[1], '-o', binary],
                              input=program, text=True, capture_output=True)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()


def fields_of(struct):
    """Their names, in the header's order."""
    body = re.search(r'typedef struct %s \{(.*?)\}' % struct, TEXT, re.S).group(1)
    return [re.search(r'(\w+)(\[\d+\])?$', part.strip()).group(1)
            for statement in body.split(';') if statement.strip() for part in statement.split(',')]


class Abi(unittest.TestCase):
    def test_every_struct_of_the_header_is_there(self):
        self.assertEqual(set(re.findall(r'typedef struct (\w+) \{', TEXT)), set(abi.STRUCTS))

    def test_fields_lie_where_the_compiler_puts_them(self):
        for name, struct in abi.STRUCTS.items():
            with self.subTest(name):
                ours = [field[0] for field in struct._fields_]
                self.assertEqual(ours, fields_of(name))
                lines = ''.join(f'printf("%zu %zu\\n", offsetof({name}, {field}), sizeof((({name}*)0)->{field}));\n'
                                for field in ours)
                words = [int(word) for word in compiled(f'printf("%zu\\n", sizeof({name}));\n{lines}')]
                self.assertEqual(abi.ctypes.sizeof(struct), words[0])
                self.assertEqual([number for field in ours for number in
                                  (getattr(struct, field).offset, getattr(struct, field).size)], words[1:])

    def test_every_function_of_the_header_is_there(self):
        self.assertEqual(set(re.findall(r'BASIN_API\s[^;]*?\b(basin_\w+)\(', TEXT)), set(abi.FUNCTIONS))

    def test_functions_have_the_headers_types(self):
        compiled(''.join(f'static_assert({fits(name, *types)}, "{name}");\n' for name, types in abi.FUNCTIONS.items()))

    def test_another_type_is_found(self):
        result, arguments = abi.FUNCTIONS['basin_step']
        wrong = [(None, arguments), (abi.c_int64, arguments), (result, arguments[:-1]),
                 (result, [*arguments[:3], abi.c_uint32, arguments[4]]), (result, [*arguments[:2], abi.POINTER(abi.c_float), *arguments[3:]]),
                 (result, [*arguments[:4], abi.POINTER(abi.Task)]), (result, [abi.c_uint64, *arguments[1:]])]
        self.assertEqual(compiled(''.join(f'printf("%d\\n", {fits("basin_step", *one)});\n' for one in [(result, arguments), *wrong])),
                         ['1'] + ['0'] * len(wrong))

    def test_the_library_has_them_all(self):
        loaded = library.library()
        self.assertEqual(loaded.basin_abi_version(), abi.ABI_VERSION)

    def test_numbers_are_the_headers(self):
        expected = {'BASIN_ABI_VERSION': abi.ABI_VERSION, 'BASIN_OK': abi.OK,
                    'BASIN_DEADLINE_EXCEEDED': abi.DEADLINE_EXCEEDED}
        for name, make in (('ZEROS', model.Zeros), ('GLOROT_UNIFORM', model.Glorot), ('HE_NORMAL', model.He),
                           ('ASSIGNED', model.Assigned), ('CONSTANT', lambda: model.Constant(1)),
                           ('UNIFORM', lambda: model.Uniform(0, 1)), ('NORMAL', lambda: model.Normal(0, 1))):
            expected[f'BASIN_{name}'] = make().kind
        for name, rule in (('SGD', model.Sgd), ('MOMENTUM', model.Momentum), ('ADAGRAD', model.Adagrad),
                           ('ADAM', model.Adam), ('FTRL', model.Ftrl), ('ROWWISE_ADAGRAD', model.RowwiseAdagrad)):
            expected[f'BASIN_RULE_{name}'] = rule._kind
        for name, number in model.STATISTICS.items():
            expected[f'BASIN_STATISTIC_{name.upper()}'] = number
        for name, number in moves.POOLING.items():
            expected[f'BASIN_POOL_{name.upper()}'] = number
        for number, kind in errors.BY_CODE.items():
            expected['BASIN_' + re.sub(r'(?<=[a-z])(?=[A-Z])', '_', kind.__name__).upper()] = number
        printed = compiled(''.join(f'printf("%d\\n", (int){name});\n' for name in expected))
        self.assertEqual(dict(zip(expected, map(int, printed))), expected)

    def test_every_code_has_its_exception(self):
        codes = re.search(r'enum \{\s*BASIN_OK.*?\}', TEXT, re.S).group(0)
        self.assertEqual({int(number) for number in re.findall(r'= (\d+)', codes)} - {0}, set(errors.BY_CODE))

    def test_a_rule_has_the_librarys_usual_settings(self):
        for rule in (model.Sgd, model.Momentum, model.Adagrad, model.Adam, model.Ftrl, model.RowwiseAdagrad):
            with self.subTest(rule.__name__):
                usual = abi.Rule()
                library.library().basin_rule_init(usual, abi.ctypes.sizeof(usual), rule._kind, rule().learning_rate)
                ours = model._rule_of(rule()).contents
                self.assertEqual([getattr(ours, name) for name, _ in abi.Rule._fields_],
                                 [getattr(usual, name) for name, _ in abi.Rule._fields_])

    def test_dtypes_have_dlpacks_codes(self):
        self.assertEqual(arrays.DTYPES['float32'], (2, 32))
        self.assertEqual(arrays.name_of(arrays.dtype_of('bfloat16')), 'bfloat16')
        self.assertEqual(arrays.dtype_name('f4'), 'float32')
        with self.assertRaisesRegex(errors.InvalidArgument, 'unknown dtype .complex64'):
            arrays.dtype_name('complex64')


class Finding(unittest.TestCase):
    def setUp(self):
        self.named = os.environ.pop('BASIN_LIBRARY')
        self.addCleanup(os.environ.__setitem__, 'BASIN_LIBRARY', self.named)

    def test_the_error_lists_the_places(self):
        # In a process that has not loaded it: the system's loader knows what is loaded already.
        program = 'from basin.client import library\nlibrary.library()'
        environment = {name: value for name, value in built.environment().items() if name != 'LD_LIBRARY_PATH'}
        done = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            self.skipTest('Basin is installed on this machine')
        message = done.stderr
        for part in ('set BASIN_LIBRARY', str(built.PACKAGE / 'lib' / 'libbasin.so'),
                     str(built.SOURCE / 'lib' / 'libbasin.so'), 'ldconfig'):
            self.assertIn(part, message)

    def test_a_library_that_is_named_is_the_only_one(self):
        os.environ['BASIN_LIBRARY'] = '/nowhere/libbasin.so'
        with self.assertRaisesRegex(errors.LibraryNotFound, r'/nowhere/libbasin.so \(BASIN_LIBRARY\): does not exist'):
            library.open_library()


if __name__ == '__main__':
    unittest.main()
