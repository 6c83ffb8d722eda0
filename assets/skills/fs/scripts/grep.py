"""The process that searches files: a request in JSON on standard input, matches on standard output."""

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

_MOST_MATCHES = 200
_MOST_PER_FILE = 30
_LONGEST_LINE = 300
_LARGEST_FILE = 32 * 1024 * 1024


def main(request: dict[str, Any], out: IO[str]) -> None:
    """Print `path:line:text` for each match, up to a bound."""
    finds = _finder(request["text"], regex=request["regex"])
    count = 0
    for file in request["files"]:
        for number, line in _matches(file, finds):
            if count == _MOST_MATCHES:
                out.write(f"[more than {_MOST_MATCHES} matches; narrow it down]\n")
                return
            count += 1
            name = os.path.relpath(file, request["root"])
            out.write(f"{name}:{number}:{line.strip()[:_LONGEST_LINE]}\n")


def _finder(text: str, *, regex: bool) -> Callable[[str], bool]:
    if not regex:
        return lambda line: text in line
    search = re.compile(text).search
    return lambda line: search(line) is not None


def _matches(file: str, finds: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            return
        try:
            head = stream.read(8192)
            if b"\0" in head:
                return
            text = (head + stream.read()).decode("utf-8", "replace")
        except OSError:
            return
    found = 0
    for number, line in enumerate(text.split("\n"), 1):
        if finds(line):
            found += 1
            if found > _MOST_PER_FILE:
                yield number, "[more in this file]"
                return
            yield number, line


if __name__ == "__main__":
    main(json.load(sys.stdin), sys.stdout)
