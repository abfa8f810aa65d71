"""basin exec by srun, on the three nodes of a real Slurm: ranks that find each other through a shared folder, over the network."""

import json
import os
import signal
import unittest

import slurm_hosts
from ssh_hosts import parent_of, processes

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


class ExecUnderSlurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hosts = slurm_hosts.SlurmHosts(3)
        cls.addClassCleanup(cls.hosts.stop)

    def setUp(self):
        self.folder = os.path.join(self.hosts.shared, self.id().rpartition(".")[2])
        os.mkdir(self.folder)
        self.seen = f"/shared/{os.path.basename(self.folder)}"

    def srun(self, ranks, *words):
        """Starts `basin exec` in as many ranks on all nodes."""
        argv = ["srun", "-N3", f"-n{ranks}", "--overcommit", "--kill-on-bad-exit=0", processes.binary("basin"), "exec", "--rendezvous",
                self.seen, *words]
        return self.hosts.submitter.start(argv, cwd="/root", **self.hosts.environment)

    def nothing_is_left(self):
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".")], [])
        for host in self.hosts:
            processes.wait_until(lambda: not self.pids(host), f"nothing of the launch is left on {host.name}")

    def pids(self, host, program=b"basin"):
        """Processes of the launch on a host, by their command."""
        found = []
        for pid in host.pids():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue  # it has just ended
            if os.path.basename(words[0]).startswith(program) and not words[0].endswith(b"slurmd"):
                found.append(pid)
        return found

    def test_ranks_on_three_nodes_train_together(self):
        run = self.srun(5, "--ps", "2", "--evaluator", "--", "basin-worker", "--data", FASHION_MNIST, "--epochs", "3", "--outputs",
                        f"{self.seen}/outputs")
        self.assertEqual(run.wait(deadline_s=600), 0, run.text())
        with open(os.path.join(self.folder, "outputs", "evaluation.json"), encoding="utf-8") as file:
            self.assertGreater(json.load(file)["test_accuracy"], 0.84)
        # Who is where is told by addresses of the network.
        self.assertNotIn("127.0.0.1", run.wait_for_line(r"run slurm-\d+-\d+-\w+: "))
        self.nothing_is_left()

    def test_a_failed_task_ends_the_ranks_of_all_nodes(self):
        run = self.srun(3, "--ps", "1", "--", "bash", "-c", 'if [ "$BASIN_TASK_INDEX" = 1 ]; then exit 3; fi; exec sleep 1000')
        self.assertEqual(run.wait(), 3, run.text())
        self.assertRegex(run.text(), r"error: worker 1 \(rank 2, pid \d+ on h2\) exited with code 3")
        self.nothing_is_left()

    def test_a_rank_that_is_killed_ends_the_others_by_itself(self):
        # srun is told not to: rank 0 and the others notice. But Slurm may be quicker, and names it then.
        for host, expected in ((self.hosts[2], r"error: worker 1 \(rank 2, pid \d+ on h2\) is gone|srun: error: h2: task 2: Killed"),
                               (self.hosts[0], r"error: rank 0 \(ps 0\) is gone; this task is ended|srun: error: h0: task 0: Killed")):
            with self.subTest(host=host.name):
                run = self.srun(3, "--ps", "1", "--", "bash", "-c", "echo begun; exec sleep 1000")
                processes.wait_until(lambda: run.text().count("begun") == 2, "both workers have begun")
                pids = self.pids(host)
                # The rank itself, whose children the others are: pids may have begun anew.
                os.kill(next(pid for pid in pids if parent_of(pid) not in pids), signal.SIGKILL)
                self.assertNotEqual(run.wait(), 0)
                self.assertRegex(run.text(), expected)
                for one in self.hosts:
                    processes.wait_until(lambda: not self.pids(one), f"nothing is left on {one.name}")


if __name__ == "__main__":
    unittest.main()
