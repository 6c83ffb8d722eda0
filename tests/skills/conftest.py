"""The world a skill's tests live in: a workspace, a data folder, and the skill called as the kernel does."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni import Context, testing

SKILLS = Path(__file__).parents[2] / "assets" / "skills"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def ctx(workspace: Path, tmp_path: Path) -> Context:
    return testing.context(workspace, data=tmp_path / "data")


@pytest.fixture
def use(ctx: Context) -> Callable[..., Any]:
    """Call `skill.tool` with arguments."""

    def use(name: str, /, **arguments: Any) -> Any:
        skill, _, own = name.partition(".")
        module = testing.load(SKILLS / skill)
        function = getattr(module, own, None) or getattr(module, f"{own}_")
        return testing.call(function, ctx, **arguments)

    return use


@pytest.fixture
def git(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make the workspace a repository of somebody without settings, and run git there."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    settings = tmp_path / "gitconfig"
    settings.write_text(
        '[user]\nname = Ada\nemail = ada@example.org\n[init]\ndefaultBranch = main\n[protocol "file"]\nallow = always\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=workspace, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    return git
