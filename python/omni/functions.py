"""Functions that a program hands over as tools."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from omni import kernel
from omni.kernel import Description, Handle
from omni.tool import ATTRIBUTE, tool

Where: TypeAlias = Callable[[], asyncio.AbstractEventLoop | None]
"""Says which event loop the program's coroutines belong to at the moment."""


def pairs(functions: Iterable[Callable[..., Any]], where: Where) -> list[tuple[Description, Handle]]:
    """Describe each function as Rust wants it, with the handle it is called by.

    Coroutines run on the program's loop, and where it has none on one of ours. Raises `TypeError` or `ValueError` for
    what cannot be a tool.
    """
    return [kernel.given(_own(function, where)) for function in functions]


def _own(function: Callable[..., Any], where: Where) -> Callable[..., Any]:
    """Wrap what is handed over: methods are no functions, and nothing of the program's own is to be marked."""
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise TypeError(f"a tool is a function, not {function!r}")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*arguments: Any, **named: Any) -> Any:
            loop = where()
            if loop is None:
                return await function(*arguments, **named)
            # What is awaited here goes on there, the context of the call with it; so does a cancellation.
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*arguments, **named), loop))

    else:

        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            return function(*arguments, **named)

    if hasattr(wrapper, ATTRIBUTE):
        return wrapper
    # Handing it over is the consent.
    return tool(destructive=False)(wrapper)
