"""The exceptions of this package: one class a canonical code, all below Error, each with the message of who raised it.

A class stands beside the built-in one that Python's users expect where there is one, so that `except TimeoutError`
catches a deadline and `except ValueError` a wrong argument.
"""

from __future__ import annotations

from typing import Dict, Type


class Error(Exception):
    """What this package raises. `code` is the canonical code, as gRPC and Abseil number them."""

    code: int = 2

    @property
    def message(self) -> str:
        return str(self)


class Cancelled(Error):
    """The client was closed before the call was done."""
    code = 1


class InvalidArgument(Error, ValueError):
    """What was asked for is wrong, and stays so when it is asked again."""
    code = 3


class DeadlineExceeded(Error, TimeoutError):
    """In doubt: the call goes on and may still succeed, and its arrays stay lent. Wait again."""
    code = 4


class NotFound(Error, LookupError):
    """There is no such variable, file, run or model."""
    code = 5


class AlreadyExists(Error):
    code = 6


class PermissionDenied(Error):
    """Another user's, or without the run's token."""
    code = 7


class ResourceExhausted(Error):
    """A limit in bytes or in number is reached."""
    code = 8


class FailedPrecondition(Error):
    """Not in this state: after a fork, before the model is declared, after the end of the run."""
    code = 9


class Aborted(Error):
    """This task was replaced by another process, or a lease went to another task."""
    code = 10


class OutOfRange(Error):
    code = 11


class Unimplemented(Error, NotImplementedError):
    """This version cannot do that; the message names what asked for it."""
    code = 12


class Internal(Error):
    """An error in Basin itself."""
    code = 13


class Unavailable(Error, ConnectionError):
    """A parameter server is out of reach, and was for longer than the options allow."""
    code = 14


class DataLoss(Error):
    """A parameter server came back without its shards."""
    code = 15


class Unauthenticated(Error):
    code = 16


BY_CODE: Dict[int, Type[Error]] = {
    kind.code: kind for kind in (
        Cancelled, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists, PermissionDenied, ResourceExhausted,
        FailedPrecondition, Aborted, OutOfRange, Unimplemented, Internal, Unavailable, DataLoss, Unauthenticated)
}


def error_of(code: int, message: str) -> Error:
    """The exception of a code. One that is not known keeps its number in the message."""
    kind = BY_CODE.get(code)
    return kind(message) if kind else Error(f'{message} (code {code})')


class LibraryNotFound(Error, ImportError):
    """libbasin.so is in none of the places that the message lists, or is of another ABI."""


class ProgramNotFound(Error):
    """The program `basin` is in none of the places that the message lists."""
    code = 5


class CommandFailed(Error):
    """`basin` ended badly. `exit_code` is its own; a wrong job file (2) is an InvalidJob."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class InvalidJob(CommandFailed, InvalidArgument):
    """`basin` refused what it was asked: a wrong or impossible job, a run that does not exist."""
    code = 3

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message, exit_code)


class RunFailed(Error):
    """A run that was waited for ended as Failed; the message says why."""
