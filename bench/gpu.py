"""What gpu.sh runs: gpu tests, kernel ladders, step times; one JSON for all. Only the standard library."""

import argparse
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
LIMIT_S = 460  # of all parts together
# Test programs with the label gpu, with the tests of theirs that need a device.
TESTS = {'cuda_codec_test': '*', 'cuda_lane_tables_test': '*', 'cuda_rules_test': '*', 'cuda_row_batch_test': '*', 'cuda_shards_test': '*',
         'cuda_table_test': '*', 'device_test': 'Gpu*', 'gpu_client_test': '*', 'train_test': '*cuda_*'}
SCRIPTS = ['tests/cluster/gpu_ps_test.py', 'tests/cluster/gpu_wide_deep_test.py', 'tests/cluster/gpu_worker_test.py']
TEST_LIMIT_S = 60  # of each: one that hangs must not cost the rest
# What the programs train on: as large as Fashion-MNIST, of random numbers, since only time is measured.
EXAMPLES, TEST_EXAMPLES, PIXELS, CLASSES = 16_384, 1024, 784, 10
BATCH, SHORT, LONG, REPEATS = 1024, 1, 13, 3  # epochs
STEPS_PER_EPOCH = EXAMPLES // BATCH
NOT_THERE = ['separate processes on one GPU, and 2 and 4 workers, with their hand-offs']


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


class Run:
    """Runs one part after another, none beyond the time that all have."""

    def __init__(self, programs):
        self.programs = programs
        self.end = time.monotonic() + LIMIT_S
        self.environment = dict(os.environ, BASIN_BINARY_DIR=str(programs), OPENBLAS_NUM_THREADS='1')
        source = programs / 'source'
        self.environment['BASIN_SOURCE_DIR'] = str(source if source.exists() else HERE.parent)
        for name in ('TF_CONFIG', 'BASIN_RUN_ID'):
            self.environment.pop(name, None)
        if folder := folder_of_cublas():
            known = self.environment.get('LD_LIBRARY_PATH')
            self.environment['LD_LIBRARY_PATH'] = f'{folder}:{known}' if known else folder

    def __call__(self, program, *arguments, limit_s=LIMIT_S):
        """(exit code, output); None for the code where there is no such program, or no time left."""
        path = self.programs / program
        if program.endswith('.py'):
            path = pathlib.Path(self.environment['BASIN_SOURCE_DIR']) / program
        if not path.exists():
            return None, f'{path} is not there'
        left = min(self.end - time.monotonic(), limit_s)
        if left < 1:
            return None, 'no time was left for it'
        starter = [sys.executable, '-B'] if program.endswith('.py') else []
        try:
            done = subprocess.run([*starter, str(path), *arguments], env=self.environment, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors='replace', timeout=left, check=False)
        except subprocess.TimeoutExpired:
            return None, f'not done in {left:.0f} s'
        return done.returncode, done.stdout


def run_tests(run):
    results = []
    for name, arguments in [(f'tests/{name}', [f'--gtest_filter={tests}']) for name, tests in TESTS.items()] + [(name, []) for name in SCRIPTS]:
        code, output = run(name, *arguments, limit_s=TEST_LIMIT_S)
        passed = re.search(r'\[  PASSED  \] (\d+) test|^Ran (\d+) tests?', output, re.MULTILINE)
        skipped = re.search(r'\[  SKIPPED \] (\d+) test|skipped=(\d+)', output)
        count = lambda found: int(next(filter(None, found.groups()), 0)) if found else 0
        result = {'test': name, 'exit_code': code, 'passed': count(passed), 'skipped': count(skipped)}
        if name.endswith('.py'):
            result['passed'] -= result['skipped']
        if code != 0:
            result['output'] = output[-4000:]
        results.append(result)
        print(f'{name}: {result["passed"]} passed, {result["skipped"]} skipped'
              + ('' if code == 0 else f', FAILED ({code}): {output[-500:]}'), flush=True)
    return results


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


