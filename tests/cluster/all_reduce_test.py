"""basin-worker --backend mpi under a real mpirun: what it learns, and what it says when a rank fails."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess

import mpi_ranks
import needs
import processes


def read_model(path):
    """{name: [floats]} of a safetensors file."""
    with open(path, "rb") as file:
        [size] = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        body = file.read()
    return {name: struct.unpack(f"<{(end - begin) // 4}f", body[begin:end])
            for name, one in header.items() if name != "__metadata__" for begin, end in [one["data_offsets"]]}


class AllReduce(mpi_ranks.RanksCase):
    def accuracy(self, text):
        [found] = re.findall(r"^test accuracy (\d\.\d+)$", text, re.MULTILINE)
        return float(found)

    def test_four_ranks_learn_fashion_mnist(self):
        if not os.path.isdir(mpi_ranks.FASHION_MNIST):
            self.fail("Debian's package dataset-fashion-mnist is not installed")
        outputs = self.path("outputs")
        run = self.train(4, "--data", mpi_ranks.FASHION_MNIST, "--epochs", "12", "--batch-size", "64", "--schedule", "linear",
                         "--learning-rate", "0.002", "--outputs", outputs)
        self.assertEqual(run.wait(deadline_s=1200), 0, run.text())
        self.assertGreaterEqual(self.accuracy(run.text("out")), 0.885)
        with open(os.path.join(outputs, "evaluation.json")) as file:
            self.assertEqual(round(json.load(file)["test_accuracy"], 4), self.accuracy(run.text("out")))
        # The model alone gives what rank 0 saw.
        again = self.start([processes.binary("basin-worker"), "--evaluate", os.path.join(outputs, "model.safetensors"), "--data",
                            mpi_ranks.FASHION_MNIST])
        self.ends(again)
        self.assertEqual(self.accuracy(again.text("out")), self.accuracy(run.text("out")))

    def test_ranks_learn_what_one_learns_from_their_batches_together(self):
        models = []
        for ranks, batch, fusion in ((1, 48, 0), (3, 16, 0), (3, 16, 1 << 20)):
            outputs = self.path(f"{ranks}-{fusion}")
            self.ends(self.train(ranks, "--data", self.data(), "--hidden", "32,16", "--batch-size", batch, "--rule", "momentum",
                                 "--learning-rate", "0.02", "--max-steps", "25", "--fusion-bytes", fusion, "--outputs", outputs))
            models.append(read_model(os.path.join(outputs, "model.safetensors")))
        alone, *together = models
        self.assertEqual(len(alone), 6)
        for one in together:
            self.assertEqual(one.keys(), alone.keys())
            for name, expected in alone.items():
                for found, wanted in zip(one[name], expected, strict=True):
                    self.assertAlmostEqual(found, wanted, delta=1e-5, msg=name)

    def test_metrics_and_the_timeline_of_all_ranks(self):
        timeline = self.path("made", "timeline.json")
        metrics = self.path("metrics.jsonl")
        self.ends(self.train(3, "--max-steps", "10", "--fusion-bytes", "0", "--timeline", timeline, "--metrics-file", metrics))
        with open(timeline) as file:
            events = json.load(file)["traceEvents"]
        for rank in range(3):
            named = [event["name"] for event in events if event["ph"] == "X" and event["pid"] == rank]
            self.assertEqual((named.count("compute"), named.count("all-reduce")), (10, 40), named)
        with open(metrics) as file:
            written = [json.loads(line)["name"] for line in file]
        self.assertEqual(sorted(set(written)), ["examples_per_s", "loss", "test_accuracy", "test_loss"])
        self.assertEqual(written.count("test_accuracy"), 1)

    def test_a_timeline_that_cannot_be_written_costs_no_model(self):
        taken = self.path("taken")
        os.mkdir(taken)
        text = self.ends(self.train(2, "--max-steps", "2", "--timeline", taken, "--outputs", self.path("outputs")), 2)
        self.assertIn(taken, text)
        self.assertTrue(os.path.exists(self.path("outputs", "model.safetensors")))
        with open(self.path("file"), "w"):
            pass
        text = self.ends(self.train(2, "--max-steps", "2", "--timeline", self.path("file", "timeline.json")), 2)
        self.assertNotIn("test accuracy", text)

    def test_it_starts_from_a_model_that_rank_0_has(self):
        outputs = self.path("first")
        self.ends(self.train(2, "--max-steps", "5", "--outputs", outputs))
        model = os.path.join(outputs, "model.safetensors")
        self.ends(self.train(2, "--max-steps", "1", "--learning-rate", "0", "--init-from", model, "--outputs", self.path("second")))
        self.assertEqual(read_model(self.path("second", "model.safetensors")), read_model(model))

    def test_divergence_ends_all_ranks_with_one_reason(self):
        run = self.train(3, "--rule", "sgd", "--learning-rate", "1e30")
        text = self.ends(run, 1)
        self.assertRegex(text, r"at step \d+: training has diverged; try a smaller --learning-rate")

    def test_ranks_with_different_flags_are_told_which(self):
        worker = [processes.binary("basin-worker"), "--backend", "mpi", "--data", self.data()]
        run = self.start(["mpirun", "-np", "2", *worker, "--epochs", "1", ":", "-np", "1", *worker, "--epochs", "2"])
        self.assertIn("the settings of rank 2: 2 epochs; rank 0 has 1 epochs", self.ends(run, 2))

    def test_a_rank_without_data_names_itself(self):
        worker = [processes.binary("basin-worker"), "--backend", "mpi"]
        run = self.start(["mpirun", "-np", "1", *worker, "--data", self.data(), ":", "-np", "1", *worker, "--data", self.path("none")])
        self.assertIn(f"neither {self.path('none')}/t10k-images-idx3-ubyte nor", self.ends(run, 2))

    def rank_pids(self):
        """{rank: pid} of the ranks that train."""
        found = {}
        for pid in processes.marked_pids(self.mark):
            try:
                with open(f"/proc/{pid}/comm") as file:
                    if file.read().strip() != "basin-worker":
                        continue
                with open(f"/proc/{pid}/environ", "rb") as file:
                    [rank] = re.findall(rb"OMPI_COMM_WORLD_RANK=(\d+)", file.read())
                found[int(rank)] = pid
            except (OSError, ValueError):
                pass  # it has just ended, and a zombie's environment is empty
        return found

    def start_endless(self, *flags):
        run = self.train(3, "--epochs", "1000000", *flags)
        run.wait_for_line(r"epoch 2 of")
        return run, self.rank_pids()

    def test_a_killed_rank_ends_the_launch(self):
        run, ranks = self.start_endless()
        os.kill(ranks[1], signal.SIGKILL)
        self.assertNotEqual(run.wait(), 0)
        self.assertRegex(run.text(), r"process rank 1 .*exited on signal 9")
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "no rank is left")

    def test_a_rank_that_hangs_is_noticed(self):
        run, ranks = self.start_endless("--unreachable-timeout", "10")
        os.kill(ranks[1], signal.SIGSTOP)
        self.assertNotEqual(run.wait(), 0)
        self.assertRegex(run.text(), r"rank [02] of 3 has waited \d+ s for the other ranks in the sum of the gradients \S+.* of step \d+")
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "no rank is left")

    def test_what_the_backend_cannot_do_is_refused_by_name(self):
        for flags, expected in ((["--pipeline"], "--backend mpi conflicts with --pipeline"), (["--no-ps"], "--backend mpi conflicts with --no-ps"),
                                (["--program", "wide_deep"], "--backend mpi: program wide_deep has its weights and embeddings in tables"),
                                (["--fusion-bytes", "-1"], "--fusion-bytes")):
            with self.subTest(flags):
                worker = self.start([processes.binary("basin-worker"), "--backend", "mpi", "--data", self.data(), *flags])
                self.assertIn(expected, self.ends(worker, 2))

    def moved(self):
        """A copy of the worker in a folder of its own, where its module is looked for."""
        for folder in ("bin", "lib"):
            os.makedirs(self.path("moved", folder), exist_ok=True)
        shutil.copy(processes.binary("basin-worker"), self.path("moved", "bin"))
        return self.path("moved", "bin", "basin-worker")

    def test_without_the_module(self):
        worker = self.start([self.moved(), "--backend", "mpi", "--data", self.data()])
        self.assertRegex(self.ends(worker, 2), r"--backend mpi: libbasin_mpi.so is not there \(looked for .*; this Basin was built where no MPI was")

    @needs.needs(lambda: shutil.which("patchelf") is not None, "patchelf is not there")
    def test_without_mpi(self):
        worker = self.moved()
        module = self.path("moved", "lib", "libbasin_mpi.so")
        shutil.copy(os.path.join(os.environ["BASIN_BINARY_DIR"], "lib", "libbasin_mpi.so"), module)
        subprocess.run(["patchelf", "--replace-needed", "libmpi.so.40", "libmpi.so.4711", module], check=True)
        text = self.ends(self.start([worker, "--backend", "mpi", "--data", self.data()]), 2)
        self.assertRegex(text, r"--backend mpi: libmpi.so.4711: cannot open shared object file.*; the MPI library is not on this machine: install Open MPI")
        # All else works.
        self.ends(self.start([worker, "--no-ps", "--data", self.data(), "--epochs", "1"]))


if __name__ == "__main__":
    mpi_ranks.main()
