"""Running git: no shell, no prompt, no pager, no program that a repository names, and bounded output."""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from omni import Context, Failed
from omni.errors import ToolCancelled

PLAIN_DIFF = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--ignore-submodules=dirty"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
MOST_SHOWN = 40_000
_MOST_READ = 64 * 1024 * 1024
_TIMEOUT = 120.0
_HOOK_TIMEOUT = 540.0

_COMMAND = (
    "git",
    "--no-pager",
    "--literal-pathspecs",
    # A program that a repository's own settings would have us start merely for looking.
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.splitIndex=false"),
    *("-c", "core.quotePath=false"),
    *("-c", "color.ui=false"),
)


class GitError(Failed):
    """Git ended with an error; the message is what it said."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"git: {said or f'ended with code {code}'}")
        self.code = code
        self.said = said


def text(ctx: Context, *arguments: str) -> str:
    """Run git and return what it prints, shortened to what a model can use."""
    out = run(ctx, *arguments, most=MOST_SHOWN + 1)
    shown = out[:MOST_SHOWN].decode("utf-8", "replace").rstrip("\n")
    return f"{shown}\n[shortened to {MOST_SHOWN} bytes; narrow it down]" if len(out) > MOST_SHOWN else shown


def line(ctx: Context, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run git and return the one line it prints."""
    return run(ctx, *arguments, env=env).decode("utf-8", "surrogateescape").strip()


def run(
    ctx: Context,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    given: bytes = b"",
    where: Path | None = None,
    most: int = _MOST_READ,
    cut: bool = True,
    command: tuple[str, ...] = _COMMAND,
    timeout: float = _TIMEOUT,
) -> bytes:
    """Run git in the workspace and return its output, at most `most` bytes of it.

    With `cut` off, more output than that is an error. Raises `GitError` when git does.
    """
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as errors:
        stdin.write(given)
        stdin.seek(0)
        try:
            child = subprocess.Popen(
                [*command, *arguments],
                cwd=where or ctx.workspace,
                env={**environment(), **(env or {})},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Failed("git is not installed, or not on the PATH") from None
        out, whole = _read(ctx, child, most, timeout)
        if not whole:
            if not cut:
                raise Failed(f"`git {arguments[0]}` gives more than {most // 1024 // 1024} MB; take fewer files")
            return out
        if child.returncode != 0:
            errors.seek(0)
            said = errors.read(4000).decode("utf-8", "replace").strip()
            raise GitError(child.returncode, said or out[:2000].decode("utf-8", "replace").strip())
        return out


def hook(ctx: Context, root: Path, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
    """Run one of the repository's own hooks, if it has it, as `git commit` would."""
    settings = {"GIT_EDITOR": ":", **(env or {})}
    given = ("--", *arguments) if arguments else ()
    # Without our options, which would reach the hook through the environment.
    run(
        ctx,
        *("hook", "run", "--ignore-missing", name, *given),
        env=settings,
        where=root,
        command=("git",),
        timeout=_HOOK_TIMEOUT,
    )


def environment() -> dict[str, str]:
    """Build the environment for git, without the variables that point it at another repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _OWN}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}


_OWN = {
    *("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES"),
}
"""Variables that say who the person is and where their settings are."""


def _read(ctx: Context, child: "subprocess.Popen[bytes]", most: int, timeout: float) -> tuple[bytes, bool]:
    """Read a child's output to its end, or to the bound, or until the time is up."""
    assert child.stdout is not None
    end = time.monotonic() + timeout
    parts: list[bytes] = []
    size = 0
    try:
        while size < most:
            chunk = _chunk(child.stdout, most - size)
            if chunk == b"":
                child.wait(max(0.1, end - time.monotonic()))
                return b"".join(parts), True
            if chunk is not None:
                parts.append(chunk)
                size += len(chunk)
                continue
            if ctx.cancelled:
                raise ToolCancelled
            if time.monotonic() > end:
                raise Failed(f"git took longer than {timeout:g} s and was stopped")
        return b"".join(parts), False
    except subprocess.TimeoutExpired:
        raise Failed(f"git took longer than {timeout:g} s and was stopped") from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stdout.close()


def _chunk(stream: IO[bytes], most: int) -> bytes | None:
    """Read what is there; nothing at the end, `None` when there is nothing for a moment."""
    ready = select.poll()
    ready.register(stream, select.POLLIN | select.POLLHUP)
    if not ready.poll(100):
        return None
    return os.read(stream.fileno(), min(most, 65536))
