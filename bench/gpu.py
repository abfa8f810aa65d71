"""What gpu.sh runs: gpu tests, kernel ladders, step times, or the tests under compute-sanitizer; one JSON for all. Only the standard library."""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
LIMIT_S = 460  # of all parts together
# When each part ends at the latest, in seconds from the start, so that one that hangs or is slow does not cost the others.
TESTS_END_S, KERNELS_END_S, BETWEEN_END_S, STEPS_END_S = 240, 330, 365, 440
# Test programs with the label gpu, with the tests of theirs that need a device: each filter is a run of its own.
TESTS = {'cuda_codec_test': ['*'], 'cuda_rules_test': ['*'], 'cuda_row_batch_test': ['*'], 'cuda_table_test': ['*'], 'cuda_shards_test': ['*'],
         'cuda_lane_tables_test': ['*'], 'device_test': ['Gpu*'], 'train_test': ['*cuda_*'],
         'gpu_client_test': ['*GpuPointers*', '*GpuHalves*', '*GpuRows*', '*GpuIpc*']}
SCRIPTS = ['tests/cluster/gpu_ps_test.py', 'tests/cluster/gpu_wide_deep_test.py', 'tests/cluster/gpu_worker_test.py']
TEST_LIMIT_S, PROGRAM_LIMIT_S = 80, 40  # of each test, and of each run of a built-in program
# What compute-sanitizer runs. Servers of gpu_client_test are other processes, which it does not look into.
SANITIZED = {'memcheck': ['cuda_codec_test', 'cuda_rules_test', 'cuda_row_batch_test', 'cuda_table_test', 'cuda_shards_test', 'cuda_lane_tables_test',
                          'device_test', 'gpu_client_test'],
             'racecheck': ['cuda_rules_test', 'cuda_row_batch_test', 'cuda_table_test', 'device_test']}
SANITIZED_LIMIT_S = 120  # of each
FOUND = 66  # exit code: compute-sanitizer has found something
# What only a driver can answer; the answer fails nothing. Text: environment, program, arguments.
QUESTIONS = {'do streams that wait for calls get by with one connection to the device':
             ({'CUDA_DEVICE_MAX_CONNECTIONS': '1'}, 'tests/gpu_client_test', ['--gtest_filter=*StepsInTheOrderOfAStream*'])}
QUESTION_LIMIT_S = 20
# What the programs train on: as large as Fashion-MNIST, of random numbers, since only time is measured.
EXAMPLES, TEST_EXAMPLES, PIXELS, CLASSES = 16_384, 1024, 784, 10
BATCH, SHORT, LONG, REPEATS = 1024, 1, 13, 3  # epochs
STEPS_PER_EPOCH = EXAMPLES // BATCH
WORKERS = (1, 2, 4)  # of a ps on their GPU, each a process of its own


def programs_folder(given):
    """The folder that has bin/, tests/ and bench/: a build folder, or the bundle of which this is source/bench."""
    if given:
        return pathlib.Path(given).resolve()
    bundle = HERE.parent.parent
    return bundle if (bundle / 'BUNDLE').exists() else HERE.parent / 'build' / 'release'


def folder_of_cublas():
    """Where cuBLAS lies that the loader does not look at: beside a toolkit, or in a Python package of NVIDIA's. None: nowhere."""
    places = [*pathlib.Path('/usr/local').glob('cuda*/lib64'), *pathlib.Path('/usr/local').glob('cuda*/targets/*/lib')]
    for folder in sys.path:
        places += pathlib.Path(folder or '.').glob('nvidia/*/lib')
    return next((str(place) for place in places if list(place.glob('libcublas.so.1[23]'))), None)


def compute_sanitizer():
    """Where compute-sanitizer lies; None: nowhere."""
    if found := shutil.which('compute-sanitizer'):
        return found
    return next((str(path) for pattern in ('cuda*/bin/compute-sanitizer', 'cuda*/compute-sanitizer/compute-sanitizer')
                 for path in sorted(pathlib.Path('/usr/local').glob(pattern))), None)


