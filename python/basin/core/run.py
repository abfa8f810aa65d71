"""Run: one execution of a job, seen from outside, and Run.get_context(), seen from the script."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional

from basin import program
from basin.core.script_run import OfflineRun, ScriptContext, ScriptRun, script_run_here
from basin.core.task_logs import TaskLogs
from basin.core.workspace import Workspace
from basin.errors import FailedPrecondition, InvalidArgument, InvalidJob, NotFound, RunFailed

if TYPE_CHECKING:
    from basin.core.experiment import Experiment
    from basin.core.model import Model

ENDED = ('Completed', 'Failed', 'Canceled')
POLL_S = (0.1, 2.0)  # between two looks at a run: at first, at last
UNSUPERVISED = 'nobody supervises this run'  # how `basin show` begins the reason of a run that cannot end by itself
NO_SUCH_FILE = 'has no such file'  # in what `basin download` says of one


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


class Run:
    """A run of an experiment. What it says is asked of `basin` each time, so that it is so now."""

    def __init__(self, experiment: Optional['Experiment'], run_id: str,
                 record: Optional[Dict[str, Any]] = None) -> None:
        self.experiment = experiment
        self.id = run_id
        self._last = record

    @classmethod
    def get(cls, workspace: Optional[Workspace], run_id: str) -> 'Run':
        """By its id, a unique beginning of it, EXPERIMENT/ID, or 'latest'. NotFound where there is none."""
        from basin.core.experiment import Experiment
        workspace = workspace if workspace is not None else Workspace.from_config()
        try:
            record = program.ask(['show', run_id], workspace.runs)
        except InvalidJob as error:
            raise NotFound(str(error)) from None
        return cls(Experiment(workspace, record['experiment']), record['run_id'], record)

    @classmethod
    def get_context(cls, allow_offline: bool = True, **unused: Any) -> ScriptContext:
        """For the script: the run that this process is a task of. Outside of one, a run that prints what is logged, or
        FailedPrecondition with allow_offline=False."""
        here = script_run_here()
        if here is not None:
            return here
        if not allow_offline:
            raise FailedPrecondition('Run.get_context: this process is no task of a run (BASIN_RUN_ID and '
                                     'BASIN_METRICS_FILE are not set); start it by `basin submit`')
        return OfflineRun()

    def __repr__(self) -> str:
        return f'Run(id={self.id!r})'

    def _runs(self) -> Optional[str]:
        return self.experiment.workspace.runs if self.experiment is not None else None

    def _record(self) -> Dict[str, Any]:
        record: Dict[str, Any] = program.ask(['show', self.id], self._runs())
        self._last = record
        return record

    def _fixed(self, name: str) -> Any:
        """A field that does not change in a run's life."""
        known = (self._last or {}).get(name)
        return known if known is not None else self._record().get(name)

    @property
    def workspace(self) -> Workspace:
        return self.experiment.workspace if self.experiment is not None else Workspace.from_config()

    @property
    def status(self) -> str:
        return self.get_status()

    def get_status(self) -> str:
        """One of NotStarted, Starting, Provisioning, Preparing, Queued, Running, Finalizing, CancelRequested,
        NotResponding; at the end Completed, Failed or Canceled."""
        return str(self._record()['state'])

    def get_portal_url(self) -> str:
        """The run's page, as a file:// URL."""
        return str(self._fixed('portal_url'))

    @property
    def folder(self) -> str:
        """The run's folder on this machine."""
        return str(self._fixed('folder'))

    def get_details(self) -> Dict[str, Any]:
        """In Azure's names; `record` is all that `basin show` says."""
        record = self._record()
        details = {
            'runId': self.id, 'target': record.get('target'), 'status': record['state'],
            'startTimeUtc': record.get('created'), 'endTimeUtc': record.get('ended'),
            'properties': record.get('git') or {},
            'logFiles': {name: os.path.join(record['folder'], name) for name in record.get('files', ())
                         if name.startswith('logs/')},
            'record': record,
        }
        if record['state'] == 'Failed':
            details['error'] = record.get('reason') or 'failed'
        return details

    def get_properties(self) -> Dict[str, str]:
        """Git: azureml.git.commit and its kin, where the source directory is in a repository."""
        return dict(self._fixed('git') or {})

    @property
    def properties(self) -> Dict[str, str]:
        return self.get_properties()

    # ---- Waiting and ending ----

    def wait_for_completion(self, show_output: bool = False, wait_post_processing: bool = False,
                            raise_on_error: bool = True) -> Dict[str, Any]:
        """Waits until the run has ended, and returns get_details(). RunFailed where it failed, unless raise_on_error is
        False; a canceled run is returned. A run that does not respond is told of on standard error; one that nobody
        supervises any more counts as failed, for it would be waited for forever: the message says how to go on with it.
        `show_output` prints the tasks' logs as they grow. Its outputs are collected when this returns, whatever
        wait_post_processing says."""
        logs = TaskLogs(self.folder, sys.stdout) if show_output else None
        if logs:
            print(f'RunId: {self.id}\nWeb View: {self.get_portal_url()}', flush=True)
        pause, told, unsupervised = POLL_S[0], '', 0
        while True:
            record = self._record()
            state, reason = str(record['state']), str(record.get('reason') or '')
            if logs:
                logs.show()
            if state in ENDED:
                break
            if state == 'NotResponding' and reason != told:
                print(f'run {self.id} does not respond: {reason}', file=sys.stderr, flush=True)
                told = reason
            # Twice in a row: its supervisor may just have ended, after the record that was read.
            unsupervised = unsupervised + 1 if reason.startswith(UNSUPERVISED) else 0
            if unsupervised == 2:
                break
            time.sleep(pause)
            pause = min(POLL_S[1], pause * 1.5)
        if logs:
            logs.show(ended=True)
            print(f'Run {self.id}: {state}', flush=True)
        details = self.get_details()
        if unsupervised == 2:
            details['error'] = reason
            if raise_on_error:
                raise RunFailed(f'run {self.id}: {reason}')
        if state == 'Failed' and raise_on_error:
            raise RunFailed(f'run {self.id} failed: {details["error"]}; its logs are in {self.folder}/logs')
        return details

    def cancel(self) -> None:
        """Asks the run to end; wait_for_completion tells when it has. A run that has ended stays as it is."""
        program.ask(['cancel', self.id], self._runs())

    # ---- Metrics ----

    def log(self, name: str, value: Any, description: str = '', step: Optional[int] = None) -> None:
        """One more value of a metric, in a task of this run, as Run.get_context().log. FailedPrecondition elsewhere: a
        run's metrics are what its tasks wrote."""
        self._of_this_task('log').log(name, value, description, step)

    def log_list(self, name: str, value: Iterable[Any], description: str = '') -> None:
        """As log."""
        self._of_this_task('log_list').log_list(name, value, description)

    def log_row(self, name: str, description: Optional[str] = None, **columns: Any) -> None:
        """As log."""
        self._of_this_task('log_row').log_row(name, description, **columns)

    def _of_this_task(self, method: str) -> ScriptRun:
        here = script_run_here()
        if here is None or here.id != self.id:
            found = 'no task of a run' if here is None else f'a task of run {here.id}'
            raise FailedPrecondition(f'Run.{method}: run {self.id} takes metrics from its own tasks, and this process '
                                     f'is {found}; call Run.get_context().{method}(...) in the entry script')
        return here

    # ---- What it left ----

    def get_metrics(self, name: Optional[str] = None, **unused: Any) -> Dict[str, Any]:
        """{name: value} of what was logged once, {name: [values in the order of time]} of the rest."""
        series: Dict[str, List[Dict[str, Any]]] = program.ask(['metrics', self.id], self._runs())
        found: Dict[str, Any] = {}
        for one, points in series.items():
            if name is not None and one != name:
                continue
            # nan and infinity are texts in JSON, and float reads them.
            in_order = sorted(points, key=lambda point: float(point.get('time') or 0))
            values = [_number(point['value']) for point in in_order]
            found[one] = values[0] if len(values) == 1 else values
        return found

    def get_file_names(self) -> List[str]:
        """outputs/... and logs/..., as they are in the run's folder."""
        return [str(name) for name in self._record().get('files', ())]

    def download_file(self, name: str, output_file_path: Optional[str] = None) -> None:
        """One file, to output_file_path: a file's name, or a folder that exists. Without it: to this folder. NotFound
        where the run has no such file, InvalidJob for what else is refused."""
        target = output_file_path or os.path.basename(name)
        if os.path.isdir(target):
            target = os.path.join(target, os.path.basename(name))
        parent = os.path.dirname(os.path.abspath(target))
        os.makedirs(parent, exist_ok=True)
        try:
            program.ask(['download', self.id, name, '--to', os.path.abspath(target)], self._runs())
        except InvalidJob as error:
            # The exit code is that of a wrong name and of a file that is none to hand out, too.
            if NO_SUCH_FILE not in str(error):
                raise
            raise NotFound(str(error)) from None

    def download_files(self, prefix: Optional[str] = None, output_directory: Optional[str] = None) -> None:
        """All files whose names begin with `prefix`, under their names below output_directory."""
        for name in self.get_file_names():
            if name.startswith(prefix or ''):
                self.download_file(name, os.path.join(output_directory or '.', name))

    def register_model(self, model_name: str, model_path: Optional[str] = None,
                       tags: Optional[Mapping[str, str]] = None, properties: Optional[Mapping[str, str]] = None,
                       description: Optional[str] = None) -> 'Model':
        """The file or folder `model_path` of the run (outputs/model.h5) under `model_name`, as its next version.
        Without a path model_name is the path; where that does not exist the error lists the run's files."""
        from basin.core.model import Model
        words = ['models', 'register', model_name, '--run', self.id]
        if model_path:
            words += ['--path', model_path]
        for flag, pairs in (('--tag', tags), ('--property', properties)):
            for key, value in (pairs or {}).items():
                if '=' in str(key):
                    raise InvalidArgument(f'register_model: {flag[2:]} {key!r} has a = in its name')
                words += [flag, f'{key}={value}']
        if description:
            words += ['--description', description]
        return Model.of_record(self.workspace, program.ask(words, self._runs()))

    # ---- Tags, kept in the run's folder ----

    def _tags_file(self) -> str:
        return os.path.join(self.folder, 'tags.json')

    def get_tags(self) -> Dict[str, str]:
        try:
            with open(self._tags_file(), encoding='utf-8') as file:
                return {str(key): str(value) for key, value in json.load(file).items()}
        except FileNotFoundError:
            return {}

    @property
    def tags(self) -> Dict[str, str]:
        return self.get_tags()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Adds these tags, in place of those of the same name."""
        whole = {**self.get_tags(), **{str(key): str(value) for key, value in tags.items()}}
        temporary = f'{self._tags_file()}.{os.getpid()}'
        with open(temporary, 'w', encoding='utf-8') as file:
            json.dump(whole, file, indent=2, ensure_ascii=False)
        os.replace(temporary, self._tags_file())

    def tag(self, key: str, value: str = '') -> None:
        self.set_tags({key: value})
