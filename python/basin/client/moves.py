"""What a push or pull is made of: the library's items and rows from arrays, and the call that keeps them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, Optional, Tuple

import numpy

from basin.client import abi, arrays, device
from basin.client.call import Call
from basin.client.model import Table, Variable
from basin.errors import InvalidArgument

if TYPE_CHECKING:
    from basin.client.client import Client

TO_MAKE = object()  # in place of an array: one is to be made
POOLING = {'sum': 1, 'mean': 2}


def only_for_tables(*given: Any) -> None:
    if any(one is not None for one in given):
        raise InvalidArgument('keys, rows, gradients and bags belong to a table; of variables give {variable: array}')


def _pairs(given: Any, what: str) -> Dict[Variable, Any]:
    """{variable: array}, or with variables alone {variable: TO_MAKE}."""
    if isinstance(given, Variable):
        given = [given]
    if isinstance(given, Mapping):
        pairs = dict(given)
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes, numpy.ndarray)):
        listed = list(given)
        pairs = {one: TO_MAKE for one in listed if isinstance(one, Variable)}
        if len(pairs) != len(listed):
            raise InvalidArgument(f'{what}: expected variables, each once, or {{variable: array}}, found '
                                  f'{listed!r:.200}')
    else:
        raise InvalidArgument(f'{what}: expected {{variable: array}}, found {type(given).__name__}')
    for one in pairs:
        if not isinstance(one, Variable):
            raise InvalidArgument(f'{what}: {one!r} is no variable; Model.dense returns one')
    return pairs


def _dtypes(variable: Variable, part: str) -> Tuple[str, ...]:
    """What its array may be of: gradients in 16 bits are sent as they are."""
    if part == 'push' and variable.dtype == 'float32':
        return 'float32', 'float16', 'bfloat16'
    return (variable.dtype,)


def start(client: 'Client', push: Any, assign: Any, pull: Any, stream: Any) -> Call:
    """One call over variables. A variable's push and pull make one item."""
    items: Dict[int, abi.Item] = {}
    lent = []
    pulled: Dict[Variable, Any] = {}
    behind = device.StreamOfCall(stream)
    for part, given in (('push', push), ('assign', assign), ('pull', pull)):
        for variable, array in _pairs(given, part).items():
            if array is TO_MAKE:
                if part != 'pull':
                    raise InvalidArgument(f'{part} of "{variable.name}": no array is given')
                array = numpy.empty(variable.shape, variable.dtype)
            used = arrays.checked(array, f'{part} of "{variable.name}"', _dtypes(variable, part), variable.shape,
                                  part == 'pull', behind)
            tensor = arrays.tensor_of(used)
            lent += [used, tensor]
            item = items.setdefault(variable.id, abi.Item(variable=variable.id))
            setattr(item, part, ctypes.pointer(tensor))
            if part == 'pull':
                pulled[variable] = array
    listed = (abi.Item * len(items))(*items.values())
    value: Any = pulled or None
    if isinstance(pull, Variable):
        value = pulled[pull]
    with client.inside() as handle:
        call = Call(client, (*lent, listed), value)
        abi.check(client.library.basin_start_on_stream, handle, listed, len(items), behind.to_abi(),
                  ctypes.byref(call.handle))
    return call


def start_rows(client: 'Client', table: Table, keys: Any, push: Optional[Any], pull: Any, bags: Any, pooling: str,
               stream: Any) -> Call:
    """One call over rows of one table; `pull` may be TO_MAKE."""
    name = f'table "{table.name}"'
    if keys is None:
        raise InvalidArgument(f'{name}: no keys are given')
    if push is None and pull is None:
        raise InvalidArgument(f'{name}: no gradients are given')
    if pooling not in POOLING:
        raise InvalidArgument(f'{name}: pooling is {pooling!r}, expected sum or mean')
    behind = device.StreamOfCall(stream)
    rows = abi.Rows(size=ctypes.sizeof(abi.Rows), table=table.id)
    if not isinstance(keys, numpy.ndarray) and device.on_device(keys):
        keys = arrays.keys_there(keys, f'keys of {name}', behind)
        rows.keys, rows.count, rows.keys_device = keys.address, keys.shape[0], keys.tensor.device
    else:
        keys = arrays.keys_of(keys, f'keys of {name}')
        rows.keys, rows.count = keys.ctypes.data, len(keys)
    expected = int(rows.count)
    if bags is not None:
        bags = arrays.keys_of(bags, f'bags of {name}')
        if len(bags) == 0:
            raise InvalidArgument(f'bags of {name}: no offsets; n bags have n + 1')
        expected = len(bags) - 1
        rows.bags, rows.bag_count, rows.pooling = bags.ctypes.data, expected, POOLING[pooling]
    shape: Tuple[int, ...] = (expected, table.dim)
    if pull is TO_MAKE:
        pull = numpy.empty(shape, arrays.FLOAT32)
    lent = [keys]
    places = []
    for part, array, what in (('push', push, 'gradients'), ('pull', pull, 'rows')):
        if array is None:
            continue
        used = arrays.checked(array, f'{what} of {name}', ('float32',), shape, part == 'pull', behind)
        lent.append(used)
        there = used if isinstance(used, device.DeviceArray) else None
        setattr(rows, part, there.address if there else used.ctypes.data)
        places.append((there.tensor.device.type, there.tensor.device.id) if there else (abi.CPU, 0))
    if len(set(places)) > 1:
        raise InvalidArgument(f'{name}: gradients and rows lie in different places; expected both in host memory, or both on '
                              'one device (rows= takes an array for what is pulled)')
    rows.device = abi.Device(*places[0])
    with client.inside() as handle:
        # Keys and bags of the host are copied when the call starts; the others are lent.
        call = Call(client, tuple(lent), pull)
        abi.check(client.library.basin_start_rows_on_stream, handle, ctypes.byref(rows), 1, behind.to_abi(),
                  ctypes.byref(call.handle))
    return call
