"""Starting and watching real processes, for the tests of whole clusters. Standard library only.

Every wait has a deadline and fails with what was seen so far. Processes are killed by pid alone. A test that wants to
know about all processes below one it started gives it a mark in the environment (`marked_environment`), which every
descendant inherits, however often it forks.
"""

import fcntl
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
import uuid

DEADLINE_S = 180.0  # it ends only what has failed; one step of a test may wait for the cores that long, beside other tests
MARK = "BASIN_TEST_MARK"


def binary(name):
    """Path of a program of this build."""
    return os.path.join(os.environ["BASIN_BINARY_DIR"], "bin", name)


def build_bundle():
    """The archive of the programs as they are built now. One test at a time: a build folder is for one build."""
    with open(os.path.join(os.environ["BASIN_BINARY_DIR"], "bundle.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["cmake", "--build", os.environ["BASIN_BINARY_DIR"], "--target", "bundle"], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def source(*parts):
    return os.path.join(os.environ["BASIN_SOURCE_DIR"], *parts)


def free_ports(count):
    """Ports of 127.0.0.1 that were all free at one moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(condition, what, deadline_s=DEADLINE_S):
    """Polls `condition` until it is true, and returns its value. AssertionError naming `what` at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(0.02)


def marked_environment(**more):
    """A copy of the environment with a fresh mark, and the mark."""
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items()
                   if name != "TF_CONFIG" and not (name.startswith("BASIN_") and not name.endswith("_DIR"))}
    environment.update({MARK: mark}, **more)
    return environment, mark


def marked_pids(mark):
    """Living processes (zombies do not count) whose environment holds the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0") and not is_zombie(int(name)):
                    found.append(int(name))
        except OSError:
            pass  # it has just ended, or is not ours to read
    return found


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}") and not is_zombie(pid)


class Process:
    """A program with its output read line by line, standard output and errors apart.

    Use it as a context manager: at the end it is killed, if it still runs.
    """

    def __init__(self, argv, env=None, cwd=None, pass_fds=()):
        self.argv = [str(word) for word in argv]
        self.lines = []        # (stream, text) as they came
        self._arrived = queue.Queue()
        self._process = subprocess.Popen(self.argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True, errors="replace", pass_fds=pass_fds)
        self._readers = [threading.Thread(target=self._read, args=(stream, name), daemon=True)
                         for stream, name in ((self._process.stdout, "out"), (self._process.stderr, "err"))]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, name):
        for line in stream:
            self.lines.append((name, line.rstrip("\n")))
            self._arrived.put(line)
        stream.close()

    @property
    def pid(self):
        return self._process.pid

    def running(self):
        return self._process.poll() is None

    def text(self, stream=None):
        return "\n".join(line for name, line in list(self.lines) if stream in (None, name))

    def wait_for_line(self, pattern, deadline_s=DEADLINE_S):
        """The first line, of those seen already or still to come, in which the regular expression is found."""
        end = time.monotonic() + deadline_s
        looked_at = 0
        while True:
            ended = not self.running() and not any(reader.is_alive() for reader in self._readers)
            while looked_at < len(self.lines):
                line = self.lines[looked_at][1]
                looked_at += 1
                if re.search(pattern, line):
                    return line
            if ended or time.monotonic() > end:
                raise AssertionError(f"no line with {pattern!r} ({'it ended' if ended else f'{deadline_s} s'}): "
                                     f"{' '.join(self.argv)}\n{self.text()}")
            try:
                self._arrived.get(timeout=0.1)
            except queue.Empty:
                pass

    def wait(self, deadline_s=DEADLINE_S):
        """The exit code, once all output has been read; negative: the signal that ended it."""
        try:
            code = self._process.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s} s: {' '.join(self.argv)}\n{self.text()}") from None
        for reader in self._readers:
            reader.join(timeout=deadline_s)
        return code

    def send(self, number):
        self._process.send_signal(number)

    def kill(self):
        if self.running():
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.kill()
        for reader in self._readers:
            reader.join(timeout=5)


def run(argv, env=None, cwd=None, deadline_s=DEADLINE_S):
    """Runs a program to its end: (exit code, standard output, standard error)."""
    with Process(argv, env=env, cwd=cwd) as process:
        code = process.wait(deadline_s)
        return code, process.text("out"), process.text("err")


LISTEN = """
import socket, sys, time
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    one.bind(("", int(sys.argv[1])))
    one.listen()
except OSError as error:
    print("somebody does already:", error)
print("listening", flush=True)
time.sleep(3600)
"""


def listen_on(port, start=Process):
    """A process that is none of Basin's and listens there until it is killed; where somebody does already, that one does.
    `start`: by what it is started, on another host perhaps."""
    process = start(["/usr/bin/python3", "-c", LISTEN, str(port)])
    process.wait_for_line("^listening$")
    return process
