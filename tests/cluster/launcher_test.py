"""`basin submit` with real processes: shell scripts stand in for basin-ps and basin-worker, so that each test says
exactly how a task behaves."""

import glob
import json
import os
import pty
import select
import signal
import stat
import tempfile
import unittest

import processes

# Says who it is ("worker-0") from TF_CONFIG.
WHO = r"""#!/bin/sh
me=$(printf %s "$TF_CONFIG" | sed 's/.*"type": *"\([a-z]*\)", *"index": *\([0-9]*\).*/\1-\2/')
"""
# Serves until a worker has finished the run.
PS = WHO + r"""
trap 'echo stopped; exit 0' TERM
echo "$me serves"
while [ ! -e "$SHARED/finished" ]; do sleep 0.1; done
"""
# Stays until it is stopped.
STAY = r"""
trap 'echo "$me says goodbye"; exit 0' TERM
echo "$me is up"
: > "$SHARED/$me-is-up"
while :; do sleep 0.1; done
"""
# Does not end by SIGTERM, and leaves a daemon in a session of its own, forked twice, that does not either.
STUBBORN = r"""
trap '' TERM
( setsid sh -c 'trap "" TERM HUP; : > "$SHARED/daemon-is-up"; while :; do sleep 0.1; done' >/dev/null 2>&1 & )
echo "$me is up"
while :; do sleep 0.1; done
"""
JOB = """experiment: launcher-test
entry_script: basin:mlp
script_params: {--epochs: 1}
distributed_backend: ps
parameter_server_count: 1
worker_count: 2
"""


class LauncherTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.runs = os.path.join(self.folder, "runs")
        self.programs = os.path.join(self.folder, "programs")
        os.mkdir(self.programs)
        # Each task has a tree of its own, so scripts meet in a folder that they are told.
        self.shared = os.path.join(self.folder, "shared")
        os.mkdir(self.shared)
        self.environment, self.mark = processes.marked_environment(HOME=self.folder)

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def programs_are(self, worker, ps=PS):
        self.write("programs/basin-ps", ps, 0o755)
        self.write("programs/basin-worker", WHO + worker, 0o755)

    def submit(self, job=JOB, *flags):
        job += f"environment_variables: {{SHARED: {self.shared}}}\n"
        return processes.Process([processes.binary("basin"), "submit", self.write("job.yaml", job), "--runs", self.runs,
                                  "--programs", self.programs, *flags], env=self.environment)

    def run_folder(self):
        found = glob.glob(os.path.join(self.runs, "launcher-test", "*"))
        self.assertEqual(len(found), 1, found)
        return found[0]

    def record(self):
        with open(os.path.join(self.run_folder(), "run.json")) as file:
            return json.load(file)

    def log(self, task):
        with open(os.path.join(self.run_folder(), "logs", task + ".txt")) as file:
            return file.read()

    def wait_until_up(self, *tasks):
        for task in tasks:
            processes.wait_until(lambda: glob.glob(os.path.join(self.runs, "*", "*", "logs", task + ".txt")) and
                                 ("is up" in self.log(task) or "serves" in self.log(task)), f"{task} is up")

    def nothing_left(self):
        processes.wait_until(lambda: not processes.marked_pids(self.mark), "no process of the run is left")

    def test_run_completes_and_ends_with_the_test_accuracy(self):
        self.programs_are("""
case $me in
worker-0) : > "$SHARED/finished" ;;
evaluator-0) echo '{"test_accuracy": 0.88612, "test_loss": 0.3, "global_step": 9}' > "$BASIN_RUN_DIR/outputs/evaluation.json" ;;
esac
echo "$me got $*"
""")
        with self.submit(JOB + "evaluator_count: 1\n") as basin:
            self.assertEqual(basin.wait(), 0, basin.text())
            self.assertEqual(basin.text("out").splitlines()[-1], "test accuracy 0.8861")
        self.assertEqual(self.record()["state"], "Completed")
        self.assertIn("--program mlp", self.log("worker-1"))
        self.assertIn("--epochs 1", self.log("evaluator-0"))
        self.nothing_left()

    def test_json_prints_the_record_alone_on_standard_output(self):
        self.programs_are(': > "$SHARED/finished"')
        with self.submit(JOB, "--json") as basin:
            self.assertEqual(basin.wait(), 0, basin.text())
            self.assertEqual(json.loads(basin.text("out"))["state"], "Completed")

    def test_task_that_dies_stops_the_others_and_shows_its_last_lines(self):
        self.programs_are("""
if [ $me = worker-1 ]; then
  until [ -e "$SHARED/worker-0-is-up" ]; do sleep 0.1; done
  for i in $(seq 1 30); do echo "line $i"; done; exit 3
fi
""" + STAY)
        with self.submit() as basin:
            self.assertEqual(basin.wait(), 1, basin.text())
            text = basin.text("err")
        self.assertIn("worker 1 exited with code 3", text)
        self.assertIn(os.path.join(self.run_folder(), "logs", "worker-1.txt"), text)
        self.assertIn("line 11\n", text)
        self.assertIn("line 30", text)
        self.assertNotIn("line 10\n", text)
        self.assertIn("worker-0 says goodbye", self.log("worker-0"))
        self.assertEqual(self.record()["state"], "Failed")
        self.nothing_left()

    def test_wrong_input_of_a_task_gives_exit_code_2(self):
        self.programs_are("exit 2")
        with self.submit() as basin:
            self.assertEqual(basin.wait(), 2, basin.text())

    def test_killed_task_is_named_with_its_signal(self):
        self.programs_are(STAY)
        with self.submit() as basin:
            self.wait_until_up("ps-0", "worker-0", "worker-1")
            processes.wait_until(lambda: self.record()["state"] == "Running", "the run is Running")
            os.kill(next(task["pid"] for task in self.record()["tasks"] if task["role"] == "ps"), signal.SIGKILL)
            self.assertEqual(basin.wait(), 1, basin.text())
            self.assertIn("ps 0 was ended by SIGKILL", basin.text("err"))
        self.nothing_left()

    def test_ctrl_c_cancels(self):
        self.programs_are(STAY)
        with self.submit() as basin:
            self.wait_until_up("ps-0", "worker-0", "worker-1")
            basin.send(signal.SIGINT)
            self.assertEqual(basin.wait(), 1, basin.text())
            self.assertIn("Canceled", basin.text("out"))
        self.assertEqual(self.record()["state"], "Canceled")
        self.assertIn("worker-1 says goodbye", self.log("worker-1"))
        self.nothing_left()

    def test_ctrl_c_on_a_terminal_asks_first(self):
        self.programs_are(STAY)
        job = self.write("job.yaml", JOB + f"environment_variables: {{SHARED: {self.shared}}}\n")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(processes.binary("basin"), ["basin", "submit", job, "--runs", self.runs, "--programs", self.programs], self.environment)
        self.addCleanup(os.close, terminal)
        shown = []

        def show():
            if select.select([terminal], [], [], 0)[0]:
                try:
                    shown.append(os.read(terminal, 65536).decode(errors="replace"))
                except OSError:
                    pass  # the other end is closed
            return "".join(shown)

        processes.wait_until(lambda: show() and os.path.exists(os.path.join(self.shared, "worker-1-is-up")), "worker 1 is up")
        os.write(terminal, b"\x03")
        processes.wait_until(lambda: "press Ctrl-C again within 5 s" in show(), "the first Ctrl-C asks")
        self.assertNotIn(self.record()["state"], ("CancelRequested", "Canceled"))
        os.write(terminal, b"\x03")
        processes.wait_until(lambda: "Canceled" in show(), "the second Ctrl-C cancels")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 1, show())
        self.assertIn("worker-1 says goodbye", self.log("worker-1"))
        self.nothing_left()

    def test_second_ctrl_c_kills_at_once(self):
        self.programs_are(STUBBORN)
        with self.submit(JOB + "cancel_grace_seconds: 3600\n") as basin:
            self.wait_until_up("worker-0", "worker-1")
            basin.send(signal.SIGINT)
            basin.wait_for_line("canceling the run")
            basin.send(signal.SIGINT)
            self.assertEqual(basin.wait(), 1, basin.text())
        self.nothing_left()

    def test_task_that_ignores_sigterm_is_killed_after_the_grace(self):
        self.programs_are(STUBBORN)
        with self.submit(JOB + "cancel_grace_seconds: 1\n") as basin:
            self.wait_until_up("worker-0", "worker-1")
            basin.send(signal.SIGTERM)
            self.assertEqual(basin.wait(), 1, basin.text())
        self.nothing_left()

    def test_sigkill_of_the_launcher_leaves_no_orphan(self):
        self.programs_are(STUBBORN)
        with self.submit(JOB + "cancel_grace_seconds: 1\n") as basin:
            self.wait_until_up("ps-0", "worker-0", "worker-1")
            processes.wait_until(lambda: os.path.exists(os.path.join(self.shared, "daemon-is-up")), "the daemon is up")
            self.assertGreaterEqual(len(processes.marked_pids(self.mark)), 8)
            basin.kill()
        self.nothing_left()

    def test_killed_guard_fails_the_run_and_leaves_nothing(self):
        self.programs_are(STUBBORN)
        with self.submit(JOB + "cancel_grace_seconds: 1\n") as basin:
            self.wait_until_up("ps-0", "worker-0", "worker-1")
            processes.wait_until(lambda: self.record()["state"] == "Running", "the run is Running")
            task = next(task["pid"] for task in self.record()["tasks"] if task["role"] == "worker")
            with open(f"/proc/{task}/stat") as file:
                guard = int(file.read().rpartition(")")[2].split()[1])
            os.kill(guard, signal.SIGKILL)
            self.assertEqual(basin.wait(), 1, basin.text())
            self.assertRegex(basin.text("err"), "worker 0 was (lost|ended by SIGKILL)")
        self.nothing_left()

    def test_what_a_task_leaves_behind_ends_with_it(self):
        self.programs_are("""
( setsid sh -c 'while :; do sleep 0.1; done' >/dev/null 2>&1 & )
: > "$SHARED/finished"
""")
        with self.submit(JOB + "cancel_grace_seconds: 1\n") as basin:
            self.assertEqual(basin.wait(), 0, basin.text())
        self.nothing_left()

    def test_time_limit_cancels(self):
        self.programs_are(STAY)
        with self.submit(JOB + "max_run_duration_seconds: 1\n") as basin:
            self.assertEqual(basin.wait(), 1, basin.text())
            self.assertIn("max_run_duration_seconds (1) is over", basin.text("out"))
        self.assertEqual(self.record()["state"], "Canceled")

    def test_token_is_in_its_file_alone(self):
        self.programs_are(STAY)
        with self.submit() as basin:
            self.wait_until_up("ps-0", "worker-0", "worker-1")
            folder = self.run_folder()
            path = os.path.join(folder, "token")
            self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            with open(path) as file:
                token = file.read().strip()
            self.assertGreaterEqual(len(token), 32)
            seen = []
            for pid in processes.marked_pids(self.mark):
                for what in ("cmdline", "environ"):
                    try:
                        with open(f"/proc/{pid}/{what}", "rb") as file:
                            seen.append(file.read().decode(errors="replace"))
                    except OSError:
                        pass  # it has just ended
            self.assertGreaterEqual(len(seen), 8)
            basin.send(signal.SIGINT)
            basin.wait()
            seen.append(basin.text())
            for name in glob.glob(os.path.join(folder, "**"), recursive=True):
                if os.path.isfile(name) and name != path:
                    with open(name) as file:
                        seen.append(file.read())
            for text in seen:
                self.assertNotIn(token, text)

    def test_living_runs_do_not_share_ports(self):
        self.programs_are(STAY)
        with self.submit() as basin:
            self.wait_until_up("ps-0")
            with open(os.path.join(self.run_folder(), "plan.json")) as file:
                # A worker's port is let go when it starts; that of a ps is handed over open.
                taken = {task["port"] for task in json.load(file)["tasks"] if task["role"] == "ps"}
            code, out, err = processes.run([processes.binary("basin"), "submit", os.path.join(self.folder, "job.yaml"), "--dry-run",
                                            "--json", "--programs", self.programs], env=self.environment)
            self.assertEqual(code, 0, err)
            self.assertFalse(taken & {task["port"] for task in json.loads(out)["tasks"]})
            basin.send(signal.SIGINT)
            basin.wait()

    def test_dry_run_prints_the_plan_and_starts_nothing(self):
        self.programs_are(STAY)
        with self.submit(JOB, "--dry-run", "--param", "--lr=.1", "--param", "--fast") as basin:
            self.assertEqual(basin.wait(), 0, basin.text())
            out = basin.text("out")
        self.assertIn("basin-worker --program mlp", out)
        self.assertIn("--epochs 1 --lr .1 --fast", out)
        configs = [json.loads(line.partition("=")[2]) for line in out.splitlines() if line.startswith("  TF_CONFIG=")]
        self.assertEqual([(one["task"]["type"], one["task"]["index"]) for one in configs],
                         [("ps", 0), ("worker", 0), ("worker", 1)])
        self.assertFalse(os.path.exists(self.runs))

    def test_shipped_example_is_a_valid_job(self):
        self.programs_are(STAY)
        code, out, err = processes.run([processes.binary("basin"), "submit",
                                        processes.source("examples", "02_fashion_mnist", "job.yaml"), "--input",
                                        "data=" + self.folder, "--dry-run", "--json", "--programs", self.programs],
                                       env=self.environment)
        self.assertEqual(code, 0, err)
        self.assertEqual([task["role"] for task in json.loads(out)["tasks"]], ["ps", "ps", "worker", "worker", "evaluator"])

    def test_wrong_input_exits_with_2_before_anything_starts(self):
        self.programs_are(STAY)
        for job, flags, expected in (
                (JOB + "use_gpu: true\n", (), "use_gpu: node 127.0.0.1 has no GPU"),
                (JOB + "node_count: 2\n", (), "the target local has one machine"),
                (JOB, ("--node_count=2",), "only script_params"),
                (JOB, ("--param", "node_count=2"), "only script_params"),
                (JOB.replace("worker_count", "worker_cont"), (), 'did you mean "worker_count"?'),
                (JOB + "inputs: [{name: data, path: not/there}]\n", (), os.path.join(self.folder, "not/there") + " does not exist"),
                (JOB, ("--programs", os.path.join(self.folder, "none")), "basin-ps not found in"),
                (JOB, ("--nonsense",), "--nonsense")):
            with self.submit(job, *flags) as basin:
                self.assertEqual(basin.wait(), 2, basin.text())
                self.assertIn(expected, basin.text("err"))
        self.assertFalse(os.path.exists(self.runs))
        code, _, err = processes.run([processes.binary("basin"), "submit", "/not/there.yaml"], env=self.environment)
        self.assertEqual(code, 2)
        self.assertIn("/not/there.yaml", err)

    def test_program_that_cannot_run_is_named(self):
        self.programs_are("")
        self.write("programs/basin-ps", "#!/not/there\n", 0o755)
        with self.submit() as basin:
            self.assertEqual(basin.wait(), 1, basin.text())
            self.assertRegex(basin.text("err"), "ps 0 could not be started: .*/not/there.*basin-ps")
        self.nothing_left()

    def test_cluster_show_reads_tf_config(self):
        good = '{"cluster": {"ps": ["h0:2222"], "worker": ["h1:2222"]}, "task": {"type": "worker", "index": 0}}'
        for config, code in ((good, 0), (good.replace("2222", "99999"), 2), ("{", 2)):
            environment = dict(self.environment, TF_CONFIG=config)
            got, out, err = processes.run([processes.binary("basin"), "cluster", "show"], env=environment)
            self.assertEqual(got, code, out + err)
        environment = dict(self.environment, TF_CONFIG=good)
        got, out, _ = processes.run([processes.binary("basin"), "cluster", "show", "--json"], env=environment)
        self.assertTrue(json.loads(out)["valid"])


if __name__ == "__main__":
    unittest.main()
