"""Drives an MCP server with FastMCP's client.

Usage: fastmcp_client.py COMMAND… | fastmcp_client.py URL. The server has the skill `inside` of
tests/it/mcp.rs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError


async def answer(message: str, response_type: Any, params: Any, context: Any) -> dict[str, Any]:
    """Be the person."""
    assert message == "What shall it be?", message
    return {"name": "cakes", "count": 2}


async def reply(messages: list[Any], params: Any, context: Any) -> str:
    """Be the model."""
    return f"{params.system_prompt} {messages[0].content.text}!"


async def main(command: str, *arguments: str) -> None:
    program = StdioTransport(command, list(arguments), env=dict(os.environ))
    server = command if command.startswith("http") else program
    told: list[float] = []

    async def hear(done: float, total: float | None, message: str | None) -> None:
        told.append(done)

    async with Client(server, elicitation_handler=answer, sampling_handler=reply) as client:
        assert "inside__double" in {tool.name for tool in await client.list_tools()}
        assert (await client.call_tool("inside__double", {"number": 21})).structured_content == {"twice": 42}
        await client.call_tool("inside__steps", {}, progress_handler=hear)
        assert (told, told[-1]) == (sorted(told), 100), told
        kinds = [block.type for block in (await client.call_tool("inside__kinds", {})).content]
        assert kinds == ["text", "image", "resource", "resource_link"]
        with pytest.raises(ToolError, match="number"):
            await client.call_tool("inside__double", {"number": "x"})
        assert (await client.call_tool("inside__orders", {})).content[0].text == "2 cakes"
        assert (await client.call_tool("inside__thinks", {"about": "life"})).content[0].text == "Be brief. life!"
        (greeting,) = (await client.get_prompt("inside.greet", {"name": "Ada"})).messages
        assert greeting.content.text == "Greet Ada in English."
        assert (await client.read_resource("inside://today"))[0].text == "soup"
        many = await asyncio.gather(*(client.call_tool("inside__double", {"number": n}) for n in range(100)))
        assert [result.structured_content for result in many] == [{"twice": 2 * n} for n in range(100)]


asyncio.run(main(*sys.argv[1:]))
