"""Calling a tool the long way: pydantic reads the arguments."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pydantic import ValidationError

from omni import lines, schema
from omni.context import Context, Native, current
from omni.result import Plain, plain


def bind(name: str, function: Callable[..., Any]) -> Callable[[dict[str, Any], Context | Native | None], Any]:
    """What calls this function as the tool `name`: it returns the plain result, or a coroutine for it."""
    signature = schema.read(function)

    def values(arguments: dict[str, Any], context: Context | Native | None) -> dict[str, Any]:
        try:
            values = signature.validate(arguments)
        except ValidationError as error:
            raise schema.explain(error, signature.input) from None
        if signature.context is not None:
            values[signature.context] = context
        return values

    def result(value: Any) -> Plain:
        return plain(value, name, has_output=signature.output is not None, wrapped=signature.wrapped)

    def call(arguments: dict[str, Any], context: Context | Native | None) -> Plain:
        with _within(context):
            return result(function(**values(arguments, context)))

    async def call_soon(arguments: dict[str, Any], context: Context | Native | None) -> Plain:
        with _within(context):
            return result(await function(**values(arguments, context)))

    return call_soon if inspect.iscoroutinefunction(function) else call


@contextmanager
def _within(context: Context | Native | None) -> Iterator[None]:
    """Make it the call that runs here. What it leaves unfinished of a line is handed on at its end."""
    token = current.set(context)
    try:
        yield
    finally:
        if lines.partial:
            lines.finish(context)
        # A coroutine that nobody waits for any more is closed by the collector, outside of where it ran.
        with suppress(ValueError):
            current.reset(token)
