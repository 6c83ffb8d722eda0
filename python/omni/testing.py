"""Calling tools from tests, without the Rust half.

```python
from omni import testing

def test_greets(tmp_path):
    hello = testing.load("skills/hello")
    assert testing.call(hello.greet, tmp_path, name="Ada") == "Hello, Ada!"
```
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from omni import _native, kernel, nested, skill
from omni.context import Context
from omni.errors import Failed
from omni.extensions import replaced


@dataclass
class Call:
    """A call as a test plays it: it remembers the reports, and may be cancelled."""

    workspace: str
    data: str
    session: str | None = None
    call_id: str = "test"
    skill: str = "test"
    settings: dict[str, Any] = field(default_factory=dict)
    reports: list[tuple[float, float | None, str | None]] = field(default_factory=list)
    changes: list[tuple[str, str | None, str]] = field(default_factory=list)
    is_cancelled: bool = False
    logged: int = 0
    answers: Callable[[nested.Request], Any] | None = None
    buffers: dict[str, str] | None = None

    @property
    def has_editor(self) -> bool:
        return self.buffers is not None

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.reports.append((done, total, message))

    def edited(self, path: str, old: str | None, new: str) -> None:
        self.changes.append((path, old, new))

    def cancelled(self) -> bool:
        return self.is_cancelled

    def may_log(self, size: int) -> bool:
        self.logged += size
        return True

    def log(self, level: str, text: str) -> None:
        if self.may_log(len(text) + 1):
            _native.log(level, self.call_id, text)

    def ask(self, request: nested.Request) -> Any:
        if "client" in request:
            return [Path(self.workspace).absolute().as_uri()] if request["client"] == "roots" else None
        if "buffer" in request:
            return self._buffer(request["buffer"])
        return (self.answers or _answers(None, None, None))(request)

    def _buffer(self, request: dict[str, Any]) -> Any:
        if self.buffers is None:
            return None
        if "write" in request:
            self.buffers[request["write"]["path"]] = request["write"]["text"]
            return True
        wanted = request["read"]
        if wanted["path"] not in self.buffers:
            return None
        first = wanted["line"] - 1
        last = None if wanted["limit"] is None else first + wanted["limit"]
        return "".join(self.buffers[wanted["path"]].splitlines(keepends=True)[first:last])

    def begin(self, request: nested.Request, done: Callable[[Any, BaseException | None], None]) -> "Call":
        try:
            done(self.ask(request), None)
        except Exception as error:
            done(None, error)
        return self

    def cancel(self) -> None:
        """Nothing is under way that could be cancelled."""


def _answers(
    tools: Mapping[str, Callable[..., Any]] | None,
    person: Callable[[str], dict[str, Any] | None] | None,
    model: Callable[[str], str] | None,
) -> Callable[[nested.Request], Any]:
    def answer(request: nested.Request) -> Any:
        ((kind, body),) = request.items()
        if kind == "call" and tools and body["name"] in tools:
            function = tools[body["name"]]
            content, structured = kernel.Handle(function.__name__, function)(body["arguments"], None)
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            return {"content": blocks, "structured": structured}
        if kind == "elicit" and person:
            content = person(body["message"])
            return {"action": "decline"} if content is None else {"action": "accept", "content": content}
        if kind == "sample" and model:
            return {"text": model(body["prompt"])}
        raise Failed(f"the test has no answer to {request}; `testing.context` takes them")

    return answer


def context(
    workspace: str | Path,
    *,
    data: str | Path | None = None,
    session: str | None = None,
    call_id: str = "test",
    settings: dict[str, Any] | None = None,
    tools: Mapping[str, Callable[..., Any]] | None = None,
    person: Callable[[str], dict[str, Any] | None] | None = None,
    model: Callable[[str], str] | None = None,
    buffers: dict[str, str] | None = None,
) -> Context:
    """Make a context on a folder; its data folder is `.data` beside it unless given.

    `tools` are plain functions that stand for the tools which are called by these names; `person` is given
    a question and returns the values, or `None` to decline; `model` is given a prompt and returns a text.
    `buffers` are the files that an editor has, by their absolute paths; it takes what is written.
    """
    root = Path(workspace)
    folder = str(data or root.parent / f".{root.name}-data")
    answers = _answers(tools, person, model)
    call = Call(str(root), folder, session, call_id, settings=settings or {}, answers=answers, buffers=buffers)
    return Context(call)


def load(folder: str | Path, file: str | None = None) -> ModuleType:
    """Import a skill's script; `scripts/<skill>.py` unless told."""
    root = Path(folder).resolve()
    return skill.load(root.name, str(root), file or f"scripts/{root.name}.py")


@contextlib.contextmanager
def fixture(folder: str | Path, name: str, module: Any) -> Iterator[Any]:
    """Put `module` in the place of an extension of the skill in this folder.

    Whoever asks for the extension meanwhile is given `module`; a script that asked when it was imported
    keeps what it has, so enter this before `load`, or ask inside of functions.
    """
    key = (os.path.abspath(folder), name)
    before = replaced.get(key)
    replaced[key] = module
    try:
        yield module
    finally:
        if before is None:
            del replaced[key]
        else:
            replaced[key] = before


def call(function: Any, where: str | Path | Context, /, **arguments: Any) -> Any:
    """Call a tool as the kernel does: arguments checked and converted, the result in plain form.

    Returns the structured value where there is one, and the content otherwise. `where` is a context
    or the folder to make one for.
    """
    handle = kernel.Handle(function.__name__, function)
    ctx = where if isinstance(where, Context) else context(where)
    result = handle(arguments, ctx)
    content, structured = asyncio.run(result) if handle.is_async else result
    return content if structured is None else structured
