"""What a tool asks for while it runs: another tool, the person, the model.

Each is asked twice over: a method that waits, for plain functions, and one with an `a` in front
to be awaited, for `async def` tools.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import asyncio

    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")
Request: TypeAlias = dict[str, Any]

_PLAIN = {"string", "integer", "number", "boolean"}


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What another tool has returned."""

    text: str
    """The text of it, all pieces together."""
    value: Any
    """The structured value, as the tool's output schema describes it; `None` where there is none."""
    content: list[dict[str, Any]]
    """All of its blocks, as in MCP."""


class Asked(Protocol):
    """A question under way."""

    def cancel(self) -> None: ...


class Native(Protocol):
    """The Rust side, which does what is asked."""

    def ask(self, request: Request) -> Any: ...
    def begin(self, request: Request, done: Callable[[Any, BaseException | None], None]) -> Asked: ...


def call(name: str, arguments: dict[str, Any] | None) -> Request:
    return {"call": {"name": name, "arguments": arguments or {}}}


def called(reply: Any) -> ToolResult:
    content = reply["content"]
    text = "".join(block["text"] for block in content if block["type"] == "text")
    return ToolResult(text, reply["structured"], content)


def elicit(message: str, answer: type[Model]) -> Request:
    """Raises `TypeError` when the model has anything but plain values and choices: no more may be asked for."""
    schema = answer.model_json_schema()
    definitions = schema.pop("$defs", {})
    for name, field in schema.get("properties", {}).items():
        for part in (field, field.get("items", {})):
            if "$ref" in part:
                definition = definitions[part.pop("$ref").rpartition("/")[2]]
                part.update({**definition, **part})
        if field.get("type") not in _PLAIN and not _is_choice(field):
            raise TypeError(f"`{answer.__name__}.{name}` is no text, number, yes or no, or choice of texts")
    return {"elicit": {"message": message, "schema": schema}}


def _is_choice(field: dict[str, Any]) -> bool:
    items = field.get("items", {}) if field.get("type") == "array" else {}
    return "enum" in items or "anyOf" in items


def elicited(answer: type[Model], reply: Any) -> Model | None:
    return answer.model_validate(reply["content"]) if reply["action"] == "accept" else None


def sample(prompt: str, system: str | None) -> Request:
    return {"sample": {"prompt": prompt, "system": system}}


def sampled(reply: Any) -> str:
    return str(reply["text"])


def roots() -> Request:
    return {"client": "roots"}


def listed(reply: Any) -> list[str]:
    return [str(uri) for uri in reply]


def detach(required: bool) -> Request:
    return {"client": {"detach": {"required": required}}}


def changed(what: str) -> Request:
    return {"client": {"changed": {"what": what}}}


def read_buffer(path: str, line: int, limit: int | None) -> Request:
    return {"buffer": {"read": {"path": path, "line": line, "limit": limit}}}


def write_buffer(path: str, text: str) -> Request:
    return {"buffer": {"write": {"path": path, "text": text}}}


def wait(native: Native, request: Request, instead: str) -> Any:
    """Ask and wait. Raises `RuntimeError` on a running event loop, which would stand still."""
    # Where asyncio was never imported no loop runs.
    running = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    if running is None or running() is None:
        return native.ask(request)
    raise RuntimeError(f"this would hold up the event loop: write `await ctx.{instead}(...)`")


async def ask(native: Native, request: Request) -> Any:
    """Ask, and let others run meanwhile."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def done(reply: Any, error: BaseException | None) -> None:
        loop.call_soon_threadsafe(partial(_settle, future, reply, error))

    asked = native.begin(request, done)
    try:
        return await future
    except asyncio.CancelledError:
        asked.cancel()
        raise


def _settle(future: "asyncio.Future[Any]", reply: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(reply)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.cancel()
