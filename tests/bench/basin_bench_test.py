"""basin-bench with real processes: every command for a moment, what it writes, what it refuses, what it leaves behind."""

import json
import os
import re
import shutil
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.environ["BASIN_SOURCE_DIR"], "tests", "cluster"))
sys.path.insert(0, os.path.join(os.environ["BASIN_SOURCE_DIR"], "bench"))
import clusters
import goals
import needs
import processes

SHORT = ["--rounds", "2", "--duration", "0.1"]
KEYS = {"name", "value", "unit", "limit_name", "limit", "ratio", "p50_us", "p99_us", "cpu_s_per_gb", "peak_rss_bytes"}


class BasinBenchTest(clusters.ClusterCase):
    def bench(self, *words, code=0, deadline_s=600, **environment):
        argv = [processes.binary("basin-bench"), *words]
        found, out, err = processes.run(argv, env=dict(self.environment, **environment), cwd=self.folder, deadline_s=deadline_s)
        self.assertEqual(found, code, f"{' '.join(argv)}\n{out}\n{err}")
        self.assertEqual(processes.marked_pids(self.mark), [], "a process is left")
        return out, err

    def results(self, *words, **more):
        path = self.path("results.json")
        self.bench(*words, "--json", path, **more)
        with open(path) as file:
            found = json.load(file)
        self.assertEqual(set(found), {"machine", "results"})
        for fact in ("cpu", "cores", "memory_bytes", "kernel", "version"):
            self.assertTrue(found["machine"][fact], fact)
        for result in found["results"]:
            self.assertEqual(set(result), KEYS)
            self.assertGreater(result["value"], 0, result["name"])
        return {result["name"]: result for result in found["results"]}

    def test_limits_are_measured_and_all_there(self):
        found = self.results("limits", *SHORT)
        for name in ("memcpy/bytes:1048576/threads:1", "add/bytes:67108864/threads:1", "tcp_stream/bytes:65536",
                     "tcp_stream/bytes:1048576", "tcp_stream/bytes:65536/buffers:4194304", "zmq_stream/bytes:1048576/buffers:4194304",
                     "tcp_round_trip/bytes:64", "zmq_round_trip/bytes:64", "shm_round_trip/bytes:64/wait:spin",
                     "shm_round_trip/bytes:64/wait:eventfd", "add/bytes:67108864/threads:1/targets:3/pages:huge"):
            self.assertIn(name, found)
            self.assertIsNone(found[name]["limit"])

    def test_push_pull_and_both_stand_beside_the_limit_of_the_network(self):
        for op in ("push", "pull", "pushpull"):
            found = self.results(op, *SHORT, "--bytes", "1MiB")
            self.assertEqual(list(found), [f"tcp_{op}/bytes:1048576"])
            one = found[f"tcp_{op}/bytes:1048576"]
            self.assertEqual(one["limit_name"], "tcp_stream/bytes:1048576")
            self.assertAlmostEqual(one["ratio"], one["value"] / one["limit"])
            self.assertLessEqual(one["p50_us"], one["p99_us"])
            self.assertGreater(one["peak_rss_bytes"], 64 << 20)  # the variables are 64 MiB

    def test_several_ps_workers_rules_and_a_token(self):
        found = self.results("push", *SHORT, "--ps", "2", "--workers", "3", "--lanes", "2", "--security", "token", "--bytes", "256KiB",
                             "--rule", "adam", "--rule", "momentum", "--variables", "12")
        self.assertEqual(list(found), [f"tcp_push/bytes:262144/variables:12/rule:{rule}/ps:2/workers:3/lanes:2/security:token"
                                       for rule in ("adam", "momentum")])

    def test_shared_memory_is_compared_with_memory(self):
        for op, limit in (("push", "add/bytes:67108864/threads:1"), ("pull", "memcpy/bytes:67108864/threads:1")):
            found = self.results(op, *SHORT, "--transport", "shm", "--bytes", "4MiB", "--lanes", "1")
            self.assertEqual(found[f"shm_{op}/bytes:4194304/lanes:1"]["limit_name"], limit)

    def test_many_variables_in_one_call(self):
        self.assertIn("tcp_push/bytes:16384/call:64", self.results("push", *SHORT, "--bytes", "16KiB", "--call-variables", "64"))

    def test_small_pushes(self):
        found = self.results("small", *SHORT)
        self.assertEqual(list(found), ["tcp_push_small/floats:16", "tcp_push_small_single/floats:16"])

    def test_latency_is_compared_with_a_round_trip(self):
        one = self.results("latency", *SHORT)["tcp_push_latency/bytes:64"]
        self.assertEqual((one["unit"], one["limit_name"]), ("us", "zmq_round_trip/bytes:64"))
        self.assertLessEqual(one["p50_us"], one["p99_us"])

    def test_latency_through_shared_memory_without_spinning_and_with(self):
        found = self.results("latency", *SHORT, "--transport", "shm")
        self.assertEqual({name: one["limit_name"] for name, one in found.items()},
                         {"shm_push_latency/bytes:64": "shm_round_trip/bytes:64/wait:eventfd", "shm_push_latency/bytes:64/spin": "goal"})

    def test_rows_are_pushed_and_pulled_and_all_of_them_checked(self):
        rows = ["--rows", "3000", "--batch", "500", "--dim", "4"]
        names = [f"table_{op}/rows:3000/dim:4/batch:500" for op in ("push", "pull")]
        for words, found in ((["--transport", "tcp"], [f"tcp_{name}" for name in names]),
                             (["--transport", "shm", "--ps", "2", "--workers", "2"], [f"shm_{name}/ps:2/workers:2" for name in names]),
                             (["--in-process"], names)):
            self.assertEqual(list(self.results("table", *SHORT, *rows, *words)), found)

    def test_rows_through_shared_memory_stand_beside_the_table_in_process(self):
        one = self.results("table", *SHORT, "--op", "push", "--rows", "10000", "--transport", "shm")["shm_table_push/rows:10000/dim:16"]
        self.assertEqual(one["limit_name"], "table_push/rows:10000/dim:16")
        self.assertEqual(one["unit"], "M/s")

    def test_synthetic_keys_are_called_so(self):
        found = self.results("table", *SHORT, "--op", "push", "--keys", "criteo", "--batch", "520")
        self.assertEqual(list(found), ["tcp_table_push/keys:criteo-synthetic/dim:16/batch:520"])

    def test_a_push_of_rows_that_nobody_counted_fails_the_run(self):
        out, err = self.bench("table", *SHORT, "--rows", "1000", "--batch", "100", "--op", "push", code=1, BASIN_BENCH_PLANT="1")
        self.assertEqual(out, "")
        self.assertRegex(err, r"row \d+ has -\d+ at element \d+; the pushes that were sent make exactly -\d+")

    def test_apply_has_a_limit_of_as_many_streams(self):
        found = self.results("apply", *SHORT, "--bytes", "4MiB")
        self.assertEqual(found["apply/rule:sgd/bytes:4194304"]["limit_name"], "add/bytes:4194304/threads:1/pages:huge")
        self.assertEqual(found["apply/rule:adam/bytes:4194304"]["limit_name"], "add/bytes:4194304/threads:1/targets:3/pages:huge")

    def test_a_push_that_nobody_counted_fails_the_run_and_shows_no_figure(self):
        out, err = self.bench("push", *SHORT, "--bytes", "64KiB", code=1, BASIN_BENCH_PLANT="1")
        self.assertEqual(out, "")
        self.assertNotIn("GB/s", err)
        self.assertRegex(err, r"variable v0 has -\d+ at element 0 of 16384; the pushes that were sent make exactly -\d+")

    def test_without_a_command_every_goal_of_the_performance_page_is_measured(self):
        found = self.results("--rounds", "1", "--duration", "0.05", deadline_s=1200)
        apart = any(name.startswith("netns_") for name in found)
        for goal in goals.goals():
            if goal.part != "canonical" or (goal.name.startswith("netns_") and not apart):
                continue
            self.assertIn(goal.name, found)
            self.assertIsNotNone(found[goal.name]["ratio"], goal.name)

    def test_a_running_cluster_is_joined_as_its_workers(self):
        layout = clusters.Layout(ps=2, workers=2)
        ps = self.start_all_ps(layout)
        path = self.path("tf_config")
        with open(path, "w") as file:
            file.write(layout.of("worker", 0))
        argv = [processes.binary("basin-bench"), "push", *SHORT, "--bytes", "64KiB", "--workers", "2", "--target", path]
        code, out, err = processes.run(argv, env=self.environment)
        self.assertEqual(code, 0, err)
        self.assertIn("tcp_push/bytes:65536/workers:2/target", out)
        self.all_end(ps)
        for one in ps:
            self.assertIn("the run is over", one.text())

    def test_two_hosts_share_only_the_network(self):
        if os.geteuid() != 0 or shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            needs.skip("network namespaces need root and iproute2")
        found = self.results("push", *SHORT, "--netns", "--bytes", "64KiB")
        self.assertEqual(found["netns_tcp_push/bytes:65536"]["limit_name"], "netns_tcp_stream/bytes:65536")

    def test_stress_cuts_kills_and_checks_every_sum(self):
        path = self.path("stress.json")
        out, _ = self.bench("stress", "--duration", "10", "--workers", "16", "--clients-per-process", "2", "--seed", "7", "--ps", "2",
                            "--json", path)
        self.assertRegex(out, r"verdict: all sums as they must be")
        cuts, killed = (int(number) for number in re.search(r"(\d+) cuts, (\d+) processes killed", out).groups())
        self.assertGreater(cuts, 0)
        self.assertGreater(killed, 0)
        with open(path) as file:
            found = {one["name"]: one for one in json.load(file)["results"]}
        self.assertEqual(found["stress_errors/workers:16"]["value"], 0)
        self.assertGreater(found["stress_throughput/workers:16"]["value"], 0)
        self.assertGreater(found["stress_throughput/workers:16"]["peak_rss_bytes"], 0)
        self.assertIn("stress_fairness/workers:16", found)

    def test_without_faults_all_sums_are_exact(self):
        out, _ = self.bench("stress", "--duration", "1", "--workers", "6", "--no-cut", "--no-kill")
        exact, of = (int(number) for number in re.search(r"(\d+) of (\d+) variables exact", out).groups())
        self.assertEqual(exact, of)
        self.assertIn(" 0 cuts, 0 processes killed", out)

    def test_wrong_use_is_refused_with_code_2(self):
        for words, message in (
                (["bogus"], "bogus"),
                (["push", "--bytes", "2"], "--bytes"),
                (["push", "--bytes", "x"], "--bytes"),
                (["push", "--rule", "newton"], "--rule"),
                (["push", "--transport", "pigeon"], "--transport"),
                (["push", "--transport", "shm", "--netns"], "share no memory"),
                (["push", "--workers", "0"], "--workers"),
                (["push", "--duration", "0"], "--duration"),
                (["push", "--variables", "3", "--call-variables", "2"], "no multiple of --call-variables 2"),
                (["push", "--target", "/no/such/file"], "neither \"local\" nor JSON nor a file"),
                (["push", "--target", "{}"], "the cluster has no ps"),
                (["push", "--target", "{", "--netns"], "--netns makes two hosts for a local cluster"),
                (["push", "--token-file", "x"], "give --security token"),
                (["table", "--rows", "100"], "--rows 100 has fewer; give a smaller --batch"),
                (["table", "--op", "look"], "--op"),
                (["table", "--target", "{}"], "give --op push or --op pull, and one --rows"),
                (["stress", "--clients-per-process", "0"], "--clients-per-process")):
            out, err = self.bench(*words, code=2)
            self.assertIn(message, out + err, words)

    def test_without_basin_ps_beside_it_it_says_so_and_ends(self):
        alone = shutil.copy(processes.binary("basin-bench"), self.path("basin-bench"))
        library = os.path.join(os.environ["BASIN_BINARY_DIR"], "lib")
        code, _, err = processes.run([alone, "push", *SHORT], env=dict(self.environment, LD_LIBRARY_PATH=library))
        self.assertEqual(code, 2, err)
        self.assertIn(f"there is no basin-ps at {self.path('basin-ps')}", err)

    def test_help_names_every_command(self):
        out, _ = self.bench("--help")
        for command in ("limits", "push", "pull", "pushpull", "small", "latency", "table", "apply", "stress"):
            self.assertIn(command, out)
            self.assertIn("--duration", self.bench(command, "--help")[0])

    def test_interrupt_ends_all_children(self):
        for words in (["push", "--duration", "60"], ["stress", "--duration", "60", "--workers", "4"]):
            bench = self.start([processes.binary("basin-bench"), *words])
            processes.wait_until(lambda: len(processes.marked_pids(self.mark)) >= 3, "ps and workers are there")
            bench.send(signal.SIGINT)
            self.assertEqual(bench.wait(), 1, bench.text())
            processes.wait_until(lambda: not processes.marked_pids(self.mark), "all children have ended")
            self.assertIn("ended by signal 2", bench.text())


if __name__ == "__main__":
    unittest.main()
