"""basin-worker --device cuda with real servers: parameters and gradients stay in the device's memory, and what is learned is
what a worker on the CPU learns."""

import json
import re
import struct
import unittest

import clusters
import workers_on_gpu


def write_model(path, tensors):
    """tensors: name to (shape, numbers)."""
    header, data = {}, b""
    for name, (shape, numbers) in tensors.items():
        raw = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


# Of two sizes: pieces of two batches of 48 examples, and one of the 32 that are left.
ELEVEN_STEPS = ("--batch-size", "48", "--piece-batches", "2", "--epochs", "1")
# Of gradients: of the last layer and of the middle one, whose kernel has 1 MiB, and of the first.
TWO_GROUPS = ("--hidden", "512,512", "--batch-size", "4", "--piece-batches", "3", "--max-steps", "3")


class GpuWorkerTest(workers_on_gpu.WorkerOnGpuCase):
    def test_learns_what_a_worker_on_the_cpu_learns_in_the_order_of_the_stream_alone_too(self):
        flags = ("--program", "mlp", "--hidden", "16,8", "--rule", "sgd", "--schedule", "linear", *ELEVEN_STEPS)
        _, expected = self.train("cpu", *flags)
        # A device that does nothing before it must finds waits that are missing.
        for lazy in ("0", "1"):
            _, found = self.train("cuda", *flags, BASIN_TEST_CUDA_LAZY=lazy)
            self.assert_same(found, expected, 1e-5)

    def test_gradients_of_a_large_model_leave_in_groups_and_the_model_is_the_same(self):
        flags = ("--program", "mlp", "--rule", "sgd", *TWO_GROUPS)
        _, expected = self.train("cpu", *flags)
        for lazy in ("0", "1"):
            timeline = self.path(f"timeline-{lazy}.json")
            _, found = self.train("cuda", *flags, "--timeline", timeline, BASIN_TEST_CUDA_LAZY=lazy)
            self.assert_same(found, expected, 1e-5)
            with open(timeline, encoding="utf-8") as file:
                events = json.load(file)["traceEvents"]
            pushes = [event for event in events if event["name"] == "push and pull" and event["ph"] == "X"]
            self.assertEqual([event["args"]["step"] for event in pushes], [1, 2, 3])
            self.assertEqual({event["args"]["bytes"] for event in pushes}, {sum(4 * len(values) for values in expected.values())})

    def test_the_pipeline_computes_on_the_same_parameters_as_on_the_cpu(self):
        for size in (("--hidden", "16", *ELEVEN_STEPS), TWO_GROUPS):
            flags = ("--program", "mlp", "--rule", "momentum", "--pipeline", *size)
            _, expected = self.train("cpu", *flags)
            for lazy in ("0", "1"):
                _, found = self.train("cuda", *flags, BASIN_TEST_CUDA_LAZY=lazy)
                self.assert_same(found, expected, 1e-5)

    def test_gradients_in_16_bits_leave_from_the_devices_memory(self):
        flags = ("--program", "mlp", "--hidden", "16", "--rule", "sgd", *ELEVEN_STEPS)
        _, exact = self.train("cpu", *flags)
        for dtype in ("float16", "bfloat16"):
            _, expected = self.train("cpu", *flags, "--gradient-dtype", dtype)
            self.assertNotEqual(expected, exact)
            _, found = self.train("cuda", *flags, "--gradient-dtype", dtype)
            # A gradient on the border between two numbers of 16 bits may be rounded to the other one.
            self.assert_same(found, expected, 1e-3)

    def test_servers_on_the_gpu_too(self):
        flags = ("--program", "mlp", "--hidden", "16", "--rule", "adam", "--learning-rate", "0.001", *ELEVEN_STEPS)
        _, expected = self.train("cpu", *flags)
        _, found = self.train("cuda", *flags, ps_flags=("--device", "cuda"))
        self.assert_same(found, expected, 1e-3)  # Adam divides by the root of squares that may be tiny

    def test_two_workers_and_an_evaluator_learn(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout)
        flags = ("--device", "cuda", "--epochs", "1", "--batch-size", "32", "--evaluate-every", "5")
        evaluator = self.start_evaluator(layout, *flags, "--outputs", self.path("evaluated"))
        workers = self.start_workers(2, lambda index: self.start_worker(layout, index, *flags))
        self.all_end(workers + [evaluator] + ps)
        with open(self.path("evaluated", "evaluation.json"), encoding="utf-8") as file:
            evaluation = json.load(file)
        self.assertGreater(evaluation["test_accuracy"], 0.8)
        self.assertEqual(evaluation["global_step"], 512 // 32)

    def test_a_loss_that_is_no_number_ends_it_at_the_step_and_in_the_words_of_the_cpu(self):
        flags = ("--program", "mlp", "--hidden", "8", "--rule", "sgd", "--learning-rate", "1e30", "--epochs", "1")
        words = r"the loss is \S+ at step (\d+): training has diverged"
        steps = [re.search(words, self.train(device, *flags, code=1)[0]).group(1) for device in ("cpu", "cuda")]
        self.assertEqual(steps[0], steps[1])

    def test_a_gradient_that_is_no_number_is_refused_by_name(self):
        # The hidden layer's values are tiny and the next weights huge, so that label 0 has a probability of exactly one: logits and
        # loss are numbers, and the gradient of an example of another label is not, in whatever order it is summed.
        write_model(self.path("start.safetensors"), {
            "hidden0/kernel": ([64, 4], [1e-38] * 256), "hidden0/bias": ([4], [0.0] * 4),
            "logits/kernel": ([4, 10], [-3e38 if label else 3e38 for label in range(10)] * 4), "logits/bias": ([10], [0.0] * 10)})
        flags = ("--program", "mlp", "--hidden", "4", "--batch-size", "1", "--rule", "sgd", "--learning-rate", "1e-30", "--epochs", "1",
                 "--init-from", self.path("start.safetensors"))
        for device in ("cpu", "cuda"):
            said, _ = self.train(device, *flags, code=2)
            self.assertRegex(said, r"gradient of \"hidden0/(kernel|bias)\" has (NaN|Inf)")

    def test_a_lost_device_ends_the_task_with_cudas_words(self):
        self.assert_lost_device_is_told("--program", "mlp", "--hidden", "16",
                                        calls=("cudaStreamWaitEvent:40", "cudaMemcpyAsync:60", "cudaEventSynchronize:30"))


if __name__ == "__main__":
    unittest.main()
