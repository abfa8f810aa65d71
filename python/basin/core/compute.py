"""Where a job runs, by name."""

from __future__ import annotations

from typing import Optional, Union

from basin.core.workspace import Workspace
from basin.errors import InvalidArgument


class ComputeTarget:
    """A target of the targets file, or 'local'. Whether it exists is seen when a job is submitted to it."""

    def __init__(self, workspace: Optional[Workspace] = None, name: str = 'local') -> None:
        self.workspace = workspace
        self.name = name

    def __repr__(self) -> str:
        return f'ComputeTarget(name={self.name!r})'


# The kinds of Azure's targets differ in how they are made; here a target is an entry of a file.
AmlCompute = ComputeTarget


def name_of(target: Union[None, str, ComputeTarget]) -> str:
    if target is None:
        return 'local'
    if isinstance(target, ComputeTarget):
        return target.name
    if isinstance(target, str) and target:
        return target
    raise InvalidArgument(f'compute_target: expected a name or a ComputeTarget, found {target!r}')
