"""Running a program."""

import atexit
import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass

from omni import Context, Failed, Retry, tool
from omni.errors import ToolCancelled

_MOST_SECONDS = 3600
_HEAD = 12_000
_TAIL = 12_000
_KEYS = ("_API_KEY", "_API_TOKEN")
_BEAT = 0.5
"""Seconds between two signs of life while the program prints."""
_PATIENCE = 0.2
"""Seconds that a program has to end after each of the two signals that ask it to."""
_LINE = 200
"""Characters of a line that is shown while the program runs."""
_LINGER = 1.0
"""Seconds that output may still come after the program itself has ended."""


@dataclass
class Result:
    exit_code: int | None
    stdout: str
    stderr: str
    note: str = ""


@tool(
    timeout=_MOST_SECONDS + 60,
    examples=["run the tests", "execute cargo build", "run this shell command"],
)
def run(argv: list[str], ctx: Context, cwd: str = ".", stdin: str = "", timeout: float = 120) -> Result:
    """Run a program, without a shell."""
    if not argv or not argv[0]:
        raise Retry("`argv` is empty; its first word is the program")
    if any("\0" in word for word in argv):
        raise Retry("`argv` contains a NUL character")
    if not 0 < timeout <= _MOST_SECONDS:
        raise Retry(f"`timeout` is in seconds, at most {_MOST_SECONDS}")
    folder = ctx.resolve(cwd, must_exist=True)
    if not folder.is_dir():
        raise Failed(f"`{cwd}` is no folder to run in")
    with tempfile.TemporaryFile() as given:
        given.write(stdin.encode("utf-8", "replace"))
        given.seek(0)
        try:
            child = subprocess.Popen(
                argv,
                cwd=folder,
                env=_environment(),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        except FileNotFoundError:
            raise Failed(f"there is no program `{argv[0]}`") from None
        except OSError as error:
            raise Failed(f"`{argv[0]}` cannot be started: {error.strerror or error}") from None
    _running.add(child)
    try:
        return _watch(ctx, child, timeout)
    finally:
        _end(child)


def _environment() -> dict[str, str]:
    """The environment without the keys of model vendors, which no program that a model runs needs."""
    return {name: value for name, value in os.environ.items() if not name.endswith(_KEYS)}


class _Shortened:
    """The beginning and the end of a stream of bytes."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = _HEAD - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(room, 0) :]
        if len(self._tail) > 2 * _TAIL:
            self._left_out += len(self._tail) - _TAIL
            del self._tail[:-_TAIL]

    def text(self) -> str:
        left_out = self._left_out + max(0, len(self._tail) - _TAIL)
        head, tail = bytes(self._head), bytes(self._tail[-_TAIL:])
        if not left_out:
            return (head + tail).decode("utf-8", "replace")
        return f"{head.decode('utf-8', 'replace')}\n[{left_out} bytes left out]\n{tail.decode('utf-8', 'replace')}"


def _watch(ctx: Context, child: "subprocess.Popen[bytes]", timeout: float) -> Result:
    """Read what the program prints until it ends, or has to."""
    assert child.stdout is not None
    assert child.stderr is not None
    end = time.monotonic() + timeout
    out, err = _Shortened(), _Shortened()
    note, beat, lines = "", 0.0, 0
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, out)
        selector.register(child.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            for key, _ in selector.select(0.1):
                data = os.read(key.fd, 65536)
                key.data.add(data)
                lines += data.count(b"\n")
                if data and time.monotonic() > beat:
                    # Whoever prints is alive, and somebody may wait to see how far it is.
                    ctx.progress(lines, message=_last(data))
                    beat = time.monotonic() + _BEAT
                if not data:
                    selector.unregister(key.fileobj)
            if ctx.cancelled:
                raise ToolCancelled
            now = time.monotonic()
            if child.poll() is not None and not note:
                # Something it started may still hold the other ends.
                end, note = min(end, now + _LINGER), "what it left running was ended"
            if now > end:
                break
        else:
            note = ""
            while child.poll() is None and time.monotonic() < end and not ctx.cancelled:
                time.sleep(0.02)
    if child.poll() is None:
        note = f"stopped after {timeout:g} s"
    return Result(child.returncode, out.text(), err.text(), note)


def _last(data: bytes) -> str | None:
    """The last line in a piece of output that says something."""
    lines = data.decode("utf-8", "replace").splitlines()
    return next((line.strip()[:_LINE] for line in reversed(lines) if line.strip()), None)


_running: set["subprocess.Popen[bytes]"] = set()


@atexit.register
def _leave() -> None:
    """Kill what has not ended yet: nobody waits for it any more."""
    for child in tuple(_running):
        _signal(child, signal.SIGKILL)


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the program and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the program and everything it started, and wait until it is gone.

    Before it is killed it is asked twice, so that it can put in order what it has begun.
    """
    try:
        for request in (signal.SIGINT, signal.SIGTERM):
            if child.poll() is None:
                _signal(child, request)
                # That the call is cancelled may only now be raised, and is known.
                with contextlib.suppress(subprocess.TimeoutExpired, ToolCancelled):
                    child.wait(_PATIENCE)
    finally:
        _signal(child, signal.SIGKILL)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()
        child.wait()
        _running.discard(child)
