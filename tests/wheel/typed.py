"""What a type checker makes of the installed package: `mypy --strict` has to agree. Never run."""

from typing import assert_type

import omni
from omni.events import Approval, Event, Stop, ToolResult


def oven(degrees: int = 180) -> str:
    return f"{degrees} degrees"


async def approve(approval: Approval) -> bool:
    return approval["tool"] == "oven"


async def asks() -> None:
    assert_type(omni.ask("hello", model="offline", tools=[oven], approve=approve), str)
    async with omni.Agent(settings={"limits": {"rounds": 5}}, approve=lambda _: True) as agent:
        turn = await agent.turn("hello", session="mine")
        assert_type(turn, omni.Turn)
        assert_type(turn.stop, Stop)
        async for event in agent.stream("hello"):
            assert_type(event, Event)
            if event["type"] == "message.delta":
                assert_type(event["text"], str)
            elif event["type"] == "tool.completed":
                assert_type(event["result"], ToolResult)
    with omni.Agent() as agent:
        assert_type(agent.ask("hello"), omni.Turn)
    omni.ask("hello", modell="offline")  # type: ignore[call-arg]
