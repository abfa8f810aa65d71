"""What tests of basin-worker --device cuda share."""

import json
import os
import re
import struct

import clusters
import needs
import processes


def read_model(path):
    """The file's tensors: name to numbers."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    formats = {"F32": "f", "I64": "q"}
    tensors = {}
    for name, one in header.items():
        begin, end = one["data_offsets"]
        format = formats[one["dtype"]]
        tensors[name] = struct.unpack(f"<{(end - begin) // struct.calcsize(format)}{format}", data[begin:end])
    return tensors


class WorkerOnGpuCase(clusters.ClusterCase):
    """A test that is skipped, with the reason, where basin-worker has no GPU to compute on."""

    def setUp(self):
        super().setUp()
        # The device is opened before the data is looked for.
        code, _, err = processes.run([processes.binary("basin-worker"), "--device", "cuda", "--data", self.path("none")], env=self.environment)
        self.assertNotEqual(code, 0)
        reason = re.search(r"cuda:0: (.*)", err)
        if reason:
            needs.skip(f"no GPU: {reason.group(1)}")

    def train(self, device, *flags, ps=2, ps_flags=(), code=0, **environment):
        """One worker's run. Returns what the worker said, and its model."""
        layout = clusters.Layout(ps=ps, workers=1)
        servers = self.start_all_ps(layout, *ps_flags)
        outputs = self.path(f"outputs-{len(os.listdir(self.folder))}")
        worker = self.start_worker(layout, 0, "--device", device, "--outputs", outputs, *flags, **environment)
        said = self.ends(worker, code)
        if code == 0:
            self.all_end(servers)
        return said, read_model(os.path.join(outputs, "model.safetensors")) if code == 0 else None

    def assert_same(self, found, expected, tolerance):
        self.assertEqual(found.keys(), expected.keys())
        for name in expected:
            self.assertEqual(len(found[name]), len(expected[name]), name)
            worst = max((abs(a - b) for a, b in zip(found[name], expected[name])), default=0)
            self.assertLessEqual(worst, tolerance, name)

    def assert_lost_device_is_told(self, *flags, calls):
        """The worker ends with CUDA's words when the device is lost at one of these calls, as `cudaMemcpyAsync:60`."""
        for call in calls:
            layout = clusters.Layout(ps=1, workers=1)
            self.start_ps(layout)
            worker = self.start_worker(layout, 0, "--device", "cuda", *flags, BASIN_TEST_CUDA_FAIL=call)
            if worker.wait() == 0:
                self.skipTest("only an emulated device is lost by request")
            self.assertRegex(worker.text(), r"cuda:0: .*\(cudaError\w+\)", call)
