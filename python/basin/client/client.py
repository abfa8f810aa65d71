"""The client: what training code embeds."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
import time
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type, Union

import numpy

from basin.client import abi, arrays, moves
from basin.client.call import Call, KeptCalls, wait_in_slices
from basin.client.interrupt import interruptible
from basin.client.library import library
from basin.client.model import Model, Table, Variable
from basin.client.options import Options
from basin.client.piece import Piece
from basin.errors import FailedPrecondition, InvalidArgument, NotFound

Array = Any  # numpy.ndarray of any dtype
Targets = Union[Variable, Mapping[Variable, Array], Iterable[Variable]]
Sources = Mapping[Variable, Array]
CLOSE_POLL_S = 0.002  # between two looks at who is still in the library


class RunState(NamedTuple):
    """What was heard last of the run; heartbeats refresh it once a second."""
    view: int
    global_step: int
    min_clock: int
    stop: bool      # max_steps is reached
    finished: bool  # the chief has ended the run


class Client:
    """A task's (or an observer's) connection to all parameter servers of the run.

    May be used from several threads. In a child made by fork every call raises FailedPrecondition, and closing does
    nothing: connect in the child, or start it (multiprocessing's 'spawn') before connecting. As a context manager it is
    closed at the end; `finish` is the caller's to say.
    """

    def __init__(self, options: Optional[Options] = None, **changes: Any) -> None:
        """As `connect`."""
        self.library = library()
        self.kept = KeptCalls()
        self.handle: Optional[ctypes.c_void_p] = None
        self._abandoned = False
        self._process = os.getpid()
        # The thread of each call that is in the library. Changed without a lock, which a signal could leave held.
        self._threads_inside: Dict[object, int] = {}
        if options is None:
            options = Options.from_environment(**changes)
        elif changes:
            raise InvalidArgument(f'give options or their fields ({", ".join(changes)}), not both')
        made, handle = options.to_abi(), ctypes.c_void_p()
        interruptible(lambda: abi.check(self.library.basin_connect, ctypes.byref(made), ctypes.byref(handle)),
                      self.abandon)
        self.handle = handle
        task = abi.Task(size=ctypes.sizeof(abi.Task))
        self.library.basin_get_task(handle, ctypes.byref(task))
        self.role: str = task.role.decode()
        self.index = int(task.index)
        self.is_chief = bool(task.is_chief)
        self.run_id: str = task.run_id.decode()
        self.worker_count = int(task.worker_count)  # chief and workers; 0 where it is not known
        self.ps_count = int(task.ps_count)

    @classmethod
    def connect(cls, options: Optional[Options] = None, **changes: Any) -> 'Client':
        """Waits until every parameter server has answered, at most options.start_timeout_s. Without options: those of
        the environment, with the fields given by name changed: Client.connect(transport='tcp')."""
        return cls(options, **changes)

    @contextlib.contextmanager
    def inside(self) -> Iterator[ctypes.c_void_p]:
        """For a block that calls the library: gives the handle, and makes `close` wait for the block's end."""
        entry = object()
        self._threads_inside[entry] = threading.get_ident()
        try:
            # Entered before the handle is read: either close sees the entry, or the entry sees the closing.
            handle = self.handle
            if handle is None:
                raise FailedPrecondition('the client is closed')
            self.kept.free_done()
            yield handle
        finally:
            self._threads_inside.pop(entry, None)

    def run(self, function: Any, *arguments: Any, lent: Any = None) -> None:
        """Calls a function of the library that may wait. `lent` stays alive as long as it runs, which may be longer
        than this method does."""
        with self.inside() as handle:
            def work(held: Any = lent) -> None:
                abi.check(function, handle, *arguments)
            interruptible(work, self.abandon)

    def _run_in_slices(self, function: Any, *arguments: Any, timeout: Optional[float]) -> None:
        """As `run`, for a function whose last argument is its limit in seconds. Ends when the client is closed."""
        def wait(seconds: float) -> None:
            with self.inside() as handle:
                abi.check(function, handle, *arguments, seconds)
        wait_in_slices(wait, timeout)

    def abandon(self) -> None:
        """A thread that cannot be ended still waits in the library, or nobody could wait for one: the client must stay
        until the process ends, with all that was lent to it."""
        self._abandoned = True
        # Not even the end of the interpreter frees it, for the library's threads live longer.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.kept))

    def close(self) -> None:
        """Waits for other threads' calls that are in the library, then says goodbye (at most 5 s). Pushes and pulls
        that are not done end with Cancelled. Closing twice is fine. In a signal handler that has interrupted a call,
        which goes on afterwards, nothing can be waited for: the connection then stays until the process ends."""
        handle, self.handle = self.handle, None
        if handle is None:
            return
        closed = False
        try:
            own = threading.get_ident()
            while set(self._inside_now()) - {own}:
                time.sleep(CLOSE_POLL_S)
            if not self._abandoned and own not in self._inside_now():
                self.library.basin_close(handle)
                closed = True
        finally:
            if closed:
                self.kept.free_done()
            else:
                self.abandon()

    def _inside_now(self) -> List[int]:
        """Threads. In a child made by fork the parent's are not there."""
        return list(self._threads_inside.values()) if os.getpid() == self._process else []

    def __enter__(self) -> 'Client':
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, 'handle', None) is not None:
            # Who is inside has a reference: what stands there was left by an interrupted call.
            self._threads_inside.clear()
            self.close()

    # ---- The model ----

    def declare(self, model: Model) -> None:
        """The chief's makes the run's model; the others' wait for it and are compared. May be repeated with the same
        model and more variables."""
        self.run(self.library.basin_declare, model.handle, lent=model)

    def learn(self) -> Dict[str, Union[Variable, Table]]:
        """For observers: waits until the chief has declared, and returns the run's variables and tables by name."""
        self.run(self.library.basin_declare, None)
        with self.inside() as handle:
            return self._declared(handle)

    def _declared(self, handle: ctypes.c_void_p) -> Dict[str, Union[Variable, Table]]:
        found: Dict[str, Union[Variable, Table]] = {}
        number = 0
        variable = abi.Variable(size=ctypes.sizeof(abi.Variable))
        try:
            while True:
                abi.check(self.library.basin_get_variable, handle, number, ctypes.byref(variable))
                shape = tuple(int(variable.shape[axis]) for axis in range(variable.ndim))
                name = variable.name.decode()
                found[name] = Variable(number, name, shape, arrays.name_of(variable.dtype))
                number += 1
        except NotFound:  # past the last one
            number = 0
        table = abi.Table(size=ctypes.sizeof(abi.Table))
        try:
            while True:
                abi.check(self.library.basin_get_table, handle, number, ctypes.byref(table))
                name = table.name.decode()
                found[name] = Table(number, name, int(table.dim), arrays.name_of(table.storage))
                number += 1
        except NotFound:
            return found

    # ---- Moving parameters ----
    # Arrays are numpy's, or a CUDA device's, as DLPack or __cuda_array_interface__ shows them (docs/python.md). What is in
    # device memory is read and written behind all that is queued on `stream` now: a stream of PyTorch or CuPy, or its
    # handle; without one, behind the stream that the arrays name, else the default stream.

    def pull(self, what: Union[Targets, Table], keys: Any = None, rows: Optional[Array] = None, *, bags: Any = None,
             pooling: str = 'sum', stream: Any = None) -> Call:
        """Parameters. `pull({w: W, b: B})` fills arrays, `pull(w)` and `pull([w, b])` make them; wait() returns them.

        Of a table: rows [len(keys), dim] by key, or with `bags` (len + 1 ascending offsets into keys, from 0) the 'sum'
        or 'mean' of each bag's rows. A key without a row has its initial value; a pull makes no row.
        """
        if isinstance(what, Table):
            return moves.start_rows(self, what, keys, None, moves.TO_MAKE if rows is None else rows, bags, pooling,
                                    stream)
        moves.only_for_tables(keys, rows, bags)
        return moves.start(self, {}, {}, what, stream)

    def push(self, what: Union[Sources, Table], keys: Any = None, gradients: Optional[Array] = None, *,
             bags: Any = None, pooling: str = 'sum', stream: Any = None) -> Call:
        """Gradients: `push({w: dW, b: dB})`, or of a table `push(user, keys, gradients)`, one row a key, or a bag; the
        gradients of a key that stands several times are summed first. The arrays must not change until it is done."""
        if isinstance(what, Table):
            return moves.start_rows(self, what, keys, gradients, None, bags, pooling,
                                    stream)
        moves.only_for_tables(keys, gradients, bags)
        return moves.start(self, what, {}, {}, stream)

    def pushpull(self, push: Union[Sources, Table], pull: Any = None, keys: Any = None,
                 gradients: Optional[Array] = None, rows: Optional[Array] = None, *, bags: Any = None,
                 pooling: str = 'sum', stream: Any = None) -> Call:
        """Pushes, then pulls what the push has led to, in one round trip: `pushpull({w: dW}, {w: W})`; without `pull`
        arrays are made for what is pushed. Of a table: `pushpull(user, keys=keys, gradients=..., rows=...)`."""
        if isinstance(push, Table):
            if pull is not None:
                raise InvalidArgument('pushpull of a table takes keys=, gradients= and rows=')
            return moves.start_rows(self, push, keys, gradients, moves.TO_MAKE if rows is None else rows, bags, pooling,
                                    stream)
        moves.only_for_tables(keys, gradients if rows is None else rows, bags)
        return moves.start(self, push, {}, list(push) if pull is None else pull, stream)

    def assign(self, values: Sources, *, stream: Any = None) -> Call:
        """New values, whatever the rule: initial or pre-trained ones."""
        return moves.start(self, {}, values, {}, stream)

    def evicted_keys(self, table: Table, capacity: int = 65536) -> Tuple[Array, bool]:
        """(keys, missed): keys of evicted rows that this client was not told yet, for whoever keeps copies of rows.
        `missed`: the servers have forgotten some, so no copy can be trusted. Ask until there are fewer than
        `capacity`."""
        keys = numpy.empty(capacity, numpy.uint64)
        count, missed = ctypes.c_size_t(), ctypes.c_int32()
        self.run(self.library.basin_evicted_keys, table.id, keys.ctypes.data, capacity, ctypes.byref(count),
                 ctypes.byref(missed), lent=keys)
        return keys[:count.value], bool(missed.value)

    def set_learning_rate(self, learning_rate: Optional[float]) -> None:
        """Of pushes started from now on, instead of their rule's, for schedules; None: the rule's again."""
        rate = float('nan') if learning_rate is None else float(learning_rate)
        if learning_rate is not None and rate != rate:
            raise InvalidArgument('learning_rate is nan; None means the rule\'s own')
        with self.inside() as handle:
            abi.check(self.library.basin_set_learning_rate, handle, rate)

    # ---- Steps, inputs, the run ----

    def step(self, metrics: Optional[Mapping[str, float]] = None, **more: float) -> None:
        """This task finished a step: its clock counts up, its metrics are shown. step({'loss': 0.3}) or
        step(loss=0.3). Does not wait."""
        values = {**(metrics or {}), **more}
        names = (ctypes.c_char_p * len(values))(*[name.encode() for name in values])
        numbers = (ctypes.c_double * len(values))(*[float(value) for value in values.values()])
        with self.inside() as handle:
            abi.check(self.library.basin_step, handle, names, numbers, len(values))

    def next_input(self, name: str) -> Optional[Piece]:
        """The next piece, leased to this task; None at the end of the input. Waits while all that is left is leased to
        others, since it may come back."""
        piece = abi.Piece(size=ctypes.sizeof(abi.Piece))
        self.run(self.library.basin_next_input, name.encode(), ctypes.byref(piece))
        return None if piece.end else Piece(self, name, piece)

    def inputs(self, name: str) -> Iterator[Piece]:
        """The pieces one after the other. Each is done when the next is asked for, unless its `done` was called
        before; where the loop is left by `break` or an exception its last piece is not."""
        while True:
            piece = self.next_input(name)
            if piece is None:
                return
            yield piece
            piece.done()

    def barrier(self, name: str, timeout: Optional[float] = None) -> None:
        """Waits until every living chief and worker is in a barrier of this name. After DeadlineExceeded this task is
        in it, and the next call with this name goes on waiting."""
        self._run_in_slices(self.library.basin_barrier, name.encode(), timeout=timeout)

    def run_state(self) -> RunState:
        state = abi.RunState(size=ctypes.sizeof(abi.RunState))
        with self.inside() as handle:
            self.library.basin_get_run_state(handle, ctypes.byref(state))
        return RunState(state.view, state.global_step, state.min_clock, bool(state.stop), bool(state.finished))

    def wait_finished(self, timeout: Optional[float] = None) -> None:
        """Waits until the chief has ended the run; for evaluators."""
        self._run_in_slices(self.library.basin_wait_finished, timeout=timeout)

    def finish(self, failure: Optional[str] = None) -> None:
        """This task's work is done; waits until its pushes are acknowledged. The chief's ends the run. `failure`: why
        it ended badly."""
        self.run(self.library.basin_finish, None if failure is None else failure.encode())

    def stats(self) -> Dict[str, Any]:
        """What `basin top` shows (docs/wire.md, "Stats")."""
        text = ctypes.c_void_p()
        self.run(self.library.basin_stats, ctypes.byref(text))
        try:
            parsed: Dict[str, Any] = json.loads(ctypes.string_at(text.value or 0))
            return parsed
        finally:
            self.library.basin_free_text(text)


__all__: List[str] = ['Client', 'RunState']