class Run:
    """Runs one program after another, none beyond the end of its part."""

    def __init__(self, programs, limit_s=LIMIT_S):
        self.programs = programs
        self.start = time.monotonic()
        self.end = self.part_end = self.start + limit_s
        self.environment = dict(os.environ, BASIN_BINARY_DIR=str(programs), OPENBLAS_NUM_THREADS='1')
        source = programs / 'source'
        self.environment['BASIN_SOURCE_DIR'] = str(source if source.exists() else HERE.parent)
        for name in ('TF_CONFIG', 'BASIN_RUN_ID'):
            self.environment.pop(name, None)
        if folder := folder_of_cublas():
            known = self.environment.get('LD_LIBRARY_PATH')
            self.environment['LD_LIBRARY_PATH'] = f'{folder}:{known}' if known else folder

    def part(self, end_s):
        """What is run from now on ends by then, in seconds from the start."""
        self.part_end = min(self.end, self.start + end_s)

    def __call__(self, program, *arguments, limit_s=LIMIT_S, before=(), environment=None):
        """(exit code, output); None for the code where there is no such program, or no time left. `before`: a program that starts it."""
        path = self.programs / program
        if program.endswith('.py'):
            path = pathlib.Path(self.environment['BASIN_SOURCE_DIR']) / program
        if not path.exists():
            return None, f'{path} is not there'
        left = min(self.part_end - time.monotonic(), limit_s)
        if left < 1:
            return None, 'no time was left for it'
        starter = [sys.executable, '-B'] if program.endswith('.py') else []
        # Into a file: what it has started may keep a pipe open when it has ended itself. In a process group of its own, so that a run that hangs
        # is ended with its servers, which would keep the device's memory.
        with tempfile.TemporaryFile() as said:
            done = subprocess.Popen([*before, *starter, str(path), *arguments], env={**self.environment, **(environment or {})}, stdin=subprocess.DEVNULL,
                                    stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code, why = done.wait(left), ''
            except subprocess.TimeoutExpired:
                code, why = None, f'not done in {left:.0f} s'
            try:
                os.killpg(done.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            done.wait()
            said.seek(0)
            output = said.read().decode(errors='replace')
        return code, f'{output[-4000:]}\n{why}' if why else output


class Results:
    """Written after each program, so that what was found is there however the next one ends."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.values = {}

    def write(self):
        self.path.write_text(json.dumps(self.values, indent=1) + '\n')

    def add(self, kind, one):
        self.values.setdefault(kind, []).append(one)
        self.write()


def said_by_tests(output):
    """(passed, skipped), as gtest or unittest say it."""
    count = lambda found: int(next(filter(None, found.groups()), 0)) if found else 0
    passed = count(re.search(r'\[  PASSED  \] (\d+) test|^Ran (\d+) tests?', output, re.MULTILINE))
    skipped = count(re.search(r'\[  SKIPPED \] (\d+) test|skipped=(\d+)', output))
    return (passed - skipped if re.search(r'^Ran \d+ test', output, re.MULTILINE) else passed), skipped


def run_tests(run, results):
    programs = [(f'tests/{name}', [f'--gtest_filter={tests}']) for name, filters in TESTS.items() for tests in filters]
    for name, arguments in programs + [(name, []) for name in SCRIPTS]:
        started = time.monotonic()
        code, output = run(name, *arguments, limit_s=TEST_LIMIT_S)
        passed, skipped = said_by_tests(output)
        result = {'test': name, 'arguments': arguments, 'exit_code': code, 'passed': passed, 'skipped': skipped, 'seconds': time.monotonic() - started}
        if code != 0:
            result['output'] = output[-4000:]
        results.add('tests', result)
        print(f'{" ".join([name, *arguments])}: {passed} passed, {skipped} skipped, {result["seconds"]:.1f} s'
              + ('' if code == 0 else f', FAILED ({code}): {output[-500:]}'), flush=True)


def run_sanitizer(run, results):
    """The tests under compute-sanitizer: 0, or 1 where it or a test has found something."""
    sanitizer = compute_sanitizer()
    if sanitizer is None:
        print('gpu.sh: compute-sanitizer is not there: it comes with the CUDA toolkit; add its folder to PATH', file=sys.stderr)
        return 2
    failed = False
    for tool, names in SANITIZED.items():
        # Errors that calls return are the tests' own business: some ask for them.
        before = [sanitizer, '--tool', tool, '--error-exitcode', str(FOUND), '--report-api-errors', 'no', '--target-processes', 'application-only']
        for name, tests in [(name, tests) for name in names for tests in TESTS[name]]:
            started = time.monotonic()
            code, output = run(f'tests/{name}', f'--gtest_filter={tests}', limit_s=SANITIZED_LIMIT_S, before=before)
            summary = re.findall(r'^=+ (?:ERROR|RACECHECK) SUMMARY: .*$', output, re.MULTILINE)
            result = {'tool': tool, 'test': name, 'filter': tests, 'exit_code': code, 'summary': summary, 'seconds': time.monotonic() - started}
            if code != 0:
                result['output'] = output[-16000:]
            failed = failed or code != 0
            results.add('sanitizer', result)
            print(f'{tool}, {name} {tests}: exit code {code}, {"; ".join(summary) or output[-300:]}, {result["seconds"]:.1f} s', flush=True)
    return 1 if failed else 0


def write_images(folder):
    """The four IDX files that the mlp program reads."""
    numbers = random.Random(1)
    for prefix, count in (('train', EXAMPLES), ('t10k', TEST_EXAMPLES)):
        images = struct.pack('>IIII', 0x803, count, 28, 28) + numbers.randbytes(count * PIXELS)
        labels = struct.pack('>II', 0x801, count) + bytes(numbers.randrange(CLASSES) for _ in range(count))
        (folder / f'{prefix}-images-idx3-ubyte').write_bytes(images)
        (folder / f'{prefix}-labels-idx1-ubyte').write_bytes(labels)


def write_flights(folder):
    """A CSV file with categories and numbers, in the manner of examples/03_flights."""
    numbers = random.Random(2)
    lines = ['late,day,minute,distance,carrier,tailnum,origin,dest']
    for i in range(EXAMPLES + TEST_EXAMPLES):
        lines.append(f'{numbers.randrange(40)},{1 if i < EXAMPLES else 2},{numbers.randrange(1440)},{numbers.randrange(3000)},'
                     f'c{numbers.randrange(16)},t{numbers.randrange(4000)},o{numbers.randrange(3)},d{numbers.randrange(100)}')
    (folder / 'flights.csv').write_text('\n'.join(lines) + '\n')
    (folder / 'schema.yaml').write_text(
        'label: {column: late, above: 15}\nsplit: {column: day, test_from: 2}\nnumeric: [minute, distance]\n'
        'categorical: [carrier, tailnum, origin, dest]\ncrosses:\n  - [carrier, dest]\n  - [origin, carrier]\n')


def time_of_step(program, update, timed, repeats):
    """A long run less a short one, each the fastest of `repeats`, so that starting is in neither. timed(epochs): (exit code, output, seconds)."""
    result = {'program': program, 'device': 'cuda', 'update': update, 'batch': BATCH, 'steps': (LONG - SHORT) * STEPS_PER_EPOCH, 'repeats': repeats}
    seconds = {SHORT: [], LONG: []}
    for epochs in (SHORT, LONG) * repeats:
        code, output, took = timed(epochs)
        seconds[epochs].append(took)
        if code != 0:
            result.update(exit_code=code, output=output[-2000:])
            return result
    result['seconds_of_runs'] = {f'{epochs} epochs': values for epochs, values in seconds.items()}
    result['step_seconds'] = (min(seconds[LONG]) - min(seconds[SHORT])) / result['steps']
    return result


def run_program(run, program, update, arguments):
    def timed(epochs):
        started = time.monotonic()
        code, output = run('bin/basin-worker', '--device', 'cuda', '--batch-size', str(BATCH), '--epochs', str(epochs), *arguments, limit_s=PROGRAM_LIMIT_S)
        return code, output, time.monotonic() - started
    return time_of_step(program, update, timed, REPEATS)


def run_workers(run, program, workers, arguments):
    """A step of any of so many workers, which share the steps, with a ps whose variables are in the GPU's memory; and what that ps was given in the long run."""
    given = {}

    def timed(epochs):
        code, output = run('bench/gpu_cluster.py', '--programs', str(run.programs), '--workers', str(workers), '--', '--batch-size', str(BATCH), '--epochs', str(epochs),
                           *arguments, limit_s=PROGRAM_LIMIT_S)
        if code != 0:
            return code, output, 0
        said = json.loads(output)
        given[epochs] = said['ps']
        return code, output, said['seconds']
    result = time_of_step(program, f'ps on the GPU, workers: {workers}, a process each', timed, 1)
    return {**result, 'workers': workers, 'ps_was_given': given.get(LONG)}


def run_steps(run, results, folder):
    write_images(folder)
    write_flights(folder)
    mlp = ['--program', 'mlp', '--hidden', '4096,4096', '--data', str(folder)]
    wide_deep = ['--program', 'wide_deep', '--hidden', '1024,512', '--data', str(folder / 'flights.csv'), '--schema', str(folder / 'schema.yaml')]
    # wide_deep refuses --pipeline: it does not compute on rows that are a push older.
    programs = {'mlp/hidden:4096,4096': (('local', [*mlp, '--no-ps']), ('ps of its own, computing one push behind', [*mlp, '--pipeline'])),
                'wide_deep/hidden:1024,512': (('local, of tables in host memory', [*wide_deep, '--no-ps']), ('ps of its own', wide_deep))}
    local = {}

    def add(result, what):
        program = result['program']
        if 'step_seconds' not in result:
            print(f'{program}, {what}: not measured: {result.get("output", "")[-300:]}', flush=True)
        elif program in local:
            result['ratio_to_local_update'] = result['step_seconds'] / local[program]
            print(f'{program}, {what}: {result["step_seconds"] * 1e3:.3f} ms a step, {result["ratio_to_local_update"]:.2f} times that with a local update', flush=True)
        else:
            local[program] = result['step_seconds']
            print(f'{program}, {what}: {result["step_seconds"] * 1e3:.3f} ms a step', flush=True)
        results.add('steps', result)

    for program, updates in programs.items():
        for update, arguments in updates:
            add(run_program(run, program, update, arguments), update)
    for program, updates in programs.items():
        for workers in WORKERS:
            result = run_workers(run, program, workers, updates[-1][1])
            add(result, result['update'])


def run_benchmark(run, results, kind, folder, program, *arguments):
    """A program of bench/ that writes JSON, which is kept as `kind`."""
    file = folder / f'{kind}.json'
    code, output = run(program, *arguments, '--json', str(file))
    print(output, end='', flush=True)
    results.values[f'{kind}_exit_code'] = code
    if file.exists():
        results.values[kind] = json.loads(file.read_text())
    else:
        results.values[f'{kind}_output'] = output[-4000:]
    results.write()
    return code == 0


def measure(run, results, seconds):
    """0, or 1 where a test or a check has failed."""
    values = results.values
    values['not_measured'] = []
    run.part(TESTS_END_S)
    run_tests(run, results)
    values['not_measured'] += [f'{test["test"]}: no test of it ran' for test in values['tests'] if test['exit_code'] == 0 and test['passed'] == 0]
    good = all(test['exit_code'] == 0 for test in values['tests'])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run.part(KERNELS_END_S)
        good = run_benchmark(run, results, 'kernels', folder, 'bench/bench_kernels', '--cpu', '--seconds', str(seconds)) and good
        run.part(BETWEEN_END_S)
        good = run_benchmark(run, results, 'between_processes', folder, 'bench/bench_device_pointers', '--seconds', str(seconds)) and good
        run.part(STEPS_END_S)
        run_steps(run, results, folder)
    values['not_measured'] += [f'step time of {step["program"]}, {step["update"]}' for step in values['steps'] if 'step_seconds' not in step]
    run.part(LIMIT_S)
    for question, (environment, program, arguments) in QUESTIONS.items():
        code, output = run(program, *arguments, limit_s=QUESTION_LIMIT_S, environment=environment)
        results.add('questions', {'question': question, 'exit_code': code, 'output': output[-2000:]})
        print(f'{question}: {"yes" if code == 0 else f"no ({code}): {output[-300:]}"}', flush=True)
    return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(prog='gpu.sh', description='Tests, kernel ladders and step times on a GPU; one JSON.')
    parser.add_argument('programs', nargs='?', help='a build folder or an unpacked bundle with tests')
    parser.add_argument('--json', default='gpu.json', help='the results (default: gpu.json)')
    parser.add_argument('--seconds', type=float, default=1.0, help='of each step of a ladder')
    parser.add_argument('--sanitize', action='store_true', help='instead of all that: the tests under compute-sanitizer, memcheck and racecheck')
    parser.add_argument('--limit', type=float, default=LIMIT_S, help=f'seconds that all of it may take (default: {LIMIT_S})')
    options = parser.parse_args()
    run = Run(programs_folder(options.programs), options.limit)
    code, output = run('bench/bench_kernels', '--only', 'none of them', limit_s=PROGRAM_LIMIT_S)
    if code == SKIPPED:
        print(output, end='', file=sys.stderr)
        return SKIPPED
    if code is None:
        print(f'gpu.sh: {output}; build the target bundle with -DBASIN_BUNDLE_TESTS=GPU where nvcc is, or name a build folder',
              file=sys.stderr)
        return 2
    results = Results(options.json)
    code = run_sanitizer(run, results) if options.sanitize else measure(run, results, options.seconds)
    results.values['seconds'] = time.monotonic() - run.start
    results.write()
    print(f'{options.json}: {results.values["seconds"]:.0f} s')
    return code


if __name__ == '__main__':
    sys.exit(main())
