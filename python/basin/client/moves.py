"""What a push or pull is made of: the library's items and rows from numpy arrays, and the call that keeps them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, Optional, Tuple

import numpy

from basin.client import abi, arrays
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


def start(client: 'Client', push: Any, assign: Any, pull: Any) -> Call:
    """One call over variables. A variable's push and pull make one item."""
    items: Dict[int, abi.Item] = {}
    lent = []
    pulled: Dict[Variable, Any] = {}
    for part, given in (('push', push), ('assign', assign), ('pull', pull)):
        for variable, array in _pairs(given, part).items():
            if array is TO_MAKE:
                if part != 'pull':
                    raise InvalidArgument(f'{part} of "{variable.name}": no array is given')
                array = numpy.empty(variable.shape, variable.dtype)
            array = arrays.checked(array, f'{part} of "{variable.name}"', variable.dtype, variable.shape,
                                   written=part == 'pull')
            tensor = arrays.tensor_of(array)
            lent += [array, tensor]
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
        abi.check(client.library.basin_start, handle, listed, len(items), ctypes.byref(call.handle))
    return call


def start_rows(client: 'Client', table: Table, keys: Any, push: Optional[Any], pull: Any, bags: Any,
               pooling: str) -> Call:
    """One call over rows of one table; `pull` may be TO_MAKE."""
    name = f'table "{table.name}"'
    if keys is None:
        raise InvalidArgument(f'{name}: no keys are given')
    if push is None and pull is None:
        raise InvalidArgument(f'{name}: no gradients are given')
    if pooling not in POOLING:
        raise InvalidArgument(f'{name}: pooling is {pooling!r}, expected sum or mean')
    keys = arrays.keys_of(keys, f'keys of {name}')
    rows = abi.Rows(size=ctypes.sizeof(abi.Rows), table=table.id, keys=keys.ctypes.data, count=len(keys))
    expected = len(keys)
    if bags is not None:
        bags = arrays.keys_of(bags, f'bags of {name}')
        if len(bags) == 0:
            raise InvalidArgument(f'bags of {name}: no offsets; n bags have n + 1')
        expected = len(bags) - 1
        rows.bags, rows.bag_count, rows.pooling = bags.ctypes.data, expected, POOLING[pooling]
    shape: Tuple[int, ...] = (expected, table.dim)
    if push is not None:
        push = arrays.checked(push, f'gradients of {name}', 'float32', shape, written=False)
        rows.push = push.ctypes.data
    if pull is TO_MAKE:
        pull = numpy.empty(shape, arrays.FLOAT32)
    if pull is not None:
        pull = arrays.checked(pull, f'rows of {name}', 'float32', shape, written=True)
        rows.pull = pull.ctypes.data
    with client.inside() as handle:
        # Keys and bags are copied when the call starts; the others are lent.
        call = Call(client, (push, pull), pull)
        abi.check(client.library.basin_start_rows, handle, ctypes.byref(rows), 1, ctypes.byref(call.handle))
    return call
