"""Files of the workspace."""

import contextlib
import errno
import io
import os
import stat as modes
import uuid
from collections.abc import Iterator
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from omni import Context, Failed, Retry, tool
from omni.errors import ToolCancelled

from . import walk

_LONGEST_LINE = 2_000
_MOST_LINES = 5_000
_MOST_TEXT = 64 * 1024
_MOST_EDITED = 16 * 1024 * 1024
_MOST_SHARED = 4 * 1024 * 1024
_MOST_SHOWN = 128 * 1024
_MOST_ENTRIES = 500
_CHUNK = 1024 * 1024


@tool(
    read_only=True,
    open_world=False,
    examples=["read the file README.md", "show me lines 10 to 40 of src/main.rs", "what does config.toml contain?"],
)
def read(path: str, ctx: Context, start: int = 1, lines: int = 400) -> str:
    """Read lines of a text file."""
    if start < 1 or not 1 <= lines <= _MOST_LINES:
        raise Retry(f"lines are counted from 1, and `lines` is between 1 and {_MOST_LINES}")
    file = ctx.resolve(path)
    shared = _in_editor(ctx, file, start, lines + 1)
    if shared is None:
        ctx.resolve(path, must_exist=True)
    with _reading(path), _open(file, path) if shared is None else io.BytesIO(shared) as stream:
        if shared is None:
            # Not `mmap` and not `readlines`: the file may be larger than the memory, and so may a line.
            _refuse_binary(stream, path)
            if not _skip(stream, start - 1, ctx):
                raise Failed(f"`{path}` has fewer than {start} lines")
        text, number, whole = [], 0, True
        size = 0
        for line in _lines(stream):
            if number == lines or size > _MOST_TEXT:
                whole = False
                break
            text.append(line)
            size += len(line)
            number += 1
    if start > 1 and not text:
        raise Failed(f"`{path}` has fewer than {start} lines")
    if not whole:
        text.append(f"[more follows: start={start + number}]")
    return "".join(text)


@tool(
    open_world=False,
    idempotent=True,
    examples=["write a file called notes.txt", "create the file hello.py with this content", "save it to a file"],
)
def write(path: str, content: str, ctx: Context) -> str:
    """Create a file or replace all of it."""
    file = _writable(ctx, path)
    data = _encoded(content, "content")
    with _reading(path):
        existed = file.exists()
        before = _shown(ctx, file) if existed else None
        file.parent.mkdir(parents=True, exist_ok=True)
        if not (_is_shared(ctx, file) and ctx.write_buffer(file, content)):
            _replace(file, data)
    if before is not None:
        ctx.edited(file, before, content)
    count = content.count("\n") + (not content.endswith("\n") and bool(content))
    return f"{'replaced' if existed else 'created'} `{path}`: {_counted(count, 'line')}, {_counted(len(data), 'byte')}"


@tool(
    open_world=False,
    examples=["replace foo with bar in main.py", "change the version number in Cargo.toml", "edit a line of a file"],
)
def edit(path: str, old: str, new: str, ctx: Context, all: bool = False) -> str:  # noqa: A002 (the model's word)
    """Replace exact text in a file; old must occur once unless all."""
    file = _writable(ctx, path)
    if not old:
        raise Retry("`old` is empty; to make a new file use `fs.write`")
    if old == new:
        raise Retry("`old` and `new` are the same")
    with _reading(path):
        data = shared = _in_editor(ctx, file)
        if data is None:
            with _open(file, path) as stream:
                data = stream.read(_MOST_EDITED + 1)
        if len(data) > _MOST_EDITED:
            raise Failed(f"`{path}` is larger than {_MOST_EDITED // 1024 // 1024} MB, too large to edit")
        # Bytes, so that what is not touched stays as it was, whatever its encoding and line ends.
        before, after = _encoded(old, "old"), _encoded(new, "new")
        if b"\r\n" in data and before not in data:
            before, after = (text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for text in (before, after))
        count = data.count(before)
        if count == 0:
            raise Retry(f"`old` does not occur in `{path}`{_nearest(data, old)}")
        first = data.index(before)
        if count > 1 and not all:
            raise Retry(
                f"`old` occurs {count} times in `{path}`, in lines {_where(data, before)}; "
                "take in a line before or after, or set `all`"
            )
        edited = data.replace(before, after)
        # What was not read from the editor may be other words than those it has.
        if shared is None or not ctx.write_buffer(file, edited.decode()):
            _replace(file, edited)
    line = data.count(b"\n", 0, first) + 1
    return f"replaced {_counted(count, 'occurrence')} in `{path}`, the first in line {line}"


