"""What a cluster of real processes does when something breaks: a ps, a worker, a connection."""

import signal
import unittest

import clusters
import cutting_proxy
import processes

# Of a worker whose death or life matters to the numbers: one that only waits for a core must not be taken for dead, since barriers do
# not wait for the dead.
DEAD_AFTER_S = 5


class FaultsTest(clusters.ClusterCase):
    def training(self, layout):
        return lambda: self.stats(layout)["global_step"] > 0

    def test_killed_ps_ends_the_workers_and_is_named(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout)
        workers = [self.start_worker(layout, index, "--epochs", "1000000", "--unreachable-timeout", "3") for index in range(2)]
        for worker in workers:
            worker.wait_for_line(": training ")  # before that, a ps that is gone is one that has not started yet
        processes.wait_until(self.training(layout), "the workers train")
        ps[1].send(signal.SIGKILL)
        for worker in workers:
            text = self.ends(worker, 1)
            self.assertRegex(text, rf"lost ps 1( lane 1)? at 127\.0\.0\.1:\d+: .*dialling again")
            self.assertRegex(text, r"ps 1( lane 1)? at 127\.0\.0\.1:\d+ has been out of reach for ([3-9]|[1-9]\d+) s: .+; see that process and its log")
        ps[0].send(signal.SIGTERM)
        self.ends(ps[0])

    def test_restarted_ps_has_lost_its_shards_and_the_workers_say_so(self):
        layout = clusters.Layout(ps=2, workers=1)
        ps = self.start_all_ps(layout, lanes=1)
        worker = self.start_worker(layout, 0, "--epochs", "1000000")
        processes.wait_until(self.training(layout), "the worker trains")
        ps[1].kill()
        worker.wait_for_line("lost ps 1")
        self.start_ps(layout, 1, lanes=1)
        self.assertRegex(self.ends(worker, 1), rf"ps 1 at {layout.ps[1]}: ps 1 was restarted and has lost its shards; start the job again")

    def test_buffers_are_free_after_a_client_has_left_a_server_that_does_not_answer(self):
        for transport in ("tcp", "shm"):
            with self.subTest(transport):
                layout = clusters.Layout()
                ps = self.start_ps(layout, 0)
                hold = self.path(f"hold-{transport}")
                client = self.start([processes.binary("test_lent_buffers"), hold], layout.of("worker"), BASIN_TRANSPORT=transport)
                processes.wait_until(lambda: "declared" in client.text("out"), "the client is connected")
                ps.send(signal.SIGSTOP)
                open(hold, "w", encoding="utf-8").close()
                self.ends(client)
                ps.send(signal.SIGCONT)
                ps.send(signal.SIGTERM)
                self.ends(ps)

    def test_piece_of_a_killed_worker_goes_to_another_and_the_run_completes(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout, "--dead-after", "2", "--heartbeat", "0.2")
        workers = self.start_workers(2, lambda index: self.start_worker(layout, index, "--epochs", "2000"))
        victim_has_a_piece = lambda: (lambda s: s["inputs"] and s["inputs"][0]["pieces_leased"] == 2)(self.stats(layout))
        processes.wait_until(victim_has_a_piece, "both workers hold a piece")
        # Stopped first, so that the piece it holds stays its own until it is dead.
        workers[1].send(signal.SIGSTOP)
        workers[1].send(signal.SIGKILL)
        workers[1].wait()
        text = self.ends(workers[0])
        self.assertIn("done: ", text)
        for one in ps:
            self.assertIn("the run is over", self.ends(one))
        self.assertRegex(ps[0].text(), r"worker 1 .*(not heard|dead|silent)")

    def test_cut_connections_lose_no_push_and_apply_none_twice(self):
        layout = clusters.Layout(ps=2, workers=2)
        seed = 20240601
        ps = [self.start_ps(layout, index, lanes=1) for index in range(2)]
        proxies = [cutting_proxy.CuttingProxy(address, seed + i) for i, address in enumerate(layout.ps)]
        for proxy in proxies:
            self.addCleanup(proxy.close)
        through = dict(layout.cluster, ps=[proxy.address for proxy in proxies])
        workers = [self.start_counter(layout, index, "--pushes", "100", "--elements", "10000", tf_config=layout.of("worker", index, through))
                   for index in range(2)]
        try:
            self.all_end(workers)
            for worker in workers:
                self.assertIn("every element is -200", worker.text("out"))
                self.assertIn("reconnected to ps", worker.text("err"))
            self.assertGreater(sum(proxy.cuts for proxy in proxies), 20)
        except AssertionError:
            print(f"seed {seed}, {[proxy.cuts for proxy in proxies]} cuts")
            raise
        self.all_end(ps)

    def test_stopped_worker_is_counted_dead_comes_back_and_the_count_is_right(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout, "--dead-after", str(DEAD_AFTER_S), "--heartbeat", "0.2")
        workers = [self.start_counter(layout, index, "--pushes", "100", "--hold", self.hold()) for index in range(2)]
        for worker in workers:
            worker.wait_for_line("half-way")
        workers[1].send(signal.SIGSTOP)
        processes.wait_until(lambda: self.client(layout, "worker", 1)["state"] == "dead", "worker 1 is counted dead")
        workers[1].send(signal.SIGCONT)
        processes.wait_until(lambda: self.client(layout, "worker", 1)["state"] == "alive", "worker 1 is back")
        self.release()
        self.all_end(workers + ps)
        self.assertIn("every element is -200", workers[1].text("out"))

    def test_replaced_worker_is_fenced(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout, "--dead-after", str(DEAD_AFTER_S), "--heartbeat", "0.2")
        chief = self.start_counter(layout, 0, "--pushes", "10", "--hold", self.hold(), "--workers", "1")
        old = self.start_counter(layout, 1, "--pushes", "10", "--hold", self.hold())
        for worker in (chief, old):
            worker.wait_for_line("half-way")
        old.send(signal.SIGSTOP)
        new = self.start_counter(layout, 1, "--pushes", "10", "--hold", self.hold())
        new.wait_for_line("half-way")
        old.send(signal.SIGCONT)
        self.assertRegex(self.ends_when_it_speaks(old), rf"this process was replaced by pid {new.pid} on .* and is no longer part of the run")
        self.release()
        # 5 pushes of the old life, 10 of the new and of the chief: the program's own expectation does not hold here.
        for worker in (chief, new):
            self.assertEqual(worker.wait(), 3, worker.text())
            self.assertIn("is -25,", worker.text("out"))
        for one in ps:
            one.send(signal.SIGTERM)
            self.ends(one)

    def ends_when_it_speaks(self, old):
        """The old life waits for the file too; it learns of its end with its next call."""
        self.release()
        code = old.wait()
        self.assertEqual(code, 1, old.text())
        return old.text()

    def test_sigterm_ends_a_ps_gracefully(self):
        layout = clusters.Layout(ps=1, workers=1)
        ps = self.start_ps(layout)
        worker = self.start_worker(layout, 0, "--epochs", "1000000", "--unreachable-timeout", "1")
        processes.wait_until(self.training(layout), "the worker trains")
        ps.send(signal.SIGTERM)
        self.assertRegex(self.ends(ps), r"ended by a signal before the run was over: \d+ updates applied to \d+ shards")
        self.assertIn("out of reach", self.ends(worker, 1))


if __name__ == "__main__":
    unittest.main()
