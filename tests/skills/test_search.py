"""The search in Rust finds what the one in Python finds, in the same order."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni import Context, extensions, testing

ROOT = Path(__file__).parents[2]
FS = ROOT / "assets/skills/fs"
CRATE = FS / "extensions/search"
PATTERNS = [
    *(r"^t\w+", r"\bone\b", r"o$", r"(?i)TWO", r"[^a-z\s]", r"^$", r"a{2,}", r"\s+$", r"t(?:w|hr)o*", r"\W\w"),
    *(r"\d+", r"[\w.-]+@", r"(?=one)", r"(o)\1", r"é|²", r"[]x]", r"x\x1c", r"o++n", r"\r", r"(?i)k", r"\S\D"),
]
WORDS = [
    "one",
    "two",
    "three",
    "aa",
    "é",
    "²",
    "a\u0301",
    "x\x1cy",
    "1@x",
    "\u017f",
    "\u212a",
    "K",
    "TWO",
    "]",
    "\u3000",
]
WORDS += ["日本語", "😀", "\u0130", "\ufeff", "\u2028", "", " ", "\t", "\r"]
ENDS = [b"", b"\n", b"\r\n", b"\xff\n", b"\0", b"\xe3\x81", b"a" * 400]
NAMES = ["a", "é", ".h", "a-", "a+", "a b", "日", "x.log", "[a]"]
RULES = [
    "",
    "a1\n",
    "*2\n!a2\n",
    "/d0/\n",
    "d1\n",
    "*.log*\n",
    "d0/*\n!d0/a0\n",
    "**/d1/a*\n",
    "é*\n",
    "# a0\n\\#\n",
    "a0 \n",
]


@pytest.fixture(scope="session")
def rust() -> Any:
    """The extension, built."""
    if shutil.which("cargo") is None:
        pytest.skip("THE RUST SEARCH IS NOT TESTED: there is no cargo on PATH")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "extensions"
    settings = {"PYO3_NO_PYTHON": "1", "PYO3_BUILD_EXTENSION_MODULE": "1", "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--release", "--locked", "--quiet"]
    subprocess.run(command, cwd=CRATE, env={**os.environ, **settings}, check=True, timeout=900)
    return extensions.library(target / "release/libfs_search.so", "fs_search")


@pytest.fixture
def walk() -> Any:
    return testing.load(FS, "scripts/walk.py")


def grow(folder: Path, chance: random.Random, depth: int = 0) -> None:
    for number in range(chance.randint(1, 5)):
        lines = [" ".join(chance.choices(WORDS, k=chance.randint(0, 4))) for _ in range(chance.randint(0, 60))]
        data = chance.choice(["\n", "\r\n"]).join(lines).encode() + chance.choice(ENDS)
        (folder / f"{chance.choice(NAMES)}{number}").write_bytes(data)
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_bytes(b"one\n")
    (folder / ".gitignore").write_text(chance.choice(RULES) + chance.choice(RULES))
    if depth < 2:
        for number in range(chance.randint(0, 3)):
            inner = folder / f"d{number}"
            inner.mkdir()
            grow(inner, chance, depth + 1)
            if chance.random() < 0.2:
                # A repository inside, and what only looks like one.
                (inner / ".git").mkdir()
                if chance.random() < 0.5:
                    subprocess.run(["git", "init", "--quiet"], cwd=inner, check=True)
    (folder / "link").symlink_to("a0")
    (folder / "up").symlink_to("..")
    (folder / "gone").symlink_to("nothing")
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize("seed", range(12))
def test_both_find_the_same(rust: Any, walk: Any, git: Callable[..., str], workspace: Path, seed: int) -> None:
    chance = random.Random(seed)
    grow(workspace, chance)
    outer = [path for path in workspace.rglob("a*") if path.is_file() and not _is_inside(path, workspace)]
    git("add", "--force", *[str(path) for path in outer if chance.random() < 0.3], str(workspace / ".gitignore"))
    if seed % 3 == 0:
        (workspace / ".git").rename(workspace.parent / "gone")
    ctx = testing.context(workspace)
    for text, regex in [("one", False), ("o t", False), (".", False), *[(pattern, True) for pattern in PATTERNS]]:
        with testing.fixture(FS, "search", rust):
            found = walk.search(ctx, workspace, text, "**", regex=regex)
        assert walk.search(ctx, workspace, text, "**", regex=regex) == found, text
    with testing.fixture(FS, "search", rust):
        names = walk.entries(workspace)
    assert walk.entries(workspace) == names


def _is_inside(path: Path, workspace: Path) -> bool:
    """Whether a repository below has it."""
    return any(
        (parent / ".git").exists()
        for parent in path.parents
        if parent.is_relative_to(workspace / "d0") or workspace in parent.parents
    )


@pytest.mark.parametrize("engine", ["rust", "pure"])
@pytest.mark.parametrize("repository", [True, False])
def test_what_was_left_out_is_told(
    request: pytest.FixtureRequest,
    walk: Any,
    git: Callable[..., str],
    ctx: Context,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    repository: bool,
) -> None:
    if not repository:
        shutil.rmtree(workspace / ".git")
    for number in range(20):
        (workspace / f"{number}.txt").write_text("word\n")
    with contextlib.ExitStack() as stack:
        if engine == "rust":
            stack.enter_context(testing.fixture(FS, "search", request.getfixturevalue("rust")))
        whole = walk.search(ctx, workspace, "word", "**", regex=False)
        assert "[" not in whole
        assert len(whole.splitlines()) == 20
        monkeypatch.setattr(walk, "_MOST_FILES", 7)
        found = walk.search(ctx, workspace, "word", "**", regex=False)
        assert found.splitlines()[-1] == (
            "[not all files were found within 20 s, or there are more than 7; search a folder below]"
        )
        assert len(found.splitlines()) == 8
        assert "`other` occurs in none of 7 files\n[not all" in walk.search(ctx, workspace, "other", "**", regex=False)
        monkeypatch.setattr(walk, "_MOST_FILES", 1000)
        monkeypatch.setattr(walk, "_DEADLINE", 0.0)
        _, remark = walk.entries(workspace)
        assert remark is not None


def test_many_results_that_have_to_wait(rust: Any, walk: Any, ctx: Context, workspace: Path) -> None:
    """The first file takes longest, and every other one has matches."""
    (workspace / "0").write_bytes(b"x\n" * 8_000_000)
    for number in range(1, 2_000):
        (workspace / f"{number:04}").write_text("word\n" * 3)
    with testing.fixture(FS, "search", rust):
        found = walk.search(ctx, workspace, "word", "**", regex=False)
    lines = found.splitlines()
    assert lines[0] == "0001:1:word"
    assert lines[199] == "0067:2:word"
