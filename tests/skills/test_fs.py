"""Files of the workspace, and the wall around it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni import Context, Failed, Retry, testing
from omni.errors import ToolCancelled

SKILLS = Path(__file__).parents[2] / "assets" / "skills"

Use = Callable[..., Any]


@pytest.fixture(autouse=True)
def files(workspace: Path) -> None:
    (workspace / "a.txt").write_text("one\ntwo\nthree\n")
    (workspace / "src").mkdir()
    (workspace / "src/main.py").write_text("def main():\n    print('hello')\n")


EVERY_TOOL = [
    ("fs.read", {}),
    ("fs.write", {"content": "x"}),
    ("fs.edit", {"old": "one", "new": "two"}),
    ("fs.list", {}),
    ("fs.search", {"text": "root"}),
    ("fs.stat", {}),
]


@pytest.mark.parametrize(("tool", "others"), EVERY_TOOL, ids=[tool for tool, _ in EVERY_TOOL])
@pytest.mark.parametrize(
    "path",
    ["../secret", "/etc/passwd", "src/../../secret", "out", "out/secret", "dangling", "a\0b", "out/new/deep.txt"],
)
def test_nothing_leads_outside(use: Use, workspace: Path, tool: str, others: dict[str, Any], path: str) -> None:
    secret = workspace.parent / "secret"
    secret.write_text("one root\n")
    (workspace / "out").symlink_to(workspace.parent)
    (workspace / "dangling").symlink_to(workspace.parent / "nothing")
    before = sorted(workspace.parent.iterdir())
    with pytest.raises(Failed, match=r"outside the workspace|NUL"):
        use(tool, path=path, **others)
    assert secret.read_text() == "one root\n"
    assert sorted(workspace.parent.iterdir()) == before


def test_a_tilde_is_a_character(use: Use, workspace: Path) -> None:
    use("fs.write", path="~/x", content="here")
    assert (workspace / "~/x").read_text() == "here"


def test_a_link_inside_is_followed(use: Use, workspace: Path) -> None:
    (workspace / "link").symlink_to("a.txt")
    use("fs.edit", path="link", old="two", new="zwei")
    assert (workspace / "link").is_symlink()
    assert (workspace / "a.txt").read_text() == "one\nzwei\nthree\n"


def test_read_all_some_and_beyond(use: Use) -> None:
    assert use("fs.read", path="a.txt") == "one\ntwo\nthree\n"
    assert use("fs.read", path="a.txt", start=2, lines=1) == "two\n[more follows: start=3]"
    assert use("fs.read", path="a.txt", start=2, lines=2) == "two\nthree\n"
    with pytest.raises(Failed, match="fewer than 9 lines"):
        use("fs.read", path="a.txt", start=9)
    with pytest.raises(Retry, match="counted from 1"):
        use("fs.read", path="a.txt", start=0)


def test_read_an_empty_file(use: Use, workspace: Path) -> None:
    (workspace / "empty").touch()
    assert use("fs.read", path="empty") == ""


def test_read_what_is_no_text(use: Use, workspace: Path) -> None:
    (workspace / "image.png").write_bytes(b"\x89PNG\0\0")
    (workspace / "latin1").write_bytes(b"caf\xe9\n")
    os.mkfifo(workspace / "pipe")
    with pytest.raises(Failed, match="binary file of 6 bytes"):
        use("fs.read", path="image.png")
    with pytest.raises(Failed, match="is a folder"):
        use("fs.read", path="src")
    with pytest.raises(Failed, match="no ordinary file"):
        use("fs.read", path="pipe")
    with pytest.raises(Failed, match="there is no `missing`"):
        use("fs.read", path="missing")
    assert use("fs.read", path="latin1") == "caf\N{REPLACEMENT CHARACTER}\n"


def test_read_a_range_of_two_gigabytes(use: Use, workspace: Path) -> None:
    large = workspace / "large.log"
    with large.open("wb") as stream:
        stream.write(b"".join(b"line %d\n" % number for number in range(1, 100_001)))
        stream.truncate(2 * 1024**3)
    assert use("fs.read", path="large.log", start=99_999, lines=1) == "line 99999\n[more follows: start=100000]"


def test_read_a_line_of_a_gigabyte(use: Use, workspace: Path) -> None:
    with (workspace / "line").open("wb") as stream:
        stream.write(b"a" * 10_000)
        stream.truncate(1024**3)
    text = use("fs.read", path="line")
    assert len(text) < 3000
    assert text.endswith("[this line goes on for more than 16 MB]\n")


def test_reading_stops_when_cancelled(workspace: Path) -> None:
    ctx = testing.context(workspace)
    ctx._native.is_cancelled = True  # type: ignore[attr-defined]
    with (workspace / "large").open("wb") as stream:
        stream.write(b"a" * 10_000)
        stream.truncate(64 * 1024**2)
    fs = testing.load(Path(__file__).parents[2] / "assets/skills/fs")
    with pytest.raises(ToolCancelled):
        testing.call(fs.read, ctx, path="large", start=5)


def test_write_makes_folders_and_replaces_at_once(use: Use, workspace: Path) -> None:
    assert (
        use("fs.write", path="new/deep/file.txt", content="a\nb\n") == "created `new/deep/file.txt`: 2 lines, 4 bytes"
    )
    script = workspace / "run.sh"
    script.write_text("old")
    script.chmod(0o750)
    held = script.open()
    assert use("fs.write", path="run.sh", content="new").startswith("replaced")
    assert script.read_text() == "new"
    assert stat.S_IMODE(script.stat().st_mode) == 0o750
    assert held.read() == "old", "whoever reads the old file reads all of it"
    held.close()
    assert [path.name for path in workspace.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("path", [".git/config", "sub/.git/hooks/pre-commit", ".GIT/config", "link/config"])
def test_git_is_left_alone(use: Use, workspace: Path, path: str) -> None:
    (workspace / ".git").mkdir()
    (workspace / "link").symlink_to(".git")
    for tool, others in (("fs.write", {"content": "x"}), ("fs.edit", {"old": "a", "new": "b"})):
        with pytest.raises(Failed, match="belongs to git"):
            use(tool, path=path, **others)


def test_write_where_it_cannot_be(use: Use) -> None:
    with pytest.raises(Failed, match="is a folder"):
        use("fs.write", path="src", content="x")
    with pytest.raises(Failed, match="cannot be used"):
        use("fs.write", path="a.txt/below", content="x")
    with pytest.raises(Failed, match="cannot be used"):
        use("fs.write", path="n" * 300, content="x")
    with pytest.raises(Retry, match="surrogate"):
        use("fs.write", path="x", content="\ud800")


def test_edit_what_occurs_once(use: Use, workspace: Path) -> None:
    assert (
        use("fs.edit", path="a.txt", old="two\n", new="2\n") == "replaced 1 occurrence in `a.txt`, the first in line 2"
    )
    assert (workspace / "a.txt").read_text() == "one\n2\nthree\n"


def test_edit_what_occurs_often(use: Use, workspace: Path) -> None:
    (workspace / "b.txt").write_text("x\ny\nx\n")
    with pytest.raises(Retry, match=r"occurs 2 times in `b\.txt`, in lines 1, 3"):
        use("fs.edit", path="b.txt", old="x", new="z")
    assert use("fs.edit", path="b.txt", old="x", new="z", all=True).startswith("replaced 2 occurrences")
    assert (workspace / "b.txt").read_text() == "z\ny\nz\n"


def test_edit_what_is_not_there(use: Use, workspace: Path) -> None:
    with pytest.raises(Retry, match="its first line is line 2"):
        use("fs.edit", path="src/main.py", old="print('hello')\nreturn", new="x")
    with pytest.raises(Retry, match='the nearest is line 2: "print'):
        use("fs.edit", path="src/main.py", old="print('hallo')", new="x")
    with pytest.raises(Retry, match="read the file again"):
        use("fs.edit", path="src/main.py", old="entirely different", new="x")
    with pytest.raises(Retry, match="is empty"):
        use("fs.edit", path="src/main.py", old="", new="x")
    with pytest.raises(Retry, match="are the same"):
        use("fs.edit", path="src/main.py", old="x", new="x")


def test_edit_keeps_line_ends_and_foreign_bytes(use: Use, workspace: Path) -> None:
    file = workspace / "dos.txt"
    file.write_bytes(b"caf\xe9\r\none\r\ntwo\r\n")
    use("fs.edit", path="dos.txt", old="one\ntwo", new="1\n2\n3")
    assert file.read_bytes() == b"caf\xe9\r\n1\r\n2\r\n3\r\n"


def test_list_a_folder_and_find_by_name(use: Use, workspace: Path) -> None:
    (workspace / ".git").mkdir()
    (workspace / ".git/hidden.py").touch()
    (workspace / "src/deep").mkdir()
    (workspace / "src/deep/util.ts").touch()
    assert use("fs.list") == ".git/\na.txt\nsrc/"
    assert use("fs.list", glob="**/*.py") == "src/main.py"
    assert use("fs.list", glob="src/**/*.{py,ts}") == "src/deep/util.ts\nsrc/main.py"
    assert use("fs.list", path="src", glob="[!a]*.py") == "main.py"
    assert use("fs.list", glob="*.rs") == "nothing in `.` matches `*.rs`"
    with pytest.raises(Failed, match="is no folder"):
        use("fs.list", path="a.txt")
    with pytest.raises(Retry, match="too many stars"):
        use("fs.list", glob="*a" * 30)


def test_a_long_list_is_cut(use: Use, workspace: Path) -> None:
    for number in range(600):
        (workspace / f"f{number}").touch()
    lines = use("fs.list").splitlines()
    assert len(lines) == 501
    assert lines[-1] == "[more than 500; narrow it down]"


def test_search_text_regex_and_glob(use: Use, workspace: Path) -> None:
    assert use("fs.search", text="print('") == "src/main.py:2:print('hello')\n"
    assert use("fs.search", text=r"^t\w+", regex=True) == "a.txt:2:two\na.txt:3:three\n"
    assert use("fs.search", text="o", glob="*.txt") == "a.txt:1:one\na.txt:2:two\n"
    assert use("fs.search", text="main", path="src") == "src/main.py:1:def main():\n"
    assert use("fs.search", text="three", path="a.txt") == "a.txt:3:three\n"
    assert use("fs.search", text="nowhere") == "`nowhere` occurs in none of 2 files"
    with pytest.raises(Retry, match="no regular expression"):
        use("fs.search", text="(", regex=True)
    with pytest.raises(Retry, match="is empty"):
        use("fs.search", text="")


def test_search_skips_what_git_ignores_binaries_and_links_outside(use: Use, workspace: Path, git: Any) -> None:
    (workspace.parent / "outside.txt").write_text("needle\n")
    (workspace / "link.txt").symlink_to(workspace.parent / "outside.txt")
    (workspace / "folder").symlink_to(workspace.parent)
    (workspace / "ignored").mkdir()
    (workspace / "ignored/x.txt").write_text("needle\n")
    (workspace / ".gitignore").write_text("ignored/\n")
    (workspace / "b.bin").write_bytes(b"\0needle")
    os.mkfifo(workspace / "pipe")
    (workspace / "here.txt").write_text("needle\n")
    assert use("fs.search", text="needle") == "here.txt:1:needle\n"
    (workspace / ".git").rename(workspace.parent / "gone")
    assert use("fs.search", text="needle") == "here.txt:1:needle\nignored/x.txt:1:needle\n"


def test_a_search_is_bounded(use: Use, workspace: Path) -> None:
    for number in range(20):
        (workspace / f"f{number:02}").write_text("needle\n" * 100)
    lines = use("fs.search", text="needle").splitlines()
    assert len(lines) == 201
    assert lines[30] == "f00:31:[more in this file]"
    assert lines[-1] == "[more than 200 matches; narrow it down]"


def test_a_regex_that_never_ends(use: Use, ctx: Context, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "evil.txt").write_text("a" * 64 + "!\n")
    walk = testing.load(Path(__file__).parents[2] / "assets/skills/fs", "scripts/walk.py")
    monkeypatch.setattr(walk, "_DEADLINE", 0.5)
    with pytest.raises(Failed, match=r"took longer than 0\.5 s"):
        use("fs.search", text="(a+)+$", regex=True)


def test_stat(use: Use, workspace: Path) -> None:
    (workspace / "a.txt").chmod(0o640)
    found = use("fs.stat", path="a.txt")
    assert (found["kind"], found["size"], found["mode"]) == ("file", 14, "0640")
    assert use("fs.stat", path="src")["kind"] == "folder"
    assert use("fs.stat", path="missing") == {"path": "missing", "kind": "nothing"}


@pytest.fixture
def buffers(workspace: Path) -> dict[str, str]:
    return {str(workspace / "a.txt"): "one\nunsaved\nthree\n"}


@pytest.fixture
def edit(workspace: Path, buffers: dict[str, str]) -> Use:
    """Call a tool of the skill as an editor does that has files of its own."""
    ctx = testing.context(workspace, buffers=buffers)
    module = testing.load(SKILLS / "fs")
    return lambda name, /, **arguments: testing.call(getattr(module, name), ctx, **arguments)


def test_words_that_are_not_saved_are_read(edit: Use, workspace: Path) -> None:
    assert edit("read", path="a.txt") == "one\nunsaved\nthree\n"
    assert edit("read", path="a.txt", start=2, lines=1) == "unsaved\n[more follows: start=3]"
    with pytest.raises(Failed, match="fewer than 9 lines"):
        edit("read", path="a.txt", start=9)
    assert edit("read", path="src/main.py").startswith("def main()")
    with pytest.raises(Failed, match=r"there is no `none\.txt`"):
        edit("read", path="none.txt")


def test_the_editor_writes(edit: Use, workspace: Path, buffers: dict[str, str]) -> None:
    edit("edit", path="a.txt", old="unsaved", new="changed")
    assert buffers[str(workspace / "a.txt")] == "one\nchanged\nthree\n"
    assert (workspace / "a.txt").read_text() == "one\ntwo\nthree\n"
    assert edit("write", path="new.txt", content="here\n") == "created `new.txt`: 1 line, 5 bytes"
    assert buffers[str(workspace / "new.txt")] == "here\n"
    assert not (workspace / "new.txt").exists()


def test_what_is_no_text_is_not_for_the_editor(edit: Use, workspace: Path, buffers: dict[str, str]) -> None:
    (workspace / "latin.txt").write_bytes(b"caf\xe9 one\n")
    buffers[str(workspace / "latin.txt")] = "caf? one\n"
    edit("edit", path="latin.txt", old="one", new="two")
    assert (workspace / "latin.txt").read_bytes() == b"caf\xe9 two\n"
    # The editor has not the words that were read, so it is not to have them replaced.
    edit("edit", path="src/main.py", old="hello", new="bye")
    assert "bye" in (workspace / "src/main.py").read_text()
    assert str(workspace / "src/main.py") not in buffers


def test_what_is_replaced_is_said(workspace: Path, buffers: dict[str, str]) -> None:
    call = testing.Call(str(workspace), str(workspace), buffers=buffers)
    module = testing.load(SKILLS / "fs")

    def write(path: str, content: str) -> list[tuple[str, str | None, str]]:
        call.changes.clear()
        testing.call(module.write, Context(call), path=path, content=content)
        return call.changes

    # The words that the editor had.
    assert write("a.txt", "new\n") == [("a.txt", "one\nunsaved\nthree\n", "new\n")]
    (workspace / "link").symlink_to("src")
    assert write("link/main.py", "") == [("src/main.py", "def main():\n    print('hello')\n", "")]
    assert write("new.txt", "new\n") == [], "its arguments say it all"
    call.buffers = None
    assert write("a.txt", "new\n") == [("a.txt", "one\ntwo\nthree\n", "new\n")]
    for name, data in [("binary", b"a\0b"), ("latin", b"caf\xe9"), ("long", b"a line\n" * 20_000)]:
        (workspace / name).write_bytes(data)
        assert write(name, "new\n") == []
        assert (workspace / name).read_text() == "new\n"
