"""The official Python client of the Agent Client Protocol against `omni acp`, as an editor uses it."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

from acp import PROTOCOL_VERSION, RequestError, embedded_text_resource, image_block, resource_block, text_block
from acp.schema import AllowedOutcome, DeniedOutcome, RequestPermissionResponse
from acp.stdio import spawn_agent_process

WHAT, OMNI, FOLDER, SEEN = sys.argv[1:]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


class Editor:
    """An editor that answers what it is asked with `says`, and keeps what it is shown."""

    def __init__(self):
        self.says, self.asked, self.shown, self.agent = "once", [], [], None

    def on_connect(self, agent):
        self.agent = agent

    async def request_permission(self, session_id, tool_call, options, **_):
        self.asked.append(tool_call)
        if self.says == "cancel":
            await self.agent.cancel(session_id=session_id)
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        assert self.says in [option.option_id for option in options], options
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=self.says))

    async def session_update(self, update, **_):
        self.shown.append(update.model_dump(mode="json", by_alias=True, exclude_none=True))

    def text(self):
        """What was said since this was last asked for."""
        chunks = [update for update in self.shown if update["sessionUpdate"] == "agent_message_chunk"]
        self.shown.clear()
        return "".join(chunk["content"]["text"] for chunk in chunks)


def conversation(updates):
    """What was said and done, by the ids of messages and calls."""
    told = {}
    for update in updates:
        kind = update["sessionUpdate"]
        if kind in ("user_message_chunk", "agent_message_chunk"):
            key = (kind, update["messageId"])
            told[key] = told.get(key, "") + update["content"]["text"]
        elif kind in ("tool_call", "tool_call_update"):
            call = told.setdefault(("call", update["toolCallId"]), {})
            call.update({name: value for name, value in update.items() if name != "sessionUpdate"})
    return [[*key, value] for key, value in told.items()]


async def talk(agent, editor):
    session = await agent.new_session(cwd=FOLDER, mcp_servers=[])
    said = session.session_id

    async def ask(*blocks):
        return (await agent.prompt(session_id=said, prompt=list(blocks))).stop_reason

    assert await ask(text_block("write it")) == "end_turn"
    assert Path(FOLDER, "a.txt").read_text() == "hello\n"
    [asked] = editor.asked
    assert asked.raw_input == {"path": "a.txt", "content": "hello\n"}, asked
    assert asked.kind == "edit", asked
    assert asked.title.startswith("fs.write a.txt"), asked
    assert (asked.content[0].type, asked.content[0].new_text) == ("diff", "hello\n"), asked
    assert str(asked.locations[0].path) == f"{FOLDER}/a.txt", asked

    editor.says = "no"
    assert await ask(text_block("write another")) == "end_turn"
    assert not Path(FOLDER, "b.txt").exists()
    seen = conversation(editor.shown)
    asked = [["user_message_chunk", None, text] for text in ("write it", "write another")]
    Path(SEEN).write_text(json.dumps({"session": said, "shown": seen, "asked": [entry[2] for entry in asked]}))
    calls = [entry[2]["status"] for entry in seen if entry[0] == "call"]
    assert calls == ["completed", "failed"], calls
    assert [entry[2] for entry in seen if entry[0] == "agent_message_chunk"] == ["Let me.", "Written.", "Not then."]

    titles = [update.get("title") for update in editor.shown if update["sessionUpdate"] == "session_info_update"]
    assert titles == ["write it"], titles
    editor.says = "cancel"
    other = (await agent.new_session(cwd=FOLDER, mcp_servers=[])).session_id
    answer = await agent.prompt(session_id=other, prompt=[text_block("and one more")])
    assert answer.stop_reason == "cancelled", answer
    assert not Path(FOLDER, "c.txt").exists()


async def again(agent, editor):
    seen = json.loads(Path(SEEN).read_text())
    listed = (await agent.list_sessions(cwd=FOLDER)).sessions
    assert seen["session"] in [session.session_id for session in listed], listed
    await agent.load_session(cwd=FOLDER, session_id=seen["session"], mcp_servers=[])
    replayed = conversation(editor.shown)
    assert [entry[2] for entry in replayed if entry[0] == "user_message_chunk"] == seen["asked"]
    # Word for word and id for id what was shown at the time.
    assert [entry for entry in replayed if entry[0] != "user_message_chunk"] == seen["shown"]
    editor.text()

    async def ask(*blocks):
        answer = await agent.prompt(session_id=seen["session"], prompt=list(blocks))
        assert answer.stop_reason == "end_turn", answer
        return editor.text()

    document = resource_block(embedded_text_resource("file:///notes.md", "```\nnotes\n```"))
    assert await ask(text_block("go on"), image_block(PIXEL, "image/png"), document) == "Here again."
    assert "/status" in await ask(text_block("/help"))
    assert "messages" in await ask(text_block("/status"))
    for number in range(20):
        session = (await agent.new_session(cwd=FOLDER, mcp_servers=[])).session_id
        await agent.prompt(session_id=session, prompt=[text_block(f"number {number}")])
    titles = [session.title for session in (await agent.list_sessions(cwd=FOLDER)).sessions]
    assert [f"number {number}" for number in reversed(range(20))] == titles[:20], titles
    try:
        await agent.load_session(cwd=FOLDER, session_id="nowhere", mcp_servers=[])
        told = "nothing"
    except RequestError as error:
        told = f"{error} {error.data}"
    assert "nowhere" in told, told


async def main():
    editor = Editor()
    async with spawn_agent_process(lambda _: editor, OMNI, "acp", cwd=FOLDER, env=os.environ) as (agent, _):
        about = await agent.initialize(protocol_version=PROTOCOL_VERSION)
        assert about.agent_info.name == "omni", about
        assert about.agent_capabilities.load_session, about
        await {"talk": talk, "again": again}[WHAT](agent, editor)


asyncio.run(main())
