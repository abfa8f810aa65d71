"""What the tests of the conformance suite have in common: writing a job, submitting it, looking at its run."""

import glob
import json
import os
import shutil
import unittest

import conformance_targets

processes, clusters, ssh_hosts = conformance_targets.processes, conformance_targets.clusters, conformance_targets.ssh_hosts

# In front of each script: who it is, and a folder that the test and all tasks see ("flags").
SCRIPT = """#!/bin/bash
me=$BASIN_ROLE-$BASIN_TASK_INDEX
until_flag() { until [ -e "$FLAGS/$1" ]; do sleep 0.05; done; }
raise_flag() { : >"$FLAGS/$1"; }
"""
# Ends by SIGTERM as it should, and says so.
STAY = """
trap 'echo "$me says goodbye"; exit 0' TERM
echo "$me is up"
raise_flag up-$me
while :; do sleep 0.05; done
"""
# Does not end by SIGTERM, and has a daemon in a session of its own, forked twice, that does not either.
STUBBORN = """
trap '' TERM
( setsid bash -c 'trap "" TERM HUP; : >"$FLAGS/daemon-$BASIN_ROLE-$BASIN_TASK_INDEX"; while :; do sleep 0.05; done' >/dev/null 2>&1 & )
echo "$me is up"
until_flag daemon-$me
raise_flag up-$me
while :; do sleep 0.05; done
"""
FINAL = ("Completed", "Failed", "Canceled")


class ConformanceCase(unittest.TestCase):
    """Each test gets a target without runs and must leave it without processes."""

    target = None  # of the module's main

    def setUp(self):
        self.addCleanup(self.target.clear)
        self.flags = os.path.join(self.target.shared, "flags")
        self.source = os.path.join(self.target.home, "project")
        for folder in (self.target.seen(self.flags), self.target.seen(self.source)):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)

    def write(self, name, text, mode=0o644):
        """A file of the job's source_directory."""
        path = self.target.seen(os.path.join(self.source, name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)

    def job(self, script="", name="job.json", **fields):
        """Writes a job whose workers, one a node and at least two, run the script; no ps. A field that is None is left out. Returns
        its path for the submitter."""
        if script:
            self.write("main.sh", SCRIPT + script)
        nodes = len(self.target.nodes)
        job = {"experiment": "conformance", "source_directory": self.source, "entry_script": "main.sh", "distributed_backend": "ps",
               "parameter_server_count": 0, "worker_count": 2, "node_count": nodes, "cancel_grace_seconds": 60,
               "environment_variables": {"FLAGS": self.flags}, **fields}
        if getattr(self.target, "image", None) and not job["entry_script"].startswith("basin:"):
            job["custom_docker_image"] = self.target.image
        path = os.path.join(self.target.home, name)
        with open(self.target.seen(path), "w", encoding="utf-8") as file:
            json.dump({field: value for field, value in job.items() if value is not None}, file)
        return path

    def basin(self, *words, **environment):
        return self.target.start([conformance_targets.BASIN, *words], **environment)

    def submit(self, script="", *flags, **fields):
        return self.basin("submit", self.job(script, **fields), "--json", *self.target.submit_flags, *flags)

    def ends(self, submitted, code=0, state="Completed"):
        """Waits for `submit --json`, and returns the record that it prints."""
        self.assertEqual(submitted.wait(), code, submitted.text())
        try:
            record = json.loads(submitted.text("out"))
        except json.JSONDecodeError:
            self.fail(f"no JSON on standard output:\n{submitted.text()}")
        self.assertEqual(record["state"], state, submitted.text())
        self.assertEqual(record["exit_code"], code)
        return record

    def asks(self, *words, code=0):
        """A command of basin that answers in JSON."""
        command = self.basin(*words, "--json")
        self.assertEqual(command.wait(), code, command.text())
        return json.loads(command.text("out"))

    # Runs, by their folders: what is there also while a run goes on.

    def folders(self):
        return glob.glob(self.target.seen(os.path.join(self.target.home, ".local/state/basin/runs/conformance")) + "/*")

    def folder(self):
        found = self.folders()
        self.assertEqual(len(found), 1, found)
        return found[0]

    def record(self):
        with open(os.path.join(self.folder(), "run.json"), encoding="utf-8") as file:
            return json.load(file)

    def read(self, *parts):
        with open(os.path.join(self.folder(), *parts), encoding="utf-8") as file:
            return file.read()

    def wait_for_state(self, *states):
        processes.wait_until(lambda: self.folders() and os.path.exists(os.path.join(self.folder(), "run.json")) and
                             self.record()["state"] in states, f"the run is {' or '.join(states)}")
        return self.record()

    def wait_for_flag(self, name):
        processes.wait_until(lambda: os.path.exists(self.target.seen(os.path.join(self.flags, name))), f"a task raises the flag {name}")

    def raise_flag(self, name):
        with open(self.target.seen(os.path.join(self.flags, name)), "w", encoding="ascii"):
            pass

    def wait_until_up(self, submitted=None, tasks=("worker-0", "worker-1")):
        """Returns the record of the running run."""
        flags = [self.target.seen(os.path.join(self.flags, f"up-{task}")) for task in tasks]
        ended = lambda: submitted is not None and not submitted.running()
        processes.wait_until(lambda: all(map(os.path.exists, flags)) or ended(), f"{', '.join(tasks)} are up")
        self.assertTrue(all(map(os.path.exists, flags)), submitted.text() if submitted else "")
        return self.wait_for_state("Running")

    def task(self, record, name):
        return next(task for task in record["tasks"] if f"{task['role']}-{task['index']}" == name)

    def pid_of(self, record, name):
        """Of a task's process, as the test sees it."""
        task = self.task(record, name)
        pid = self.target.pid_on(task["host"], task["pid"])
        self.assertTrue(pid, task)
        return pid

    def supervisor_of(self, run):
        """The process that holds the run's lock."""
        lock = os.stat(os.path.join(self.folder(), "supervisor.lock"))
        for pid in self.target.pids():
            for path in glob.glob(f"/proc/{pid}/fd/*"):
                try:
                    held = os.stat(path)
                except OSError:
                    continue  # closed in between
                if (held.st_dev, held.st_ino) == (lock.st_dev, lock.st_ino):
                    return pid
        raise AssertionError(f"nobody holds the lock of {run}")

    def nothing_left(self, within_s=processes.DEADLINE_S, folders=True):
        """No process anywhere, and where `folders`, no folder of a run on the nodes either."""
        try:
            processes.wait_until(lambda: not self.target.pids(), "", within_s)
        except AssertionError:
            left = self.target.pids()
            if left:
                self.fail(f"left behind after {within_s} s: {left}")
        if folders:
            self.assertEqual(self.target.runs_on_nodes(), [])
