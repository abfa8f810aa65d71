"""The rules of the house that a text can be checked for: docs/architecture.md says what they are for.

violations(root, files) reads the files (paths from the root) and returns one message a breach, each naming the rule.
"""

import os
import re
import subprocess

BASE = {'common/base'}
LEAVES = BASE | {'common/telemetry'}
COMMON = LEAVES | {'common/wire', 'common/device', 'common/codec', 'common/rules', 'common/format'}

# Room -> the rooms that it may include besides itself. A room that is missing here may not exist.
MAY_INCLUDE = {
    'common/base': set(),
    'common/telemetry': BASE,
    'common/wire': LEAVES,
    'common/device': LEAVES,
    'common/codec': LEAVES | {'common/device'},
    'common/rules': LEAVES | {'common/device'},
    'common/format': LEAVES,
    'cluster_spec': BASE,
    'ps': COMMON | {'cluster_spec'},
    'worker': COMMON | {'cluster_spec'},
    'estimator': COMMON | {'cluster_spec'},
    'examples': set(),
    'bench': COMMON | {'cluster_spec', 'ps', 'worker', 'estimator'},
    'tests': COMMON | {'cluster_spec', 'ps', 'worker', 'estimator', 'bench'},
}
# Rooms that may use the installed headers, <basin/...>. For the worker they are its own.
MAY_USE_INSTALLED_HEADERS = {'worker', 'estimator', 'examples', 'bench', 'tests'}
PUBLIC_HEADERS = 'worker/client/include/basin/'

# Where the environment may be read: where a program begins, and the one place of the client library.
MAY_READ_ENVIRONMENT = re.compile(
    r'(ps|worker|estimator)/main\.cc|worker/client/options_from_environment\.cc|(bench|examples|tests)/.*')

TOP_LEVEL_FILES = {'README.md', 'LICENSE', 'CMakeLists.txt', 'CMakePresets.json', '.gitignore', '.gitattributes',
                   '.clang-format', '.clang-tidy'}
CPP = ('.cc', '.h', '.cu', '.cuh', '.c')
CODE = CPP + ('.py', '.sh', '.cmake', '.proto', 'CMakeLists.txt')
LINES_MAX = 450
VAGUE_NAMES = re.compile(r'(^|_)(utils?|helpers?|misc|manager|common)(_|$)')
STANDARD_HEADERS = set('''
    algorithm any array atomic bitset cassert cctype cerrno cfloat charconv chrono cinttypes climits cmath
    condition_variable cstddef cstdint cstdio cstdlib cstring deque exception functional future initializer_list iosfwd
    iterator limits list map memory mutex new numeric optional ostream istream queue random ratio set shared_mutex span
    sstream stdexcept string string_view system_error thread tuple type_traits typeinfo unordered_map unordered_set
    utility variant vector stddef.h stdint.h stdbool.h string.h'''.split())
# What common/base's headers may name besides: everything includes them, so they must cost nothing.
BASE_HEADERS_MAY_NAME = re.compile(r'absl/.*|sys/.*|unistd\.h|fcntl\.h|errno\.h|compare|concepts|bit|source_location|filesystem')


def tracked_files(root):
    """The files that git tracks; without git, all but build output."""
    if os.path.exists(os.path.join(root, '.git')):
        listed = subprocess.run(['git', '-c', 'safe.directory=*', '-C', root, 'ls-files', '-z'], capture_output=True)
        if listed.returncode == 0:
            names = listed.stdout.decode().split('\0')
            return sorted(name for name in names if name and os.path.isfile(os.path.join(root, name)))
    found = []
    for folder, folders, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        skip = {'.git', '__pycache__'} | ({'build', 'runs'} if inside == '.' else set())
        folders[:] = [name for name in folders if name not in skip]
        found += [os.path.normpath(os.path.join(inside, name)) for name in names]
    return sorted(found)


def room_of(path):
    """'common/wire/frame.h' -> 'common/wire'; 'ps/main.cc' -> 'ps'; a top-level file -> ''."""
    parts = path.split('/')
    if parts[0] == 'common':
        return '/'.join(parts[:2]) if len(parts) > 2 else ''
    return parts[0] if len(parts) > 1 else ''


