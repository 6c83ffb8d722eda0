"""Walking the workspace, and searching what is found."""

import contextlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from omni import Context, Failed, Retry, extension
from omni.errors import ToolCancelled

from . import dialect

_MOST_FILES = 200_000
_DEADLINE = 20.0
_PATIENCE = 10.0
_MOST_MATCHES = 200
_MOST_PER_FILE = 30
_LONGEST_LINE = 300
_LARGEST_FILE = 32 * 1024 * 1024
_GIT = ("git", "-c", "core.fsmonitor=false", "--literal-pathspecs", "ls-files", "-z", "-ci", "--exclude-standard")


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


def entries(root: Path) -> tuple[list[str], str | None]:
    """Give the paths of files below a folder in order, without those git ignores where git can tell.

    Where there are too many for the time or the limit, a remark says that these are not all.
    """
    kept, whole = _kept(root)
    names, cut = extension("search").walk(root, kept is not None, kept or [], most=_MOST_FILES, seconds=_DEADLINE)
    remark = f"not all files were found within {_DEADLINE:g} s, or there are more than {_MOST_FILES}"
    return names, remark if cut or not whole else None


def search(ctx: Context, start: Path, text: str, glob: str, *, regex: bool) -> str:
    """Search files, and say what was found in lines of `path:number:text`."""
    if regex:
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            raise Retry(f"`{text}` is no regular expression: {error}") from None
    matches = matcher(glob)
    if start.is_file():
        start, files, remark = start.parent, [start.name], None
    else:
        files, remark = entries(start)
        if glob != "**":
            files = [name for name in files if matches(name)]
    try:
        looked, found = _grep(ctx, start, files, text, regex=regex)
    except TimeoutError:
        raise Failed(
            f"the search for `{text}` took longer than {_DEADLINE:g} s; search fewer files or more simply"
        ) from None
    if ctx.cancelled:
        raise ToolCancelled
    above = os.path.relpath(start, ctx.resolve("."))
    told = list(_told(found, files, "" if above == "." else above + "/"))
    if not found:
        told = [f"`{text}` occurs in none of {looked} files"] + ["\n"] * (remark is not None)
    if remark is not None:
        told.append(f"[{remark}; search a folder below]\n")
    return "".join(told)


def _grep(
    ctx: Context, root: Path, files: list[str], text: str, *, regex: bool
) -> tuple[int, list[tuple[int, int, str]]]:
    bounds = {"most": _MOST_MATCHES, "per_file": _MOST_PER_FILE, "longest": _LONGEST_LINE, "largest": _LARGEST_FILE}
    bounds |= {"seconds": _DEADLINE, "cancelled": lambda: ctx.cancelled}
    translated = dialect.translated(text) if regex else (text, None)
    if translated is not None:
        pattern, doubtful = translated
        # Python's own engine is given what was asked for.
        engine = extension("search")
        if engine is extension("search", fallback=True):
            pattern = text
        # A ValueError: more than that engine takes, a counted repetition of thousands for one.
        with contextlib.suppress(ValueError):
            done = engine.grep(root, files, pattern, regex=regex, doubtful=doubtful, **bounds)
            if done is not None:
                return done
    return extension("search", fallback=True).grep(root, files, text, regex=regex, doubtful=None, **bounds)


def _told(found: list[tuple[int, int, str]], names: list[str], above: str) -> Iterator[str]:
    inside: Counter[int] = Counter()
    for place, number, text in found[:_MOST_MATCHES]:
        inside[place] += 1
        yield f"{above}{names[place]}:{number}:{text if inside[place] <= _MOST_PER_FILE else '[more in this file]'}\n"
    if len(found) > _MOST_MATCHES:
        yield f"[more than {_MOST_MATCHES} matches; narrow it down]\n"


def _kept(root: Path) -> tuple[list[str] | None, bool]:
    """Give the files that git keeps although its rules leave them out; nothing where there is no repository.

    Says whether these are all.
    """
    try:
        listed = subprocess.run(
            [*_GIT, "--", "."],
            cwd=root,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        # It is at it, so there is a repository.
        return [], False
    except OSError:
        return None, True
    names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return (names, True) if listed.returncode == 0 else (None, True)


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
