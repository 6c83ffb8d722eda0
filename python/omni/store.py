"""A small place for what a skill wants to remember, key by key."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from omni.errors import Failed

LONGEST_KEY = 512
"""Characters of a key."""
LARGEST_VALUE = 1 << 20
"""Bytes of a value as JSON."""
MOST = 10_000
"""Keys of one skill."""
_PATIENCE = 5.0
"""Seconds to wait for another process that writes."""


class Store:
    """Values of JSON shape by key, in a file of the skill's own.

    Each change is whole or not there at all, also when several processes change it at once. It is
    for settings, cursors and counters; what is large belongs into files in `ctx.data`.
    """

    __slots__ = ("_file",)

    def __init__(self, folder: Path) -> None:
        self._file = folder / "store.db"

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or `default` where there is none."""
        with self._open() as database:
            row = database.execute("select value from pair where key = ?", (key,)).fetchone()
        return default if row is None else from_json(row[0])

    def set(self, key: str, value: Any) -> None:
        """Give a key a value.

        Raises `TypeError` when it has no form in JSON, and `Failed` when there is no room for it.
        """
        if not 0 < len(key) <= LONGEST_KEY:
            raise Failed(f"a key has 1 to {LONGEST_KEY} characters, not {len(key)}")
        try:
            text = to_json(value)
        except PydanticSerializationError as error:
            raise TypeError(f"the value of `{key}` has no form in JSON: {error}") from error
        if len(text) > LARGEST_VALUE:
            raise Failed(f"the value of `{key}` has {len(text)} bytes; {LARGEST_VALUE} is the limit")
        with self._open() as database:
            database.execute("begin immediate")
            (others,) = database.execute("select count(*) from pair where key <> ?", (key,)).fetchone()
            if others >= MOST:
                raise Failed(f"there is no room for `{key}`: a skill keeps at most {MOST} keys; delete some")
            database.execute("insert or replace into pair values (?, ?)", (key, text))

    def delete(self, key: str) -> bool:
        """Forget a key; whether it was there."""
        with self._open() as database:
            return database.execute("delete from pair where key = ?", (key,)).rowcount > 0

    def keys(self, prefix: str = "") -> list[str]:
        """List the keys that begin with `prefix`, sorted."""
        with self._open() as database:
            rows = database.execute("select key from pair order by key").fetchall()
        return [key for (key,) in rows if key.startswith(prefix)]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction: tools run in many threads and processes."""
        try:
            database = sqlite3.connect(self._file, timeout=_PATIENCE)
        except sqlite3.Error as error:
            raise Failed(f"the skill's store `{self._file}` cannot be opened: {error}") from error
        try:
            with contextlib.closing(database), database:
                database.execute("create table if not exists pair (key text primary key, value blob not null)")
                yield database
        except sqlite3.Error as error:
            raise Failed(f"the skill's store `{self._file}` cannot be used: {error}") from error
