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
from mcp import Client, StdioServerParameters, types
from mcp.shared.exceptions import MCPError

asked: list[str] = []


async def answer(_: object, question: types.ElicitRequestParams) -> types.ElicitResult:
    """Be the person: order two cakes, then nothing."""
    assert isinstance(question, types.ElicitRequestFormParams)
    asked.append(question.message)
    properties = question.requested_schema["properties"]
    assert (properties["name"]["type"], properties["count"]["default"]) == ("string", 1), properties
    if len(asked) > 1:
        return types.ElicitResult(action="decline")
    return types.ElicitResult(action="accept", content={"name": "cakes", "count": 2})


async def reply(_: object, question: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    """Be the model."""
    content = question.messages[0].content
    assert isinstance(content, types.TextContent)
    said = types.TextContent(type="text", text=f"{question.system_prompt} {content.text}!")
    return types.CreateMessageResult(role="assistant", content=said, model="test")


async def offers(client: Client) -> None:
    prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
    assert prompts["inside.greet"].title == "Greet"
    assert [(item.name, item.required) for item in prompts["inside.greet"].arguments or []] == [
        ("name", True),
        ("language", False),
    ]
    (greeting,) = (await client.get_prompt("inside.greet", {"name": "Ada"})).messages
    assert (greeting.role, greeting.content.text) == ("user", "Greet Ada in English.")
    dialogue = (await client.get_prompt("inside.dialogue")).messages
    assert [message.role for message in dialogue] == ["user", "assistant"]
    for name, arguments in [("inside.greet", {}), ("inside.nothing", {}), ("inside__double", {"number": "1"})]:
        with pytest.raises(MCPError) as wrong:
            await client.get_prompt(name, arguments)
        assert wrong.value.error.code == -32602

    listed = {str(item.uri): item for item in (await client.list_resources()).resources}
    assert listed["inside://today"].description == "What is on today."
    (template,) = (await client.list_resource_templates()).resource_templates
    assert (template.uri_template, template.mime_type) == ("inside://{day}/menu", "text/markdown")
    (today,) = (await client.read_resource("inside://today")).contents
    assert (today.text, today.mime_type) == ("soup", "text/plain")
    (menu,) = (await client.read_resource("inside://may%201/menu")).contents
    assert menu.text == "menu of may 1"
    (picture,) = (await client.read_resource("inside://picture")).contents
    assert (picture.blob, picture.mime_type) == ("iVBORw==", "image/png")
    with pytest.raises(MCPError) as missing:
        await client.read_resource("inside://nothing")
    assert missing.value.error.code == (-32002 if client.protocol_version < "2026" else -32602)


async def asks(client: Client) -> None:
    ordered = [(await client.call_tool("inside__orders", {})).content[0].text for _ in range(2)]
    assert ordered == ["2 cakes", "nothing"], ordered
    assert asked == ["What shall it be?"] * 2
    thought = (await client.call_tool("inside__thinks", {"about": "life"})).content[0].text
    assert thought == "Be brief. life!", thought


async def main(mode: str, command: str, *arguments: str) -> None:
    program = StdioServerParameters(command=command, args=list(arguments), env=dict(os.environ))
    server = command if command.startswith("http") else program
    async with Client(server, mode=mode, elicitation_callback=answer, sampling_callback=reply) as client:
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

        await offers(client)
        await asks(client)

        many = await asyncio.gather(*(client.call_tool("inside__double", {"number": n}) for n in range(200)))
        assert [result.structured_content for result in many] == [{"twice": 2 * n} for n in range(200)]


asyncio.run(main(*sys.argv[1:]))
