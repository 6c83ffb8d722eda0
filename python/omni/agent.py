"""The assistant in a program of yours.

```python
import omni

print(omni.ask("which files changed since yesterday?"))

async with omni.Agent(model="anthropic/claude-sonnet-4-5") as agent:
    turn = await agent.turn("what is in README.md?")
    async for event in agent.stream("and in short?"):
        if event["type"] == "message.delta":
            print(event["text"], end="")
```
"""

import asyncio
import atexit
import contextlib
import inspect
import json
import os
import uuid
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from typing_extensions import TypedDict, Unpack

from omni import _native, functions
from omni.errors import TurnError
from omni.events import Approval, Elicitation, Event, Result, Stop, Usage

if TYPE_CHECKING:
    from omni._native import Agent as NativeAgent
    from omni._native import Pending
    from omni._native import Turn as NativeTurn

T = TypeVar("T")

Approve: TypeAlias = Callable[[Approval], bool | Awaitable[bool]]
"""Says whether a tool may run."""

Elicit: TypeAlias = Callable[[Elicitation], dict[str, Any] | Awaitable[dict[str, Any] | None] | None]
"""Answers what a tool wants to know; `None` declines."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a message came to."""

    text: str
    """The answer."""
    stop: Stop
    """Why it ended: `answered`, or a limit that cut it short."""
    session: str
    id: str
    usage: Usage
    rounds: int
    """Calls of the model."""
    tool_calls: int
    milliseconds: float

    def __str__(self) -> str:
        return self.text


class Options(TypedDict, total=False):
    """What an `Agent` takes."""

    model: str | None
    session: str | None
    folder: str | os.PathLike[str] | None
    skills: Iterable[str | os.PathLike[str]]
    settings: Mapping[str, Any]
    tools: Iterable[Callable[..., Any]]
    instructions: str | None
    approve: Approve | None
    elicit: Elicit | None