@tool(
    name="list",
    read_only=True,
    open_world=False,
    examples=["list the files here", "what is in the folder src?", "find all files ending in .py"],
)
def list_(ctx: Context, path: str = ".", glob: Annotated[str, Field(description="e.g. **/*.py")] = "*") -> str:
    """List a folder, or find files by name."""
    folder = ctx.resolve(path, must_exist=True)
    if not folder.is_dir():
        raise Failed(f"`{path}` is no folder; `fs.stat` tells more about it")
    matches = walk.matcher(glob)
    entries: list[str] = []
    with _reading(path):
        found, remark = walk.entries(folder) if "/" in glob or "**" in glob else (walk.folder(folder), None)
        for entry in found:
            if not matches(entry.rstrip("/")):
                continue
            if len(entries) == _MOST_ENTRIES:
                entries.append(f"[more than {_MOST_ENTRIES}; narrow it down]")
                break
            entries.append(entry)
        if remark is not None:
            entries.append(f"[{remark}; list a folder below]")
    return "\n".join(entries) or f"nothing in `{path}` matches `{glob}`"


@tool(
    read_only=True,
    open_world=False,
    timeout=60,
    examples=[
        "where is the function parse_config defined?",
        "search the code for TODO",
        "which files mention retries?",
    ],
)
def search(text: str, ctx: Context, path: str = ".", glob: str = "**", regex: bool = False) -> str:
    """Search files for text; gives path:line:text."""
    if not text:
        raise Retry("`text` is empty")
    start = ctx.resolve(path, must_exist=True)
    return walk.search(ctx, start, text, glob, regex=regex)


@tool(
    read_only=True,
    open_world=False,
    examples=["how large is data.csv?", "when was the file last modified?", "does the file setup.cfg exist?"],
)
def stat(path: str, ctx: Context) -> dict[str, Any]:
    """Size, kind and modification time."""
    file = ctx.resolve(path)
    try:
        found = file.lstat()
    except FileNotFoundError:
        return {"path": path, "kind": "nothing"}
    except OSError as error:
        raise _failed(path, error) from None
    kinds = {modes.S_IFREG: "file", modes.S_IFDIR: "folder", modes.S_IFLNK: "link"}
    return {
        "path": path,
        "kind": kinds.get(modes.S_IFMT(found.st_mode), "special"),
        "size": found.st_size,
        "modified": datetime.fromtimestamp(found.st_mtime).astimezone().isoformat(timespec="seconds"),
        "mode": f"{modes.S_IMODE(found.st_mode):04o}",
    }


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(path, error) from None


def _failed(path: str, error: OSError) -> Failed:
    if error.errno == errno.ENOENT:
        return Failed(f"there is no `{path}` in the workspace")
    return Failed(f"`{path}` cannot be used: {error.strerror or error}")


def _in_editor(ctx: Context, file: Path, start: int = 1, lines: int | None = None) -> bytes | None:
    """Lines of a file as the editor has it; nothing where it is to be read from the disk."""
    text = ctx.read_buffer(file, start, lines) if _is_shared(ctx, file) else None
    return None if text is None else text.encode()


def _shown(ctx: Context, file: Path) -> str | None:
    """What is in a file, if that is a text that people are shown: UTF-8, and not too long."""
    try:
        data = _in_editor(ctx, file)
        if data is None:
            with _open(file, file.name) as stream:
                data = stream.read(_MOST_SHOWN + 1)
        return data.decode() if len(data) <= _MOST_SHOWN and b"\0" not in data else None
    except (OSError, UnicodeDecodeError, Failed):
        # It is replaced all the same.
        return None


