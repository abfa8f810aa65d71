"""How long `basin runs` takes over 10,000 runs, without its index, making it, and with it: figures of docs/runs.md.

    bench/many_runs.py build/release/bin/basin
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 10_000
REPEATS = 7


def write_runs(base):
    tasks = [{'role': role, 'index': index, 'host': 'node-a', 'address': f'10.0.0.1:{2222 + index}', 'pid': 100, 'exit_code': 0}
             for role, index in (('ps', 0), ('worker', 0), ('worker', 1))]
    states = ('NotStarted', 'Preparing', 'Running', 'Finalizing', 'Completed')
    for number in range(RUNS):
        made = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(1_700_000_000 + number))
        run_id = f'20250101-{number:06}-abcdef'
        folder = base / f'experiment-{number % 20}' / run_id
        folder.mkdir(parents=True)
        record = {'run_id': run_id, 'experiment': folder.parent.name, 'state': 'Completed', 'folder': str(folder), 'created': made,
                  'ended': made, 'exit_code': 0, 'target': 'local', 'tasks': tasks, 'metrics': {'loss': 0.3, 'test_accuracy': 0.9},
                  'history': [{'state': state, 'time': made} for state in states]}
        (folder / 'run.json').write_text(json.dumps(record, indent=2))


def main():
    basin = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        write_runs(base / 'runs')
        (base / 'home').mkdir()

        def took(home):
            environment = {**os.environ, 'HOME': str(home), 'BASIN_RUNS': str(base / 'runs')}
            environment.pop('XDG_CACHE_HOME', None)
            begin = time.monotonic()
            subprocess.run([basin, 'runs'], env=environment, stdout=subprocess.DEVNULL, check=True)
            return (time.monotonic() - begin) * 1000

        def middle(home):
            return statistics.median(took(home) for _ in range(REPEATS))

        print(f'without the index  {middle("/proc"):.0f} ms')  # a home where none can be kept
        print(f'making it          {took(base / "home"):.0f} ms')
        print(f'with the index     {middle(base / "home"):.0f} ms')


if __name__ == '__main__':
    main()
