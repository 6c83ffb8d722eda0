"""Streams that hand on whole lines: what a tool prints goes to the log, under its call's id."""

import io
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from omni import _native
from omni.context import Context, Native, current

if TYPE_CHECKING:
    from typing_extensions import Buffer

LONGEST = 8 * 1024
"""Bytes of a line; what is longer is handed on in pieces."""

partial: dict[tuple[str, int, str | None], bytes] = {}
"""Beginnings of lines, by level, thread and call."""


class _Lines(io.RawIOBase):
    """The binary end of a stream. Each thread and each call has a line of its own."""

    def __init__(self, level: str) -> None:
        self._level = level

    def writable(self) -> bool:
        return True

    def write(self, data: "Buffer", /) -> int:
        data = bytes(data)
        context = current.get()
        if context is not None and not context.may_log(len(data)):
            return len(data)
        key = (self._level, threading.get_ident(), context.call_id if context else None)
        *whole, rest = (partial.pop(key, b"") + data).split(b"\n")
        for line in whole:
            _hand_on(key, line)
        *whole, rest = _pieces(rest)
        for line in whole:
            _hand_on(key, line)
        if rest:
            partial[key] = rest
        return len(data)

    def flush(self) -> None:
        """Nothing: a line is handed on when it is whole, or when its call ends."""


def install() -> None:
    """Replace the standard streams."""
    sys.stdout = io.TextIOWrapper(_Lines("info"), "utf-8", "backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(_Lines("warning"), "utf-8", "backslashreplace", write_through=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(), "utf-8")


def finish(context: Context | Native | None) -> None:
    """Hand on the unfinished lines of a call that ends."""
    call = context.call_id if context else None
    thread = threading.get_ident()
    for key in [key for key in list(partial) if key[2] == call and (call is not None or key[1] == thread)]:
        _hand_on(key, partial.pop(key, b""))


def _hand_on(key: tuple[str, int, str | None], line: bytes) -> None:
    for piece in _pieces(line):
        _native.log(key[0], key[2], piece.decode("utf-8", "replace").rstrip("\r"))


def _pieces(line: bytes) -> Iterator[bytes]:
    while len(line) > LONGEST:
        cut = LONGEST
        # Not in the middle of a character.
        while line[cut] & 0xC0 == 0x80:
            cut -= 1
        yield line[:cut]
        line = line[cut:]
    yield line
