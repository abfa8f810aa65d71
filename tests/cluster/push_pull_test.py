"""examples/01_push_pull with real processes, and what an observer sees."""

import unittest

import clusters
import processes


class PushPullTest(clusters.ClusterCase):
    def start_example(self, layout, index):
        return self.start([clusters.example("example_push_pull")], layout.of("worker", index))

    def test_two_ps_and_two_workers_converge_and_all_end_by_themselves(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout)
        workers = [self.start_example(layout, index) for index in range(2)]
        self.all_end(workers + ps)
        for index, worker in enumerate(workers):
            self.assertIn(f"worker {index}: y = 3.000 x + 1.000", worker.text("out"))
        self.assertIn("the run is over", ps[0].text())
        self.assertIn("the run is over", ps[1].text())

    def test_workers_may_come_before_the_ps(self):
        layout = clusters.Layout(ps=2, workers=2)
        workers = [self.start_example(layout, index) for index in range(2)]
        workers[0].wait_for_line(r"waiting for ps 0 at 127\.0\.0\.1:\d+, \d+ s")
        ps = self.start_all_ps(layout)
        self.all_end(workers + ps)

    def test_ps_says_whom_it_waits_for(self):
        layout = clusters.Layout(ps=1, workers=2)
        ps = self.start_ps(layout)
        first = self.start_example(layout, 1)
        ps.wait_for_line(rf"waiting for worker 0 at {layout.workers[0]}, \d+ s")  # after lines with both, if worker 1 is slow to come
        self.all_end([first, self.start_example(layout, 0), ps])

    def test_observer_sees_workers_clocks_and_staleness(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout)
        workers = [self.start_counter(layout, index, "--pushes", "20", "--elements", "40000", "--hold", self.hold()) for index in range(2)]
        for worker in workers:
            worker.wait_for_line("half-way")
        stats = processes.wait_until(lambda: (lambda s: s if s["global_step"] == 20 else None)(self.stats(layout)), "20 steps are counted")
        self.assertEqual(stats["state"], "training")
        self.assertEqual(stats["min_clock"], 10)
        self.assertEqual(stats["model"], {"variables": 1, "tables": 0, "elements": 40000, "bytes": 160000})
        seen = {one["index"]: one for one in stats["clients"] if one["role"] == "worker"}
        for index, worker in enumerate(workers):
            self.assertEqual((seen[index]["pid"], seen[index]["state"], seen[index]["clock"], seen[index]["lag"]), (worker.pid, "alive", 10, 0))
            self.assertEqual(seen[index]["metrics"], {"pushes": 10})
            self.assertGreaterEqual(seen[index]["staleness_max"], seen[index]["staleness_mean"])
            self.assertGreaterEqual(seen[index]["incarnation"], 1)
        self.assertEqual(stats["ps"][0]["address"], layout.ps[0])
        code, table, err = processes.run([processes.binary("basin"), "top", "--ps", layout.ps[0]], env=self.environment)
        self.assertEqual(code, 0, err)
        self.assertIn("worker 1", table)
        self.release()
        self.all_end(workers + ps)


if __name__ == "__main__":
    unittest.main()
