"""What dies in the middle of a run, on every target; and what only machines with a network between them can suffer."""

import json
import os
import shutil
import signal

from conformance_case import FINAL, STAY, STUBBORN, ConformanceCase, processes, ssh_hosts
from conformance_runs import MODEL_BYTES, Runs

# Counts, a line each time, until the test has seen enough. A line that is lost or comes twice shows.
COUNT = """
raise_flag up-$me
i=0
until [ -e "$FLAGS/enough" ]; do i=$((i + 1)); echo "line $i"; sleep 0.05; done
echo "counted to $i"
mkdir -p outputs; echo $i >outputs/$me
"""


class Faults(ConformanceCase):
    def parent_of(self, pid):
        return ssh_hosts.parent_of(pid)

    def running(self, script=STUBBORN, *flags, **fields):
        """(the submitter, the record of the running run)"""
        submitted = self.submit(script, *flags, cancel_grace_seconds=1, **fields)
        return submitted, self.wait_until_up(submitted if "--detach" not in flags else None)

    def wait_for_lines(self):
        for me in ("worker-0", "worker-1"):
            log = os.path.join(self.folder(), "logs", f"{me}.txt")
            processes.wait_until(lambda: os.path.exists(log) and "line 5" in self.read(log), f"a few lines of {me} have come")

    def has_said(self, me, text):
        return os.path.exists(os.path.join(self.folder(), "logs", f"{me}.txt")) and text in self.read("logs", f"{me}.txt")

    def check_count(self, me):
        """Each line came once, in order, to the last."""
        lines = [line for line in self.read("logs", f"{me}.txt").splitlines() if line.startswith(("line ", "counted"))]
        count = len(lines) - 1
        self.assertGreater(count, 3)
        self.assertEqual(lines, [f"line {i + 1}" for i in range(count)] + [f"counted to {count}"])
        self.assertEqual(self.read("outputs", me), f"{count}\n")

    def test_killed_task_fails_the_run_and_is_named(self):
        submitted, record = self.running(STAY)
        os.kill(self.pid_of(record, "worker-1"), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertRegex(record["reason"], "worker 1 was ended by SIGKILL")
        self.assertEqual(self.task(record, "worker-1")["signal"], signal.SIGKILL)
        self.nothing_left()

    def test_killed_guard_fails_the_run(self):
        submitted, record = self.running()
        os.kill(self.parent_of(self.pid_of(record, "worker-1")), signal.SIGKILL)
        record = self.ends(submitted, 1, "Failed")
        self.assertIn("worker 1", record["reason"])
        self.nothing_left()

    def test_killed_agent_fails_the_run_and_names_its_node(self):
        submitted, record = self.running()
        os.kill(self.parent_of(self.parent_of(self.pid_of(record, "worker-1"))), signal.SIGKILL)
        node = self.task(record, "worker-1")["host"]
        record = self.ends(submitted, 1, "Failed")
        self.assertIn(node, record["reason"])
        # What the agent would have removed may stay; its processes may not.
        self.nothing_left(folders=False)

    def test_killed_submitter_leaves_no_process_and_a_readable_history(self):
        submitted, record = self.running()
        processes.wait_until(lambda: self.has_said("worker-0", "worker-0 is up"), "worker 0 has been heard")
        submitted.kill()
        self.nothing_left(folders=False)
        self.assertEqual(self.asks("show", record["run_id"])["run_id"], record["run_id"])
        self.assertIn("worker-0 is up", self.read("logs/worker-0.txt"))

    def test_run_whose_folder_is_removed_by_hand_ends_and_says_so(self):
        submitted, record = self.running(STAY)
        self.remove_folder()
        record = self.ends(submitted, 1, "Failed")
        self.assertRegex(record["reason"], f"^the run's folder /.*/{record['run_id']} was removed, so that nothing of the run can be kept; "
                                           f"end a run by basin cancel {record['run_id']}, and remove it by basin delete ")
        self.assertIn(record["reason"], submitted.text("err"))
        self.nothing_left()
        self.assertEqual(self.folders(), [])

    def remove_folder(self):
        folder = self.folder()
        # What the supervisor writes meanwhile is in the way, as with rm -rf: again, until it is gone.
        processes.wait_until(lambda: shutil.rmtree(folder, ignore_errors=True) or not os.path.exists(folder), "the folder is removed")

    def test_whoever_follows_a_run_whose_folder_is_removed_is_told(self):
        detached = self.submit(STAY, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        attached = self.basin("attach", json.loads(detached.text("out"))["run_id"])
        attached.wait_for_line("Ctrl-C leaves it running")
        self.wait_until_up()
        self.remove_folder()
        self.assertEqual(attached.wait(), 1, attached.text())
        self.assertIn("was removed, so that nothing of the run can be kept", attached.text("err"))
        self.nothing_left()
        self.assertEqual(self.folders(), [])

    def test_outputs_of_a_run_whose_folder_is_removed_stay_on_their_node(self):
        submitted, record = self.running("mkdir outputs; echo weights >outputs/model-$me\n" + STAY)
        self.remove_folder()
        record = self.ends(submitted, 1, "Failed")
        self.assertRegex(record["reason"], r"outputs/model-worker-0 .*kept on node .* in /.*, which is yours to remove")
        self.nothing_left(folders=False)
        self.assertEqual(self.folders(), [])

    def test_detached_run_goes_on_with_a_new_supervisor(self):
        detached = self.submit(COUNT, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))["run_id"]
        self.wait_until_up()
        self.wait_for_lines()
        os.kill(self.supervisor_of(run), signal.SIGKILL)
        attached = self.basin("attach", run, "--json")
        self.wait_for_state("Running")
        self.raise_flag("enough")
        self.ends(attached)
        for me in ("worker-0", "worker-1"):
            self.check_count(me)
        self.nothing_left()

    def test_supervisor_that_cannot_begin_says_why_and_leaves_the_run_to_the_next(self):
        detached = self.submit(COUNT, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        run = json.loads(detached.text("out"))["run_id"]
        self.wait_until_up()
        self.wait_for_lines()
        os.kill(self.supervisor_of(run), signal.SIGKILL)
        token = os.path.join(self.folder(), "token")
        os.rename(token, token + ".away")
        attached = self.basin("attach", run)
        self.assertNotEqual(attached.wait(), 0, attached.text())
        self.assertRegex(attached.text("err"), "token: No such file")
        self.assertEqual(attached.text("err").count("has no supervisor"), 1)
        os.rename(token + ".away", token)
        # Its agents are where they were, whatever this environment says.
        attached = self.basin("attach", run, "--json", BASIN_CACHE=os.path.join(self.target.home, "elsewhere"))
        self.wait_for_state("Running")
        self.raise_flag("enough")
        self.ends(attached)
        for me in ("worker-0", "worker-1"):
            self.check_count(me)
        self.nothing_left()

    def test_detached_run_ends_by_itself(self):
        detached = self.submit(COUNT, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        self.wait_until_up()
        self.wait_for_lines()
        self.raise_flag("enough")
        self.assertEqual(self.wait_for_state(*FINAL)["state"], "Completed")
        self.check_count("worker-1")
        self.nothing_left()


class SshOnly(Faults, Runs):
    """h0 and h1 with a network between: cables, keys, shells."""

    def setUp(self):
        super().setUp()
        self.hosts = self.target.hosts

    def test_short_drop_of_the_link_does_not_hurt_a_detached_run(self):
        detached = self.submit(COUNT, "--detach")
        self.assertEqual(detached.wait(), 0, detached.text())
        self.wait_until_up()
        self.hosts[1].link_down()
        self.wait_for_state("NotResponding")
        self.hosts[1].link_up()
        self.wait_for_state("Running")
        self.raise_flag("enough")
        self.assertEqual(self.wait_for_state(*FINAL)["state"], "Completed")
        self.check_count("worker-0")
        self.check_count("worker-1")
        self.nothing_left()

    def test_host_that_stays_away_fails_an_attached_run(self):
        submitted, _ = self.running()
        self.hosts[1].link_down()
        record = self.ends(submitted, 1, "Failed")
        self.assertIn("h1", record["reason"])
        # The lost host ends what it has by itself: nobody can tell it to. (Its sshd waits for TCP to give up.)
        alive = lambda: [text for text in self.hosts[1].pids().values() if not text.startswith("sshd")]
        try:
            processes.wait_until(lambda: not alive(), "")
        except AssertionError:
            self.assertEqual(alive(), [], "h1 has not ended its tasks")
        self.hosts[1].link_up()
        self.nothing_left(folders=False)

    def test_wrong_host_key_is_refused_and_nothing_starts(self):
        self.hosts.know_keys({1: self.hosts.another_key()})
        submitted = self.submit("echo started")
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertRegex(submitted.text("err"), "(?s)h1.*key")
        self.assertEqual(self.read("logs/worker-0.txt") if os.path.exists(os.path.join(self.folder(), "logs/worker-0.txt")) else "", "")
        self.nothing_left()

    def rc_file(self, text):
        path = self.hosts[1].path("/root/.bashrc")
        self.hosts[1].write("/root/.bashrc", text)
        self.addCleanup(os.remove, path)

    def test_banner_of_the_shells_rc_file_is_skipped(self):
        self.rc_file("echo; echo 'Welcome to h1!'; for i in $(seq 200); do echo \"notice $i of many\"; done; printf 'no end of line '\n")
        self.ends(self.submit("echo done"))
        self.assertEqual(self.read("logs/worker-1.txt"), "done\n")
        self.nothing_left()

    def test_rc_file_that_ends_the_shell_is_shown(self):
        self.rc_file("echo 'This account is for mail only.'; exit 0\n")
        submitted = self.submit("echo done")
        self.assertEqual(submitted.wait(), 1, submitted.text())
        self.assertRegex(submitted.text("err"), "(?s)h1.*This account is for mail only")
        self.nothing_left()

    def test_input_that_one_host_lacks_is_named_with_the_host(self):
        for folder in (self.target.seen("/root/data"), self.hosts[0].path("/root/data")):
            os.makedirs(folder)
            self.addCleanup(os.rmdir, folder)
        submitted = self.submit("echo started", inputs=[{"name": "data", "path": "/root/data"}])
        self.assertEqual(submitted.wait(), 2, submitted.text())
        self.assertRegex(submitted.text("err"), "h1.*/root/data|/root/data.*h1")
        self.nothing_left()

    def test_hosts_may_be_named_without_a_targets_file(self):
        submitted = self.basin("submit", self.job("echo here"), "--json", "--hosts", "h0,h1")
        self.assertEqual({task["host"] for task in self.ends(submitted)["tasks"]}, {"h0", "h1"})

    def test_programs_are_sent_once_to_the_host_that_lacks_them(self):
        self.ends(self.submit("basin --version"))
        received = self.hosts[1].bytes_sent_and_received()[1]
        self.ends(self.submit("basin --version"))
        bundle = next(name for name in os.listdir(os.environ["BASIN_BINARY_DIR"]) if name.endswith(".tar.zst"))
        self.assertLess(self.hosts[1].bytes_sent_and_received()[1] - received,
                        os.path.getsize(os.path.join(os.environ["BASIN_BINARY_DIR"], bundle)) // 2)

    def test_snapshot_is_sent_once_to_a_host(self):
        self.write("weights.bin", "x" * 4_000_000)
        self.ends(self.submit("wc -c <weights.bin"))
        received = [host.bytes_sent_and_received()[1] for host in self.hosts]
        self.ends(self.submit("wc -c <weights.bin"))
        for host, before in zip(self.hosts, received):
            self.assertLess(host.bytes_sent_and_received()[1] - before, 2_000_000)

    def test_training_goes_over_tcp(self):
        # Half of the model is on either host, so each of the 16 steps crosses the cable with a half, both ways, whichever worker makes it.
        self.ends(self.submit("echo warm"))
        before = self.hosts[1].bytes_sent_and_received()
        record = self.trains(ps=2)
        self.assertEqual([(task["role"], task["host"]) for task in record["tasks"]],
                         [("ps", "h0"), ("ps", "h1"), ("worker", "h0"), ("worker", "h1")])
        for then, now in zip(before, self.hosts[1].bytes_sent_and_received()):
            self.assertGreater(now - then, 4 * MODEL_BYTES)
