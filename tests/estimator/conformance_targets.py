"""The targets on which the conformance suite runs: where `basin submit` is started, and how a test looks at the nodes.

Every target has the same members; the suite uses nothing else, but for the tests of what only machines with a network
between them can show (SshTarget.hosts).
"""

import glob
import os
import shutil
import signal
import sys
import tempfile

sys.path.insert(0, os.path.join(os.environ["BASIN_SOURCE_DIR"], "tests", "cluster"))
import clusters  # noqa: E402,F401  its little data set
import processes  # noqa: E402
import ssh_hosts  # noqa: E402

BASIN = processes.binary("basin")


class LocalTarget:
    """This machine, with a HOME of the test's own. Everything that comes from it carries a mark in its environment."""

    kind = "local"
    nodes = ["localhost"]
    submit_flags = []

    def __init__(self):
        self.home = tempfile.mkdtemp(prefix="basin-conformance-")
        self.shared = os.path.join(self.home, "shared")
        os.makedirs(self.shared)
        self.environment, self._mark = processes.marked_environment(HOME=self.home)
        self._started = []

    # Where a path of the submitter (below `home`), and of every node (below `shared`), lies for the test.
    def seen(self, path):
        return path

    def start(self, argv, **environment):
        process = processes.Process(argv, env=dict(self.environment, **environment), cwd=self.home)
        self._started.append(process)
        return process

    def pids(self):
        """{pid as the test sees it: what it is} of all that a run may have left, on every node and at the submitter."""
        return {pid: f"submitter: {ssh_hosts.command_line(pid)}" for pid in processes.marked_pids(self._mark)}

    def pid_on(self, node, pid):
        """A pid as the record of a run has it, as the test sees it."""
        return pid

    def listen_on(self, node, port):
        """A process that is none of Basin's and listens there until it is killed; where somebody does already, that one does."""
        return processes.listen_on(port)

    def runs_on_nodes(self):
        """Folders of runs that the nodes still have."""
        return glob.glob(os.path.join(self.home, ".cache", "basin", "runs", "*", "node-*"))

    def clear(self):
        """Between tests: ends what a failed test has left, and forgets its runs."""
        for process in self._started:
            process.kill()
        self._started = []
        end_all(lambda: list(self.pids()))
        shutil.rmtree(os.path.join(self.home, ".local"), ignore_errors=True)
        shutil.rmtree(os.path.join(self.home, ".cache", "basin", "runs"), ignore_errors=True)

    def stop(self):
        self.clear()
        shutil.rmtree(self.home)


# Short, so that a node that is out of reach is noticed while a test waits, and longer than a loaded machine lets a program wait for
# its turn; a real network deserves the defaults.
TARGETS = """lab:
  kind: ssh
  nodes: [h0, h1]
  ping_seconds: 1
  lease_seconds: 12
  detach_grace_seconds: 120
"""


class SshTarget:
    """Two hosts by ssh. h0 has Basin on its PATH, h1 has none: the bundle is sent there."""

    kind = "ssh"
    nodes = ["h0", "h1"]
    home = "/root"
    shared = "/shared"
    submit_flags = ["--target", "lab"]

    def __init__(self):
        ssh_hosts.skip_if_missing()
        processes.build_bundle()
        self.hosts = ssh_hosts.Hosts(2, bare={1})
        self.hosts.submitter.write("/root/.config/basin/targets.yaml", TARGETS)

    def seen(self, path):
        if path.startswith(self.shared + "/"):
            return os.path.join(self.hosts.shared, path[len(self.shared) + 1:])
        return self.hosts.submitter.path(path)

    def start(self, argv, **environment):
        return self.hosts.submitter.start(argv, **environment)

    def pids(self):
        return {pid: f"{host.name}: {text}" for host in [*self.hosts, self.hosts.submitter] for pid, text in host.pids().items()}

    def pid_on(self, node, pid):
        return next((one for one in self.host(node).pids() if pid_in_its_namespace(one) == pid), None)

    def host(self, node):
        return self.hosts[self.nodes.index(node)]

    def listen_on(self, node, port):
        return processes.listen_on(port, self.host(node).start)

    def runs_on_nodes(self):
        return [folder for host in self.hosts for folder in glob.glob(host.path("/root/.cache/basin/runs/*/node-*"))]

    def clear(self):
        for host in self.hosts:
            host.link_up()
        self.hosts.know_keys()
        for command in self.hosts.commands:
            command.kill()
        self.hosts.commands = []
        end_all(lambda: list(self.pids()))
        for host in self.hosts:
            shutil.rmtree(host.path("/root/.cache/basin/runs"), ignore_errors=True)
        shutil.rmtree(self.hosts.submitter.path("/root/.local"), ignore_errors=True)

    def stop(self):
        self.hosts.stop()


def pid_in_its_namespace(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[-1]) for line in file if line.startswith("NSpid:"))
    except OSError:
        return None


def end_all(pids):
    for pid in pids():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself
    processes.wait_until(lambda: not pids(), "all processes of the test have ended")
