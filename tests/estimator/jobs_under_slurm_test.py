"""What a queue does to runs, with a real Slurm of three nodes: waiting, limits of time, scancel, requeue, failing nodes, GPUs; and
the main job, which learns there what it learns on one machine."""

import json
import os
import signal
import unittest

import conformance_case
import conformance_slurm
import slurm_hosts
from conformance_case import STAY, ConformanceCase, processes
from conformance_targets import BASIN

# What nvidia-smi -L prints on a node of four GPUs.
NVIDIA_SMI = "#!/bin/sh\nfor i in 0 1 2 3; do echo \"GPU $i: NVIDIA A100 (UUID: GPU-$(hostname)-$i)\"; done\n"
COUNT_ATTEMPT = """
mkdir -p outputs
echo "$me in life $SLURM_RESTART_COUNT" | tee outputs/$me.txt
basin metric log life ${SLURM_RESTART_COUNT:-0}
raise_flag up-$me-${SLURM_RESTART_COUNT:-0}
if [ -z "$SLURM_RESTART_COUNT" ]; then while :; do sleep 0.05; done; fi
"""


class ThreeNodes(conformance_slurm.SlurmTarget):
    nodes = ["h0", "h1", "h2"]

    def make_hosts(self):
        return slurm_hosts.SlurmHosts(3, gpus=4, node_timeout_s=30)


