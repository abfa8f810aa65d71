"""examples/04_mpi: on four ranks it trains as in one process."""

import json
import os
import re
import subprocess
import tempfile
import unittest

import conformance_mpi
import conformance_targets
import needs  # its folder is on the path since conformance_targets

DATA = "/usr/share/datasets/fashion-mnist"
EXAMPLE = conformance_targets.processes.source("examples", "04_mpi")
SMALL = {"--epochs": 2, "--hidden": 64, "--batch-size": 256}


def losses(text):
    return [float(loss) for loss in re.findall(r"^epoch \d+ of \d+: loss (\S+)$", text, re.M)]


class MpiExample(unittest.TestCase):
    def setUp(self):
        if conformance_mpi.missing() or not os.path.isdir(DATA):
            needs.skip(conformance_mpi.missing() or f"{DATA} is not there (Debian package dataset-fashion-mnist)")
        folder = tempfile.TemporaryDirectory(prefix="basin-mpi-example-")
        self.addCleanup(folder.cleanup)
        self.home = folder.name

    def run_here(self, *words):
        environment = {"HOME": self.home, "PATH": conformance_mpi.PATH, "OPENBLAS_NUM_THREADS": "1",
                       "PYTHONPATH": conformance_targets.processes.source("python")}
        done = subprocess.run(words, cwd=self.home, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_four_ranks_train_as_one_process(self):
        alone = losses(self.run_here("/usr/bin/python3", "-B", os.path.join(EXAMPLE, "train.py"),
                                     *[f"{flag}={value}" for flag, value in SMALL.items()]))
        record = json.loads(self.run_here(conformance_targets.BASIN, "submit", os.path.join(EXAMPLE, "job.yaml"), "--json",
                                          *[word for flag, value in SMALL.items() for word in ("--param", f"{flag}={value}")]))
        self.assertEqual([task["role"] for task in record["tasks"]], ["worker"] * 4 + ["mpirun"])
        with open(os.path.join(record["folder"], "logs", "worker-0.txt"), encoding="utf-8") as file:
            together = losses(file.read())
        self.assertEqual(len(together), SMALL["--epochs"])
        # The sums are the same but for their order.
        for one, other in zip(alone, together):
            self.assertAlmostEqual(one, other, delta=0.002)
        self.assertGreater(record["metrics"]["test_accuracy"], 0.8)
        self.assertTrue(os.path.exists(os.path.join(record["folder"], "outputs", "model.npz")))


if __name__ == "__main__":
    unittest.main()
