"""Workspace: which runs folder, which targets file."""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any, Dict, Optional

from basin import program
from basin.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from basin.core.experiment import Experiment
    from basin.core.model import Model
    from basin.core.run import Run

FILE = pathlib.PurePath('.basin', 'config.json')


class Workspace:
    """Where runs are kept and which targets there are: on this machine, no account. All of it may be left out."""

    def __init__(self, name: str = 'local', runs: Optional[str] = None, targets: Optional[str] = None) -> None:
        """`runs`: the folder of all runs' folders; None: as `basin` decides ($BASIN_RUNS, else
        ~/.local/state/basin/runs). `targets`: a targets file besides the user's and the project's."""
        self.name = name
        self.runs = None if runs is None else os.path.abspath(os.path.expanduser(runs))
        self.targets = None if targets is None else os.path.abspath(os.path.expanduser(targets))

    def __repr__(self) -> str:
        return f'Workspace(name={self.name!r}, runs={self.runs!r}, targets={self.targets!r})'

    @classmethod
    def from_config(cls, path: Optional[str] = None, **unused: Any) -> 'Workspace':
        """Reads {"name", "runs", "targets"}, all optional, paths relative to the file. Without `path`: the file
        .basin/config.json of this folder or the nearest above; where there is none, the defaults. Other keys, such as
        those of an Azure workspace, say nothing here and are passed over; so are `auth` and its kin."""
        if path is None:
            here = pathlib.Path.cwd()
            file = next((folder / FILE for folder in (here, *here.parents) if (folder / FILE).is_file()), None)
            if file is None:
                return cls()
        else:
            file = pathlib.Path(path).expanduser()
            if file.is_dir():
                file = file / FILE
            if not file.is_file():
                raise NotFound(f'Workspace.from_config: {file} does not exist; leave the path out for the defaults')
        try:
            found = json.loads(file.read_text(encoding='utf-8'))
        except ValueError as error:
            raise InvalidArgument(f'{file}: not JSON: {error}') from None
        if not isinstance(found, dict):
            raise InvalidArgument(f'{file}: expected an object, found {type(found).__name__}')

        def place(key: str) -> Optional[str]:
            value = found.get(key)
            if value is None:
                return None
            if not isinstance(value, str):
                raise InvalidArgument(f'{file}: {key}: expected a path, found {value!r}')
            return str(file.parent / pathlib.Path(value).expanduser())
        return cls(str(found.get('name') or found.get('workspace_name') or 'local'), place('runs'), place('targets'))

    @classmethod
    def get(cls, name: str = 'local', **unused: Any) -> 'Workspace':
        """As from_config, under this name."""
        workspace = cls.from_config()
        workspace.name = name
        return workspace

    def write_config(self, path: Optional[str] = None, file_name: Optional[str] = None) -> None:
        """Writes what from_config reads, into the folder `path` (default: this one)."""
        file = pathlib.Path(path or '.') / FILE.parent / (file_name or FILE.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = {'name': self.name, 'runs': self.runs, 'targets': self.targets}
        file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}, indent=2) + '\n')

    @property
    def experiments(self) -> Dict[str, 'Experiment']:
        """By name, those that have a run."""
        from basin.core.experiment import Experiment
        records = program.ask(['runs', *program.ALL_RUNS], self.runs)
        return {name: Experiment(self, name) for name in sorted({record['experiment'] for record in records})}

    @property
    def models(self) -> Dict[str, 'Model']:
        """By name, the newest version of each."""
        from basin.core.model import Model
        return {model.name: model for model in Model.list(self, latest=True)}

    def get_run(self, run_id: str) -> 'Run':
        from basin.core.run import Run
        return Run.get(self, run_id)
