"""The logs of a run's tasks, printed as they grow."""

from __future__ import annotations

import glob
import os
import re
from typing import Dict, List, TextIO

# A task's, or of the making of a node's environment: what `basin logs` shows. Beside them lie the agents' logs, and
# what scripts have put into ./logs.
SHOWN = re.compile(r'(?:chief|worker|ps|evaluator|mpirun|orted)-(?:0|[1-9][0-9]*)|environment-.*')
MOST_BYTES = 1 << 20  # of one file at a time


class TaskLogs:
    """Follows the tasks' logs/*.txt of a run's folder: whole lines, each with its task's name before it."""

    def __init__(self, folder: str, out: TextIO) -> None:
        self._pattern = os.path.join(glob.escape(folder), 'logs', '*.txt')
        self._out = out
        self._offsets: Dict[str, int] = {}
        self._rest: Dict[str, bytes] = {}

    def show(self, ended: bool = False) -> None:
        """What has come since; with `ended` also a last line without its end."""
        for path in sorted(glob.glob(self._pattern)):
            name = os.path.basename(path)[:-len('.txt')]
            if not SHOWN.fullmatch(name):
                continue
            while self._show_some(path, name):
                pass
            if ended and self._rest.get(path):
                self._print(name, [self._rest.pop(path)])
        self._out.flush()

    def _show_some(self, path: str, name: str) -> bool:
        with open(path, 'rb') as file:
            file.seek(self._offsets.get(path, 0))
            some = file.read(MOST_BYTES)
        if not some:
            return False
        self._offsets[path] = self._offsets.get(path, 0) + len(some)
        lines = (self._rest.get(path, b'') + some).split(b'\n')
        self._rest[path] = lines.pop()
        self._print(name, lines)
        return True

    def _print(self, name: str, lines: List[bytes]) -> None:
        for line in lines:
            print(f'[{name}] {line.decode(errors="replace")}', file=self._out)
