"""Arrays in memory that the transports know: pushed to a server of the same host, they are read where they lie."""

from __future__ import annotations

import ctypes
import math
from typing import Any, Sequence, Union

import numpy

from basin.client.library import library


class _Memory:
    """What basin_allocate gave, given back when the last array in it is gone."""

    def __init__(self, size: int) -> None:
        self._deallocate = library().basin_deallocate
        self.address = library().basin_allocate(size)
        if not self.address:
            raise MemoryError(f'basin_allocate has no {size} bytes')
        self.__array_interface__ = {'version': 3, 'typestr': '|u1', 'shape': (size,),
                                    'data': (self.address, False)}

    def __del__(self) -> None:
        if getattr(self, 'address', None):
            self._deallocate(ctypes.c_void_p(self.address))


def allocate(shape: Union[int, Sequence[int]], dtype: Any = 'float32') -> 'numpy.ndarray[Any, Any]':
    """An array of zeros, 64-byte aligned, in memory shared with the servers of this host, which only read it: a push
    from it needs no copy. MemoryError where there is none left.

    Children made by fork share it too: what they write to it shows here.
    """
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = numpy.dtype(dtype)
    size = math.prod(dims) * kind.itemsize
    if size == 0:
        return numpy.zeros(dims, kind)
    # The array keeps the holder alive, and every view of it the array.
    flat: 'numpy.ndarray[Any, Any]' = numpy.asarray(_Memory(size)).view(kind)
    return flat.reshape(dims)