class Agent:
    """An assistant: a model with tools, in a folder, in a conversation.

    - `model`: `provider/name`, or `offline` for none; unless told, the one that `omni ask` would take.
    - `session`: what the conversation is called, any text; it begins when it is first named, and goes on when it is
      named again. Without one each agent begins its own.
    - `folder`: where it works, with the settings and skills of a project there; the current one unless told.
    - `skills`: more folders of skills. `settings`: as in the settings file, nested or dotted:
      `{"limits": {"rounds": 5}}`.
    - `tools`: functions of yours, by their names; signature and docstring are what the model sees of them. Handing one
      over is the consent that it runs; `@omni.tool` says more, as in a skill. Coroutines run on your event loop.
    - `instructions`: what you want of the answers, at the end of the system prompt.
    - `approve`: is asked before a tool runs that may destroy something; without it such tools are refused.
      `elicit`: answers what tools want to know from a person.

    `with`, `async with` or `close` close it, or else the end of the program. An agent may be used from several tasks
    and threads; turns of one session wait for each other.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        session: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        skills: Iterable[str | os.PathLike[str]] = (),
        settings: Mapping[str, Any] | None = None,
        tools: Iterable[Callable[..., Any]] = (),
        instructions: str | None = None,
        approve: Approve | None = None,
        elicit: Elicit | None = None,
    ) -> None:
        self.session = session or str(uuid.uuid4())
        """What the conversation is called."""
        self._instructions = instructions
        self._approve = approve
        self._elicit = elicit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        pairs = functions.pairs(tools, self._where)
        self._native: NativeAgent = _native.agent(
            os.fspath(folder or os.curdir), model, [os.fspath(path) for path in skills], [*_flat(settings or {})], pairs
        )
        _open.add(self)

    async def turn(self, message: str, *, session: str | None = None) -> Turn:
        """Say something, and return what it came to.

        `session` is another conversation than the agent's own. Cancelling the task cancels the turn; what it had is
        kept. Raises `TurnError` where there is no answer, and `SetupError` where nothing can be asked.
        """
        async with contextlib.aclosing(self.stream(message, session=session)) as events:
            async for event in events:
                if event["type"] == "result":
                    return _turn(event)
        raise TurnError("the turn ended without a result")

    async def stream(self, message: str, *, session: str | None = None) -> AsyncGenerator[Event, None]:
        """Say something, and hear what happens, up to the event `result`.

        Leaving the loop cancels the turn. `approve` and `elicit` are asked after their event was heard.
        """
        self._loop = asyncio.get_running_loop()
        turn = await _soon(self._submit(message, session))
        try:
            while (event := await _soon(turn.next())) is not None:
                yield event
                answer = self._ask(event)
                turn.answer(await answer if inspect.isawaitable(answer) else answer)
        finally:
            turn.cancel()

    def ask(self, message: str, *, session: str | None = None) -> Turn:
        """Say something, wait for the answer on this thread, and return what it came to.

        Ctrl-C raises `KeyboardInterrupt` and cancels the turn. Raises what `turn` does.
        """
        self._loop = None
        turn = self._submit(message, session).wait()
        try:
            while (event := turn.next().wait()) is not None:
                if event["type"] == "result":
                    return _turn(event)
                answer = self._ask(event)
                if inspect.isawaitable(answer):
                    raise TypeError("`approve` and `elicit` are plain functions for `ask`, which has no event loop")
                turn.answer(answer)
        finally:
            turn.cancel()
        raise TurnError("the turn ended without a result")

    def close(self) -> None:
        """Stop what still goes on, and let go of the database."""
        if not self._closed:
            self._closed = True
            self._native.close().wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed:
            self._closed = True
            await _soon(self._native.close())

    def _submit(self, message: str, session: str | None) -> "Pending[NativeTurn]":
        if self._closed:
            raise RuntimeError("the agent is closed")
        asks = self._approve is not None or self._elicit is not None
        return self._native.submit(message, session or self.session, asks, self._instructions)

    def _ask(self, event: Event) -> Any:
        """Ask whoever may answer a question of a tool. A question that is not for them is answered with no."""
        if event["type"] == "approval.requested" and self._approve is not None:
            return self._approve(event)
        if event["type"] == "elicitation.requested" and self._elicit is not None:
            return self._elicit(event)
        return None

    def _where(self) -> asyncio.AbstractEventLoop | None:
        """Say where coroutines of the program belong: to the loop that asked last."""
        return self._loop


def ask(message: str, /, **options: Unpack[Options]) -> str:
    """Ask one question, wait for the answer on this thread, and return its text. Takes what `Agent` takes.

    Ctrl-C raises `KeyboardInterrupt`. Raises `TurnError` where there is no answer, and `SetupError` where nothing can
    be asked.
    """
    with Agent(**options) as agent:
        return agent.ask(message).text


_open: "weakref.WeakSet[Agent]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what is open while threads can still be waited for."""
    for agent in list(_open):
        # A fork has none of the threads that could.
        with contextlib.suppress(RuntimeError):
            agent.close()
    _native.leave()


def _turn(event: Result) -> Turn:
    turn = Turn(
        text=event["text"],
        stop=event["stop"],
        session=event["session"],
        id=event["turn"],
        usage=event["usage"],
        rounds=event["rounds"],
        tool_calls=event["tool_calls"],
        milliseconds=event["milliseconds"],
    )
    if event["stop"] == "cancelled":
        raise TurnError("the turn was cancelled", turn)
    if event["stop"] in ("unauthorized", "model_failed", "exhausted", "failed"):
        raise TurnError(event.get("error") or event["stop"], turn)
    return turn


async def _soon(pending: "Pending[T]") -> T:
    """Wait for it on this event loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    pending.then(lambda value, error: loop.call_soon_threadsafe(settle, value, error))
    result: T = await future
    return result


def _flat(settings: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Write settings as on a command line."""
    for name, value in settings.items():
        key = f"{section}.{name}" if section else name
        if isinstance(value, Mapping):
            yield from _flat(value, key)
        elif isinstance(value, str) and not key.startswith("skill."):
            yield f"{key}={value}"
        else:
            yield f"{key}={json.dumps(value, ensure_ascii=False)}"
