"""The declaration of a model: variables, tables, initial values, rules, inputs."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, fields
from typing import Any, Optional, Sequence, Tuple, Union

from basin.client import abi, arrays
from basin.client.library import library
from basin.errors import InvalidArgument


@dataclass(frozen=True)
class Initializer:
    """A variable's or a row's values before its first push. Made by the functions below."""
    kind: int
    a: float = 0.0
    b: float = 0.0
    seed: int = 0


def Zeros() -> Initializer:
    return Initializer(1)


def Constant(value: float) -> Initializer:
    return Initializer(2, value)


def Uniform(low: float, high: float, seed: int = 0) -> Initializer:
    return Initializer(3, low, high, seed)


def Normal(mean: float, stddev: float, seed: int = 0) -> Initializer:
    return Initializer(4, mean, stddev, seed)


def Glorot(seed: int = 0) -> Initializer:
    """Glorot's uniform: for matrices [in, out]."""
    return Initializer(5, seed=seed)


def He(seed: int = 0) -> Initializer:
    """He's normal: for matrices [in, out] before a ReLU."""
    return Initializer(6, seed=seed)


def Assigned() -> Initializer:
    """No values until Client.assign; pulls wait for it."""
    return Initializer(7)


# The rules' fields are named as those of basin_rule are; the servers carry them out.

@dataclass(frozen=True)
class Sgd:
    learning_rate: float = 0.01
    _kind = 1


@dataclass(frozen=True)
class Momentum:
    learning_rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    _kind = 2


@dataclass(frozen=True)
class Adagrad:
    learning_rate: float = 0.01
    initial_accumulator: float = 0.1
    epsilon: float = 1e-7
    _kind = 3


@dataclass(frozen=True)
class Adam:
    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7
    _kind = 4


@dataclass(frozen=True)
class Ftrl:
    """McMahan et al., "Ad click prediction: a view from the trenches", KDD 2013."""
    learning_rate: float = 0.01
    l1: float = 0.0
    l2: float = 0.0
    beta: float = 0.0
    initial_accumulator: float = 0.1
    _kind = 5


@dataclass(frozen=True)
class RowwiseAdagrad:
    """Adagrad with one accumulator a row, of the mean of the squares of its gradient: for tables alone."""
    learning_rate: float = 0.01
    initial_accumulator: float = 0.1
    epsilon: float = 1e-7
    _kind = 6


Rule = Union[Sgd, Momentum, Adagrad, Adam, Ftrl, RowwiseAdagrad]

# What a push of a variable does that is not trained.
STATISTICS = {'mean': 1, 'sum': 2, 'last': 3}


@dataclass(frozen=True)
class Variable:
    """A variable of a model: its number, and the shape and dtype that arrays for it have."""
    id: int
    name: str
    shape: Tuple[int, ...]
    dtype: str = 'float32'


@dataclass(frozen=True)
class Table:
    """An embedding table of a model: its number, and the length of its rows. Arrays for rows are float32."""
    id: int
    name: str
    dim: int
    storage: str = field(default='float32', compare=False)


def _rule_of(rule: Optional[Rule]) -> Any:
    if rule is None:
        return None
    kind = getattr(rule, '_kind', None)
    if not isinstance(kind, int):
        raise InvalidArgument(f'expected a rule such as basin.Adam(1e-3), found {rule!r}')
    made = abi.Rule()
    library().basin_rule_init(ctypes.byref(made), ctypes.sizeof(made), kind, rule.learning_rate)
    for one in fields(rule):
        value = getattr(rule, one.name)
        setattr(made, one.name, int(value) if isinstance(value, bool) else float(value))
    return ctypes.pointer(made)


def _initializer_of(initializer: Initializer) -> abi.Initializer:
    if not isinstance(initializer, Initializer):
        raise InvalidArgument(f'expected an initializer such as basin.Zeros(), found {initializer!r}')
    return abi.Initializer(initializer.kind, initializer.a, initializer.b, initializer.seed)


