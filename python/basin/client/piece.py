"""Pieces of an input, leased to this task."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Optional, Type

from basin.client import abi

if TYPE_CHECKING:
    from basin.client.client import Client


class Piece:
    """Examples [begin, end) of an input. Another task gets them when this one dies before `done`.

    As a context manager it calls `done` at the end of the block, and does not where the block raised.
    """

    def __init__(self, client: 'Client', name: str, piece: abi.Piece) -> None:
        self._client = client
        self._number = int(piece.piece)
        self._done = False
        self.name = name
        self.epoch = int(piece.epoch)
        self.begin = int(piece.begin)
        self.end = int(piece.end_item)

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def slice(self) -> slice:
        """For arrays: images[piece.slice]."""
        return slice(self.begin, self.end)

    def __repr__(self) -> str:
        return f'<piece [{self.begin}, {self.end}) of {self.name}, epoch {self.epoch}>'

    def done(self) -> None:
        """Counts the piece, once every push started before has been acknowledged. Aborted: the lease was lost to
        another task, and the piece is not counted. Calling it again does nothing."""
        if self._done:
            return
        self._client.run(self._client.library.basin_input_done, self.name.encode(), self._number)
        self._done = True

    def __enter__(self) -> 'Piece':
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is None:
            self.done()
