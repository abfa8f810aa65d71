"""Model: a registered model, one version of it."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Mapping, Optional

from basin import program
from basin.core.workspace import Workspace
from basin.errors import AlreadyExists, InvalidArgument, InvalidJob, NotFound

_VERSION = re.compile(r'[1-9][0-9]*')


class Model:
    """One version of a registered model; the newest where none is named. Run.register_model makes them."""

    def __init__(self, workspace: Optional[Workspace] = None, name: Optional[str] = None, id: Optional[str] = None,
                 version: Optional[int] = None) -> None:
        """By its name, or by `id`, NAME:VERSION; InvalidArgument for an id of another form. NotFound where there is
        none."""
        if id is not None:
            if name is not None:
                raise InvalidArgument(f'Model: give name ({name}) or id ({id}), not both')
            name, colon, number = id.partition(':')
            if colon:
                if not _VERSION.fullmatch(number):
                    raise InvalidArgument(f'Model: id {id!r}: expected NAME:VERSION with a version of 1 or more, found '
                                          f'{number!r} after the colon')
                if version not in (None, int(number)):
                    raise InvalidArgument(f'Model: id {id!r} names another version than version={version}; give one of '
                                          'the two')
                version = int(number)
        if not name:
            raise InvalidArgument('Model: no name is given')
        self.workspace = workspace if workspace is not None else Workspace.from_config()
        which = name if version is None else f'{name}:{version}'
        try:
            record = program.ask(['models', 'show', which], self.workspace.runs)
        except InvalidJob as error:
            raise NotFound(str(error)) from None
        self._read(record)

    @classmethod
    def of_record(cls, workspace: Workspace, record: Dict[str, Any]) -> 'Model':
        model = cls.__new__(cls)
        model.workspace = workspace
        model._read(record)
        return model

    def _read(self, record: Dict[str, Any]) -> None:
        self.record = record
        self.name = str(record['name'])
        self.version = int(record['version'])
        self.path: Optional[str] = record.get('path')
        self.run_id: Optional[str] = record.get('run_id')
        self.checksum: Optional[str] = record.get('checksum')
        self.description: Optional[str] = record.get('description')
        self.created_time: Optional[str] = record.get('created')
        self.tags: Dict[str, str] = dict(record.get('tags') or {})
        self.properties: Dict[str, str] = dict(record.get('properties') or {})

    @property
    def id(self) -> str:
        return f'{self.name}:{self.version}'

    def __repr__(self) -> str:
        return f'Model(name={self.name!r}, version={self.version})'

    @staticmethod
    def list(workspace: Optional[Workspace] = None, name: Optional[str] = None,
             tags: Optional[Mapping[str, str]] = None, latest: bool = False, **unused: Any) -> 'List[Model]':
        """All versions, of all models or one; with `tags` those that have all of them; with `latest` the newest of each
        name."""
        workspace = workspace if workspace is not None else Workspace.from_config()
        found = [Model.of_record(workspace, record) for record in program.ask(['models', 'list'], workspace.runs)]
        found = [model for model in found if name in (None, model.name)
                 and dict(tags or {}).items() <= model.tags.items()]
        if latest:
            newest: Dict[str, Model] = {}
            for model in found:
                if model.name not in newest or newest[model.name].version < model.version:
                    newest[model.name] = model
            found = list(newest.values())
        return found

    def download(self, target_dir: str = '.', exist_ok: bool = False, exists_ok: Optional[bool] = None) -> str:
        """Copies the model's file or folder into target_dir, and returns its path there. AlreadyExists where something
        of its name is there, unless exist_ok."""
        target = os.path.join(os.path.abspath(target_dir), os.path.basename((self.path or self.name).rstrip('/')))
        if os.path.exists(target) and not (exist_ok or exists_ok):
            raise AlreadyExists(f'Model.download: {target} exists; give exist_ok=True to replace it')
        os.makedirs(target_dir, exist_ok=True)
        answer = program.ask(['models', 'download', self.id, '--to', target], self.workspace.runs)
        return str(answer.get('path', target)) if isinstance(answer, dict) else target
