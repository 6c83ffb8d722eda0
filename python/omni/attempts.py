"""Calling a tool's function once more after what passes by itself."""

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

from omni.tool import ATTRIBUTE, Options

_LONGEST = 30.0
"""Seconds between two attempts, at most."""


def persistent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as its `retry_on` wants it called; itself where there is none.

    The last attempt's exception comes through. The tool's time limit covers all attempts.
    """
    options = getattr(function, ATTRIBUTE, None)
    if not isinstance(options, Options) or not options.retry_on:
        return function

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        for pause in _pauses(options):
            try:
                return function(*arguments, **named)
            except options.retry_on:
                time.sleep(pause)
        return function(*arguments, **named)

    @functools.wraps(function)
    async def call_soon(*arguments: Any, **named: Any) -> Any:
        import asyncio

        for pause in _pauses(options):
            try:
                return await function(*arguments, **named)
            except options.retry_on:
                await asyncio.sleep(pause)
        return await function(*arguments, **named)

    return call_soon if inspect.iscoroutinefunction(function) else call


def _pauses(options: Options) -> Iterator[float]:
    for attempt in range(options.max_attempts - 1):
        yield min(options.backoff * 2**attempt, _LONGEST)
