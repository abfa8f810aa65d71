"""A push or pull under way."""

from __future__ import annotations

import collections
import ctypes
import time
import warnings
from typing import TYPE_CHECKING, Any, Callable, Deque, Optional, Set, Tuple

from basin.client import abi, device
from basin.client.library import library
from basin.errors import DeadlineExceeded, Error, InvalidArgument

if TYPE_CHECKING:
    from basin.client.client import Client

# How long one wait in the library lasts: Python handles Ctrl-C between two.
SLICE_S = 0.2


def wait_in_slices(wait: Callable[[float], None], timeout: Optional[float]) -> None:
    """Calls `wait(seconds)` until it raises no DeadlineExceeded, at most `timeout` seconds (None: no limit)."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE_S if end is None else min(SLICE_S, max(0.0, end - time.monotonic()))
        try:
            return wait(left)
        except DeadlineExceeded:
            if end is not None and time.monotonic() >= end:
                raise


class Lent:
    """What a call has of the library and lends to it: its handle, NULL until it has started, and its arrays."""

    def __init__(self, arrays: Tuple[Any, ...]) -> None:
        self.handle = ctypes.c_void_p()
        self.arrays: Optional[Tuple[Any, ...]] = arrays


class KeptCalls:
    """What a client's calls have lent, kept from before each starts until it is done: a signal may raise an exception
    at any moment, and what the library uses must not be freed for it.

    Freeing a call that is not done would wait for it, and where Python frees it nothing may wait: an interrupted
    program would hang there. So calls that are let go of before are freed later.
    """

    def __init__(self) -> None:
        self._library = library()
        # Both changed without a lock, which a __del__ could find held by its own thread.
        self._lent: Set[Lent] = set()
        self._let_go: Deque[Lent] = collections.deque()

    def keep(self, lent: Lent) -> None:
        self._lent.add(lent)

    def forget(self, lent: Lent) -> None:
        """Its call is done, or has never started."""
        lent.arrays = None
        self._lent.discard(lent)

    def free(self, lent: Lent) -> None:
        """Nobody asks for its call any more."""
        if not lent.handle:
            self.forget(lent)
        elif self._library.basin_call_done(lent.handle):
            self._library.basin_call_free(lent.handle)
            self.forget(lent)
        else:
            self._let_go.append(lent)

    def free_done(self) -> None:
        for _ in range(len(self._let_go)):
            try:
                lent = self._let_go.popleft()
            except IndexError:  # another thread does the same
                return
            self.free(lent)


class Call:
    """A push or pull under way. Its arrays are lent until it is done, and this object keeps them and the client alive:
    what is pushed must not change before, what is pulled is not there before.

    A call that is let go of goes on, with a ResourceWarning, for its outcome is lost; its arrays stay alive until it is
    done.
    """

    def __init__(self, client: 'Client', arrays: Tuple[Any, ...], value: Any) -> None:
        """Made before the library starts it, which writes `handle`: from then on somebody owns the call."""
        self._library = library()
        self._client: Optional['Client'] = client
        self._kept = client.kept
        self._lent = Lent(arrays)
        self._kept.keep(self._lent)
        self._value = value
        self._told = False

    @property
    def handle(self) -> ctypes.c_void_p:
        return self._lent.handle

    def wait(self, timeout: Optional[float] = None) -> Any:
        """Waits until it is done, and returns what was pulled: the array where one variable or table was asked for, a
        dict {variable: array} where several or {variable: array} was, None where nothing was. Repeats its outcome when
        called again.

        DeadlineExceeded after `timeout` seconds: in doubt; the call goes on, the arrays stay lent, wait again. Any
        other error is the call's outcome.
        """
        try:
            wait_in_slices(lambda seconds: abi.check(self._library.basin_call_wait, self.handle, seconds), timeout)
        except DeadlineExceeded:
            raise
        except Error:
            self._end()
            raise
        self._end()
        return self._value

    def _end(self) -> None:
        self._told = True
        self._kept.forget(self._lent)
        self._client = None

    def order_before(self, stream: Any) -> None:
        """What is queued on the CUDA stream from now on runs when the call is done, or has failed: wait() tells. Python
        does not wait. For calls with arrays in device memory; see basin_call_order_before in basin.h."""
        handle = device.stream_of(stream)
        if handle is None:
            raise InvalidArgument('order_before: no stream is given')
        abi.check(self._library.basin_call_order_before, self.handle, ctypes.byref(abi.Stream(1, handle)))

    def done(self) -> bool:
        """Whether it is done, well or badly. Never waits."""
        return bool(self._library.basin_call_done(self.handle))

    def staleness(self) -> Tuple[float, int]:
        """(mean, largest) over the shards of a done push: version at apply less version pulled."""
        mean, largest = ctypes.c_double(), ctypes.c_uint64()
        self._library.basin_call_staleness(self.handle, ctypes.byref(mean), ctypes.byref(largest))
        return mean.value, largest.value

    def __del__(self) -> None:
        lent = getattr(self, '_lent', None)
        if lent is None:
            return
        started = bool(lent.handle)
        self._kept.free(lent)
        if started and not self._told:
            warnings.warn('a call of basin.Client was let go of without wait(): its outcome is lost', ResourceWarning,
                          source=self, stacklevel=2)
