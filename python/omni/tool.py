"""The decorator that makes a function a tool."""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

Isolation: TypeAlias = Literal["worker", "oneshot"]

ATTRIBUTE = "__omni_tool__"
"""Where a tool function carries its `Options`."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

_ELSEWHERE = {
    "category": "group tools by the skill they are in",
    "variants": "write one tool per variant",
    "default_variant": "write one tool per variant",
    "inject_root": "take a parameter `ctx: Context` and use `ctx.workspace`",
    "inject_settings": "take a parameter `ctx: Context` and use `ctx.settings`",
    "autowire": "take a parameter `ctx: Context`",
    "error_strategy": "raise `omni.Retry` or `omni.Failed`",
    "log_level": "use `ctx.log`",
    "trace_args": "use `ctx.log`",
    "trace_result": "use `ctx.log`",
    "trace_timing": "use `ctx.log`",
    "filter_empty": "return what you mean",
    "max_result_depth": "return what you mean",
}
"""Arguments of the `@skill_command` that others may bring along, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the decorator was told; `None` where the function itself has the answer."""

    name: str | None
    title: str | None
    description: str | None
    schema: dict[str, Any] | None
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    timeout: float | None
    idle_timeout: float | None
    confirm: bool
    cache_ttl: float | None
    concurrency: int | None
    retry_on: tuple[type[Exception], ...]
    max_attempts: int
    backoff: float
    examples: tuple[str, ...]
    isolation: Isolation | None
    kind: Literal["tool", "resource", "prompt"] = "tool"
    uri: str | None = None
    mime: str | None = None


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    schema: dict[str, Any] | None = None,
    read_only: bool = False,
    destructive: bool | None = None,
    idempotent: bool = False,
    open_world: bool | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    confirm: bool = False,
    cache_ttl: float | None = None,
    concurrency: int | None = None,
    retry_on: type[Exception] | Iterable[type[Exception]] = (),
    max_attempts: int | None = None,
    backoff: float = 0.5,
    examples: Iterable[str] = (),
    isolation: Isolation | None = None,
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    schema: dict[str, Any] | None = None,
    read_only: bool = False,
    destructive: bool | None = None,
    idempotent: bool = False,
    open_world: bool | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    confirm: bool = False,
    cache_ttl: float | None = None,
    concurrency: int | None = None,
    retry_on: type[Exception] | Iterable[type[Exception]] = (),
    max_attempts: int | None = None,
    backoff: float = 0.5,
    examples: Iterable[str] = (),
    isolation: Isolation | None = None,
    **unknown: Any,
) -> F | Callable[[F], F]:
    """Make a function a tool: `@tool`, or `@tool(read_only=True, ...)`.

    The function comes back as it was and can be called as before. Its signature becomes the
    tool's schema, its docstring the description, its name the tool's name after the skill's.

    - `read_only`: it changes nothing. `destructive`: what it changes may be lost, assumed of
      everything that is not read-only. `idempotent`: calling it twice is as good as once.
      `open_world`: it reaches out of this machine, assumed unless it says `False`.
    - `timeout`: seconds it may take; 0 is no limit, `None` the configured one. `idle_timeout`: the same
      without a sign of life, which `ctx.progress()` and `ctx.heartbeat()` are.
    - `confirm`: a person is asked, even for a tool that would run unasked by its other hints.
    - `cache_ttl`: seconds for which a result is good for the same arguments in the same workspace; for
      read-only tools alone. `concurrency`: calls of it that run at once, the others wait.
    - `retry_on`: exceptions after which the function is called once more, `max_attempts` times in all (3
      unless told), after `backoff` seconds that double each time, at most 30.
    - `schema`: the JSON Schema of the arguments, for what a signature cannot say. It stands in the place of the
      one made from the signature; the function is called with what satisfies both.
    - `examples`: sentences a person might say when this tool is wanted. They help to find it
      and are never sent to a model.
    - `isolation`: `"worker"` or `"oneshot"`, for a tool that is to be kept further away than the rest of its
      skill.

    Raises `TypeError` or `ValueError` at once when an argument is unknown or makes no sense.
    """
    for keyword in unknown:
        hint = f"; {_ELSEWHERE[keyword]}" if keyword in _ELSEWHERE else ""
        raise TypeError(f"@tool has no argument `{keyword}`{hint}")
    if function is not None and not callable(function):
        raise TypeError(f"@tool takes its arguments by keyword, not {function!r}")
    if name is not None:
        check_name(name)
    if schema is not None and schema.get("type") != "object":
        raise ValueError("the schema of a tool's arguments has the type `object`")
    if read_only and destructive:
        raise ValueError("a tool cannot be both read-only and destructive")
    for key, limit in (("timeout", timeout), ("idle_timeout", idle_timeout)):
        if limit is not None and (isinstance(limit, bool) or not 0 <= limit < float("inf")):
            raise ValueError(f"a tool's {key} is a number of seconds, or 0 for none: {limit!r}")
    if cache_ttl is not None and not read_only:
        raise ValueError("only a read-only tool has a `cache_ttl`: a result from before would hide what it does")
    if cache_ttl is not None and not 0 < cache_ttl < float("inf"):
        raise ValueError(f"a tool's cache_ttl is a number of seconds: {cache_ttl!r}")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"a tool's concurrency is 1 or more: {concurrency!r}")
    again = (retry_on,) if isinstance(retry_on, type) else tuple(retry_on)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in again):
        raise TypeError(f"retry_on takes classes of exceptions: {again!r}")
    if max_attempts is not None and (not again or max_attempts < 2):
        raise ValueError("max_attempts is 2 or more, and needs `retry_on` to say after what")
    if not 0 <= backoff < float("inf"):
        raise ValueError(f"a tool's backoff is a number of seconds: {backoff!r}")
    if isolation not in (None, "worker", "oneshot"):
        raise ValueError(f"a tool's isolation is `worker` or `oneshot`, or its skill's: {isolation!r}")
    if isinstance(examples, str):
        raise TypeError("a tool's examples are a list of sentences, not one string")
    options = Options(
        name=name,
        title=title,
        description=description,
        schema=schema,
        read_only=read_only,
        destructive=not read_only if destructive is None else destructive,
        idempotent=idempotent,
        open_world=True if open_world is None else open_world,
        timeout=None if timeout is None else float(timeout),
        idle_timeout=None if idle_timeout is None else float(idle_timeout),
        confirm=confirm,
        cache_ttl=None if cache_ttl is None else float(cache_ttl),
        concurrency=concurrency,
        retry_on=again,
        max_attempts=max_attempts or (3 if again else 1),
        backoff=float(backoff),
        examples=tuple(examples),
        isolation=isolation,
    )

    def mark(function: F) -> F:
        if not inspect.isfunction(function):
            raise TypeError(f"@tool marks functions, not {function!r}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"tool `{function.__name__}` yields; a tool returns its result once")
        check_name(options.name or function.__name__)
        setattr(function, ATTRIBUTE, options)
        return function

    return mark if function is None else mark(function)


skill_command = tool
"""Another name for `tool`, for skills that know the decorator by it."""


def check_name(name: str) -> None:
    """Raise `ValueError` unless `name` can name a tool towards any model."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a tool: letters, digits, `_` and `-`, at most 64, not starting with a digit"
        )
