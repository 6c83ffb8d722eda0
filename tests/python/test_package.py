"""The package's front door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import omni

ROOT = Path(omni.__file__).parent


def test_all_is_sorted_and_true() -> None:
    assert omni.__all__ == sorted(omni.__all__)
    tree = ast.parse((ROOT / "__init__.py").read_text())
    imported = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for name in node.names
    }
    assert set(omni.__all__) == imported
    assert all(getattr(omni, name).__name__ == name for name in ("Agent", "Turn", "ask"))


def test_only_one_file_knows_the_rust_half() -> None:
    knowing = {
        file.name for file in ROOT.glob("*.py") if '_omni"' in file.read_text() or "import _omni" in file.read_text()
    }
    assert knowing == {"_native.py"}


def test_without_the_rust_half_the_command_says_so() -> None:
    code = "import sys, omni._native as n; sys.exit(n.main(['omni']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the Rust half is missing" in done.stderr


def test_importing_stays_cheap() -> None:
    code = "import sys, omni, omni.kernel; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True
    ).stdout.split()
    assert "omni" in loaded
    slow = {"asyncio", "bs4", "logging", "markdownify", "multiprocessing", "pydantic", "pydantic_core", "sqlite3"}
    assert not slow & set(loaded)


def test_without_the_wheel_there_is_no_assistant_and_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="installed the wheel"):
        omni.ask("how are you?")
