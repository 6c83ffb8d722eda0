"""Calling once more after what passes by itself."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from omni import kernel, tool


def failing(times: int, kind: type[Exception], **options: Any) -> tuple[Callable[..., Any], list[int]]:
    calls: list[int] = []

    @tool(retry_on=ConnectionError, backoff=0.001, **options)
    def flaky(number: int) -> int:
        """Fail a few times."""
        calls.append(number)
        if len(calls) <= times:
            raise kind("not yet")
        return number

    return flaky, calls


def test_it_is_called_until_it_works() -> None:
    flaky, calls = failing(2, ConnectionError)
    assert kernel.Handle("f", flaky)({"number": 7}) == ("7", {"result": 7})
    assert calls == [7, 7, 7]


def test_the_last_failure_comes_through() -> None:
    flaky, calls = failing(9, ConnectionError, max_attempts=2)
    with pytest.raises(ConnectionError, match="not yet"):
        kernel.Handle("f", flaky)({"number": 7})
    assert len(calls) == 2


def test_other_failures_are_not_tried_again() -> None:
    flaky, calls = failing(9, KeyError)
    with pytest.raises(KeyError):
        kernel.Handle("f", flaky)({"number": 7})
    assert len(calls) == 1


def test_coroutines_as_well() -> None:
    calls: list[int] = []

    @tool(retry_on=(ConnectionError, TimeoutError), backoff=0)
    async def flaky() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise TimeoutError
        return "there"

    assert asyncio.run(kernel.Handle("f", flaky)({})) == ("there", None)


def test_what_rust_calls_itself_is_tried_again_too() -> None:
    flaky, calls = failing(1, ConnectionError)
    function = kernel.Handle("f", flaky).direct[0]
    assert (function(number=3), len(calls)) == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_ttl": 5}, "only a read-only tool"),
        ({"read_only": True, "cache_ttl": 0}, "cache_ttl is a number of seconds"),
        ({"concurrency": 0}, "1 or more"),
        ({"max_attempts": 3}, "needs `retry_on`"),
        ({"retry_on": OSError, "max_attempts": 1}, "2 or more"),
        ({"retry_on": OSError, "backoff": -1}, "backoff is a number"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tool(**options)


def test_what_is_no_exception_is_refused() -> None:
    with pytest.raises(TypeError, match="classes of exceptions"):
        tool(retry_on=["ConnectionError"])  # type: ignore[list-item]
