"""The run as its own script sees it: logging metrics, finding inputs."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from types import TracebackType
from typing import Any, Dict, Iterable, Optional, Type, TypeVar

from basin.errors import InvalidArgument

MOST_NAME_BYTES = 256
_TEXTS = {'nan': 'NaN', 'inf': 'Infinity', '-inf': '-Infinity'}
INPUT = 'AZUREML_DATAREFERENCE_'

_Self = TypeVar('_Self', bound='ScriptContext')


class ScriptContext:
    """What Run.get_context() returns. Its methods are those of Azure's run that a script needs."""

    id: str = ''

    def _write(self, name: str, value: float, step: Optional[int]) -> None:
        raise NotImplementedError

    def log(self, name: str, value: Any, description: str = '', step: Optional[int] = None) -> None:
        """One more value of a metric: repeats extend its series. A value that is no number is refused; nan and infinity
        are numbers."""
        self._write(name, self._number(name, value), step)

    def log_list(self, name: str, value: Iterable[Any], description: str = '') -> None:
        """Several values of a metric, in order."""
        for one in value:
            self.log(name, one)

    def log_row(self, name: str, description: Optional[str] = None, **columns: Any) -> None:
        """One row of a metric with columns: each becomes the metric NAME.COLUMN."""
        for column, value in columns.items():
            self.log(f'{name}.{column}', value)

    @staticmethod
    def _number(name: str, value: Any) -> float:
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f'log: a metric is named by a text, found {name!r}')
        if len(name.encode()) > MOST_NAME_BYTES or any(character < ' ' or character == '\x7f' for character in name):
            raise InvalidArgument(f'log: {name[:50]!r}: a name has at most {MOST_NAME_BYTES} bytes and no control '
                                  'characters')
        if not isinstance(value, str):
            try:
                return float(value)
            except (TypeError, ValueError):
                pass
        raise InvalidArgument(f'log: {name}: expected a number, found {value!r:.100}')

    @property
    def input_datasets(self) -> Dict[str, str]:
        """The paths of the job's inputs by their names."""
        return {name[len(INPUT):]: path for name, path in os.environ.items() if name.startswith(INPUT)}

    def upload_file(self, name: str, path_or_stream: Any) -> None:
        """Copies a file to `name`, below outputs/ or logs/, from where it is kept with the run."""
        target = os.path.normpath(name)
        if target.split(os.sep)[0] not in ('outputs', 'logs'):
            raise InvalidArgument(f'upload_file: {name}: only what lies below outputs/ or logs/ is kept')
        os.makedirs(os.path.dirname(target) or '.', exist_ok=True)
        if hasattr(path_or_stream, 'read'):
            with open(target, 'wb') as file:
                shutil.copyfileobj(path_or_stream, file)
        elif not (os.path.exists(target) and os.path.samefile(path_or_stream, target)):
            shutil.copyfile(path_or_stream, target)

    def flush(self, timeout_seconds: int = 300) -> None:
        """Nothing waits to be written."""

    def complete(self) -> None:
        """The run ends when its script does."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        return None


class ScriptRun(ScriptContext):
    """In a task: metrics go to the file that BASIN_METRICS_FILE names, from where the run collects them."""

    def __init__(self, run_id: str, metrics_file: str) -> None:
        self.id = run_id
        self._file = metrics_file

    def __repr__(self) -> str:
        return f'ScriptRun(id={self.id!r})'

    def _write(self, name: str, value: float, step: Optional[int]) -> None:
        # JSON has no nan and no infinity; as texts they are read back.
        line: Dict[str, Any] = {'name': name, 'value': value if math.isfinite(value) else _TEXTS[str(value)]}
        if step is not None:
            line['step'] = int(step)
        line['time'] = round(time.time(), 3)
        data = json.dumps(line, ensure_ascii=False).encode() + b'\n'
        # One short write to a file opened for appending is not mixed with another process's.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def script_run_here() -> Optional[ScriptRun]:
    """The run that this process is a task of."""
    run_id, metrics_file = os.environ.get('BASIN_RUN_ID'), os.environ.get('BASIN_METRICS_FILE')
    return ScriptRun(run_id, metrics_file) if run_id and metrics_file else None


class OfflineRun(ScriptContext):
    """Outside of any run: what is logged is printed."""

    id = 'OfflineRun'

    def __repr__(self) -> str:
        return 'OfflineRun()'

    def _write(self, name: str, value: float, step: Optional[int]) -> None:
        at = '' if step is None else f' at step {step}'
        print(f'metric {name} = {value:.10g}{at}', file=sys.stdout, flush=True)
