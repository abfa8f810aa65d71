"""Slurm as a target of the conformance suite, and what only a queue can do to a run."""

import glob
import json
import os
import shutil
import signal

import conformance_faults
import conformance_jobs
import conformance_mpi
import conformance_runs
import slurm_hosts
from conformance_case import STAY, processes
from conformance_faults import COUNT
from conformance_targets import end_all, pid_in_its_namespace

TARGETS = """cluster:
  kind: slurm
  slurm: {partition: main}
  ping_seconds: 1
  lease_seconds: 30
"""


class SlurmTarget:
    """Two nodes under Slurm, and a login node from which jobs are submitted. All share one HOME, with the runs in it."""

    kind = "slurm"
    nodes = ["h0", "h1"]
    home = slurm_hosts.HOME
    shared = "/shared"
    submit_flags = ["--target", "cluster"]

    def __init__(self):
        self.hosts = self.make_hosts()
        os.makedirs(self.seen(f"{self.home}/.config/basin"))
        with open(self.seen(f"{self.home}/.config/basin/targets.yaml"), "w", encoding="utf-8") as file:
            file.write(TARGETS)

    def make_hosts(self):
        return slurm_hosts.SlurmHosts(2)

    def seen(self, path):
        if path.startswith(self.shared + "/"):
            return os.path.join(self.hosts.shared, path[len(self.shared) + 1:])
        return self.hosts.submitter.path(path)

    def start(self, argv, **environment):
        return self.hosts.submitter.start(argv, cwd=self.home, **{**self.hosts.environment, **environment})

    def pids(self):
        return {pid: f"{host.name}: {text}" for host in [*self.hosts, self.hosts.submitter] for pid, text in host.pids().items()}

    def pid_on(self, node, pid):
        return next((one for one in self.host(node).pids() if pid_in_its_namespace(one) == pid), None)

    def host(self, node):
        return self.hosts[self.nodes.index(node)]

    def listen_on(self, node, port):
        return processes.listen_on(port, self.host(node).start)

    def runs_on_nodes(self):
        return glob.glob(self.seen(f"{self.home}/.cache/basin/runs/*/node-*"))

    def jobs(self):
        """{number: state} of those that Slurm has not done with."""
        code, out, err = self.hosts.slurm("squeue", "-h", "-o", "%i %T")
        if code != 0:
            raise AssertionError(f"squeue ended with {code}: {err}")
        return dict(line.split() for line in out.splitlines())

    def clear(self):
        if self.jobs():
            self.hosts.slurm("scancel", "--user=root")
        for command in self.hosts.commands:
            command.kill()
        self.hosts.commands = []
        processes.wait_until(lambda: not self.jobs(), "Slurm has ended all jobs")
        end_all(lambda: list(self.pids()))
        shutil.rmtree(self.seen(f"{self.home}/.cache/basin/runs"), ignore_errors=True)
        shutil.rmtree(self.seen(f"{self.home}/.local"), ignore_errors=True)

    def stop(self):
        self.hosts.stop()


class SlurmCases(conformance_faults.Faults, conformance_jobs.Jobs, conformance_runs.Runs):
    """The suite's cases; those that are other ones under Slurm stand here under the same names."""

    def job_number(self):
        """The number of the run's job."""
        events = [json.loads(line) for line in self.read("journal.jsonl").splitlines()]
        return next(event["job"] for event in events if event["event"] == "slurm")

    def test_killed_submitter_leaves_no_process_and_a_readable_history(self):
        """Under Slurm the login shell may go: the run goes on, and is followed again."""
        submitted, record = self.running(COUNT)
        submitted.kill()
        self.wait_for_lines()
        attached = self.basin("attach", record["run_id"], "--json")
        attached.wait_for_line("is Running")
        self.raise_flag("enough")
        self.ends(attached)
        for me in ("worker-0", "worker-1"):
            self.check_count(me)
        self.nothing_left()

    def test_detached_run_goes_on_with_a_new_supervisor(self):
        """The supervisor is the job's script: Slurm ends the job with it, and whoever looks next writes that down."""
        detached = self.submit(STAY, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))
        self.assertEqual(run["state"], "Queued")
        self.wait_until_up()
        os.kill(self.supervisor_of(run["run_id"]), signal.SIGKILL)
        attached = self.basin("attach", run["run_id"], "--json")
        record = self.ends(attached, 1, "Failed")
        self.assertIn(f"Slurm's job {self.job_number()}: FAILED", record["reason"])
        self.nothing_left(folders=False)

    def test_run_whose_folder_is_removed_by_hand_ends_and_says_so(self):
        """The supervisor lives in the job; whoever has submitted follows it."""
        submitted, record = self.running(STAY)
        self.remove_folder()
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertIn(f"{record['run_id']} was removed, so that nothing of the run can be kept", submitted.text("err"))
        self.nothing_left()
        self.assertEqual(self.folders(), [])

    # Their names are in the record, which the job's script alone still has.
    test_outputs_of_a_run_whose_folder_is_removed_stay_on_their_node = None

    # Whoever attaches only follows: the supervisor lives in the job, and with it the run ends.
    test_supervisor_that_cannot_begin_says_why_and_leaves_the_run_to_the_next = None


class SlurmMpiCases(conformance_mpi.OneWord, conformance_mpi.Mpi):
    """The cases of mpi; the supervisor, and with it the run, is in Slurm's hands here too."""

    def test_killed_submitter_leaves_no_process(self):
        """The run goes on, and is followed again."""
        submitted, record = self.running()
        submitted.kill()
        attached = self.basin("attach", record["run_id"], "--json")
        attached.wait_for_line("is Running")
        self.raise_flag("enough")
        self.ends(attached)
        for me in self.ranks():
            self.assertIn("is done\n", self.read("logs", f"{me}.txt"))
        self.nothing_left()

    def test_detached_run_goes_on_with_a_new_supervisor(self):
        """Slurm ends the job with its supervisor, mpirun and the ranks with it."""
        detached = self.mpi("", "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))["run_id"]
        self.wait_until_up(tasks=self.ranks())
        os.kill(self.supervisor_of(run), signal.SIGKILL)
        record = self.ends(self.basin("attach", run, "--json"), 1, "Failed")
        self.assertRegex(record["reason"], r"Slurm's job \d+: FAILED")
        self.nothing_left(folders=False)
