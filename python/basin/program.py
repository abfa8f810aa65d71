"""The program `basin`: where it is, and asking it for JSON."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any, Dict, List, Optional, Sequence, Tuple

from basin.errors import CommandFailed, InvalidJob, ProgramNotFound

PACKAGE = pathlib.Path(__file__).resolve().parent
EXIT_USAGE = 2
ALL_RUNS = ('--limit', '0')  # `basin runs` lists the newest few otherwise


def find_program() -> str:
    """BASIN_PROGRAM, else beside the package, else on PATH. ProgramNotFound lists where it was looked for."""
    named = os.environ.get('BASIN_PROGRAM')
    # Who names a program means that one; another in its place would be a surprise.
    places = [named] if named else [str(above / 'bin' / 'basin') for above in (PACKAGE.parent, PACKAGE.parent.parent)]
    for place in places:
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return place
    on_path = None if named else shutil.which('basin')
    if on_path:
        return on_path
    why = ' (BASIN_PROGRAM)' if named else ', PATH'
    raise ProgramNotFound(f'the program basin was not found; set BASIN_PROGRAM to its path. Looked at: '
                          f'{", ".join(places)}{why}')


def _environment(runs: Optional[str]) -> Dict[str, str]:
    environment = dict(os.environ)
    if runs:
        environment['BASIN_RUNS'] = runs
    return environment


def _message(text: str, arguments: Sequence[str]) -> str:
    """What `basin` said of its failure: its lines without their prefix."""
    lines = [re.sub(r'^basin: (error: )?', '', line) for line in text.strip().splitlines()]
    return '\n'.join(lines) or f'basin {" ".join(arguments)} failed and said nothing'


def run(arguments: Sequence[str], runs: Optional[str] = None) -> Tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    done = subprocess.run([find_program(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors='replace', env=_environment(runs))
    return done.returncode, done.stdout, done.stderr


def parsed(text: str) -> Any:
    """The JSON of a text; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def failure(code: int, errors: str, arguments: Sequence[str]) -> CommandFailed:
    message = _message(errors, arguments)
    return InvalidJob(message, code) if code == EXIT_USAGE else CommandFailed(message, code)


def ask(arguments: List[str], runs: Optional[str] = None) -> Any:
    """Runs `basin ARGUMENTS --json` and returns what it printed. Raises CommandFailed, or InvalidJob where the input
    was wrong."""
    arguments = [*arguments, '--json']
    code, out, errors = run(arguments, runs)
    if code != 0:
        raise failure(code, errors, arguments)
    answer = parsed(out)
    if answer is None:
        raise CommandFailed(f'basin {" ".join(arguments)} printed no JSON: {out[:200]!r}')
    return answer
