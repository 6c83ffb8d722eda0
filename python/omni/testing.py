"""Calling tools from tests, without the Rust half.

```python
from omni import testing

def test_greets(tmp_path):
    hello = testing.load("skills/hello")
    assert testing.call(hello.greet, tmp_path, name="Ada") == "Hello, Ada!"
```
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from omni import kernel, skill
from omni.context import Context


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
    is_cancelled: bool = False

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        self.reports.append((done, total, message))

    def cancelled(self) -> bool:
        return self.is_cancelled


def context(
    workspace: str | Path,
    *,
    data: str | Path | None = None,
    session: str | None = None,
    call_id: str = "test",
    settings: dict[str, Any] | None = None,
) -> Context:
    """Make a context on a folder; its data folder is `.data` beside it unless given."""
    root = Path(workspace)
    folder = str(data or root.parent / f".{root.name}-data")
    return Context(Call(str(root), folder, session, call_id, settings=settings or {}))


def load(folder: str | Path, file: str | None = None) -> ModuleType:
    """Import a skill's script; `scripts/<skill>.py` unless told."""
    root = Path(folder).resolve()
    return skill.load(root.name, str(root), file or f"scripts/{root.name}.py")


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
