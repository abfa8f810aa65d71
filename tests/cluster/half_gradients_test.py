"""Gradients in 16 bits with real processes: the numbers and the refusals, the bytes, and what a training learns."""

import json
import os
import re
import unittest

import clusters
import processes

LIMIT = r"beyond float16's largest, 65504 \(send bfloat16, or scale the loss down\)"


class HalfGradientsTest(clusters.ClusterCase):
    def test_every_number_and_every_refusal(self):
        for transport in ("tcp", "shm"):
            with self.subTest(transport):
                layout = clusters.Layout()
                ps = self.start_ps(layout)
                worker = self.start([processes.binary("test_half_gradients")], layout.of("worker"),
                                    BASIN_GRADIENT_DTYPE="float16", BASIN_TRANSPORT=transport)
                self.all_end([worker, ps])
                said = worker.text("out")
                for line in (rf'overflow: gradient of "large" has 1e\+06, {LIMIT} at element 0; nothing of this call was sent',
                             rf'overflow: gradient of "w" has -70000, {LIMIT} at element 2; nothing of this call was sent',
                             rf'rows: table "rows": 66000, {LIMIT} in the gradient of key 4 \(place 1\), column 0; nothing of this call was sent',
                             r'nan: gradient of "w" has NaN at element 2; nothing of this call was sent',
                             r'dtype: gradient of "w": elements are f64, expected f32, f16 or bf16',
                             r'assign: value of "w": elements are f16, expected f32',
                             r'given: gradient of "w" has Inf at element 1; nothing of this call was sent',
                             "every number is right"):
                    self.assertRegex(said, re.compile(f"^{line}$", re.MULTILINE))

    def test_an_unknown_type_is_refused(self):
        layout = clusters.Layout()
        worker = self.start_counter(layout, BASIN_GRADIENT_DTYPE="half")
        self.ends(worker, code=2)
        self.assertIn('gradient_dtype "half": expected float32, float16 or bfloat16', worker.text())

    def bytes_received(self, dtype, transport):
        """By the ps, as `basin top` has it: of ten pushes of two workers each, all applied."""
        layout = clusters.Layout(ps=1, workers=2)
        ps = self.start_all_ps(layout)
        hold = self.path(f"go-on-{dtype}-{transport}")
        workers = [self.start_counter(layout, index, "--pushes", "20", "--elements", "400000", "--hold", hold,
                                      BASIN_GRADIENT_DTYPE=dtype, BASIN_TRANSPORT=transport) for index in range(2)]
        for worker in workers:
            worker.wait_for_line("half-way")
        stats = processes.wait_until(lambda: (lambda s: s if s["global_step"] == 20 else None)(self.stats(layout)), "20 steps are counted")
        open(hold, "w").close()
        self.all_end(workers + ps)  # the counters have compared every element
        return stats["ps"][0]["bytes_in"]

    def test_half_of_the_bytes_and_no_push_lost_or_applied_twice(self):
        for transport in ("tcp", "shm"):
            with self.subTest(transport):
                whole = self.bytes_received("float32", transport)
                self.assertGreater(whole, 20 * 400000 * 4)
                for dtype in ("float16", "bfloat16"):
                    half = self.bytes_received(dtype, transport)
                    self.assertGreater(half, 20 * 400000 * 2)
                    self.assertLess(half / whole, 0.52, dtype)

    def test_sums_of_rows_are_exact(self):
        for dtype in ("float16", "bfloat16"):
            with self.subTest(dtype):
                layout = clusters.Layout(ps=2, workers=2)
                ps = self.start_all_ps(layout)
                workers = [self.start([processes.binary("test_count_rows")], layout.of("worker", index), BASIN_GRADIENT_DTYPE=dtype)
                           for index in range(2)]
                self.all_end(workers + ps)
                for index, worker in enumerate(workers):
                    self.assertIn(f"worker {index}: every sum is right", worker.text("out"))

    def trained(self, dtype):
        """Test loss and accuracy of softmax after two asynchronous workers; `dtype` by flag."""
        layout = clusters.Layout(ps=2, workers=2)
        outputs = self.path(f"outputs-{dtype}")
        ps = self.start_all_ps(layout)
        evaluator = self.start_evaluator(layout, "--outputs", outputs)
        workers = self.start_workers(2, lambda index: self.start_worker(layout, index, "--epochs", "8", "--outputs", outputs, "--gradient-dtype", dtype))
        self.all_end(workers + [evaluator] + ps)
        with open(os.path.join(outputs, "evaluation.json")) as file:
            evaluation = json.load(file)
        return evaluation["test_loss"], evaluation["test_accuracy"]

    def test_training_learns_as_much_as_with_float32(self):
        # Losses are about 0.003, and those of two runs with float32 differ by some 0.0003, by their asynchronous order alone.
        loss, accuracy = self.trained("float32")
        self.assertGreater(accuracy, 0.9)
        for dtype in ("bfloat16", "float16"):
            with self.subTest(dtype):
                rounded_loss, rounded_accuracy = self.trained(dtype)
                self.assertAlmostEqual(rounded_accuracy, accuracy, delta=0.02)
                self.assertAlmostEqual(rounded_loss, loss, delta=0.002)


if __name__ == "__main__":
    unittest.main()
