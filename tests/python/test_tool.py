"""The decorator."""

import asyncio
from typing import Any

import pytest

from omni import skill_command, tool
from omni.tool import ATTRIBUTE


def test_bare_and_with_arguments_the_function_stays_what_it_was() -> None:
    def function(a: int) -> int:
        return a + 1

    assert tool(function) is function
    assert tool(read_only=True)(function) is function
    assert function(1) == 2
    assert skill_command is tool


def test_defaults_are_those_of_the_protocol() -> None:
    @tool
    def change() -> None: ...

    @tool(read_only=True)
    def look() -> None: ...

    assert (getattr(change, ATTRIBUTE).destructive, getattr(change, ATTRIBUTE).open_world) == (True, True)
    assert (getattr(look, ATTRIBUTE).destructive, getattr(look, ATTRIBUTE).idempotent) == (False, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"colour": "red"}, "no argument `colour`$"),
        ({"category": "general"}, "no argument `category`; group"),
        ({"inject_root": True}, r"no argument `inject_root`; take a parameter `ctx: Context`"),
        ({"name": "a.b"}, "'a.b' cannot name a tool"),
        ({"name": "a" * 65}, "cannot name a tool"),
        ({"name": ""}, "cannot name a tool"),
        ({"read_only": True, "destructive": True}, "both read-only and destructive"),
        ({"timeout": -1}, "a number of seconds"),
        ({"timeout": True}, "a number of seconds"),
        ({"timeout": float("nan")}, "a number of seconds"),
        ({"examples": "one sentence"}, "not one string"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        tool(**arguments)


def test_what_cannot_be_a_tool() -> None:
    def generator() -> Any:
        yield 1

    async def stream() -> Any:
        yield 1

    for thing in (generator, stream):
        with pytest.raises(TypeError, match="yields"):
            tool(thing)
    with pytest.raises(TypeError, match="by keyword"):
        tool("name")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="marks functions"):
        tool(print)
    with pytest.raises(ValueError, match="cannot name a tool"):
        tool(lambda: None)


def test_an_async_function_stays_one() -> None:
    @tool
    async def function() -> int:
        return 3

    assert asyncio.run(function()) == 3


def test_limits_of_silence_and_confirmation_are_kept() -> None:
    @tool(idle_timeout=2, confirm=True)
    def f() -> None: ...

    options = getattr(f, ATTRIBUTE)
    assert (options.idle_timeout, options.confirm) == (2.0, True)
    with pytest.raises(ValueError, match="idle_timeout is a number of seconds"):
        tool(idle_timeout=-1)


def test_a_schema_stands_in_the_place_of_the_signatures() -> None:
    schema = {"type": "object", "properties": {"n": {"$anchor": "n", "type": "integer"}}, "minProperties": 1}

    @tool(schema=schema)
    def f(n: int = 1) -> None: ...

    assert getattr(f, ATTRIBUTE).schema == schema
    with pytest.raises(ValueError, match="has the type `object`"):
        tool(schema={"type": "array"})
