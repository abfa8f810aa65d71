"""basin-ps --device cuda with real workers: nobody sees a difference but in what is shown."""

import json
import re
import unittest
import urllib.request

import clusters
import needs
import processes


class GpuPsTest(clusters.ClusterCase):
    def setUp(self):
        super().setUp()
        # The device is opened before anything is waited for; then this name cannot be resolved.
        task = json.dumps({"cluster": {"ps": ["no-such-host.invalid:1"], "worker": ["127.0.0.1:1"]}, "task": {"type": "ps", "index": 0}})
        code, _, err = processes.run([processes.binary("basin-ps"), "--device", "cuda", "--start-timeout", "0.1"], env=dict(self.environment, TF_CONFIG=task))
        self.assertEqual(code, 2, err)
        reason = re.search(r"device cuda:0: (.*)", err)
        if reason:
            needs.skip(f"no GPU: {reason.group(1)}")

    def test_pushes_of_two_workers_are_each_applied_once(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout, "--device", "cuda")
        workers = [self.start_counter(layout, index, "--pushes", "40", "--elements", "40000") for index in range(2)]
        self.all_end(workers + ps)
        for index, worker in enumerate(workers):
            self.assertIn(f"worker {index}: every element is -80", worker.text("out"))

    def test_a_ps_on_the_host_and_one_on_a_gpu_serve_one_run(self):
        layout = clusters.Layout(ps=2, workers=1)
        ps = [self.start_ps(layout, 0), self.start_ps(layout, 1, "--device", "cuda")]
        worker = self.start_counter(layout, 0, "--pushes", "20", "--elements", "40000")
        self.all_end([worker] + ps)
        self.assertIn("every element is -20", worker.text("out"))

    def test_one_workers_parameters_are_those_of_a_ps_on_the_host(self):
        models = []
        for device in ("cpu", "cuda"):
            layout = clusters.Layout(ps=1, workers=1)
            ps = self.start_ps(layout, 0, "--device", device)
            worker = self.start_worker(layout, 0, "--epochs", "3", "--rule", "adam", "--outputs", self.path(device))
            self.all_end([worker, ps])
            with open(self.path(device, "model.safetensors"), "rb") as file:
                models.append(file.read())
        tensors = [model[8 + int.from_bytes(model[:8], "little"):] for model in models]
        self.assertGreater(len(tensors[0]), 1000)
        self.assertEqual(tensors[0], tensors[1])

    def test_start_line_and_metrics_name_the_device(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout, 0, "--device", "auto", "--metrics-port", "0", "--metrics-host", "127.0.0.1")
        port = re.search(r"metrics on port (\d+)", ps.wait_for_line("metrics on port")).group(1)
        self.assertRegex(ps.wait_for_line("variables on"), r"variables on cuda:0 \(.+\), in at most \d+ MiB of its memory; tables on the host")
        worker = self.start_counter(layout, 0, "--pushes", "10", "--elements", "40000", "--hold", self.hold())
        worker.wait_for_line("half-way")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            page = answer.read().decode()
        taken = sum(float(value) for value in re.findall(r"^basin_ps_device_bytes\{[^}]*\} (\S+)$", page, re.MULTILINE))
        self.assertGreater(taken, 2 * 4 * 40000)
        self.assertRegex(page, r'basin_ps_device_limit_bytes\{[^}]*device="cuda:0"')
        self.release()
        self.all_end([worker, ps])

    def test_a_model_that_does_not_fit_is_refused_with_both_numbers(self):
        layout = clusters.Layout(ps=1, workers=1)
        self.start_ps(layout, 0, "--device", "cuda", "--device-memory-limit", "8MiB", lanes=1)
        worker = self.start_counter(layout, 0, "--pushes", "1", "--elements", "4000000")
        self.assertNotEqual(worker.wait(), 0)
        self.assertRegex(worker.text(), r"need \d+ bytes on cuda:0; \d+ of 8388608 bytes are taken already")

    def test_a_lost_device_ends_the_ps_and_acknowledges_nothing(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout, 0, "--device", "cuda", lanes=1, BASIN_TEST_CUDA_FAIL="cudaStreamSynchronize:15")
        if "emulated" not in ps.wait_for_line("variables on"):
            self.skipTest("only an emulated device is lost by request")
        worker = self.start_counter(layout, 0, "--pushes", "100", "--elements", "4000", "--unreachable-timeout", "2")
        self.assertIn("the device is lost, and with it the shards of this ps", self.ends(ps, code=1))
        self.assertNotEqual(worker.wait(), 0)
        self.assertNotIn("every element", worker.text())


if __name__ == "__main__":
    unittest.main()