def without_comments(text):
    """C++ without its comments; literals stay, line numbers too."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)

    def keep(match):
        found = match.group(0)
        return '\n' * found.count('\n') + ' ' if found.startswith('/') else found
    return token.sub(keep, text)


def includes_of(code):
    """[(line, kind, name)] with kind '<' or '"'."""
    return [(code.count('\n', 0, match.start()) + 1, match.group(1), match.group(2))
            for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', code, re.MULTILINE)]


def include_violations(root, path, code):
    room = room_of(path)
    for line, kind, name in includes_of(code):
        where = f'{path}:{line}: includes {kind}{name}{">" if kind == "<" else kind}'
        if path.startswith(PUBLIC_HEADERS):
            if not name.startswith('basin/') and name not in STANDARD_HEADERS:
                yield f'{where}; rule: public headers include only std and each other'
            continue
        if name.startswith('basin/'):
            if room not in MAY_USE_INSTALLED_HEADERS:
                yield f'{where}; rule: {room} may not use the installed client library'
            continue
        if kind == '"' and os.path.exists(os.path.join(root, os.path.dirname(path), name)) and '/' in path:
            yield f'{where}; rule: an include of our own is a path from the top of the repository'
            continue
        target = room_of(name)
        if target in MAY_INCLUDE and target != room:
            if target in ('bench', 'tests') and room != 'tests':
                yield f'{where}; rule: nothing includes bench or tests'
            elif {room, target} == {'ps', 'worker'}:
                yield f'{where}; rule: ps and worker never include each other'
            elif room == 'examples':
                yield f'{where}; rule: examples use the installed headers only, <basin/...>'
            elif target not in MAY_INCLUDE.get(room, set()):
                allowed = ', '.join(sorted(MAY_INCLUDE.get(room, set()))) or 'no other room'
                yield f'{where}; rule: {room} may include {allowed}'
        if room == 'common/base' and path.endswith('.h') and target not in MAY_INCLUDE \
                and name not in STANDARD_HEADERS and not BASE_HEADERS_MAY_NAME.fullmatch(name):
            yield f'{where}; rule: headers of common/base include only std, the system and absl'


def environment_violations(path, code):
    if MAY_READ_ENVIRONMENT.fullmatch(path):
        return
    for match in re.finditer(r'\b(secure_)?getenv\s*\(', re.sub(r'"(?:\\.|[^"\\\n])*"', '""', code)):
        line = code.count('\n', 0, match.start()) + 1
        yield (f'{path}:{line}: getenv; rule: only the mains of ps, worker, estimator, bench and examples, and '
               'worker/client/options_from_environment.cc, read the environment')


def proto_violations(path, text):
    room = room_of(path)
    package = f'basin.{room.split("/")[-1]}.v1'
    if not re.search(r'^syntax = "proto3";', text, re.MULTILINE):
        yield f'{path}: rule: a .proto is proto3'
    if f'\npackage {package};' not in '\n' + text:
        yield f'{path}: rule: the package of a .proto in {room} is {package}'
    if 'option optimize_for = LITE_RUNTIME;' not in text:
        yield f'{path}: rule: a .proto has "option optimize_for = LITE_RUNTIME;", for libbasin.so holds protobuf-lite alone'
    if not re.fullmatch(r'[a-z][a-z0-9_]*\.proto', os.path.basename(path)):
        yield f'{path}: rule: a .proto is named in lower_snake_case'
    bare = re.sub(r'//[^\n]*', '', text)
    for name, body in re.findall(r'\benum\s+(\w+)\s*\{([^}]*)\}', bare):
        zero = re.search(r'(\w+)\s*=\s*0\s*[;\[]', body)
        if not zero or not zero.group(1).endswith('_UNSPECIFIED'):
            yield f'{path}: enum {name}; rule: its zero is named ..._UNSPECIFIED'


def name_violations(path, text):
    base = os.path.basename(path)
    stem = base.split('.')[0]
    if re.search(r'\.pb\.(cc|h)$|_pb2(_grpc)?\.py$', base) or 'Generated by the protocol buffer compiler' in text[:400]:
        if not path.startswith('tests/lint/'):
            yield f'{path}: rule: generated code goes to the build folder, not into git'
    if path.endswith(CODE) and VAGUE_NAMES.search(stem):
        yield f'{path}: rule: a file is named for what happens in it, not utils, helpers, misc, manager or common'
    lines = text.count('\n')
    if path.endswith(CODE) and lines > LINES_MAX:
        yield f'{path}: {lines} lines; rule: at most {LINES_MAX}, and one reason to exist'


def code_map(readme):
    """The folders in the first column of the README's code map, each as `folder/`."""
    section = re.search(r'^## Code map\n(.*?)(?=^## |\Z)', readme, re.MULTILINE | re.DOTALL)
    if not section:
        return None
    return [match.rstrip('/') for match in re.findall(r'^\|\s*`([^`]+)/`\s*\|', section.group(1), re.MULTILINE)]


def map_violations(root, files):
    try:
        with open(os.path.join(root, 'README.md'), encoding='utf-8') as file:
            rows = code_map(file.read())
    except FileNotFoundError:
        rows = None
    if rows is None:
        yield 'README.md: rule: it has a section "## Code map", a table with one line a room'
        return
    homeless = {}
    for path in files:
        if path in TOP_LEVEL_FILES or path == 'common/CMakeLists.txt':
            continue
        room = room_of(path)
        if room not in rows:
            homeless.setdefault(room or path, path)
    for room, path in homeless.items():
        yield f'{path}: rule: every folder has a line in the README\'s code map; {room} has none'
    for row in rows:
        if not any(path.startswith(row + '/') for path in files):
            yield f'README.md: the code map names {row}/; rule: what it names exists'
    for room in sorted(set(rows) - set(MAY_INCLUDE) - {'.ci', 'cmake', 'docs', 'python'}):
        yield f'README.md: the code map names {room}/; rule: a new room needs its line in tests/lint/house_rules.py, MAY_INCLUDE'


def violations(root, files):
    found = list(map_violations(root, files))
    for path in files:
        if not path.endswith(CODE):
            continue
        with open(os.path.join(root, path), encoding='utf-8', errors='replace') as file:
            text = file.read()
        found += name_violations(path, text)
        if path.endswith(CPP):
            code = without_comments(text)
            found += include_violations(root, path, code)
            found += environment_violations(path, code)
        if path.endswith('.proto'):
            found += proto_violations(path, text)
    return found
