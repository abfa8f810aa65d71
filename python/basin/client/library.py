"""Where libbasin.so is, and loading it once."""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
from typing import List, Optional, Tuple

from basin.client import abi
from basin.errors import LibraryNotFound

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ('lib', 'lib64', 'lib/x86_64-linux-gnu')

_lock = threading.Lock()
_loaded: Optional[ctypes.CDLL] = None


def places() -> List[Tuple[str, str]]:
    """(path, what names it), in the order in which they are tried. The last is left to the system's loader."""
    named = os.environ.get('BASIN_LIBRARY')
    if named:
        # Who names a library means that one; another in its place would be a surprise.
        return [(named, 'BASIN_LIBRARY')]
    beside = [(str(above / folder / 'libbasin.so'), 'beside the package')
              for above in (PACKAGE.parent, PACKAGE.parent.parent) for folder in FOLDERS]
    return beside + [('libbasin.so.0', "the system's loader: LD_LIBRARY_PATH, ldconfig")]


def open_library() -> ctypes.CDLL:
    looked_at = []
    for path, why in places():
        if os.sep in path and not os.path.exists(path):
            looked_at.append(f'{path} ({why}): does not exist')
            continue
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            looked_at.append(f'{path} ({why}): {error}')
    raise LibraryNotFound('libbasin.so was not found; set BASIN_LIBRARY to its path. Looked at:\n  ' +
                          '\n  '.join(looked_at))


def library() -> ctypes.CDLL:
    """The library with its functions' types set. LibraryNotFound where there is none, or one of another ABI.

    ctypes loads it with RTLD_LOCAL and it exports its C ABI alone, so it lives beside TensorFlow, PyTorch and onnx with
    their own protobuf and Abseil, whichever came first.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            found = open_library()
            version = int(found.basin_abi_version())
            if version != abi.ABI_VERSION:
                raise LibraryNotFound(f'{found._name} has version {version} of the ABI, this package needs '
                                      f'{abi.ABI_VERSION}; install the package that came with the library')
            abi.declare_functions(found)
            _loaded = found
        return _loaded
