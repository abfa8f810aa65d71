"""Environment: what `environment_definition` names."""

from __future__ import annotations

import os

from basin.errors import NotFound


class Environment:
    """A file of the source directory that describes an environment. Make one with from_conda_specification."""

    def __init__(self, name: str, file_path: str) -> None:
        self.name = name
        self.file_path = os.path.abspath(file_path)
        if not os.path.isfile(self.file_path):
            raise NotFound(f'Environment {name}: {self.file_path} does not exist')

    @classmethod
    def from_conda_specification(cls, name: str, file_path: str) -> 'Environment':
        """The conda file, by its path."""
        return cls(name, file_path)
