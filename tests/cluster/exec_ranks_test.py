"""basin exec under a real mpirun: roles by rank, and how a launch ends."""

import hashlib
import json
import os
import re
import signal
import socket

import mpi_ranks
import processes


class Exec(mpi_ranks.RanksCase):
    def exec(self, ranks, *words, **environment):
        """`basin exec` in as many ranks; words are its flags and, behind "--", its command."""
        return self.mpirun(ranks, [processes.binary("basin"), "exec", *words], **environment)

    def nothing_is_left(self):
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "nothing of the launch is left")
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".basin-exec")], [])

    def pids(self, program, rank, subcommand="exec"):
        """Processes of that name below one rank; of basin those of one subcommand."""
        found = []
        for pid in processes.marked_pids(self.mark):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if f"OMPI_COMM_WORLD_RANK={rank}".encode() not in file.read().split(b"\0"):
                        continue
            except OSError:
                continue  # it has just ended
            if os.path.basename(words[0]).decode() == program and (program != "basin" or words[1] == subcommand.encode()):
                found.append(pid)
        return found

    def started(self, program, rank, count=1):
        """The same, as soon as there are so many: a shell becomes its command only after it has spoken."""
        enough = lambda: (lambda found: found if len(found) >= count else None)(self.pids(program, rank))
        return processes.wait_until(enough, f"{count} {program} run below rank {rank}")

    def apart(self, rank, size, *words, **environment):
        """One rank of a launch without mpirun."""
        return self.start([processes.binary("basin"), "exec", "--ps", "1", "--size", size, "--rank", rank, *words], **environment)

    def gathers(self, launch="ranks"):
        """What rank 0 of that launch has written, as soon as it listens."""
        path = self.path(f".basin-exec-{launch}")
        processes.wait_until(lambda: os.path.exists(path), "rank 0 listens")
        with open(path) as file:
            return json.load(file)

    def meet(self, rank, size):
        """As a rank of this test's own, introduced to rank 0; returns the connection."""
        meeting = self.gathers()
        connection = socket.create_connection(("127.0.0.1", meeting["port"]))
        self.addCleanup(connection.close)
        theirs = json.loads(connection.makefile().readline())["nonce"]
        key = hashlib.blake2b(meeting["token"].encode(), digest_size=32).digest()
        proof = hashlib.blake2b(f"basin exec, a rank, mine, {theirs}".encode(), digest_size=32, key=key).hexdigest()
        connection.sendall(json.dumps({"nonce": "mine", "proof": proof, "rank": rank, "host": "here", "pid": 1, "port": 1, "size": size,
                                       "ps": 1, "chief": False, "evaluator": False}).encode() + b"\n")
        return connection

    def test_the_main_job_learns_as_it_does_locally(self):
        if not os.path.isdir(mpi_ranks.FASHION_MNIST):
            self.fail("Debian's package dataset-fashion-mnist is not installed")
        run = self.exec(5, "--ps", "2", "--evaluator", "--", "basin-worker", "--program", "mlp", "--data", mpi_ranks.FASHION_MNIST,
                        "--epochs", "15", "--schedule", "linear", "--outputs", "outputs")
        self.assertEqual(run.wait(deadline_s=1200), 0, run.text())
        with open(self.path("outputs", "evaluation.json")) as file:
            self.assertGreaterEqual(json.load(file)["test_accuracy"], 0.885)
        self.nothing_is_left()

    def test_each_rank_is_told_its_role_and_the_whole_cluster(self):
        show = 'echo "$BASIN_ROLE $BASIN_TASK_INDEX $(stat -L -c %a "$BASIN_TOKEN_FILE") $(sha256sum <"$BASIN_TOKEN_FILE") $BASIN_RUN_ID $TF_CONFIG"'
        run = self.exec(6, "--ps", "2", "--chief", "--evaluator", "--grace", "1", "--", "bash", "-c", show)
        text = self.ends(run)
        told = {}
        for line in run.text("out").splitlines():
            role, index, mode, digest, _, run_id, config = line.split(None, 6)
            told[role, int(index)] = (mode, digest, run_id, json.loads(config))
        self.assertEqual(set(told), {("chief", 0), ("worker", 0), ("worker", 1), ("evaluator", 0)}, text)
        [cluster] = {json.dumps(config["cluster"], sort_keys=True) for *_, config in told.values()}
        self.assertEqual({role: len(tasks) for role, tasks in json.loads(cluster).items()}, {"ps": 2, "chief": 1, "worker": 2})
        for (role, index), (mode, *_, config) in told.items():
            self.assertEqual((mode, config["task"]), ("600", {"type": role, "index": index}))
        self.assertEqual(len({digest for _, digest, _, _ in told.values()}), 1)
        self.assertEqual(len({run_id for _, _, run_id, _ in told.values()}), 1)
        self.nothing_is_left()

    def test_a_failed_task_ends_all_ranks_with_one_line(self):
        fails = 'if [ "$BASIN_TASK_INDEX" = 1 ]; then exit 3; fi; exec sleep 1000'
        run = self.exec(4, "--ps", "1", "--", "bash", "-c", fails)
        text = self.ends(run, 3)
        self.assertEqual(len(re.findall(r"^basin exec.* error: .*$", text, re.MULTILINE)), 1, text)
        self.assertRegex(text, r"worker 1 \(rank 2, pid \d+ on \S+\) exited with code 3")
        self.nothing_is_left()

    def start_endless(self, ranks=4):
        run = self.exec(ranks, "--ps", "1", "--", "bash", "-c", "echo begun; exec sleep 1000")
        processes.wait_until(lambda: run.text("out").count("begun") == ranks - 1, "all workers have begun")
        return run

    def test_a_killed_task_is_named(self):
        run = self.start_endless()
        [pid] = self.started("sleep", 2)
        os.kill(pid, signal.SIGKILL)
        self.assertIn("was ended by signal 9", self.ends(run, 128 + 9))
        self.nothing_is_left()

    def test_a_killed_guard_leaves_nothing_of_its_task(self):
        run = self.exec(2, "--ps", "1", "--", "bash", "-c", "setsid sleep 1001 & exec sleep 1000")
        self.started("sleep", 1, 2)
        [guard] = self.pids("basin", 1, "guard")
        os.kill(guard, signal.SIGKILL)
        self.assertIn("was ended by signal 9", self.ends(run, 128 + 9))
        self.nothing_is_left()

    def test_a_killed_ps_is_named(self):
        run = self.start_endless()
        [pid] = self.started("basin-ps", 0)
        os.kill(pid, signal.SIGKILL)
        self.assertRegex(self.ends(run, 128 + 9), r"error: ps 0 \(rank 0, pid \d+ on \S+\) was ended by signal 9")
        self.nothing_is_left()

    def test_a_killed_rank_takes_all_with_it(self):
        for rank in (0, 2):
            with self.subTest(rank=rank):
                run = self.start_endless()
                [pid] = self.started("basin", rank)
                os.kill(pid, signal.SIGKILL)
                self.assertNotEqual(run.wait(), 0)
                processes.wait_until(lambda: not processes.marked_pids(self.mark), "nothing of the launch is left")

    def test_a_signal_to_mpirun_ends_everything(self):
        run = self.start_endless()
        run.send(signal.SIGTERM)
        self.assertNotEqual(run.wait(), 0)
        self.nothing_is_left()

    def test_an_earlier_launchs_file_does_not_mislead(self):
        # Of the name that this launch has, with an address where nobody answers and another token.
        with open(os.open(self.path(".basin-exec-mine"), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            json.dump({"basin_exec": 1, "host": "elsewhere", "addresses": ["127.0.0.1"], "port": 1, "token": "old"}, file)
        self.ends(self.exec(3, "--ps", "1", "--launch-id", "mine", "--grace", "1", "--", "bash", "-c", "true"))
        self.nothing_is_left()

    def test_a_second_launch_of_the_same_name_is_refused_while_the_first_one_gathers(self):
        # --size and --rank alone; a PMI launcher outside Slurm, which tells no id.
        for launch, start in (("ranks", lambda rank, *words: self.apart(rank, 3, *words)),
                              ("pmi", lambda rank, *words: self.start([processes.binary("basin"), "exec", "--ps", "1", *words],
                                                                      PMI_RANK=str(rank), PMI_SIZE="3"))):
            with self.subTest(launch):
                words = ["--grace", "1", "--", "true"]
                first = start(0, *words)
                meeting = self.gathers(launch)
                text = self.ends(start(0, *words), 1)
                self.assertRegex(text, rf"error: another launch is gathering there: rank 0 of .*/\.basin-exec-{launch} answers on \S+; "
                                       r"give each launch a name of its own with --launch-id")
                first.wait_for_line("another launch of the same name was refused")
                self.assertEqual(self.gathers(launch), meeting)
                named = [start(rank, "--launch-id", "mine", *words) for rank in range(3)]
                for one in [*named, first, start(1, *words), start(2, *words)]:
                    self.ends(one)
                self.nothing_is_left()

    def test_a_launch_whose_file_is_replaced_gives_way(self):
        # As by one that began at the same moment: both found no file.
        first = self.apart(0, 2, "--", "true")
        meeting = self.gathers()
        second = self.apart(0, 2, "--launch-id", "second", "--grace", "1", "--", "true")
        self.gathers("second")
        os.rename(self.path(".basin-exec-second"), self.path(".basin-exec-ranks"))
        self.assertIn("another launch is gathering there", self.ends(first, 1))
        self.assertNotEqual(self.gathers(), meeting)
        self.ends(self.apart(1, 2, "--grace", "1", "--", "true"))
        self.ends(second)
        os.unlink(self.path(".basin-exec-ranks"))  # not where its own rank 0 looks
        self.nothing_is_left()

    def test_a_killed_launchs_file_is_replaced(self):
        killed = self.apart(0, 2, "--", "true")
        self.gathers()
        killed.send(signal.SIGKILL)
        killed.wait()
        ranks = [self.apart(rank, 2, "--grace", "1", "--", "true") for rank in range(2)]
        for rank in ranks:
            self.ends(rank)
        self.nothing_is_left()

    def test_ranks_that_are_started_apart(self):
        flags = [processes.binary("basin"), "exec", "--ps", "1", "--size", "2", "--grace", "1"]
        one = self.start([*flags, "--rank", "0", "--", "true"])
        self.ends(self.start([*flags, "--rank", "1", "--", "true"]))
        self.ends(one)
        self.nothing_is_left()

    def test_a_rank_that_does_not_come_is_named(self):
        one = self.start([processes.binary("basin"), "exec", "--ps", "1", "--size", "3", "--rank", "0", "--start-timeout", "1", "--", "true"])
        self.assertRegex(self.ends(one, 1), r"ranks 1, 2 of 3 did not come within 1s; do all hosts see .*/\.basin-exec-ranks, and reach ")
        two = self.start([processes.binary("basin"), "exec", "--ps", "1", "--size", "3", "--rank", "1", "--start-timeout", "1", "--", "true"])
        self.assertRegex(self.ends(two, 1), r"rank 0 was not found within 1s: there is no .*/\.basin-exec-ranks; give a folder")
        self.nothing_is_left()

    def test_ranks_that_came_do_not_blame_rank_0_for_one_that_did_not(self):
        second = self.apart(1, 3, "--start-timeout", "180", "--", "true")
        first = self.apart(0, 3, "--start-timeout", "8", "--", "true")
        self.assertIn("rank 2 of 3 did not come within 8s", self.ends(first, 1))
        self.assertNotIn("is gone", self.ends(second, 1))
        self.nothing_is_left()

    def test_a_rank_that_is_gone_before_the_start_is_named(self):
        first = self.apart(0, 3, "--", "true")
        connection = self.meet(1, 3)
        self.assertIn("proof", connection.makefile().readline())
        connection.close()
        self.assertRegex(self.ends(first, 1), r"worker 0 \(rank 1, pid 1 on here\) is gone")
        self.nothing_is_left()

    def test_a_rank_that_says_who_it_is_and_goes_has_not_come(self):
        first = self.apart(0, 2, "--start-timeout", "3", "--", "true")
        self.meet(1, 2).close()
        self.assertRegex(self.ends(first, 1), "rank 1 of 2 did not come|is gone")
        self.nothing_is_left()

    def test_a_signal_during_the_stop_does_not_change_how_the_launch_ended(self):
        lingers = 'if [ "$BASIN_TASK_INDEX" = 0 ]; then while [ ! -e go ]; do sleep 0.05; done; exit 3; fi; ' \
                  'trap "echo stopping" TERM; echo begun; while :; do sleep 0.05; done'
        ranks = [self.apart(rank, 3, "--grace", "3", "--", "bash", "-c", lingers) for rank in range(3)]
        ranks[2].wait_for_line("begun")
        open(self.path("go"), "w").close()
        ranks[2].wait_for_line("stopping")
        ranks[2].send(signal.SIGTERM)
        for rank in ranks:
            self.ends(rank, 3)
        self.nothing_is_left()

    def test_no_free_port_names_the_flag(self):
        with socket.create_server(("0.0.0.0", 0)) as one:
            port = one.getsockname()[1]
            # 2222 is tried first.
            held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
            for name, holder in zip((2222, port), held):
                self.addCleanup(holder.close)
                try:
                    holder.bind(f"\0basin-port-{name}")
                except OSError:
                    pass  # another run's, which does as well
            text = self.ends(self.apart(0, 2, "--ports", f"{port}-{port}", "--", "true"), 1)
        self.assertIn("; give another range with --ports FIRST-LAST", text)
        self.assertNotIn("network.ports", text)

    def test_wrong_use_is_refused(self):
        basin = processes.binary("basin")
        for words, expected in ((["--ps", "1", "--", "true"], "this is no rank of a launch"),
                                (["--ps", "2", "--rank", "0", "--size", "2", "--", "true"], "--ps 2 needs at least 3 ranks, 2 were started"),
                                (["--ps", "1", "--rank", "0", "--size", "2"], "no command is given for the workers"),
                                (["--ps", "1", "--rank", "0", "--size", "2", "--ports", "9", "--", "true"], "--ports 9: expected FIRST-LAST"),
                                (["--ps", "1", "--rank", "0", "--size", "2", "--rendezvous", "/none", "--", "true"], "--rendezvous /none: there is no such"),
                                (["--ps", "-1", "--", "true"], "basin: error: --ps -1: expected a number of ranks, 1 or more, such as basin exec --ps 1"),
                                (["--ps", "two", "--", "true"], "basin: error: --ps two: expected a number of ranks"),
                                (["--ps", "1", "--rank", "-1", "--size", "2", "--", "true"], "basin: error: --rank -1: expected this rank, 0 or more"),
                                (["--", "true"], "basin: error: --ps is missing: expected how many of the ranks are parameter servers, such as")):
            with self.subTest(words):
                self.assertIn(expected, self.ends(self.start([basin, "exec", *words]), 2))
        run = self.exec(2, "--ps", "1", "--", "no-such-program")
        self.assertRegex(self.ends(run, 2), r"worker 0 \(rank 1, .*\) does not start: program no-such-program is not on this node's PATH")
        differ = self.start(["mpirun", "-np", "1", basin, "exec", "--ps", "1", "--", "true", ":", "-np", "2", basin, "exec", "--ps", "2", "--", "true"])
        self.assertEqual(differ.wait(), 2)
        self.assertRegex(differ.text(), r"error: rank \d \(pid \d+ on \S+\) was started with other flags")
        self.assertEqual(differ.text().count("was started with other flags"), 1, differ.text())


if __name__ == "__main__":
    mpi_ranks.main()