class Model:
    """What the chief declares and the other tasks are compared with. Errors (a name twice, a negative dimension) are
    raised at once. Every task builds the same one, in the same order.

    Given a workspace it is the registered model of that name instead, as basin.core.Model is: two things have this
    name, and nobody needs both in one place.
    """

    def __new__(cls, *registered: Any, **by_name: Any) -> Any:
        if registered or by_name:
            from basin.core.model import Model as RegisteredModel
            return RegisteredModel(*registered, **by_name)
        return super().__new__(cls)

    def __init__(self) -> None:
        self._library = library()
        self.handle = ctypes.c_void_p(self._library.basin_model_new())

    def __del__(self) -> None:
        if getattr(self, 'handle', None):
            self._library.basin_model_free(self.handle)

    def dense(self, name: str, shape: Sequence[int], initializer: Initializer = Zeros(), rule: Optional[Rule] = None,
              dtype: Any = 'float32') -> Variable:
        """A variable that the rule trains; without one, the model's. This version trains float32 alone."""
        return self._add(name, shape, initializer, 0, rule, dtype)

    def untrained(self, name: str, shape: Sequence[int], initializer: Initializer = Zeros(), statistic: str = 'mean',
                  dtype: Any = 'float32') -> Variable:
        """A variable that pushes update by the statistic, 'mean', 'sum' or 'last': moving means, counters."""
        if statistic not in STATISTICS:
            raise InvalidArgument(f'variable "{name}": statistic is {statistic!r}, expected one of '
                                  f'{", ".join(STATISTICS)}')
        return self._add(name, shape, initializer, STATISTICS[statistic], None, dtype)

    def _add(self, name: str, shape: Sequence[int], initializer: Initializer, statistic: int, rule: Optional[Rule],
             dtype: Any) -> Variable:
        dims = tuple(int(extent) for extent in ((shape,) if isinstance(shape, int) else shape))
        kind = arrays.dtype_name(dtype)
        number = ctypes.c_uint32()
        described = abi.Variable(
            size=ctypes.sizeof(abi.Variable), name=name.encode(), ndim=len(dims),
            shape=(ctypes.c_int64 * max(1, len(dims)))(*dims), dtype=arrays.dtype_of(kind),
            initializer=_initializer_of(initializer), statistic=statistic, rule=_rule_of(rule))
        abi.check(self._library.basin_model_add_variable, self.handle, ctypes.byref(described), ctypes.byref(number))
        return Variable(number.value, name, dims, kind)

    def table(self, name: str, dim: int, storage: Any = 'float32', initializer: Initializer = Zeros(),
              rule: Optional[Rule] = None, admit_after: int = 1, admit_probability: float = 1.0,
              evict_unused_s: float = 0.0, max_bytes: int = 0) -> Table:
        """Rows of `dim` numbers by 64-bit key, stored as float32, float16 or bfloat16. What the other parameters do
        stands at basin_table in basin.h and in docs/tables.md."""
        kind = arrays.dtype_name(storage)
        number = ctypes.c_uint32()
        described = abi.Table(
            size=ctypes.sizeof(abi.Table), name=name.encode(), dim=dim, storage=arrays.dtype_of(kind),
            initializer=_initializer_of(initializer), rule=_rule_of(rule), admit_after=admit_after,
            admit_probability=admit_probability, evict_unused_s=evict_unused_s, max_bytes=max_bytes)
        abi.check(self._library.basin_model_add_table, self.handle, ctypes.byref(described), ctypes.byref(number))
        return Table(number.value, name, dim, kind)

    def set_rule(self, rule: Rule) -> None:
        """The rule of every variable and table without one of its own. Without any: Sgd(0.01)."""
        abi.check(self._library.basin_model_set_rule, self.handle, _rule_of(rule))

    def add_input(self, name: str, items: int, piece_items: int, epochs: int = 1, shuffle_seed: int = 0) -> None:
        """`items` examples, handed out in pieces of `piece_items` to whoever asks, `epochs` times over; the order of
        the pieces is drawn in each epoch (0: ascending)."""
        described = abi.Input(size=ctypes.sizeof(abi.Input), name=name.encode(), items=items, piece_items=piece_items,
                              epochs=epochs, shuffle_seed=shuffle_seed)
        abi.check(self._library.basin_model_add_input, self.handle, ctypes.byref(described))

    def set_max_steps(self, steps: int) -> None:
        """All workers' steps together after which no more input is handed out; 0: no limit."""
        self._library.basin_model_set_max_steps(self.handle, steps)
