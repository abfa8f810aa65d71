"""Ctrl-C while the library waits."""

from __future__ import annotations

import threading
from typing import Callable, List, TypeVar, Union

_T = TypeVar('_T')


def interruptible(work: Callable[[], _T], abandon: Callable[[], None]) -> _T:
    """Runs `work`, which waits in the library, and lets Python's signal handlers run meanwhile.

    They run in the main thread alone, between two steps of the interpreter: so the main thread waits for a thread that
    does the work. When a handler raises (KeyboardInterrupt), that thread cannot be ended, and `abandon` is told: `work`
    goes on, so it must hold all that it lends to the library.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: List[Union[_T, BaseException]] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # raised again below, in the main thread
            outcome.append(error)

    thread = threading.Thread(target=run, name='basin-wait', daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException:
        abandon()
        raise
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result
