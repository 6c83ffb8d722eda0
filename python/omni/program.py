"""Extensions that are programs: a line of JSON for each call, a line of JSON for each answer.

The lines are described in `docs/extensions.md`.
"""

import contextlib
import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from omni import _native
from omni.context import Context, current
from omni.errors import Failed, Retry, ToolCancelled, Unavailable

_LONGEST = 16 * 1024 * 1024
_PULSE = 0.1
_PATIENCE = 2.0
_LINES = 1000
"""Lines that one process may write to the log."""


class Program(ModuleType):
    """A program whose functions are called as those of a module are.

    It is started by the first call and kept for the next one; one call runs at a time. A call
    raises `Failed` or `Retry` where the program says so, and `RuntimeError` where it ends or
    says what is no answer; the next call starts it anew.
    """

    def __init__(self, name: str, file: Path, provides: Sequence[str], told: str) -> None:
        super().__init__(name, f"The program `{file}`.")
        if not os.access(file, os.X_OK):
            raise Unavailable(f"{told} is no program: `{file}` cannot be run; `chmod +x` lets it")
        self._file = file
        self._told = told
        self._process: _Process | None = None
        self._lock = threading.Lock()
        for function in provides:
            setattr(self, function, self._function(function))

    def teardown(self) -> None:
        """End the program: its input is closed, and it has a moment."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.end()

    def _function(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            return self._call(name, arguments)

        call.__name__ = name
        return call

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        with self._lock:
            if self._process is not None and self._process.has_ended():
                self._process.end()
                self._process = None
            process = self._process = self._process or _Process(self._file, self._told)
            try:
                answer = process.ask(name, arguments)
            except BaseException:
                # Whatever it says next would be an answer to this.
                self._process = None
                process.kill()
                raise
        if "retry" in answer:
            raise Retry(str(answer["retry"]))
        if "error" in answer:
            raise Failed(str(answer["error"]))
        return answer["result"]


class _Process:
    def __init__(self, file: Path, told: str) -> None:
        self._told = told
        self._number = 0
        self._child = subprocess.Popen(
            [file],
            cwd=file.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._is_over = False
        self._lines: queue.Queue[bytes | None] = queue.Queue(maxsize=16)
        for work, stream in ((self._hear, self._child.stdout), (self._relay, self._child.stderr)):
            threading.Thread(target=work, args=(stream,), daemon=True).start()

    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def ask(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "call": name, "arguments": arguments}
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        assert self._child.stdin is not None
        context = _context()
        try:
            self._child.stdin.write(line)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._obituary()) from None
        while True:
            answer = self._answer(context)
            if "log" in answer:
                call = context.call_id if context else None
                _native.log(str(answer.get("level", "info")), call, f"{self._told}: {answer['log']}")
            elif "progress" in answer:
                _report(context, answer["progress"])
            elif answer.get("id") == self._number and not answer.keys().isdisjoint(("result", "error", "retry")):
                return answer
            else:
                raise RuntimeError(f"{self._told} gave no answer to call {self._number}: {str(answer)[:200]}")

    def end(self) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(_PATIENCE)
        self.kill()

    def kill(self) -> None:
        self._is_over = True
        self._child.kill()
        self._child.wait()
        with contextlib.suppress(OSError):
            self._child.stdin.close()  # type: ignore[union-attr]

    def _answer(self, context: Context | None) -> dict[str, Any]:
        while True:
            try:
                line = self._lines.get(timeout=_PULSE)
                break
            except queue.Empty:
                if context is not None and context.cancelled:
                    raise ToolCancelled from None
        if line is None:
            raise RuntimeError(self._obituary())
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RuntimeError(f"{self._told} said what is no line of JSON: {line[:200]!r}")
        return answer

    def _obituary(self) -> str:
        try:
            code = self._child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return f"{self._told} has closed its output"
        return f"{self._told} ended ({f'exit status: {code}' if code >= 0 else f'signal: {-code}'})"

    def _hear(self, stream: IO[bytes]) -> None:
        # A line that is too long comes in pieces, none of which is JSON.
        with stream:
            while line := stream.readline(_LONGEST):
                self._hand_on(line)
        self._hand_on(None)

    def _hand_on(self, line: bytes | None) -> None:
        while not self._is_over:
            with contextlib.suppress(queue.Full):
                return self._lines.put(line, timeout=_PULSE)
        return None

    def _relay(self, stream: IO[bytes]) -> None:
        left = _LINES
        with stream:
            while line := stream.readline(8192):
                left -= 1
                if left > 0:
                    _native.log("info", None, f"{self._told}: {line.decode('utf-8', 'replace').rstrip()}")
                elif left == 0:
                    _native.log("warning", None, f"{self._told} writes too much; the rest is left out")


def _context() -> Context | None:
    here = current.get()
    return here if here is None or isinstance(here, Context) else Context(here)


def _report(context: Context | None, progress: Any) -> None:
    match progress if isinstance(progress, list) else [progress]:
        case [int() | float() as done, *rest] if context is not None and len(rest) <= 2:
            total, message = [*rest, None, None][:2]
            context.progress(float(done), total, message)
