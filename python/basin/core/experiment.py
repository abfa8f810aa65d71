"""Experiment: a name under which runs are kept together."""

from __future__ import annotations

import json
import os
import re
import tempfile
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Tuple

from basin import program
from basin.core.run import Run
from basin.core.workspace import Workspace
from basin.errors import InvalidArgument

if TYPE_CHECKING:
    from basin.train.estimator import Estimator

OVERRIDES = ('script_params', 'inputs', 'compute_target')
TARGETS_FILE = 'targets.yaml'  # of a project


# What `basin` advises who has a command line and a job file, and what is the same here.
ADVICE = (
    (r'correct the path in the estimator or give --input \w+=PATH',
     "correct the path in the estimator's inputs, or give inputs=[...] anew at submit"),
    (r"from the job file's own folder", "from the program's working directory"),
    (r', or give --hosts h0,h1', ''),
    (r' \(--hosts h0,h1 makes one\)', ''),
)


def _in_words_of_python(errors: str, folder: str, path: str) -> str:
    """What `basin submit` said of the job file `path`, which is gone when the message is read."""
    # Its lines say nothing to who wrote an estimator.
    errors = re.sub(re.escape(path) + r'(:\d+:\d+)?', 'the estimator', errors)
    errors = errors.replace(os.path.join(folder, TARGETS_FILE), os.path.abspath(TARGETS_FILE))
    for theirs, here in ADVICE:
        errors = re.sub(theirs, here, errors)
    return errors


class Experiment:
    """Makes nothing by itself: the first run does."""

    def __init__(self, workspace: Optional[Workspace] = None, name: str = 'default') -> None:
        self.workspace = workspace if workspace is not None else Workspace.from_config()
        self.name = name

    def __repr__(self) -> str:
        return f'Experiment(name={self.name!r}, workspace={self.workspace!r})'

    def submit(self, config: 'Estimator', tags: Optional[Mapping[str, str]] = None, **overrides: Any) -> Run:
        """Starts a run and returns once it is running, or has ended before that; it goes on when this program ends.

        `overrides`: script_params and inputs, which join the estimator's (those of the same name win), and
        compute_target. InvalidJob: the job is wrong, and nothing was started.
        """
        code, out, errors = self._submit(config, overrides, '--detach')
        record = program.parsed(out)
        # A run that failed while it was started is a run all the same: it has a folder, logs, and a reason.
        if not isinstance(record, dict) or 'run_id' not in record:
            raise program.failure(code, errors, ['submit'])
        run = Run(self, record['run_id'], record)
        if tags:
            run.set_tags(tags)
        return run

    def plan(self, config: 'Estimator', **overrides: Any) -> Dict[str, Any]:
        """What `submit` would start: the tasks with their commands and TF_CONFIG. Starts nothing; ports are those that
        are free now. InvalidJob where the job is wrong."""
        code, out, errors = self._submit(config, overrides, '--dry-run')
        plan = program.parsed(out)
        if code != 0 or not isinstance(plan, dict):
            raise program.failure(code, errors, ['submit', '--dry-run'])
        return plan

    def job(self, config: 'Estimator', **overrides: Any) -> Dict[str, Any]:
        """The job file's content, as submit writes it."""
        # Here, for basin.train imports from basin.core.
        from basin.train.estimator import Estimator
        from basin.train.job import with_overrides
        if not isinstance(config, Estimator):
            raise InvalidArgument(f'submit: expected an Estimator, found {type(config).__name__}')
        for name in overrides:
            if name not in OVERRIDES:
                raise InvalidArgument(f'submit: {name} cannot be given anew for one run, only {", ".join(OVERRIDES)} '
                                      'can; make another estimator')
        return {'experiment': self.name, **with_overrides(config.job(), **overrides)}

    def _submit(self, config: 'Estimator', overrides: Mapping[str, Any], *flags: str) -> Tuple[int, str, str]:
        job = self.job(config, **overrides)
        # `basin` has read it when it returns, and keeps what it understood in the run's folder.
        with tempfile.TemporaryDirectory(prefix='basin-job-') as folder:
            path = os.path.join(folder, 'job.json')
            with open(path, 'w', encoding='utf-8') as file:
                json.dump(job, file, indent=2, ensure_ascii=False)
            targets = self._targets_file(str(job.get('compute_target', 'local')))
            more = ['--targets', targets] if targets else []
            code, out, errors = program.run(['submit', path, *flags, *more, '--json'], self.workspace.runs)
        return code, out, _in_words_of_python(errors, folder, path)

    def _targets_file(self, target: str) -> Optional[str]:
        """What defines the target, for --targets: the workspace's file, or targets.yaml of the working directory, which
        `basin submit` finds by itself for a job file that lies there."""
        named, here = self.workspace.targets, os.path.abspath(TARGETS_FILE)
        if target == 'local' or not os.path.isfile(here):
            return named
        if named is None:
            return here
        # Two files, and one may be named. `basin targets` looks at both, in their order.
        known: List[Dict[str, Any]] = program.ask(['targets', '--targets', named], self.workspace.runs)
        return next((one.get('source') for one in known if one['name'] == target), None) or named

    def get_runs(self, tags: Optional[Mapping[str, str]] = None, **unused: Any) -> Iterator[Run]:
        """All of them, newest first; with `tags` those that have all of them."""
        records: List[Dict[str, Any]] = program.ask(['runs', f'--experiment={self.name}', *program.ALL_RUNS],
                                                    self.workspace.runs)
        for record in records:
            run = Run(self, record['run_id'], record)
            if not tags or dict(tags).items() <= run.get_tags().items():
                yield run
