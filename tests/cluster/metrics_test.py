"""The page that basin-ps --metrics-port serves."""

import re
import shutil
import subprocess
import unittest
import urllib.request

import clusters
import needs
import processes


class MetricsTest(clusters.ClusterCase):
    def setUp(self):
        super().setUp()
        self.layout = clusters.Layout(ps=1, workers=1)
        self.ps = self.start_ps(self.layout, 0, "--metrics-port", "0", "--metrics-host", "127.0.0.1")
        self.port = int(re.search(r"metrics on port (\d+)", self.ps.wait_for_line("metrics on port")).group(1))
        self.worker = self.start_counter(self.layout, 0, "--pushes", "20", "--elements", "40000", "--hold", self.hold())
        self.worker.wait_for_line("half-way")

    def page(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            self.assertTrue(answer.headers["Content-Type"].startswith("text/plain"), answer.headers["Content-Type"])
            return answer.read().decode()

    def total(self, page, name):
        values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
        self.assertTrue(values, f"{name}\n{page}")
        return sum(float(value) for value in values)

    def test_page_counts_what_was_applied_and_moved(self):
        # Counters are set down after the answer has left.
        processes.wait_until(lambda: self.total(self.page(), "basin_global_step") == 10, "ten steps are counted")
        page = self.page()
        shards = self.total(page, "basin_ps_shards")
        self.assertGreater(shards, 1)
        self.assertEqual(self.total(page, "basin_ps_applied_total"), 10 * shards)
        self.assertEqual(self.total(page, "basin_ps_refused_total"), 0)
        self.assertGreaterEqual(self.total(page, "basin_ps_received_bytes_total"), 10 * 160000)
        self.assertGreaterEqual(self.total(page, "basin_ps_sent_bytes_total"), 5 * 160000)
        self.assertEqual(self.total(page, "basin_ps_clients_alive"), 1)
        self.assertIn('lane="1"', page)
        self.assertEqual(self.total(page, "basin_ps_staleness_versions_count"), 10 * shards)

    @needs.needs(shutil.which("promtool"), "promtool is not installed (Debian's package prometheus)")
    def test_page_passes_promtool(self):
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.page(), capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
