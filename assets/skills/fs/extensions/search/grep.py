"""The process that searches files: a request in JSON on standard input, what was found on standard output."""

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any


def main(request: dict[str, Any]) -> tuple[int, list[tuple[int, int, str]]]:
    """Say how many files were looked into, and give the place in the list, number and text of each line."""
    finds = _finder(request["pattern"], regex=request["regex"])
    looked = 0
    found: list[tuple[int, int, str]] = []
    for place, file in enumerate(request["files"]):
        text = _text(os.path.join(request["root"], file), request["largest"])
        if text is None:
            continue
        looked += 1
        found += [
            (place, number, line.strip()[: request["longest"]])
            for number, line in _matches(text, finds, request["per_file"])
        ]
        if len(found) > request["most"]:
            del found[request["most"] + 1 :]
            break
    return looked, found


def _finder(text: str, *, regex: bool) -> Callable[[str], bool]:
    if not regex:
        return lambda line: text in line
    search = re.compile(text).search
    return lambda line: search(line) is not None


def _text(file: str, largest: int) -> str | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            return None
        try:
            data = stream.read(largest)
        except OSError:
            return None
    return None if b"\0" in data[:8192] else data.decode("utf-8", "replace")


def _matches(text: str, finds: Callable[[str], bool], most: int) -> Iterator[tuple[int, str]]:
    lines = text.split("\n")
    if not lines[-1]:
        # Nothing is not a line.
        del lines[-1]
    found = 0
    for number, line in enumerate(lines, 1):
        if finds(line):
            yield number, line
            found += 1
            if found > most:
                return


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
