"""Drives an agent with the official Python SDK of the Agent Client Protocol.

Usage: acp_client.py FOLDER COMMAND…; the agent's model plays the script of tests/it/acp.rs. The SDK checks what it
receives against its own types.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from acp import PROTOCOL_VERSION, Client, image_block, spawn_agent_process, text_block
from acp.exceptions import RequestError
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    FileSystemCapabilities,
    ReadTextFileResponse,
    RequestPermissionResponse,
    WriteTextFileResponse,
)

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Editor(Client):
    """An editor that says the same to whatever it is asked about, and has a file that is not saved."""

    def __init__(self, folder: str, says: str = "allow_once") -> None:
        """Begin with nothing heard."""
        self.says = says
        self.agent: Any = None
        self.updates: list[Any] = []
        self.asked: list[Any] = []
        self.files = {f"{folder}/b.txt": "not saved\n"}

    async def request_permission(self, *, session_id: str, tool_call: Any, options: Any, **_: Any) -> Any:
        """Choose the option of the kind, or cancel the turn."""
        self.asked.append(tool_call)
        if self.says == "cancelled":
            await self.agent.cancel(session_id=session_id)
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        (chosen,) = (option for option in options if option.kind == self.says)
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=chosen.option_id))

    async def session_update(self, *, update: Any, **_: Any) -> None:
        """Keep it."""
        self.updates.append(update)

    async def read_text_file(self, *, path: str, **_: Any) -> Any:
        """Give what is in the editor."""
        return ReadTextFileResponse(content=self.files[path])

    async def write_text_file(self, *, path: str, content: str, **_: Any) -> Any:
        """Take it into the editor."""
        self.files[path] = content
        return WriteTextFileResponse()

    def of(self, *kinds: str) -> Iterator[Any]:
        """Return the updates of these kinds."""
        return (update for update in self.updates if update.session_update in kinds)

    def text(self) -> str:
        """Return what the agent has said."""
        return "".join(chunk.content.text for chunk in self.of("agent_message_chunk"))

    def transcript(self) -> bytes:
        """Return all that the agent said and did, with the pieces of a message put together."""
        kinds = ("agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update")
        lines = []
        for key, group in groupby(self.of(*kinds), lambda update: getattr(update, "message_id", None) or id(update)):
            first, *others = group
            if isinstance(key, str):
                text = "".join(update.content.text for update in (first, *others))
                first = first.model_copy(update={"content": first.content.model_copy(update={"text": text})})
            lines.append(first.model_dump_json(by_alias=True, exclude_none=True))
        return "\n".join(lines).encode()


async def entered(agent: Any) -> None:
    """Say what the editor can do."""
    files = FileSystemCapabilities(read_text_file=True, write_text_file=True)
    told = await agent.initialize(
        protocol_version=PROTOCOL_VERSION, client_capabilities=ClientCapabilities(fs=files, terminal=False)
    )
    assert told.agent_capabilities.load_session
    (way,) = told.auth_methods
    await agent.authenticate(method_id=way.id)


async def first(folder: str, command: list[str]) -> tuple[str, bytes]:
    """Begin a session, have a file read and one written, and show a picture."""
    editor = Editor(folder)
    async with spawn_agent_process(editor, *command, env=dict(os.environ)) as (agent, _):
        await entered(agent)
        session = await agent.new_session(cwd=folder, mcp_servers=[])
        done = await agent.prompt(session_id=session.session_id, prompt=[text_block("write hello")])
        assert done.stop_reason == "end_turn", done
        assert editor.text() == "I write it.Done, one file.", editor.text()
        assert [call.raw_input["path"] for call in editor.asked] == ["a.txt"], editor.asked
        assert editor.files[f"{folder}/a.txt"] == "hello\n"
        picture = [image_block(DOT, "image/png"), text_block("what is it, and what is in b.txt?")]
        done = await agent.prompt(session_id=session.session_id, prompt=picture)
        assert done.stop_reason == "end_turn", done
        assert editor.text().endswith("Not saved."), editor.text()
        streamed = editor.transcript()
        (commands,) = editor.of("available_commands_update")
        for known in commands.available_commands:
            said = len(editor.updates)
            await agent.prompt(session_id=session.session_id, prompt=[text_block(f"/{known.name}")])
            assert any(update.session_update == "agent_message_chunk" for update in editor.updates[said:]), known
    return str(session.session_id), streamed


async def second(folder: str, command: list[str], session: str, streamed: bytes) -> None:
    """Find the session again in another process."""
    editor = Editor(folder)
    async with spawn_agent_process(editor, *command, env=dict(os.environ)) as (agent, _):
        await entered(agent)
        listed = await agent.list_sessions(cwd=folder)
        assert [found.session_id for found in listed.sessions] == [session], listed
        await agent.load_session(cwd=folder, session_id=session, mcp_servers=[])
        assert editor.transcript() == streamed, f"{editor.transcript()!r}\n{streamed!r}"
        assert DOT in [chunk.content.data for chunk in editor.of("user_message_chunk") if chunk.content.type == "image"]
        await agent.set_session_mode(session_id=session, mode_id="allow")
        with pytest.raises(RequestError, match="there is no mode `none`"):
            await agent.set_session_mode(session_id=session, mode_id="none")
        await agent.close_session(session_id=session)


async def third(folder: str, command: list[str], session: str, says: str, stop: str) -> None:
    """Go on with the session, and do not let the file be written."""
    editor = Editor(folder, says)
    async with spawn_agent_process(editor, *command, env=dict(os.environ)) as (agent, _):
        editor.agent = agent
        await entered(agent)
        await agent.resume_session(cwd=folder, session_id=session, mcp_servers=[])
        assert not list(editor.of("user_message_chunk", "agent_message_chunk")), "nothing is said again"
        done = await agent.prompt(session_id=session, prompt=[text_block("write hello")])
        assert done.stop_reason == stop, done
        assert len(editor.asked) == 1, editor.asked
        *_, ended = editor.of("tool_call_update")
        assert ended.status == "failed", ended
        assert f"{folder}/a.txt" not in editor.files


async def many(folder: str, command: list[str]) -> None:
    """Begin twenty sessions and list them."""
    script = Path(folder, "many.json")
    script.write_text(json.dumps([{"text": "ok", "loop": True}]))
    env = {**os.environ, "OMNI_MODEL__NAME": f"scripted:{script}"}
    async with spawn_agent_process(Editor(folder), *command, env=env) as (agent, _):
        await entered(agent)
        begun = []
        for number in range(20):
            session = await agent.new_session(cwd=folder, mcp_servers=[])
            await agent.prompt(session_id=session.session_id, prompt=[text_block(f"number {number}")])
            begun.insert(0, session.session_id)
        listed = await agent.list_sessions(cwd=folder)
        assert [found.session_id for found in listed.sessions[:20]] == begun, listed
        assert listed.sessions[0].title == "number 19", listed


def main() -> None:
    """Drive it, in one process after the other."""
    folder, *command = sys.argv[1:]
    session, streamed = asyncio.run(first(folder, command))
    asyncio.run(second(folder, command, session, streamed))
    asyncio.run(third(folder, command, session, "reject_once", "end_turn"))
    asyncio.run(third(folder, command, session, "cancelled", "cancelled"))
    asyncio.run(many(folder, command))


main()
