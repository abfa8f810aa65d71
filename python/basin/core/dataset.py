"""Named inputs: paths that every node sees."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Optional, Sequence, Union

from basin.errors import InvalidArgument, Unimplemented

_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,63}')


def check_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(f'input name {name!r}: use letters, digits and _, not a digit first (it becomes part of '
                              'the variable BASIN_INPUT_<NAME>)')
    return name


class NamedInput:
    """A path under a name, for Estimator(inputs=[...]) or as a value of script_params: the script gets the path."""

    def __init__(self, name: str, path: str) -> None:
        self.name = check_name(name)
        self.path = path

    def as_mount(self, path_on_compute: Optional[str] = None) -> 'NamedInput':
        """The path as it is: nothing is mounted, every node sees it already."""
        return self._at(path_on_compute)

    def as_download(self, path_on_compute: Optional[str] = None, overwrite: bool = False) -> 'NamedInput':
        """As as_mount: nothing is copied."""
        return self._at(path_on_compute)

    as_hdfs = as_direct = as_mount

    def _at(self, path_on_compute: Optional[str]) -> 'NamedInput':
        if path_on_compute not in (None, self.path):
            raise Unimplemented(f'input {self.name}: path_on_compute {path_on_compute!r}: the script reads {self.path} '
                                'itself; leave path_on_compute out, the script gets the path as its argument')
        return self

    def to_job(self) -> Dict[str, str]:
        return {'name': self.name, 'path': self.path}

    def __repr__(self) -> str:
        return f'NamedInput({self.name!r}, {self.path!r})'


class FileDataset:
    """Files at a path that every node of the target sees, such as a shared file system's."""

    def __init__(self, path: str) -> None:
        self.path = path

    def as_named_input(self, name: str) -> NamedInput:
        return NamedInput(name, self.path)

    def as_mount(self, path_on_compute: Optional[str] = None) -> NamedInput:
        """Under the name of its last part, with _ for what a name cannot hold."""
        name = re.sub(r'\W', '_', os.path.basename(self.path.rstrip('/')) or 'data', flags=re.ASCII)
        return NamedInput('_' + name if name[0].isdigit() else name, self.path).as_mount(path_on_compute)

    as_download = as_mount


class _File:
    @staticmethod
    def from_files(path: Union[str, 'os.PathLike[str]', Sequence[Any]], validate: bool = True,
                   **unused: Any) -> FileDataset:
        """A file, a folder or a pattern (/data/clicks/*.parquet); relative paths are taken from this folder. One path:
        the job file's inputs have one each."""
        if isinstance(path, (list, tuple)):
            if len(path) != 1:
                raise InvalidArgument(f'Dataset.File.from_files: {len(path)} paths; an input has one path, so make one '
                                      'dataset each, or name their folder')
            path = path[0]
        text = str(path)
        if '://' in text:
            raise Unimplemented(f'Dataset.File.from_files: {text}: only paths that every node sees can be inputs; copy '
                                'it to a shared folder and name that')
        return FileDataset(os.path.abspath(os.path.expanduser(text)))


class Dataset:
    File = _File