def run_program(run, name, update, arguments):
    """The time of a step: a long run less a short one, each the fastest of REPEATS, so that starting is in neither."""
    result = {'program': name, 'device': 'cuda', 'update': update, 'batch': BATCH, 'steps': (LONG - SHORT) * STEPS_PER_EPOCH, 'repeats': REPEATS}
    seconds = {SHORT: [], LONG: []}
    for epochs in (SHORT, LONG) * REPEATS:
        started = time.monotonic()
        code, output = run('bin/basin-worker', '--device', 'cuda', '--batch-size', str(BATCH), '--epochs', str(epochs), *arguments)
        seconds[epochs].append(time.monotonic() - started)
        if code != 0:
            result.update(exit_code=code, output=output[-2000:])
            return result
    result['seconds_of_runs'] = {f'{epochs} epochs': values for epochs, values in seconds.items()}
    result['step_seconds'] = (min(seconds[LONG]) - min(seconds[SHORT])) / result['steps']
    return result


def run_steps(run, folder):
    write_images(folder)
    write_flights(folder)
    mlp = ['--program', 'mlp', '--hidden', '4096,4096', '--data', str(folder)]
    wide_deep = ['--program', 'wide_deep', '--hidden', '1024,512', '--data', str(folder / 'flights.csv'), '--schema', str(folder / 'schema.yaml')]
    # wide_deep refuses --pipeline: it does not compute on rows that are a push older.
    programs = {'mlp/hidden:4096,4096': (('local', [*mlp, '--no-ps']), ('ps of its own, computing one push behind', [*mlp, '--pipeline'])),
                'wide_deep/hidden:1024,512': (('local, of tables in host memory', [*wide_deep, '--no-ps']), ('ps of its own', wide_deep))}
    results = []
    for name, updates in programs.items():
        pair = [run_program(run, name, *update) for update in updates]
        results += pair
        if all('step_seconds' in result for result in pair):
            ratio = pair[1]['step_seconds'] / pair[0]['step_seconds']
            pair[1]['ratio_to_local_update'] = ratio
            print(f'{name}: {pair[0]["step_seconds"] * 1e3:.3f} ms a step with a local update, {ratio:.2f} times that with a ps of its own', flush=True)
        else:
            print(f'{name}: not measured: ' + ' '.join(result.get('output', '')[-300:] for result in pair), flush=True)
    return results


def main():
    parser = argparse.ArgumentParser(prog='gpu.sh', description='Tests, kernel ladders and step times on a GPU; one JSON.')
    parser.add_argument('programs', nargs='?', help='a build folder or an unpacked bundle with tests')
    parser.add_argument('--json', default='gpu.json', help='the results (default: gpu.json)')
    parser.add_argument('--seconds', type=float, default=1.0, help='of each step of a ladder')
    options = parser.parse_args()
    run = Run(programs_folder(options.programs))
    code, output = run('bench/bench_kernels', '--only', 'none of them')
    if code == SKIPPED:
        print(output, end='', file=sys.stderr)
        return SKIPPED
    if code is None:
        print(f'gpu.sh: {output}; build the target bundle with -DBASIN_BUNDLE_TESTS=ON where nvcc is, or name a build folder',
              file=sys.stderr)
        return 2
    started = time.monotonic()
    results = {'tests': run_tests(run), 'not_measured': list(NOT_THERE)}
    results['not_measured'] += [f'{test["test"]}: no test of it ran' for test in results['tests'] if test['exit_code'] == 0 and test['passed'] == 0]
    # After each part, so that what was measured is there however the next one ends.
    write = lambda: pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + '\n')
    write()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        code, output = run('bench/bench_kernels', '--cpu', '--seconds', str(options.seconds), '--json', str(folder / 'kernels.json'))
        print(output, end='', flush=True)
        results['kernels_exit_code'] = code
        if (folder / 'kernels.json').exists():
            results['kernels'] = json.loads((folder / 'kernels.json').read_text())
        write()
        between, output = run('bench/bench_device_pointers', '--seconds', str(options.seconds), '--json', str(folder / 'between.json'))
        print(output, end='', flush=True)
        results['between_processes_exit_code'] = between
        if (folder / 'between.json').exists():
            results['between_processes'] = json.loads((folder / 'between.json').read_text())
        write()
        results['steps'] = run_steps(run, folder)
    results['seconds'] = time.monotonic() - started
    results['not_measured'] += [f'step time of {step["program"]}, {step["update"]}' for step in results['steps']
                                if 'step_seconds' not in step]
    write()
    print(f'{options.json}: {results["seconds"]:.0f} s')
    failed = code != 0 or between != 0 or any(test['exit_code'] != 0 for test in results['tests'])
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
