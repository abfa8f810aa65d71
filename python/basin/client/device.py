"""Arrays in a CUDA device's memory as the library's tensors, without a copy: what DLPack or CUDA's array interface
(version 2 or 3) shows of them. DLPack says more, the device's number above all, so it is asked first."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from basin.client import abi
from basin.errors import InvalidArgument

CUDA = 2  # DLPack's device type
LEGACY_STREAM = 1  # how DLPack and CUDA write the default stream, which is 0 elsewhere

# DLPack's code and bits of the array interface's types.
_TYPES: Dict[str, Tuple[int, int]] = {'<f8': (2, 64), '<f4': (2, 32), '<f2': (2, 16), '<i8': (0, 64), '<i4': (0, 32),
                                      '|i1': (0, 8), '<u8': (1, 64), '|u1': (1, 8), '|b1': (6, 8)}

_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ('PyCapsule_GetPointer', ctypes.pythonapi))


@dataclass
class DeviceArray:
    """An array of a device; `tensor` points into what `owners` keep alive."""
    tensor: abi.Tensor
    owners: Tuple[Any, ...]
    shape: Tuple[int, ...]
    stream: Optional[int]  # behind which it is ready; None: there is nothing to wait for

    @property
    def address(self) -> int:
        return int(self.tensor.data or 0) + int(self.tensor.byte_offset)

    @property
    def kind(self) -> Tuple[int, int]:
        """DLPack's code and bits."""
        return self.tensor.dtype.code, self.tensor.dtype.bits

    @property
    def dense(self) -> bool:
        if not self.tensor.strides:
            return True
        expected = 1
        for axis in reversed(range(len(self.shape))):
            if self.shape[axis] > 1 and self.tensor.strides[axis] != expected:
                return False
            expected *= self.shape[axis]
        return True


def on_device(array: Any) -> bool:
    """Whether the array says that it is not in the host's memory."""
    device = getattr(array, '__dlpack_device__', None)
    if device is not None:
        return int(device()[0]) != abi.CPU
    return hasattr(array, '__cuda_array_interface__')


def of(array: Any, what: str, stream: int, written: bool) -> DeviceArray:
    """The array as it lies there. `stream`: behind what its owner shall have it ready."""
    if hasattr(array, '__dlpack_device__') and hasattr(array, '__dlpack__'):
        kind = int(array.__dlpack_device__()[0])
        if kind != CUDA:
            raise InvalidArgument(f'{what}: the {type(array).__name__} is in memory of DLPack device type {kind}, expected '
                                  'host memory or a CUDA device\'s; copy it there first')
        return _of_dlpack(array, stream)
    return _of_interface(array, what, written)


def _of_dlpack(array: Any, stream: int) -> DeviceArray:
    # Kept as it is, so that its own destructor gives the memory back to its owner.
    capsule = array.__dlpack__(stream=stream if stream else LEGACY_STREAM)
    # The DLTensor is the first of what it points to, and has the layout of basin_tensor.
    tensor = abi.Tensor.from_address(_capsule_pointer(capsule, b'dltensor'))
    return DeviceArray(tensor, (array, capsule), tuple(int(tensor.shape[axis]) for axis in range(tensor.ndim)), stream)


def _of_interface(array: Any, what: str, written: bool) -> DeviceArray:
    shown = array.__cuda_array_interface__
    shape = tuple(int(extent) for extent in shown['shape'])
    if shown['typestr'] not in _TYPES:
        raise InvalidArgument(f'{what}: elements of type {shown["typestr"]!r} of CUDA\'s array interface are not known here; '
                              f'known: {", ".join(_TYPES)}')
    if shown.get('mask') is not None:
        raise InvalidArgument(f'{what}: the array has a mask, which would be lost')
    address, read_only = shown['data']
    if written and read_only:
        raise InvalidArgument(f'{what}: the array is read-only, and the pull writes to it')
    code, bits = _TYPES[shown['typestr']]
    extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    strides = shown.get('strides')
    steps = None if strides is None else (ctypes.c_int64 * max(1, len(shape)))(*(step * 8 // bits for step in strides))
    tensor = abi.Tensor(data=address, device=abi.Device(CUDA, 0), ndim=len(shape), dtype=abi.DType(code, bits, 1),
                        shape=extents, strides=steps)
    # Of version 3: None says that all is done, 1 is the default stream, and 0 is forbidden.
    stream = shown.get('stream')
    return DeviceArray(tensor, (array, extents, steps), shape, 0 if stream == LEGACY_STREAM else stream)


def stream_of(stream: Any) -> Optional[int]:
    """The handle of a CUDA stream: a number, or what PyTorch (cuda_stream), CuPy (ptr) and CUDA's Python packages
    (__cuda_stream__) have."""
    if stream is None:
        return None
    protocol = getattr(stream, '__cuda_stream__', None)
    if protocol is not None:
        return int((protocol() if callable(protocol) else protocol)[1])
    for name in ('cuda_stream', 'ptr'):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    raise InvalidArgument(f'stream: expected a CUDA stream or its handle, found {stream!r:.200}')


class StreamOfCall:
    """Behind what a call starts: the stream that the caller gave, else that of the arrays, else the default stream."""

    def __init__(self, given: Any) -> None:
        self._given = stream_of(given)
        self._found: Optional[int] = None
        self._any = False

    @property
    def handle(self) -> int:
        return self._given if self._given is not None else self._found or 0

    def add(self, array: DeviceArray, what: str) -> None:
        self._any = True
        if self._given is not None or array.stream is None:
            return
        if self._found not in (None, array.stream):
            raise InvalidArgument(f'{what}: its owner works on stream {array.stream}, another array\'s on {self._found}; '
                                  'give stream=, one that waits for both')
        self._found = array.stream

    def to_abi(self) -> Optional[Any]:
        """None: nothing of the call is a device's, and no stream was given."""
        if not self._any and self._given is None:
            return None
        return ctypes.byref(abi.Stream(1, self.handle))
