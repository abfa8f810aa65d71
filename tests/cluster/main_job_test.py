"""The main job, as shipped: what the quickstart runs, and what it must learn."""

import json
import os
import re
import tempfile
import unittest

import processes


class MainJob(unittest.TestCase):
    def test_learns_fashion_mnist_with_the_shipped_settings_and_leaves_nothing_behind(self):
        if not os.path.isdir("/usr/share/datasets/fashion-mnist"):
            self.fail("Debian's package dataset-fashion-mnist is not installed")
        with tempfile.TemporaryDirectory() as runs:
            environment, mark = processes.marked_environment()
            with processes.Process([processes.binary("basin"), "submit", processes.source("examples/02_fashion_mnist/job.yaml"),
                                    "--runs", runs], env=environment) as submit:
                self.assertEqual(submit.wait(deadline_s=1200), 0, submit.text())
                last = submit.text("out").splitlines()[-1]
                self.assertRegex(last, r"^test accuracy 0\.\d{4}$")
                self.assertGreaterEqual(float(last.split()[-1]), 0.885)
                # Lines of progress, since this is no terminal.
                self.assertRegex(submit.text("err"), r"step \d+ +\d+% .*examples/s \d+ .*loss [\d.]+")
            processes.wait_until(lambda: not processes.marked_pids(mark), "nothing of the run is left")
            [folder] = [os.path.join(runs, "fashion-mnist", name) for name in os.listdir(os.path.join(runs, "fashion-mnist"))]
            with open(os.path.join(folder, "run.json")) as file:
                self.assertEqual(json.load(file)["state"], "Completed")
            self.assertTrue(os.path.getsize(os.path.join(folder, "outputs", "model.safetensors")) > 4 * 784 * 256)
            # The model file alone gives what the evaluator saw.
            with processes.Process([processes.binary("basin-worker"), "--evaluate", os.path.join(folder, "outputs", "model.safetensors"),
                                    "--data", "/usr/share/datasets/fashion-mnist"], env=environment) as evaluate:
                self.assertEqual(evaluate.wait(), 0, evaluate.text())
                self.assertEqual(re.findall(r"test accuracy .*", evaluate.text("out")), [last])


if __name__ == "__main__":
    unittest.main()
