"""Walking a folder and searching its files, in Python alone. The twin of `src/lib.rs`."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from omni.errors import ToolCancelled

_WORKER = Path(__file__).with_name("grep.py")
_LIST = ("git", "-c", "core.fsmonitor=false", "--literal-pathspecs", "ls-files", "-z", "-co", "--exclude-standard")


def walk(
    root: Path,
    git: bool,
    also: list[str],  # noqa: ARG001 (git's list has them)
    *,
    most: int,
    seconds: float,
) -> tuple[list[str], bool]:
    """Give the paths of all files below `root`, relative to it and in the order of their bytes.

    With `git`, without what git's rules leave out and without repositories inside. Says whether
    there may be more: only `most` are given, and only what is found within `seconds`.
    """
    listed = _listed(root, seconds) if git else _below(root, time.monotonic() + seconds)
    names: set[str] = set()
    try:
        for name in listed:
            if len(names) == most:
                return _sorted(names), True
            names.add(name)
    except TimeoutError:
        return _sorted(names), True
    finally:
        listed.close()
    return _sorted(names), False


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=os.fsencode)


def _listed(root: Path, seconds: float) -> Generator[str]:
    """Give git's list: in no order, a file in conflict three times."""
    with subprocess.Popen(
        [*_LIST, "--", "."], cwd=root, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        end = time.monotonic() + seconds
        bell = threading.Timer(seconds, child.kill)
        bell.start()
        try:
            rest = b""
            while (chunk := child.stdout.read(1 << 16)) and time.monotonic() <= end:
                *whole, rest = (rest + chunk).split(b"\0")
                # A repository inside has a slash.
                yield from (os.fsdecode(name) for name in whole if name and not name.endswith(b"/"))
            if time.monotonic() > end:
                raise TimeoutError
            if child.wait() != 0:
                raise RuntimeError(f"`git ls-files` ended with {child.returncode}")
        finally:
            bell.cancel()
            child.kill()


def _environment() -> dict[str, str]:
    # A repository named in the environment is not the one of this folder.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0"}


def _below(root: Path, end: float) -> Generator[str]:
    # Those of folders have a slash.
    waiting = [""]
    while waiting:
        path = waiting.pop()
        if path and not path.endswith("/"):
            yield path
            continue
        if time.monotonic() > end:
            raise TimeoutError
        try:
            with os.scandir(root / path) as scan:
                found = [
                    path + entry.name + "/" * is_folder
                    for entry in scan
                    if (is_folder := entry.is_dir(follow_symlinks=False)) or entry.is_file() or entry.is_symlink()
                    if entry.name != ".git"
                ]
        except OSError:
            continue
        waiting += reversed(_sorted(found))


def grep(
    root: Path,
    files: list[str],
    pattern: str,
    *,
    regex: bool,
    doubtful: str | None,  # noqa: ARG001 (nothing is)
    most: int,
    per_file: int,
    longest: int,
    largest: int,
    seconds: float,
    cancelled: Callable[[], bool],
) -> tuple[int, list[tuple[int, int, str]]]:
    """Search files, which are relative to `root`, in the order given: how many were looked into, and the matches.

    It is done in a process of its own. A regular expression may take for ever, and Python's engine can
    neither be interrupted nor does it let other threads run meanwhile. A process can be ended:
    `TimeoutError` after `seconds`.
    """
    request = {
        "root": os.fspath(root),
        "files": files,
        "pattern": pattern,
        "regex": regex,
        "most": most,
        "per_file": per_file,
        "longest": longest,
        "largest": largest,
    }
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + seconds
    data: bytes | None = json.dumps(request).encode()
    with child:
        while True:
            try:
                out, err = child.communicate(data, timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                data = None
                if cancelled():
                    child.kill()
                    raise ToolCancelled from None
                if time.monotonic() > end:
                    child.kill()
                    raise TimeoutError(f"the search took longer than {seconds:g} s") from None
    if child.returncode != 0:
        raise RuntimeError(f"the search process ended with {child.returncode}: {err.decode(errors='replace')[-500:]}")
    looked, found = json.loads(out)
    return looked, [(place, number, text) for place, number, text in found]
