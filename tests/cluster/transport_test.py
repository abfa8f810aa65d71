"""Which transport real processes use, and what both must keep: whole shards, exact sums, nothing left behind."""

import os
import select
import shutil
import signal
import socket
import unittest

import clusters
import needs
import processes


class TransportTest(clusters.ClusterCase):
    def counter_to_its_middle(self, layout, **environment):
        worker = self.start_counter(layout, 0, "--pushes", "20", "--elements", "100000", "--hold", self.hold(), **environment)
        worker.wait_for_line("half-way")
        return worker

    def ps_stats(self, layout):
        return self.stats(layout)["ps"][0]

    def files_of_shared_memory(self):
        """Other programs have files there too, which come and go beside this test: those of Open MPI's ranks, say."""
        names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
        return sorted(name for name in names if "basin" in name and not os.path.isdir(os.path.join("/dev/shm", name)))

    def finish(self, worker, ps):
        self.release()
        self.assertIn("every element is -20", self.ends(worker))
        self.assertIn("the run is over", self.ends(ps))

    def test_tasks_of_one_host_use_shared_memory(self):
        layout = clusters.Layout()
        ps = self.start_ps(layout)
        worker = self.counter_to_its_middle(layout)
        # A lane counts what its transport moved after its answer has left.
        stats = processes.wait_until(lambda: (lambda s: s if s["shm_bytes_in"] >= 10 * 400000 else None)(self.ps_stats(layout)), "ten pushes are counted")
        self.assertGreaterEqual(stats["shm_connections"], 2)  # a lane each, and this question
        self.assertEqual(stats["tcp_connections"], 0)
        self.assertNotIn("using TCP", worker.text())
        self.finish(worker, ps)

    def test_worker_that_comes_before_its_server_uses_shared_memory(self):
        # The port is held open, as by an agent of basin submit: the worker is connected before there is a server.
        layout = clusters.Layout()
        with socket.socket() as held:
            held.bind(("127.0.0.1", int(layout.ps[0].rpartition(":")[2])))
            held.listen()
            worker = self.start_counter(layout, 0, "--pushes", "20", "--elements", "100000", "--hold", self.hold())
            processes.wait_until(lambda: select.select([held], [], [], 0)[0], "the worker has connected")
            ps = self.start_ps(layout, 0, "--listen-fd", held.fileno(), pass_fds=[held.fileno()])
        worker.wait_for_line("half-way")
        processes.wait_until(lambda: self.ps_stats(layout)["shm_bytes_in"] >= 10 * 400000, "ten pushes are counted")
        processes.wait_until(lambda: self.ps_stats(layout)["tcp_connections"] == 0, "the first connection is closed")
        self.assertNotIn("using TCP", worker.text())
        self.finish(worker, ps)

    def test_tcp_is_used_where_either_side_asks_for_it(self):
        for flags, environment, said in (((), {"BASIN_TRANSPORT": "tcp"}, False), (("--transport", "tcp"), {}, True)):
            with self.subTest(flags=flags, environment=environment):
                if os.path.exists(self.hold()):
                    os.remove(self.hold())
                layout = clusters.Layout()
                ps = self.start_ps(layout, 0, *flags)
                worker = self.counter_to_its_middle(layout, **environment)
                stats = self.ps_stats(layout)
                self.assertGreaterEqual(stats["tcp_connections"], 2)
                self.assertLess(stats["shm_bytes_in"], 100000)  # this question alone
                self.assertEqual(worker.text().count("offers no shared memory: using TCP"), 1 if said else 0, worker.text())
                self.finish(worker, ps)

    def test_shared_memory_alone_is_an_error_where_it_is_not_offered(self):
        layout = clusters.Layout()
        self.start_ps(layout, 0, "--transport", "tcp")
        worker = self.start_worker(layout, 0, "--transport", "shm", "--start-timeout", "1")
        self.assertRegex(self.ends(worker, 1), r"no shared memory: connection refused; .*--transport tcp")

    def test_unknown_transport_is_named(self):
        layout = clusters.Layout()
        counter = self.start_counter(layout, 0, BASIN_TRANSPORT="udp")
        self.assertEqual(counter.wait(), 2, counter.text())
        self.assertIn('transport "udp": expected auto, tcp or shm', counter.text())

    @needs.needs(os.geteuid() == 0, "only root can start a task as another user")
    def test_another_user_falls_back_to_tcp_and_says_so_once(self):
        layout = clusters.Layout()
        ps = self.start_ps(layout)
        # The other user may not read the folder that the build lies in.
        os.chmod(self.folder, 0o755)
        program = shutil.copy(clusters.count_pushes(), self.folder)
        shutil.copy(os.path.join(os.environ["BASIN_BINARY_DIR"], "lib", "libbasin.so.0"), self.folder)
        worker = self.start(["setpriv", "--reuid", "65534", "--clear-groups", program, "--pushes", "20", "--hold", self.hold()],
                            layout.of("worker"), LD_LIBRARY_PATH=self.folder)
        worker.wait_for_line("half-way")
        self.assertRegex(worker.text("err"), r"shared memory is refused by .*: it runs as user 0, and this process as user 65534: using TCP")
        self.assertEqual(worker.text().count("using TCP"), 1)
        self.finish(worker, ps)

    def mapped(self, pid):
        with open(f"/proc/{pid}/maps") as file:
            return [line for line in file if "/memfd:basin" in line]

    def test_nothing_is_left_of_a_killed_task(self):
        before = self.files_of_shared_memory()
        layout = clusters.Layout()
        ps = self.start_ps(layout, 0, "--dead-after", "1", "--heartbeat", "0.2")
        worker = self.counter_to_its_middle(layout)
        processes.wait_until(lambda: self.mapped(ps.pid), "the ps maps the worker's channels")
        worker.send(signal.SIGKILL)
        worker.wait()
        processes.wait_until(lambda: not self.mapped(ps.pid), "the ps has let go of the killed worker's memory")
        counted = self.stats(layout)["global_step"]
        worker = self.start_counter(layout, 0, "--pushes", "1000000", "--elements", "100000", "--unreachable-timeout", "2")
        # Before it has connected, a ps that is gone is one that has not started yet.
        processes.wait_until(lambda: not worker.running() or self.stats(layout)["global_step"] > counted, "the worker has connected and pushes")
        self.assertTrue(worker.running() and self.mapped(worker.pid), worker.text())
        ps.send(signal.SIGKILL)
        ps.wait()
        processes.wait_until(lambda: not worker.running() or not self.mapped(worker.pid), "the worker has let go of the killed ps's memory")
        self.ends(worker, 1)
        self.assertEqual(self.files_of_shared_memory(), before)

    def test_no_read_is_torn(self):
        for transport in ("shm", "tcp"):
            with self.subTest(transport=transport):
                layout = clusters.Layout(workers=2)
                ps = self.start_ps(layout)
                torn_reads = processes.binary("test_torn_reads")
                read = self.path(f"read-{transport}")
                workers = [self.start([torn_reads, "60", read], layout.of("worker", index), BASIN_TRANSPORT=transport) for index in range(2)]
                reader = self.start([torn_reads, "--observe", layout.ps[0], "40"], BASIN_TRANSPORT=transport)
                self.assertIn("none was torn", self.ends(reader))
                open(read, "w").close()  # nobody ends the run under its reader
                for worker in workers:
                    self.assertIn("every element is 240", self.ends(worker))
                self.ends(ps)


if __name__ == "__main__":
    unittest.main()
