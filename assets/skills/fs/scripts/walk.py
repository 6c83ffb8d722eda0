"""Walking the workspace, and searching what is found."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from omni import Context, Failed, Retry
from omni.errors import ToolCancelled

_MOST_FILES = 50_000
_DEADLINE = 20.0
_WORKER = Path(__file__).with_name("grep.py")
_GIT = ("git", "-c", "core.fsmonitor=false", "--literal-pathspecs", "ls-files", "-z", "-co", "--exclude-standard")


def matcher(glob: str) -> Callable[[str], bool]:
    """Compile a glob with `*`, `?`, `[...]`, `{a,b}` and `**`; one without `/` is about the name alone."""
    if len(glob) > 200 or glob.count("*") > 10:
        raise Retry(f"the glob `{glob[:50]}` is too long or has too many stars")
    pattern = re.compile(_translated(glob))
    if "/" in glob or "**" in glob:
        return lambda path: pattern.fullmatch(path) is not None
    return lambda path: pattern.fullmatch(path.rpartition("/")[2]) is not None


def folder(root: Path) -> Iterator[str]:
    """Give the names in a folder in order, those of folders with a slash."""
    with os.scandir(root) as scan:
        names = [entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "") for entry in scan]
    yield from sorted(names)


def entries(root: Path) -> Iterator[str]:
    """Give the paths of files below a folder, without those git ignores where git can tell."""
    try:
        listed = subprocess.run(
            [*_GIT, "--", "."], cwd=root, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        listed = None
    if listed is not None and listed.returncode == 0:
        # Sorted and each once: a file in conflict is listed three times.
        yield from sorted({os.fsdecode(name) for name in listed.stdout.split(b"\0") if name})
        return
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".git")
        below = os.path.relpath(place, root)
        yield from (name if below == "." else f"{below}/{name}" for name in sorted(files))


def search(ctx: Context, start: Path, text: str, glob: str, *, regex: bool) -> str:
    """Search files in a process of its own.

    A regular expression may take for ever, and Python's engine can neither be interrupted nor does it
    let other threads run meanwhile. A process can be ended when the time is up.
    """
    if regex:
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise Retry(f"`{text}` is no regular expression: {error}") from None
    matches = matcher(glob)
    root = ctx.resolve(".")
    files = [str(start)] if start.is_file() else []
    if not files:
        names = (name for name in entries(start) if glob == "**" or matches(name))
        files = [os.path.join(start, name) for name in islice(names, _MOST_FILES)]
    request = {"text": text, "regex": regex, "root": str(root), "files": files}
    done = _run(ctx, request)
    if done is None:
        raise Failed(f"the search for `{text}` took longer than {_DEADLINE:g} s; search fewer files or more simply")
    if not done:
        return f"`{text}` occurs in none of {len(files)} files"
    return done


def _run(ctx: Context, request: dict[str, Any]) -> str | None:
    command = [sys.executable, "-I", "-S", str(_WORKER)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + _DEADLINE
    data: bytes | None = json.dumps(request).encode()
    with child:
        while True:
            try:
                out, err = child.communicate(data, timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                data = None
                if ctx.cancelled:
                    child.kill()
                    raise ToolCancelled from None
                if time.monotonic() > end:
                    child.kill()
                    return None
    if child.returncode != 0:
        raise RuntimeError(f"the search process ended with {child.returncode}: {err.decode(errors='replace')[-500:]}")
    return out.decode("utf-8", "replace")


def _environment() -> dict[str, str]:
    # A repository named in the environment is not the one of this folder.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0"}


def _translated(glob: str) -> str:
    parts: list[str] = []
    at, braces = 0, 0
    while at < len(glob):
        char = glob[at]
        close = glob.find("]", at + 2) if char == "[" else -1
        if glob.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 3
            continue
        if glob.startswith("**", at):
            parts.append(".*")
            at += 2
            continue
        if close > 0:
            inner = glob[at + 1 : close].replace("\\", r"\\").replace("[", r"\[")
            parts.append("[" + ("^" + inner[1:] if inner[0] == "!" else inner) + "]")
            at = close + 1
            continue
        if char == "{" and "}" in glob[at:]:
            braces += 1
            parts.append("(?:")
        elif char == "," and braces:
            parts.append("|")
        elif char == "}" and braces:
            braces -= 1
            parts.append(")")
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
        at += 1
    return "".join(parts) + ")" * braces
