"""Environments, ports, servers and clients of the peers."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "install"), str(ROOT / "tests" / "cluster")]

from processes import free_ports  # noqa: E402,F401
from virtual_environment import python_with  # noqa: E402,F401

TENSORFLOW = ("tensorflow-cpu==2.21.0",)
TORCH = ("torch==2.15.0", "numpy==2.4.6")


class Server:
    """A process that serves until this ends. Some end with their standard input, all are ended at last."""

    def __init__(self, argv, program=None, said=None):
        """program: the file, where it is not argv[0]. said: with True, its first line is read into .first_line."""
        self._process = subprocess.Popen(argv, executable=program, stdin=subprocess.PIPE, stdout=subprocess.PIPE if said else subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL, text=True)
        self.first_line = self._process.stdout.readline().strip() if said else ""

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def lines_of(argv, limit_s):
    """The JSON lines that a client prints. A client that fails or prints none ends this program with what it said."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit_s,
                          errors="replace", check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr[-3000:]}")
    return lines
