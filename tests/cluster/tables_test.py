"""Embedding tables with real processes: sums over workers are exact, evicted keys are told, and the numbers are shown."""

import unittest

import clusters
import processes


class TablesTest(clusters.ClusterCase):
    def test_two_ps_and_two_workers_sum_rows_and_hear_of_evictions(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout)
        workers = [self.start([processes.binary("test_count_rows")], layout.of("worker", index)) for index in range(2)]
        for index, worker in enumerate(workers):
            worker.wait_for_line(f"worker {index}: every sum is right")
        stats = self.stats(layout)
        self.assertEqual(stats["model"]["tables"], 2)
        self.assertGreaterEqual(sum(one["rows"] for one in stats["ps"]), 3000)
        for one in stats["ps"]:
            self.assertGreater(one["rows"], 0)
            self.assertGreater(one["table_bytes"], 0)
        self.all_end(workers + ps)
        for index, worker in enumerate(workers):
            self.assertIn(f"worker {index}: every eviction was told", worker.text("out"))


if __name__ == "__main__":
    unittest.main()
