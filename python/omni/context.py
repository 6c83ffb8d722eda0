"""What a tool knows of the call it serves."""

import os
from collections.abc import Coroutine
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from omni import nested
from omni.errors import Failed
from omni.nested import Model, ToolResult

if TYPE_CHECKING:
    from omni.store import Store

T = TypeVar("T")

Level = Literal["debug", "info", "warning", "error"]


class Native(nested.Native, Protocol):
    """The Rust side of a call. `omni.testing` has one in Python."""

    @property
    def workspace(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def session(self) -> str | None: ...
    @property
    def call_id(self) -> str: ...
    @property
    def skill(self) -> str: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def has_editor(self) -> bool: ...
    def progress(self, done: float, total: float | None, message: str | None) -> None: ...
    def edited(self, path: str, old: str | None, new: str) -> None: ...
    def cancelled(self) -> bool: ...
    def may_log(self, size: int) -> bool: ...
    def log(self, level: str, text: str) -> None: ...


class Context:
    """The call a tool serves: its folders, its id, and the way to report.

    A tool receives one by naming a parameter of this type, which the model never sees:

    ```python
    @tool
    def count(pattern: str, ctx: Context) -> int: ...
    ```

    All methods may be called from any thread.
    """

    __slots__ = ("_data", "_native", "_report", "_workspace")

    def __init__(self, native: Native) -> None:
        self._native = native
        self._workspace: Path | None = None
        self._data: Path | None = None
        self._report: tuple[float, float | None] = (0.0, None)

    @property
    def workspace(self) -> Path:
        """The folder the assistant works in."""
        if self._workspace is None:
            self._workspace = Path(self._native.workspace)
        return self._workspace

    @property
    def data(self) -> Path:
        """The skill's own folder for what it keeps between calls, made when first asked for."""
        if self._data is None:
            data = Path(self._native.data)
            data.mkdir(parents=True, exist_ok=True)
            self._data = data
        return self._data

    @property
    def store(self) -> "Store":
        """The skill's own values by key, kept between calls."""
        # Few tools remember anything, and SQLite takes its time to be imported.
        from omni.store import Store

        return Store(self.data)

    @property
    def session(self) -> str | None:
        """The conversation the call belongs to, if any."""
        return self._native.session

    @property
    def call_id(self) -> str:
        """The id of this call, as in the events and in the log."""
        return self._native.call_id

    @property
    def settings(self) -> dict[str, Any]:
        """What the user has set for the skill, in the table `[skill.NAME]` of the settings."""
        return self._native.settings

    def settings_as(self, model: type[Model]) -> Model:
        """The settings read by a pydantic model of yours, which has the defaults.

        Raises `Failed` when they do not fit, naming each key that is wrong.
        """
        from pydantic import ValidationError

        try:
            return model.model_validate(self._native.settings)
        except ValidationError as error:
            items = error.errors(include_url=False, include_input=False)
            where = f"skill.{self._native.skill}"
            wrong = "; ".join(f"`{'.'.join(map(str, (where, *item['loc'])))}`: {item['msg']}" for item in items)
            raise Failed(f"the settings of the skill do not fit: {wrong}; `omni config show` has them") from None

    @property
    def cancelled(self) -> bool:
        """Whether the call was called off: stop, clean up, and return or raise."""
        return self._native.cancelled()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report how much is done, of how much if known. Counts as a sign of life."""
        self._report = (done, total)
        self._native.progress(done, total, message)

    def heartbeat(self) -> None:
        """Give a sign of life, so that a long silent step is not taken for a hang.

        It repeats the last report of progress.
        """
        self._native.progress(*self._report, None)

    def call_tool(self, name: str, arguments: dict[str, Any] | None = None) -> ToolResult:
        """Call another tool, whoever brings it, as `git.status` or by its name on the wire.

        It is subject to what this call is subject to: the policy (a person may be asked), the
        tool calls that the turn has left, its cancellation. Raises `Failed` with the reason when it comes to
        nothing, and `RuntimeError` in an `async def` tool, which has `acall_tool`.
        """
        return nested.called(nested.wait(self._native, nested.call(name, arguments), "acall_tool"))

    async def acall_tool(self, name: str, arguments: dict[str, Any] | None = None) -> ToolResult:
        """Call another tool, for `async def` tools. Several may run side by side."""
        return nested.called(await nested.ask(self._native, nested.call(name, arguments)))

    def elicit(self, message: str, answer: type[Model]) -> Model | None:
        """Ask the person for the values of a pydantic model: texts, numbers, yes or no, choices.

        Returns `None` when they decline. The limits of the call stand still meanwhile. Raises `Failed` where
        there is nobody to ask, and `RuntimeError` in an `async def` tool, which has `aelicit`.
        """
        return nested.elicited(answer, nested.wait(self._native, nested.elicit(message, answer), "aelicit"))

    async def aelicit(self, message: str, answer: type[Model]) -> Model | None:
        """Ask the person, for `async def` tools."""
        return nested.elicited(answer, await nested.ask(self._native, nested.elicit(message, answer)))

    def sample(self, prompt: str, *, system: str | None = None) -> str:
        """Ask the model, outside of the conversation. It counts as a tool call, its tokens as the turn's.

        Raises `Failed` where there is no model, and `RuntimeError` in an `async def` tool, which has `asample`.
        """
        return nested.sampled(nested.wait(self._native, nested.sample(prompt, system), "asample"))

    async def asample(self, prompt: str, *, system: str | None = None) -> str:
        """Ask the model, for `async def` tools."""
        return nested.sampled(await nested.ask(self._native, nested.sample(prompt, system)))

    def roots(self) -> list[str]:
        """The folders that the program which called works in, as URIs; the workspace where it names none.

        Raises `RuntimeError` in an `async def` tool, which has `aroots`.
        """
        return nested.listed(nested.wait(self._native, nested.roots(), "aroots"))

    async def aroots(self) -> list[str]:
        """The folders that the program which called works in, for `async def` tools."""
        return nested.listed(await nested.ask(self._native, nested.roots()))

    def detach(self, *, required: bool = False) -> bool:
        """Let the program that called not wait: where it knows tasks, the call goes on as one.

        Returns whether it does not wait. With `required` it raises `Failed` where the program is an MCP
        client that knows no tasks. Raises `RuntimeError` in an `async def` tool, which has `adetach`.
        """
        return bool(nested.wait(self._native, nested.detach(required), "adetach"))

    async def adetach(self, *, required: bool = False) -> bool:
        """Let the program that called not wait, for `async def` tools."""
        return bool(await nested.ask(self._native, nested.detach(required)))

    def changed(self, what: str) -> None:
        """Tell MCP clients that something has changed: `tools`, `prompts`, `resources`, or the URI of a document.

        Files of the skill need no telling: an edit of them is noticed. Raises `RuntimeError` in an `async def`
        tool, which has `achanged`.
        """
        nested.wait(self._native, nested.changed(what), "achanged")

    async def achanged(self, what: str) -> None:
        """Tell MCP clients that something has changed, for `async def` tools."""
        await nested.ask(self._native, nested.changed(what))

    @property
    def has_editor(self) -> bool:
        """Whether an editor called, which may have files with words that are on no disk yet."""
        return self._native.has_editor

    def read_buffer(self, file: Path, start: int = 1, lines: int | None = None) -> str | None:
        """The lines of a text file as the editor has it that called, saved or not.

        `file` is what `resolve` returns. Returns `None` where no editor called or it does not have the file: read
        it from the disk then. Raises `Failed` when the editor refuses, and `RuntimeError` in an `async def` tool,
        which has `aread_buffer`.
        """
        if not self._native.has_editor:
            return None
        return _text(nested.wait(self._native, nested.read_buffer(str(file), start, lines), "aread_buffer"))

    async def aread_buffer(self, file: Path, start: int = 1, lines: int | None = None) -> str | None:
        """The lines of a text file as the editor has it, for `async def` tools."""
        if not self._native.has_editor:
            return None
        return _text(await nested.ask(self._native, nested.read_buffer(str(file), start, lines)))

    def write_buffer(self, file: Path, text: str) -> bool:
        """Have the editor that called put `text` in the place of all that is in a file.

        Returns whether it has; where it has not, write to the disk. Raises as `read_buffer` does.
        """
        if not self._native.has_editor:
            return False
        return bool(nested.wait(self._native, nested.write_buffer(str(file), text), "awrite_buffer"))

    async def awrite_buffer(self, file: Path, text: str) -> bool:
        """Have the editor replace what is in a file, for `async def` tools."""
        if not self._native.has_editor:
            return False
        return bool(await nested.ask(self._native, nested.write_buffer(str(file), text)))

    def edited(self, file: Path, old: str | None, new: str) -> None:
        """Say what the call has changed in a file of the workspace: `new` is where `old` was, or where nothing was.

        It is for people: editors show it, and the log of the conversation keeps it, at most 256 KiB a call. The
        model hears nothing of it. `file` is what `resolve` returns.
        """
        root = os.path.realpath(self._native.workspace)
        self._native.edited(os.path.relpath(file, root), old, new)

    def log(self, level: Level, text: str) -> None:
        """Write to the program's log, under this call's id; at most 1 MiB a call.

        A program that calls through MCP hears it as well, if it has asked to.
        """
        self._native.log(level, text)

    def may_log(self, size: int) -> bool:
        """Take `size` bytes from what the call may log, and say whether there were so many."""
        return self._native.may_log(size)

    def resolve(self, path: str | os.PathLike[str], *, must_exist: bool = False) -> Path:
        """Return the real, absolute form of a path inside the workspace.

        A relative path starts at the workspace; `~` is an ordinary character. `..` and symbolic
        links are followed first, those of a parent of a file yet to be made too, so that what
        is returned lies inside the workspace for certain.

        Raises `Failed` when it leads outside, or when nothing is there and `must_exist` is set.
        """
        text = os.fspath(path)
        if "\0" in text:
            raise Failed(f"{text!r} is no path: it contains a NUL character")
        root = os.path.realpath(self._native.workspace)
        try:
            real = os.path.realpath(os.path.join(root, text))
        except ValueError as error:
            raise Failed(f"{text!r} is no path: {error}") from None
        if real != root and not real.startswith(os.path.join(root, "")):
            raise Failed(f"`{text}` leads to `{real}`, outside the workspace `{root}`; give a path inside it")
        if must_exist and not os.path.lexists(real):
            raise Failed(f"there is no `{text}` in the workspace `{root}`")
        return Path(real)


def _text(reply: Any) -> str | None:
    return None if reply is None else str(reply)


current: ContextVar[Context | Native | None] = ContextVar("omni_context", default=None)
"""The context of the call that is running here. What it prints is logged under its id."""


async def run_with_heartbeat(
    coroutine: Coroutine[Any, Any, T],
    *,
    max: float,  # noqa: A002 (the name by which it is known)
    every: float = 10.0,
) -> T:
    """Await something silent, with a sign of life every `every` seconds.

    Only for `max` seconds: a timer says nothing of what is awaited, and one that beat for ever
    would keep a hung call alive. After that the tool's `idle_timeout` decides.
    """
    import asyncio

    task = asyncio.ensure_future(coroutine)
    here = current.get()
    context = here if here is None or isinstance(here, Context) else Context(here)
    end = asyncio.get_running_loop().time() + max
    try:
        while context is not None and (left := end - asyncio.get_running_loop().time()) > 0:
            done, _ = await asyncio.wait({task}, timeout=min(every, left))
            if done:
                break
            context.heartbeat()
        return await task
    finally:
        task.cancel()
