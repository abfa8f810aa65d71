"""Arrays as the library's tensors, without a copy: numpy's, and those of a device (device.py). What does not fit is
refused here, by the variable's name."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, Sequence, Tuple

import numpy

from basin.client import abi, device
from basin.errors import InvalidArgument

# DLPack's type codes: 0 int, 1 uint, 2 float, 4 bfloat, 6 bool.
DTYPES: Dict[str, Tuple[int, int]] = {
    'float64': (2, 64), 'float32': (2, 32), 'float16': (2, 16), 'bfloat16': (4, 16), 'int64': (0, 64),
    'int32': (0, 32), 'int8': (0, 8), 'uint8': (1, 8), 'bool': (6, 8),
}
_NAMES = {code: name for name, code in DTYPES.items()}
FLOAT32 = numpy.dtype('float32')


def dtype_name(dtype: Any) -> str:
    """'float32' of numpy.float32, numpy.dtype('f4') or 'float32'; also what numpy itself does not know ('bfloat16')."""
    if isinstance(dtype, str) and dtype in DTYPES:
        return dtype
    try:
        name = str(numpy.dtype(dtype).name)
    except TypeError:
        name = str(dtype)
    if name not in DTYPES:
        raise InvalidArgument(f'unknown dtype {dtype!r}; known: {", ".join(DTYPES)}')
    return name


def dtype_of(name: str) -> abi.DType:
    code, bits = DTYPES[name]
    return abi.DType(code, bits, 1)


def name_of(dtype: abi.DType) -> str:
    return _NAMES.get((dtype.code, dtype.bits), f'code {dtype.code} with {dtype.bits} bits')


def _expected(dtypes: Sequence[str]) -> str:
    return ' or '.join(dtypes)


def checked(array: Any, what: str, dtypes: Sequence[str], shape: Tuple[int, ...], written: bool,
            stream: device.StreamOfCall) -> Any:
    """The array, if the library can use it where it lies: one of these dtypes, this shape, row-major, dense; writable
    if it is written. A numpy.ndarray, or a device.DeviceArray, which `stream` learns of. InvalidArgument, which begins
    with `what`, otherwise."""
    if not isinstance(array, numpy.ndarray):
        if device.on_device(array):
            return _checked_there(array, what, dtypes, shape, written, stream)
        raise InvalidArgument(f'{what}: expected a numpy array, found {type(array).__name__}; numpy.asarray makes one')
    if array.dtype.name not in dtypes or not array.dtype.isnative:
        found = array.dtype.name if array.dtype.isnative else f'{array.dtype.name} in the other byte order'
        raise InvalidArgument(f'{what}: dtype is {found}, expected {_expected(dtypes)}; '
                              f'array.astype("{dtypes[0]}") converts it')
    if array.shape != shape:
        raise InvalidArgument(f'{what}: shape is {array.shape}, expected {shape}')
    if not array.flags.c_contiguous:
        raise InvalidArgument(f'{what}: the array is not contiguous (strides {array.strides}), and is used where it '
                              'lies; numpy.ascontiguousarray makes a copy that is')
    if written and not array.flags.writeable:
        raise InvalidArgument(f'{what}: the array is read-only, and the pull writes to it')
    return array


def _checked_there(array: Any, what: str, dtypes: Sequence[str], shape: Tuple[int, ...], written: bool,
                   stream: device.StreamOfCall) -> device.DeviceArray:
    there = device.of(array, what, stream.handle, written)
    if there.kind not in [DTYPES[dtype] for dtype in dtypes]:
        raise InvalidArgument(f'{what}: dtype is {name_of(there.tensor.dtype)}, expected {_expected(dtypes)}')
    if there.shape != shape:
        raise InvalidArgument(f'{what}: shape is {there.shape}, expected {shape}')
    if not there.dense:
        raise InvalidArgument(f'{what}: the array is not contiguous, and is used where it lies; make a copy that is')
    stream.add(there, what)
    return there


def tensor_of(array: Any) -> abi.Tensor:
    """Points into what `checked` returned, which must outlive it."""
    if isinstance(array, device.DeviceArray):
        return array.tensor
    shape = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
    code, bits = DTYPES[array.dtype.name]
    return abi.Tensor(data=array.ctypes.data, device=abi.Device(abi.CPU, 0), ndim=array.ndim,
                      dtype=abi.DType(code, bits, 1), shape=shape)


def _of_integers(keys: Any, what: str) -> 'numpy.ndarray[Any, Any]':
    """A list's integers: numpy would make floats of a list in which some need the 64th bit and others do not."""
    listed = numpy.array(keys, dtype=object)
    for one in listed.flat:
        if not isinstance(one, (int, numpy.integer)) or isinstance(one, bool):
            raise InvalidArgument(f'{what}: found {one!r}, expected integers (uint64)')
        if not 0 <= one < 1 << 64:
            where = 'below 0' if one < 0 else 'above 2 ** 64 - 1'
            raise InvalidArgument(f'{what}: {one} is {where}; keys are unsigned')
    return listed.astype(numpy.uint64)


def keys_there(keys: Any, what: str, stream: device.StreamOfCall) -> device.DeviceArray:
    """64-bit integers in a device's memory, used where they lie: signed ones by their bits."""
    there = device.of(keys, what, stream.handle, written=False)
    if there.kind not in ((0, 64), (1, 64)) or len(there.shape) != 1 or not there.dense:
        raise InvalidArgument(f'{what}: expected one dimension of contiguous 64-bit integers in device memory, found shape '
                              f'{there.shape} of {there.kind[1]} bits')
    stream.add(there, what)
    return there


def keys_of(keys: Any, what: str) -> 'numpy.ndarray[Any, Any]':
    """64-bit keys or offsets, one-dimensional. The library has copied them when a call has started, so lists and other
    integers are converted here; numbers below 0 and fractions are refused."""
    array = keys if isinstance(keys, numpy.ndarray) else _of_integers(keys, what)
    if array.ndim != 1:
        raise InvalidArgument(f'{what}: shape is {array.shape}, expected one dimension')
    if array.dtype == numpy.uint64:
        return numpy.ascontiguousarray(array)
    if array.size == 0:
        return numpy.empty(0, numpy.uint64)
    if array.dtype.kind not in 'iu':
        raise InvalidArgument(f'{what}: dtype is {array.dtype.name}, expected integers (uint64)')
    if array.dtype.kind == 'i' and array.min() < 0:
        raise InvalidArgument(f'{what}: {int(array.min())} is below 0; keys are unsigned, array.view("uint64") keeps '
                              'the bits of a hash')
    return array.astype(numpy.uint64)
