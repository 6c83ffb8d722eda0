"""Notes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni import Context, Retry

Use = Callable[..., Any]


def test_kept_listed_and_found(use: Use) -> None:
    assert use("notes.list") == "there are no notes yet"
    first = use("notes.add", text="  Ada's birthday is on\nDecember 10 ").removeprefix("kept as note ")
    use("notes.add", text="Buy MILK and bread")
    use("notes.add", text="milk is out")
    latest = use("notes.list", count=1)
    assert latest.splitlines()[0].endswith(": milk is out")
    assert latest.splitlines()[1] == "[2 more]"
    assert use("notes.search", query="BIRTHDAY").startswith(first)
    assert use("notes.search", query="milk bread").endswith(": Buy MILK and bread")
    assert [
        line.partition("Z: ")[2] or line.rpartition("+00:00: ")[2]
        for line in use("notes.search", query="milk").splitlines()
    ] == [
        "milk is out",
        "Buy MILK and bread",
    ]
    assert use("notes.search", query="nothing") == "no note contains `nothing`"


def test_what_is_no_note(use: Use) -> None:
    with pytest.raises(Retry, match="is empty"):
        use("notes.add", text=" ")
    with pytest.raises(Retry, match="at most"):
        use("notes.add", text="x" * 20_000)
    with pytest.raises(Retry, match="no words"):
        use("notes.search", query=" ")


def test_a_line_cut_off_by_a_crash(use: Use, ctx: Context) -> None:
    use("notes.add", text="before")
    with (ctx.data / "notes.jsonl").open("a") as stream:
        stream.write('{"id": "1", "te')
    use("notes.add", text="after")
    assert [line.rpartition(" ")[2] for line in use("notes.list").splitlines()] == ["after", "before"]


def test_half_a_surrogate_pair(use: Use) -> None:
    use("notes.add", text="odd \ud800 text")
    assert use("notes.list").endswith("odd \N{REPLACEMENT CHARACTER} text")


def test_several_processes_at_once(ctx: Context, use: Use, tmp_path: Path) -> None:
    script = (
        "import sys; from omni import testing\n"
        "notes = testing.load(sys.argv[1]); ctx = testing.context('.', data=sys.argv[2])\n"
        "for number in range(100): testing.call(notes.add, ctx, text='x' * 5000 + f' {sys.argv[3]}-{number}')\n"
    )
    root = Path(__file__).parents[2]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(root / "assets/skills/notes"), str(ctx.data), str(number)],
            env={"PYTHONPATH": str(root / "python")},
        )
        for number in range(3)
    ]
    assert [child.wait() for child in children] == [0, 0, 0]
    lines = (ctx.data / "notes.jsonl").read_bytes().splitlines()
    assert len(lines) == 300
    assert "[299 more]" in use("notes.list", count=1)
