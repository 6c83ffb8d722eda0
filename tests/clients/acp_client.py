"""Drives an agent with the official Python SDK of the Agent Client Protocol.

Usage: acp_client.py FOLDER COMMAND…; the agent's model plays the script of tests/it/acp.rs. The SDK checks what it
receives against its own types.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from acp import PROTOCOL_VERSION, Client, spawn_agent_process, text_block
from acp.exceptions import RequestError
from acp.schema import AllowedOutcome, RequestPermissionResponse


class Editor(Client):
    """An editor that allows what it is asked about."""

    def __init__(self) -> None:
        """Begin with nothing heard."""
        self.updates: list[Any] = []
        self.asked: list[Any] = []

    async def request_permission(self, *, tool_call: Any, options: Any, **_: Any) -> Any:
        """Allow it once."""
        self.asked.append(tool_call)
        (once,) = (option for option in options if option.kind == "allow_once")
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=once.option_id))

    async def session_update(self, *, update: Any, **_: Any) -> None:
        """Keep it."""
        self.updates.append(update)

    def text(self) -> str:
        """Return what the agent has said."""
        chunks = (update for update in self.updates if update.session_update == "agent_message_chunk")
        return "".join(chunk.content.text for chunk in chunks)


async def first(folder: str, command: list[str]) -> str:
    """Begin a session and have a file written."""
    editor = Editor()
    async with spawn_agent_process(editor, *command, env=dict(os.environ)) as (agent, _):
        told = await agent.initialize(protocol_version=PROTOCOL_VERSION)
        assert told.agent_capabilities.load_session
        session = await agent.new_session(cwd=folder, mcp_servers=[])
        done = await agent.prompt(session_id=session.session_id, prompt=[text_block("write hello")])
        assert done.stop_reason == "end_turn", done
    assert editor.text() == "I write it.Done, one file.", editor.text()
    assert [call.raw_input["path"] for call in editor.asked] == ["a.txt"], editor.asked
    assert (Path(folder) / "a.txt").read_text() == "hello\n"
    return str(session.session_id)


async def second(folder: str, command: list[str], session: str) -> None:
    """Find the session again in another process."""
    editor = Editor()
    async with spawn_agent_process(editor, *command, env=dict(os.environ)) as (agent, _):
        await agent.initialize(protocol_version=PROTOCOL_VERSION)
        listed = await agent.list_sessions(cwd=folder)
        assert [found.session_id for found in listed.sessions] == [session], listed
        await agent.load_session(cwd=folder, session_id=session, mcp_servers=[])
        assert editor.text() == "I write it.Done, one file.", editor.text()
        await agent.set_session_mode(session_id=session, mode_id="allow")
        with pytest.raises(RequestError, match="there is no mode `none`"):
            await agent.set_session_mode(session_id=session, mode_id="none")
        await agent.close_session(session_id=session)


def main() -> None:
    """Drive it twice."""
    folder, *command = sys.argv[1:]
    session = asyncio.run(first(folder, command))
    asyncio.run(second(folder, command, session))


main()
