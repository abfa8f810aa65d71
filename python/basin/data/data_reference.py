"""DataReference, the older way to name an input."""

from __future__ import annotations

import os
from typing import Any, Optional

from basin.core.dataset import NamedInput


class DataReference(NamedInput):
    """A folder that every node sees, under a name."""

    def __init__(self, datastore: str, data_reference_name: Optional[str] = None,
                 path_on_datastore: Optional[str] = None, mode: str = 'mount', **unused: Any) -> None:
        """`datastore`: the folder; `path_on_datastore`: below it. The name is the folder's own where none is given."""
        path = os.path.abspath(os.path.expanduser(os.path.join(os.fspath(datastore), path_on_datastore or '')))
        super().__init__(data_reference_name or os.path.basename(path.rstrip('/')), path)
        self.data_reference_name = self.name
