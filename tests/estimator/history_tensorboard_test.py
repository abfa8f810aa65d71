"""The event files of a run, read by the real TensorBoard; also after a supervisor was killed in between."""

import json
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'install'))
import virtual_environment  # noqa: E402  (found by the line above)
from written_runs import DEADLINE_S, RunsTest, needs, metric, record  # noqa: E402

REQUIREMENTS = ('tensorboard==2.18.0', 'numpy==1.26.4', 'protobuf==5.28.3', 'setuptools==75.6.0')
READ = '''
import json, sys
from tensorboard.backend.event_processing import event_accumulator, event_multiplexer
runs = event_multiplexer.EventMultiplexer(size_guidance={event_accumulator.TENSORS: 0, event_accumulator.SCALARS: 0})
runs.AddRunsFromDirectory(sys.argv[1])
runs.Reload()
out = {}
for run, tags in runs.Runs().items():
    for tag in tags['scalars']:
        out[f'{run} {tag}'] = [[event.step, event.value, event.wall_time] for event in runs.Scalars(run, tag)]
    for tag in tags['tensors']:
        from tensorboard.util import tensor_util
        out[f'{run} {tag}'] = [[e.step, float(tensor_util.make_ndarray(e.tensor_proto)), e.wall_time] for e in runs.Tensors(run, tag)]
print(json.dumps(out))
'''


class TensorBoardTest(RunsTest):
    def test_tensorboard_reads_every_point_of_every_task(self):
        try:
            python = virtual_environment.python_with(*REQUIREMENTS)
        except virtual_environment.NotThere as reason:
            needs.skip(str(reason))
        supervisor = self.supervise('20251128-120000-aaaaaa')
        supervisor.do(record=record('20251128-120000-aaaaaa'), now=1764370000)
        for step in range(0, 500, 10):
            supervisor.piece('worker/0', metric('loss', step / 2, step, 1764370000 + step), 'metrics')
            supervisor.piece('worker/1', metric('loss', -step, step, 1764370000 + step) + metric('no step', 7), 'metrics')
        supervisor.settle()
        supervisor.kill()
        # What the crash has torn is repaired by the next supervisor.
        events = next((supervisor.folder / 'logs/tensorboard/worker-0').iterdir())
        events.write_bytes(events.read_bytes()[:-70])
        supervisor = self.supervise('20251128-120000-aaaaaa')
        for step in range(500, 1000, 10):
            supervisor.piece('worker/0', metric('loss', step / 2, step, 1764370000 + step), 'metrics')
        self.assertEqual(supervisor.end()['health'], '')

        done = subprocess.run([python, '-c', READ, str(supervisor.folder / 'logs' / 'tensorboard')], capture_output=True, text=True,
                              timeout=DEADLINE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        read = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(sorted(read), ['worker-0 loss', 'worker-1 loss', 'worker-1 no step'])
        self.assertEqual(read['worker-0 loss'], [[step, step / 2, 1764370000 + step] for step in range(0, 1000, 10)])
        self.assertEqual([point[:2] for point in read['worker-1 loss']], [[step, -step] for step in range(0, 500, 10)])
        self.assertEqual([point[0] for point in read['worker-1 no step']], list(range(50)), 'without a step they are counted')


if __name__ == '__main__':
    unittest.main()
