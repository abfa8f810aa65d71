"""The model that a run writes, and what can be done with it."""

import json
import os
import re
import struct
import unittest

import clusters
import processes


class ModelTest(clusters.ClusterCase):
    def train(self, *flags, outputs, epochs=8):
        layout = clusters.Layout(ps=2, workers=1)
        tasks = self.start_all_ps(layout)
        worker = self.start_worker(layout, 0, "--epochs", epochs, "--outputs", self.path(outputs), *flags)
        self.all_end([worker] + tasks)
        return worker.text(), os.path.join(self.path(outputs), "model.safetensors")

    def evaluate(self, model, *flags):
        """Exit code, loss and accuracy (None where it failed), text."""
        worker = self.start_worker(None, 0, "--evaluate", model, *flags, tf_config="")
        code = worker.wait()
        values = [float(word) for word in re.findall(r"^test (?:loss|accuracy) (\S+)$", worker.text("out"), re.MULTILINE)]
        return code, *(values or (None, None)), worker.text()

    def test_written_model_has_the_programs_tensors_and_is_as_good_as_the_training_said(self):
        text, model = self.train(outputs="first")
        self.assertIn(f"wrote {model}", text)
        with open(model, "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(size))
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        self.assertEqual(sorted(tuple(value["shape"]) for value in tensors.values()), [(10,), (64, 10)])
        self.assertEqual(header["__metadata__"]["program"], "softmax")
        self.assertEqual(os.path.getsize(model), 8 + size + 4 * (640 + 10))
        code, _, accuracy, evaluation = self.evaluate(model)
        self.assertEqual(code, 0, evaluation)
        self.assertGreater(accuracy, 0.9)

    def test_init_from_goes_on_where_the_model_ended(self):
        _, first = self.train(outputs="first")
        _, first_loss, _, _ = self.evaluate(first)
        # One more epoch with a learning rate that changes nothing to speak of: what is written is what was read.
        text, again = self.train("--init-from", first, "--rule", "sgd", "--learning-rate", "1e-9", outputs="again", epochs=1)
        self.assertIn(f"parameters start from {first}; the rule's slots start afresh", text)
        _, again_loss, _, _ = self.evaluate(again)
        self.assertAlmostEqual(first_loss, again_loss, places=3)
        _, fresh = self.train("--rule", "sgd", "--learning-rate", "1e-9", outputs="fresh", epochs=1)
        _, fresh_loss, _, _ = self.evaluate(fresh)
        self.assertLess(again_loss, fresh_loss / 2)

    def test_wrong_model_file_is_refused_with_what_is_wrong(self):
        with open(self.path("garbage"), "wb") as file:
            file.write(b"no safetensors" * 10)
        header = json.dumps({"softmax/kernel": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        with open(self.path("other"), "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + bytes(8))
        with open(self.path("short"), "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + bytes(3))
        for name in ("garbage", "other", "short", "nowhere"):
            with self.subTest(name):
                code, _, _, text = self.evaluate(self.path(name))
                self.assertEqual(code, 2, text)
                self.assertIn(self.path(name), text)

    def test_chief_with_a_wrong_init_from_ends_the_run_with_the_reason(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        worker = self.start_worker(layout, 0, "--init-from", self.path("nowhere"))
        self.assertIn(self.path("nowhere"), self.ends(worker, 2))
        ps.kill()

    def test_a_timeline_that_cannot_be_written_costs_neither_model_nor_run(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        taken = self.path("taken")
        os.mkdir(taken)
        worker = self.start_worker(layout, 0, "--epochs", "1", "--timeline", taken, "--outputs", self.path("outputs"))
        self.assertIn(taken, self.ends(worker, 2))
        self.assertTrue(os.path.exists(self.path("outputs", "model.safetensors")))
        self.ends(ps)

    def test_no_ps_prints_the_accuracy_of_one_process(self):
        worker = self.start_worker(None, 0, "--no-ps", "--epochs", "8", tf_config="")
        self.assertRegex(self.ends(worker), r"test accuracy (0\.9|1\.0)\d+")

    def test_evaluator_writes_its_last_evaluation(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        evaluator = self.start_evaluator(layout, "--outputs", self.path("outputs"), "--evaluate-every", "0.05")
        worker = self.start_worker(layout, 0, "--epochs", "30", "--outputs", self.path("outputs"))
        self.all_end([worker, evaluator, ps])
        self.assertGreaterEqual(evaluator.text().count("test accuracy"), 2)
        with open(self.path("outputs", "evaluation.json")) as file:
            evaluation = json.load(file)
        self.assertEqual(evaluation["global_step"], 512 // 16 * 30)
        _, loss, accuracy, _ = self.evaluate(self.path("outputs", "model.safetensors"))
        self.assertAlmostEqual(evaluation["test_loss"], loss, places=3)
        self.assertAlmostEqual(evaluation["test_accuracy"], accuracy, places=3)

    def test_max_steps_ends_the_run(self):
        layout = clusters.Layout(ps=1, workers=2)
        ps = self.start_ps(layout)
        workers = self.start_workers(2, lambda index: self.start_worker(layout, index, "--epochs", "1000000", "--max-steps", "300"))
        self.all_end([ps, *workers])
        steps = sum(int(re.search(r"done: (\d+) steps", worker.text()).group(1)) for worker in workers)
        self.assertGreaterEqual(steps, 300)


if __name__ == "__main__":
    unittest.main()
