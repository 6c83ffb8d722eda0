"""Functions that a program hands over as tools, as Rust is told of them."""

import asyncio
from typing import Any

import pytest

from omni import agent, functions, tool


def describe(function: Any) -> dict[str, Any]:
    ((description, _),) = functions.pairs([function], lambda: None)
    return description


def test_what_is_handed_over_runs_unasked_unless_it_says_otherwise() -> None:
    def plain(degrees: int) -> str:
        """Heat the oven."""
        return f"{degrees}"

    @tool(destructive=True, name="raze")
    def marked() -> None: ...

    described = describe(plain)
    assert (described["name"], described["description"]) == ("plain", "Heat the oven.")
    assert described["annotations"]["destructive"] is False
    assert list(described["input"]["properties"]) == ["degrees"]
    assert not vars(plain)
    assert (describe(marked)["name"], describe(marked)["annotations"]["destructive"]) == ("raze", True)


def test_a_method_is_called_on_what_it_belongs_to() -> None:
    class Oven:
        def __init__(self, degrees: int) -> None:
            self.degrees = degrees

        def heat(self, more: int) -> int:
            return self.degrees + more

    ((_, handle),) = functions.pairs([Oven(180).heat], lambda: None)
    assert handle({"more": 20}) == ("200", {"result": 200})


@pytest.mark.parametrize("wrong", [int, len, "oven", lambda: None])
def test_what_cannot_be_a_tool_is_refused(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        functions.pairs([wrong], lambda: None)


def test_a_coroutine_goes_to_the_loop_of_its_program_and_so_does_a_cancel() -> None:
    seen: list[object] = []

    async def oven() -> str:
        seen.append(asyncio.get_running_loop())
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "hot"

    async def elsewhere(handle: Any) -> None:
        task = asyncio.create_task(handle({}))
        while not seen:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def program() -> None:
        loop = asyncio.get_running_loop()
        ((_, handle),) = functions.pairs([oven], lambda: loop)
        await asyncio.to_thread(asyncio.run, elsewhere(handle))
        await asyncio.sleep(0)
        assert seen == [loop, "cancelled"]

    asyncio.run(program())


def test_settings_are_written_as_on_a_command_line() -> None:
    settings = {"limits": {"rounds": 5}, "model.name": "offline", "skill": {"lab": {"oven": "hot", "fans": [1, 2]}}}
    assert list(agent._flat(settings)) == [
        "limits.rounds=5",
        "model.name=offline",
        'skill.lab.oven="hot"',
        "skill.lab.fans=[1, 2]",
    ]