def _is_shared(ctx: Context, file: Path) -> bool:
    """Whether an editor is asked about it: it is not there yet, or UTF-8 and not too long to be sent."""
    if not ctx.has_editor:
        return False
    try:
        found = file.lstat()
        if not modes.S_ISREG(found.st_mode) or found.st_size > _MOST_SHARED:
            return False
        data = file.read_bytes()
        data.decode()
        return b"\0" not in data
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False


def _open(file: Path, path: str) -> Any:
    # Without O_NONBLOCK opening a named pipe waits for a writer, for ever.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = modes.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == modes.S_IFREG:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if kind == modes.S_IFDIR:
        raise Failed(f"`{path}` is a folder; list it with `fs.list`")
    raise Failed(f"`{path}` is no ordinary file")


def _refuse_binary(stream: Any, path: str) -> None:
    if b"\0" in stream.read(8192):
        raise Failed(f"`{path}` is a binary file of {os.fstat(stream.fileno()).st_size} bytes, not text")
    stream.seek(0)


def _skip(stream: Any, count: int, ctx: Context) -> bool:
    """Go forward by so many lines; false when there are not that many."""
    while count > 0:
        place = stream.tell()
        chunk = stream.read(_CHUNK)
        if not chunk:
            return False
        if ctx.cancelled:
            raise ToolCancelled
        here = chunk.count(b"\n")
        if here < count:
            count -= here
            continue
        end = -1
        for _ in range(count):
            end = chunk.index(b"\n", end + 1)
        stream.seek(place + end + 1)
        count = 0
    return True


def _lines(stream: Any) -> Iterator[str]:
    while line := stream.readline(_LONGEST_LINE):
        text = line.decode("utf-8", "replace").removeprefix("\ufeff")
        if len(line) < _LONGEST_LINE or line.endswith(b"\n"):
            yield text
            continue
        left = 0
        while rest := stream.readline(_CHUNK):
            left += len(rest)
            if rest.endswith(b"\n"):
                break
            if left > _MOST_EDITED:
                yield f"{text} [this line goes on for more than {_MOST_EDITED // 1024 // 1024} MB]\n"
                return
        yield f"{text} [{left} more bytes in this line]\n" if left > 1 else text + "\n" * left


def _writable(ctx: Context, path: str) -> Path:
    file = ctx.resolve(path)
    inside = file.relative_to(ctx.resolve("."))
    if any(part.casefold() == ".git" for part in inside.parts):
        raise Failed(f"`{path}` belongs to git itself and is left alone")
    if os.path.isdir(file):
        raise Failed(f"`{path}` is a folder, not a file")
    return file


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Retry(f"`{name}` contains half of a surrogate pair, which no text file can hold") from None


def _replace(file: Path, data: bytes) -> None:
    """Write beside the file and rename over it, so that nobody ever sees half of it."""
    if file.exists() and not file.is_file():
        raise Failed(f"`{file.name}` is no ordinary file")
    beside = file.with_name(f".{uuid.uuid4().hex}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(stream.fileno(), modes.S_IMODE(file.stat().st_mode))
            stream.write(data)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _where(data: bytes, text: bytes) -> str:
    places, at = [], data.find(text)
    while at >= 0 and len(places) < 10:
        places.append(str(data.count(b"\n", 0, at) + 1))
        at = data.find(text, at + len(text))
    return ", ".join(places) + ("…" if at >= 0 else "")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _nearest(data: bytes, old: str) -> str:
    """Point at the line most like the first line that was looked for."""
    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")[:200]
    lines = [line.strip()[:200] for line in data[:_CHUNK].decode("utf-8", "replace").splitlines()[:5000]]
    if wanted in lines:
        return f"; its first line is line {lines.index(wanted) + 1}, so look at spaces and at the lines around it"
    close = get_close_matches(wanted, lines, 1, 0.6) if wanted else []
    if close:
        return f"; the nearest is line {lines.index(close[0]) + 1}: {close[0]!r}"
    return "; read the file again"