class JobsUnderSlurm(ConformanceCase):
    @classmethod
    def setUpClass(cls):
        conformance_case.ConformanceCase.target = ThreeNodes()
        cls.addClassCleanup(cls.target.stop)

    def setUp(self):
        super().setUp()
        self.hosts = self.target.hosts

    def job_number(self):
        processes.wait_until(lambda: any(event["event"] == "slurm" for event in self.events()), "the job is submitted")
        return next(event["job"] for event in self.events() if event["event"] == "slurm")

    def events(self):
        try:
            return [json.loads(line) for line in self.read("journal.jsonl").splitlines()]
        except (AssertionError, FileNotFoundError):
            return []

    def states(self):
        """Those that the run has passed, in order; without a moment in which a loaded node was not heard."""
        told = [event["state"] for event in self.events() if event["event"] == "state"]
        states = []
        for before, state in zip([None, *told], told):
            if state != "NotResponding" and not (before == "NotResponding" and state == states[-1]):
                states.append(state)
        return states

    def slurm(self, *words):
        code, out, err = self.hosts.slurm(*words)
        self.assertEqual(code, 0, err)
        return out

    def occupy(self):
        """A job of somebody else's that has all nodes; returns its number."""
        job = self.slurm("sbatch", "--parsable", "-N3", "--exclusive", "-o", "/dev/null", "--wrap=sleep 1000").strip()
        processes.wait_until(lambda: self.target.jobs().get(job) == "RUNNING", "all nodes are taken")
        return job

    def test_main_job_on_three_nodes_learns_what_it_learns_on_one_and_a_time_limit_ends_another(self):
        # Slurm's smallest limit is a minute; it says so before. Both at once, for that is long.
        limited = self.submit("mkdir -p outputs; echo kept >outputs/$me" + STAY, slurm={"time": "1"})
        self.wait_until_up(limited)
        self.learns()
        self.assertEqual(limited.wait(), 1, limited.text())
        record = json.loads(limited.text("out"))
        self.assertEqual(record["state"], "Failed")
        self.assertIn("the time limit of Slurm's job", record["reason"])
        self.assertEqual(self.read("outputs/worker-1"), "kept\n")
        self.nothing_left()

    def learns(self):
        with open(processes.source("examples/02_fashion_mnist/job.yaml"), encoding="utf-8") as file:
            job = file.read()
        self.assertIn("compute_target: local", job)
        job = job.replace("compute_target: local", "compute_target: cluster\nnode_count: 3")
        with open(self.target.seen(f"{self.target.home}/main.yaml"), "w", encoding="utf-8") as file:
            file.write(job + 'environment_variables: {OPENBLAS_NUM_THREADS: "1"}\n'
                       'roles: {ps: {nodes: 1, memory: 1GiB}, worker: {nodes: 1, memory: 1GiB}, evaluator: {nodes: 1, cpus: 2, memory: 2GiB}}\n')
        submit = self.basin("submit", f"{self.target.home}/main.yaml", "--json")
        self.assertEqual(submit.wait(deadline_s=1200), 0, submit.text()[-3000:])
        self.assertNotIn("no task", submit.text("err"))
        record = json.loads(submit.text("out"))
        self.assertEqual(record["state"], "Completed")
        self.assertGreaterEqual(record["metrics"]["test_accuracy"], 0.885)
        self.assertEqual([(task["role"], task["host"]) for task in record["tasks"]],
                         [("ps", "h0"), ("ps", "h0"), ("worker", "h1"), ("worker", "h1"), ("evaluator", "h2")])

    def test_queues_reason_is_shown_and_cancel_takes_the_job_out(self):
        other = self.occupy()
        submitted = self.submit("echo done")
        submitted.wait_for_line("waits: Resources, the nodes are busy")
        self.assertEqual(self.record()["state"], "Queued")
        run = self.record()["run_id"]
        self.assertEqual(self.asks("show", run)["state"], "Queued")
        self.assertEqual(self.asks("cancel", run)["state"], "Canceled")
        record = self.ends(submitted, 1, "Canceled")
        self.assertEqual(record["tasks"], [])
        self.assertEqual(list(self.target.jobs()), [other])

    def test_scancel_of_a_waiting_job_cancels_the_run(self):
        self.occupy()
        detached = self.submit("echo done", "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        self.slurm("scancel", self.job_number())
        # Nobody was there to see it: the next one who looks does.
        shown = self.asks("show", "latest")
        self.assertEqual((shown["state"], shown["reason"]), ("Canceled", f"canceled by scancel of Slurm's job {self.job_number()}"))

    def test_scancel_of_a_running_job_cancels_the_run(self):
        submitted = self.submit(STAY, worker_count=3)
        self.wait_until_up(submitted, ("worker-0", "worker-1", "worker-2"))
        self.slurm("scancel", self.job_number())
        record = self.ends(submitted, 1, "Canceled")
        self.assertIn("scancel", record["reason"])
        self.nothing_left(folders=False)

    def requeued(self, **fields):
        """A run whose first life is taken back by Slurm; returns the submitter."""
        submitted = self.submit(COUNT_ATTEMPT, slurm={"requeue": True}, **fields)
        for me in ("worker-0", "worker-1"):
            self.wait_for_flag(f"up-{me}-0")
            log = os.path.join(self.folder(), "logs", f"{me}.txt")
            processes.wait_until(lambda: os.path.exists(log) and os.path.getsize(log) > 0, f"what {me} has printed has come")
        self.wait_for_state("Running")
        number = self.job_number()
        self.slurm("scontrol", "requeue", number)
        processes.wait_until(lambda: self.target.jobs().get(number) == "PENDING", "it is in the queue again")
        # Slurm lets two minutes pass by default. Within the second it would take the job's credentials for the revoked ones.
        self.slurm("scontrol", "update", f"jobid={number}", "StartTime=now+2")
        return submitted

    def test_cancel_ends_a_job_whose_nodes_are_being_made_ready(self):
        self.addCleanup(self.hosts.let_jobs_go)
        self.hosts.hold_jobs()
        submitted = self.submit("echo done")
        processes.wait_until(lambda: "CONFIGURING" in self.target.jobs().values(), "its nodes are being made ready")
        cancel = self.basin("cancel", self.record()["run_id"], "--json")
        processes.wait_until(lambda: "CONFIGURING" not in self.target.jobs().values(), "the job is ended")
        self.hosts.let_jobs_go()
        self.assertEqual(cancel.wait(), 0, cancel.text())
        self.ends(submitted, 1, "Canceled")

    def test_preempted_run_fails_and_says_so(self):
        submitted = self.submit(STAY, worker_count=3)
        self.wait_until_up(submitted, ("worker-0", "worker-1", "worker-2"))
        self.slurm("sbatch", "-N3", "--exclusive", "-p", "urgent", "-o", "/dev/null", "--wrap=sleep 1000")
        record = self.ends(submitted, 1, "Failed")
        self.assertIn(f"Slurm's job {self.job_number()}: PREEMPTED", record["reason"])

    def test_requeue_on_one_node_tells_of_no_other_end(self):
        # The only step ends before the script hears of it.
        record = self.ends(self.requeued(node_count=1))
        life = ["Queued", "Starting", "Provisioning", "Preparing", "Running"]
        self.assertEqual(self.states(), [*life, *life, "Finalizing", "Completed"])
        self.assertEqual(record["metrics"], {"life": 1})

    def test_requeue_begins_a_new_attempt_of_the_same_run(self):
        submitted = self.requeued()
        record = self.ends(submitted)
        self.assertEqual(self.read("outputs/worker-0.txt"), "worker-0 in life 1\n")
        self.assertIn("worker-0 in life \n", self.read("attempts/1/logs/worker-0.txt"))
        self.assertEqual(record["metrics"], {"life": 1})
        states = self.states()
        self.assertEqual([state for state in states if state in ("Queued", "Running", "Completed")],
                         ["Queued", "Running", "Queued", "Running", "Completed"], states)
        for me in ("worker-0", "worker-1"):
            self.assertIn(f"{me}: {me} in life 1", submitted.text("err").splitlines())
        attempt = next(event for event in self.events() if event["event"] == "attempt")
        self.assertEqual(attempt["attempt"], 2)
        self.assertIn("attempt 2 of the run begins", self.read("supervisor.log"))

    def test_node_that_fails_with_the_supervisor_fails_the_run_with_slurms_reason(self):
        submitted = self.submit(STAY)
        record = self.wait_until_up(submitted)
        host = self.hosts[0]
        self.addCleanup(self.hosts.wait_for_nodes)
        self.addCleanup(self.hosts.start_node, host)
        self.hosts.kill_service(host, "slurmd")
        for pid in list(host.pids()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.assertEqual(record["state"], "Running")
        record = self.ends(submitted, 1, "Failed")
        self.assertIn("NODE_FAIL", record["reason"])

    def test_run_uses_the_allocation_in_which_it_is_submitted(self):
        with open(self.target.seen(f"{self.target.home}/in_salloc.sh"), "w", encoding="utf-8") as file:
            file.write(f"{BASIN} submit {self.job('basin --version; echo in $SLURM_JOB_ID', node_count=2)} --json --target cluster\n")
        code, out, err = self.hosts.slurm("salloc", "-N2", "-n2", "bash", f"{self.target.home}/in_salloc.sh")
        self.assertEqual(code, 0, err)
        record = json.loads(out)
        self.assertEqual(record["state"], "Completed")
        self.assertFalse([event for event in self.events() if event["event"] == "slurm"])
        self.assertRegex(self.read("logs/worker-1.txt"), r"in \d+")
        self.assertEqual({task["host"] for task in record["tasks"]}, {"h0", "h1"})
        self.nothing_left()

    def test_allocation_that_is_too_small_is_named(self):
        with open(self.target.seen(f"{self.target.home}/in_salloc.sh"), "w", encoding="utf-8") as file:
            file.write(f"{BASIN} submit {self.job('echo done')} --target cluster\n")
        code, _, err = self.hosts.slurm("salloc", "-N1", "bash", f"{self.target.home}/in_salloc.sh")
        self.assertEqual(code, 2, err)
        self.assertIn("3 nodes are asked for, but the target cluster has one machine", err)

    def test_gpus_that_slurm_granted_are_subdivided(self):
        for host in self.hosts:
            host.write("/usr_local_nvidia/nvidia-smi", NVIDIA_SMI, 0o755)
            code, _, err = host.run(["sh", "-c", "mkdir -p /tmp/driver/nvidia/gpus && mount --bind /tmp/driver /proc/driver"])
            self.assertEqual(code, 0, err)
        taken = self.slurm("sbatch", "--parsable", "-N1", "-w", "h0", "--gres=gpu:1", "-o", "/dev/null", "--wrap=sleep 1000").strip()
        processes.wait_until(lambda: self.target.jobs().get(taken) == "RUNNING", "one GPU is taken")
        path = "/usr_local_nvidia:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        job = self.job("mkdir -p outputs; echo $CUDA_VISIBLE_DEVICES of $SLURM_JOB_GPUS >outputs/$me", use_gpu=True, node_count=1,
                       slurm={"extra": ["--nodelist=h0"]})
        submitted = self.basin("submit", job, "--json", "--target", "cluster", PATH=path)
        self.ends(submitted)
        # Numbers as nvidia-smi on the node has them: the one that is another job's is in no worker's hands.
        self.assertEqual(self.read("outputs/worker-0"), "GPU-h0-1 of 1,2\n")
        self.assertEqual(self.read("outputs/worker-1"), "GPU-h0-2 of 1,2\n")

    def refused(self, *expected, code=2, **fields):
        submitted = self.submit("echo started", **fields)
        self.assertEqual(submitted.wait(), code, submitted.text())
        for one in expected:
            self.assertIn(one, submitted.text("err"))
        self.assertEqual(self.record()["state"], "Failed")
        return submitted

    def test_unknown_partition_is_refused_with_sbatchs_words(self):
        self.refused("invalid partition specified: nope", "sinfo lists the partitions; correct slurm.partition",
                     slurm={"partition": "nope"})

    def test_option_that_sbatch_does_not_know_is_refused_with_its_words(self):
        self.refused("unrecognized option '--colour=red'", "correct slurm.extra", slurm={"extra": ["--colour=red"]})

    def test_without_sbatch_the_next_step_is_said(self):
        code, _, err = self.hosts.submitter.run(["sh", "-c", "mkdir -p /root/few && ln -s /bin/sh /root/few/sh"])
        self.assertEqual(code, 0, err)
        submitted = self.basin("submit", self.job("echo done"), *self.target.submit_flags, PATH="/root/few")
        self.assertEqual(submitted.wait(), 2, submitted.text())
        self.assertIn("sbatch is not on PATH: submit from a login node of the Slurm cluster", submitted.text("err"))

    def test_folder_that_the_nodes_do_not_share_is_named(self):
        submitted = self.basin("submit", self.job("echo done"), *self.target.submit_flags, "--runs", "/root/runs")
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertIn("must lie on a file system that the nodes share; give --runs DIR", submitted.text("err"))

    def test_dry_run_prints_the_script_and_submits_nothing(self):
        dry = self.basin("submit", self.job("echo done", slurm={"account": "ml"}), "--dry-run", *self.target.submit_flags)
        self.assertEqual(dry.wait(), 0, dry.text())
        for line in ("#SBATCH --nodes=3", "#SBATCH --partition=main", "#SBATCH --account=ml", "worker 1"):
            self.assertIn(line, dry.text("out"))
        self.assertEqual(dry.text("err").count("node node-2 has no task: set node_count: 2"), 1, dry.text("err"))
        self.assertEqual(self.target.jobs(), {})
        self.assertEqual(self.folders(), [])

    def test_doctor_asks_slurm(self):
        doctor = self.basin("doctor", "--target", "cluster", "--json")
        self.assertEqual(doctor.wait(), 0, doctor.text())
        found = {one["check"]: one for one in json.loads(doctor.text("out"))}
        self.assertIn("main: up", found["partition"]["found"])
        self.assertRegex(found["submit"]["found"], "to start at .* on nodes h")
        job = self.job("echo done", slurm={"partition": "closed"})
        doctor = self.basin("doctor", job, "--target", "cluster", "--json")
        self.assertEqual(doctor.wait(), 1, doctor.text())
        self.assertIn("closed: down", next(one["found"] for one in json.loads(doctor.text("out")) if one["state"] == "problem"))


if __name__ == "__main__":
    unittest.main()
