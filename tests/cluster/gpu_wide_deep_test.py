"""Wide & deep with basin-worker --device cuda and real servers: keys, rows, parameters and gradients stay in the device's
memory, and what is learned is what a worker on the CPU learns."""

import json
import re
import unittest

import clusters
import processes
import wide_deep_test
import workers_on_gpu

# Two values of the bucket, each some hundred times in a batch: more often than a sum on the device is made in one piece.
FEW_KEYS = """
label: {column: bought}
split: {column: day, test_from: "4"}
categorical: [shop]
buckets: [{name: half, column: minute, width: 120}]
crosses: [[shop, half]]
"""
# 720 examples or so: pieces of three batches of 100, and what is left, in a batch of its own.
STEPS = ("--batch-size", "100", "--piece-batches", "3", "--epochs", "1", "--schedule", "linear")
RATES = ("--rule", "sgd", "--learning-rate", "0.05", "--wide-learning-rate", "0.3", "--embedding-learning-rate", "0.1")


class GpuWideDeepTest(workers_on_gpu.WorkerOnGpuCase):
    def setUp(self):
        super().setUp()
        wide_deep_test.write_shop(self.folder, 900)

    def start_worker(self, layout, index, *flags, role="worker", **environment):
        argv = [flag for pair in (("--program", "wide_deep"), ("--data", self.path("shop.csv")), ("--schema", self.path("shop.yaml")))
                if pair[0] not in flags for flag in pair]
        return self.start([processes.binary("basin-worker"), *argv, *flags], layout.of(role, index), **environment)

    def test_learns_what_a_worker_on_the_cpu_learns_in_the_order_of_the_stream_alone_too(self):
        flags = ("--hidden", "16,8", *RATES, *STEPS)
        _, expected = self.train("cpu", *flags)
        # A device that does nothing before it must finds waits that are missing.
        for lazy in ("0", "1"):
            _, found = self.train("cuda", *flags, BASIN_TEST_CUDA_LAZY=lazy)
            self.assert_same(found, expected, 1e-5)

    def test_keys_that_stand_hundreds_of_times_in_a_batch_and_no_numbers(self):
        with open(self.path("few.yaml"), "w", encoding="utf-8") as file:
            file.write(FEW_KEYS)
        flags = ("--schema", self.path("few.yaml"), "--hidden", "8", *RATES, "--batch-size", "600", "--epochs", "3")
        _, expected = self.train("cpu", *flags)
        self.assertEqual(len(expected["embedding/half/keys"]), 2)
        _, found = self.train("cuda", *flags)
        self.assert_same(found, expected, 1e-5)

    def test_gradients_of_a_large_model_leave_in_groups_and_the_model_is_the_same(self):
        flags = ("--hidden", "512,512", *RATES, "--batch-size", "4", "--piece-batches", "3", "--max-steps", "3")
        _, expected = self.train("cpu", *flags)
        for lazy in ("0", "1"):
            _, found = self.train("cuda", *flags, BASIN_TEST_CUDA_LAZY=lazy)
            self.assert_same(found, expected, 1e-5)

    def test_gradients_in_16_bits_leave_from_the_devices_memory(self):
        flags = ("--hidden", "16", *RATES, *STEPS)
        _, exact = self.train("cpu", *flags)
        _, expected = self.train("cpu", *flags, "--gradient-dtype", "float16")
        self.assertNotEqual(expected, exact)
        _, found = self.train("cuda", *flags, "--gradient-dtype", "float16")
        # A gradient on the border between two numbers of 16 bits may be rounded to the other one.
        self.assert_same(found, expected, 1e-3)

    def test_servers_on_the_gpu_too(self):
        flags = ("--hidden", "16", *RATES, *STEPS)
        _, expected = self.train("cpu", *flags)
        _, found = self.train("cuda", *flags, ps_flags=("--device", "cuda"))
        self.assert_same(found, expected, 1e-5)

    def test_two_workers_and_an_evaluator_learn_as_well_as_one_process(self):
        wide_deep_test.write_shop(self.folder, 4000)
        layout = clusters.Layout(ps=2, workers=2)
        flags = ("--device", "cuda", "--hidden", "16", "--epochs", "4", "--batch-size", "128", "--learning-rate", "0.01", "--wide-learning-rate", "0.3",
                 "--embedding-learning-rate", "0.1", "--evaluate-every", "5")
        alone = self.start_worker(layout, 0, "--no-ps", *flags)
        self.ends(alone)
        auc = float(re.search(r"^test AUC (\S+)$", alone.text("out"), re.MULTILINE).group(1))
        self.assertGreater(auc, 0.7)
        ps = self.start_all_ps(layout)
        evaluator = self.start_evaluator(layout, *flags, "--outputs", self.path("evaluated"))
        workers = self.start_workers(2, lambda index: self.start_worker(layout, index, *flags))
        self.all_end(workers + [evaluator] + ps)
        with open(self.path("evaluated", "evaluation.json"), encoding="utf-8") as file:
            evaluation = json.load(file)
        self.assertAlmostEqual(evaluation["test_auc"], auc, delta=0.03)

    def test_a_loss_that_is_no_number_ends_it_at_the_step_and_in_the_words_of_the_cpu(self):
        flags = ("--hidden", "8", "--rule", "sgd", "--learning-rate", "1e30", *STEPS)
        words = r"the loss is \S+ at step (\d+): training has diverged; .*--wide-learning-rate"
        steps = [re.search(words, self.train(device, *flags, code=1)[0]).group(1) for device in ("cpu", "cuda")]
        self.assertEqual(steps[0], steps[1])

    def test_a_lost_device_ends_the_task_with_cudas_words(self):
        self.assert_lost_device_is_told("--hidden", "16", *STEPS, calls=("cudaStreamWaitEvent:30", "cudaMemcpyAsync:60", "cudaEventSynchronize:12"))


if __name__ == "__main__":
    unittest.main()
