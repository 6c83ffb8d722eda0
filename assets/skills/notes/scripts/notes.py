"""Notes in one file, a JSON object per line."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omni import Context, Failed, Retry, tool

_LONGEST = 16_000
_LARGEST_FILE = 64 * 1024 * 1024
_MOST_SHOWN = 100


@tool(
    destructive=False,
    open_world=False,
    examples=["remember that the meeting is on Friday", "note down this idea", "make a note: buy milk"],
)
def add(text: str, ctx: Context) -> str:
    """Keep a note."""
    text = text.strip()
    if not text:
        raise Retry("the note is empty")
    if len(text) > _LONGEST:
        raise Retry(f"a note has at most {_LONGEST} characters; write the rest to a file with `fs.write`")
    note = {"id": secrets.token_hex(4), "made": datetime.now(UTC).isoformat(timespec="seconds"), "text": text}
    _append(_file(ctx), json.dumps(note).encode("ascii"))
    return f"kept as note {note['id']}"


@tool(
    read_only=True,
    open_world=False,
    examples=["what did I note about the meeting?", "search my notes for milk"],
)
def search(query: str, ctx: Context, count: int = 10) -> str:
    """Find notes by words."""
    words = list(dict.fromkeys(query.casefold().split()))
    if not words:
        raise Retry("`query` has no words")
    ranked: list[tuple[int, int, dict[str, Any]]] = []
    for place, note in enumerate(_notes(_file(ctx))):
        text = note["text"].casefold()
        hits = sum(word in text for word in words)
        if hits:
            ranked.append((hits, place, note))
    if not ranked:
        return f"no note contains `{query}`"
    # Those with all the words, or else those with the most; the latest first.
    best = max(hits for hits, _, _ in ranked)
    found = sorted((entry for entry in ranked if entry[0] == best), key=lambda entry: -entry[1])
    return _shown([note for _, _, note in found], count)


@tool(
    name="list",
    read_only=True,
    open_world=False,
    examples=["list my notes", "show the latest notes"],
)
def list_(ctx: Context, count: int = 10) -> str:
    """Latest notes."""
    notes = list(_notes(_file(ctx)))
    return _shown(notes[::-1], count) if notes else "there are no notes yet"


def _file(ctx: Context) -> Path:
    return ctx.data / "notes.jsonl"


def _append(file: Path, line: bytes) -> None:
    """Add a line. The lock is for other processes, the sync for the note."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        size = stream.seek(0, os.SEEK_END)
        if size > _LARGEST_FILE:
            raise Failed(f"the notes fill {size} bytes in `{file}`; a person has to sort them out")
        if size:
            # A line that was cut off by a crash must not swallow this one.
            stream.seek(size - 1)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        stream.write(line + b"\n")
        os.fsync(descriptor)


def _notes(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    with file.open("rb") as stream:
        for line in stream:
            try:
                note = json.loads(line)
            except ValueError:
                continue
            if isinstance(note, dict) and isinstance(note.get("text"), str):
                yield note


def _shown(notes: list[dict[str, Any]], count: int) -> str:
    count = max(1, min(count, _MOST_SHOWN))
    lines = [f"{note.get('id')} {note.get('made')}: {note['text']}" for note in notes[:count]]
    return "\n".join([*lines, f"[{len(notes) - count} more]"] if len(notes) > count else lines)
