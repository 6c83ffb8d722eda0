"""Drives an MCP server with the official Python SDK.

Usage: mcp_client.py MODE COMMAND… | mcp_client.py MODE URL, where MODE is `legacy`, `auto` or a
version. The server has the skill `inside` of tests/it/mcp.rs. The SDK checks what it receives
against its own types, and structured results against the tool's output schema.
"""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError


async def main(mode: str, command: str, *arguments: str) -> None:
    program = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    async with Client(command if command.startswith("http") else program, mode=mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["inside__double"].title == "Twice as much"

        doubled = await client.call_tool("inside__double", {"number": 21})
        assert doubled.structured_content == {"twice": 42}, doubled

        told: list[float] = []

        async def hear(done: float, total: float | None, message: str | None) -> None:
            told.append(done)

        assert not (await client.call_tool("inside__steps", {}, progress_callback=hear)).is_error
        assert told == sorted(told), told
        assert told[-1] == 100, told

        assert [block.type for block in (await client.call_tool("inside__kinds", {})).content] == [
            "text",
            "image",
            "resource",
            "resource_link",
        ]
        assert (await client.call_tool("inside__double", {"number": "x"})).is_error
        assert not (await client.call_tool("inside__noisy", {})).is_error
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("inside__nothing", {})
        assert unknown.value.error.code == -32602

        many = await asyncio.gather(*(client.call_tool("inside__double", {"number": n}) for n in range(200)))
        assert [result.structured_content for result in many] == [{"twice": 2 * n} for n in range(200)]


asyncio.run(main(*sys.argv[1:]))
