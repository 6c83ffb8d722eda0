"""The assistant in a program, as the installed wheel has it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

import omni
from omni import Context, Event, ToolResult, tool
from omni.events import Approval, Elicitation

Script = Callable[..., str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a folder of one's own."""
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """What waits for ever fails."""

    def stop(*_: Any) -> None:
        raise TimeoutError("it does not end")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Make a model that does these steps, one a request."""

    def write(*steps: dict[str, Any]) -> str:
        file = tmp_path / f"script-{len(list(tmp_path.iterdir()))}.json"
        file.write_text(json.dumps(steps))
        return f"scripted:{file}"

    return write


def calls(name: str, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": name, "arguments": arguments}]}


FOREVER = {"text": "at last", "delay_ms": 600_000}


def test_a_question_has_an_answer(script: Script) -> None:
    assert omni.ask("how are you?", model=script({"text": "Fine."})) == "Fine."
    assert "UTC" in omni.ask("what time is it?", model="offline")


def test_a_turn_says_what_it_came_to(script: Script) -> None:
    usage = {"input": 10, "output": 3, "cached": 0}
    with omni.Agent(model=script({"text": "Fine.", "usage": usage}), session="mine") as agent:
        turn = agent.ask("how are you?")
    assert (str(turn), turn.text, turn.stop, turn.session) == ("Fine.", "Fine.", "answered", "mine")
    assert (turn.rounds, turn.tool_calls, turn.usage["input"], turn.usage["output"]) == (1, 0, 10, 3)


def test_a_conversation_goes_on_by_its_name(script: Script) -> None:
    model = script({"text": "one"}, {"text": "two"}, {"text": "three"})
    with omni.Agent(model=model, session="user 7") as agent:
        first, second = agent.ask("1"), agent.ask("2")
        other = agent.ask("3", session="user 8")
    with omni.Agent(model=script({"text": "four"}), session="user 7") as agent:
        last = agent.ask("4")
    assert first.session == second.session == last.session != other.session


def test_a_function_is_a_tool(script: Script) -> None:
    seen = []

    def oven(degrees: int, fan: bool = False) -> dict[str, int]:
        """Heat the oven.

        Args:
            degrees: how hot.
        """
        seen.append((degrees, fan, threading.current_thread() is threading.main_thread()))
        return {"degrees": degrees}

    model = script(calls("oven", degrees=180), {"text": "It is hot.", "expect": {"contains": '{"degrees":180}'}})
    assert omni.ask("heat the oven", model=model, tools=[oven]) == "It is hot."
    assert seen == [(180, False, False)]
    assert not hasattr(oven, "__omni_tool__")


def test_a_tool_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="a tool is a function"):
        omni.Agent(model="offline", tools=[int])
    with pytest.raises(TypeError, match="no schema can describe"):
        omni.Agent(model="offline", tools=[lambda_with_stars])

    def again() -> None: ...

    with pytest.raises(ValueError, match="two tools `again`"):
        omni.Agent(model="offline", tools=[again, again])


def lambda_with_stars(*numbers: int) -> int:
    return sum(numbers)


def test_what_a_tool_raises_goes_to_the_model(script: Script) -> None:
    def fails() -> str:
        raise omni.Failed("the oven is broken")

    def breaks() -> str:
        raise KeyError("secret")

    model = script(
        calls("fails"),
        {**calls("breaks"), "expect": {"contains": "the oven is broken"}},
        {"text": "Sorry.", "expect": {"contains": "its author has to look"}},
    )
    assert omni.ask("bake", model=model, tools=[fails, breaks]) == "Sorry."


def test_a_coroutine_runs_on_the_loop_of_its_program(script: Script) -> None:
    loops = []

    class Kitchen:
        async def oven(self, ctx: Context) -> str:
            """Say how hot it is."""
            loops.append(asyncio.get_running_loop())
            await asyncio.sleep(0)
            return f"hot in {ctx.workspace.name}"

    async def main() -> None:
        model = script(calls("oven"), {"text": "Hot.", "expect": {"contains": "hot in work"}})
        async with omni.Agent(model=model, tools=[Kitchen().oven]) as agent:
            assert (await agent.turn("how hot is it?")).text == "Hot."
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(main())


def test_a_coroutine_has_a_loop_where_its_program_has_none(script: Script) -> None:
    async def oven() -> str:
        await asyncio.sleep(0)
        return "hot"

    model = script(calls("oven"), {"text": "Hot.", "expect": {"contains": "hot"}})
    assert omni.ask("how hot is it?", model=model, tools=[oven]) == "Hot."


def test_what_destroys_is_refused_where_nobody_agrees(script: Script) -> None:
    razed = []

    @tool(destructive=True)
    def raze() -> str:
        razed.append(True)
        return "razed"

    async def events(approve: Any) -> list[Event]:
        model = script(calls("raze"), {"text": "done"})
        async with omni.Agent(model=model, tools=[raze], approve=approve) as agent:
            return [event async for event in agent.stream("raze it")]

    def refused(events: list[Event]) -> bool:
        (completed,) = (event for event in events if event["type"] == "tool.completed")
        return completed["result"].get("is_error", False)

    assert refused(asyncio.run(events(None)))
    assert not razed
    assert refused(asyncio.run(events(lambda _: False)))
    assert not razed
    asked: list[Approval] = []

    async def approve(approval: Approval) -> bool:
        asked.append(approval)
        await asyncio.sleep(0)
        return True

    assert not refused(asyncio.run(events(approve)))
    assert razed == [True]
    assert [(approval["tool"], approval["arguments"]) for approval in asked] == [("raze", {})]

    razed.clear()
    assert omni.ask("raze it", model=script(calls("raze"), {"text": "done"}), tools=[raze], approve=bool) == "done"
    assert razed == [True]


def test_what_a_callback_raises_ends_the_turn(script: Script) -> None:
    @tool(destructive=True)
    def raze() -> str:
        raise AssertionError("it ran")

    def approve(approval: Approval) -> bool:
        raise LookupError("no policy for this")

    with omni.Agent(model=script(calls("raze"), {"text": "on"}), tools=[raze], approve=approve) as agent:
        with pytest.raises(LookupError, match="no policy"):
            agent.ask("raze it")
        assert agent.ask("and now?").text == "on"


def test_a_tool_may_ask_a_person(script: Script) -> None:
    class Heat(BaseModel):
        degrees: int

    def oven(ctx: Context) -> str:
        heat = ctx.elicit("How hot?", Heat)
        return "nothing" if heat is None else f"{heat.degrees} degrees"

    def elicit(question: Elicitation) -> dict[str, Any]:
        assert question["message"] == "How hot?"
        return dict.fromkeys(question["schema"]["properties"], 200)

    model = script(calls("oven"), {"text": "Done.", "expect": {"contains": "200 degrees"}})
    assert omni.ask("bake", model=model, tools=[oven], elicit=elicit) == "Done."
    model = script(calls("oven"), {"text": "Done.", "expect": {"contains": "nothing"}})
    assert omni.ask("bake", model=model, tools=[oven], elicit=lambda _: None) == "Done."


def test_tools_may_call_tools(script: Script) -> None:
    def when(ctx: Context) -> str:
        result: ToolResult = ctx.call_tool("time.now")
        return f"it is {result.text}"

    model = script(calls("when"), {"text": "Now.", "expect": {"contains": "it is 2"}})
    assert omni.ask("when?", model=model, tools=[when]) == "Now."


def test_events_are_those_of_the_command_line_and_typed(script: Script) -> None:
    def oven() -> int:
        return 180

    reply = {"text": "It is hot.", "reasoning": "Let me see.", "usage": {"input": 1, "output": 1}}
    model = script(calls("oven"), reply)

    async def main() -> list[Event]:
        async with omni.Agent(model=model, tools=[oven]) as agent:
            return [event async for event in agent.stream("how hot is it?")]

    events = asyncio.run(main())
    kinds = [event["type"] for event in events]
    assert kinds[0] == "turn.started"
    assert kinds[-1] == "result"
    assert {"tool.started", "tool.completed", "reasoning.delta", "message.delta", "usage"} <= set(kinds)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    # What Rust says is what the types promise, and not more.
    adapter: TypeAdapter[Event] = TypeAdapter(Event)
    for event in events:
        checked = adapter.validate_python(event, strict=True)
        assert checked == event, "a key that no type has"


def test_leaving_a_stream_cancels_its_turn(script: Script) -> None:
    async def main() -> None:
        async with (
            omni.Agent(model=script(FOREVER), session="mine") as slow,
            omni.Agent(model=script({"text": "here"}), session="mine") as quick,
        ):
            async with contextlib.aclosing(slow.stream("take long")) as events:
                async for event in events:
                    assert event["type"] == "turn.started"
                    break
            # The session is free again.
            assert (await quick.turn("are you there?")).text == "here"

    asyncio.run(main())


def test_cancelling_a_task_cancels_its_turn_and_its_tools(script: Script) -> None:
    ended = []

    async def main() -> None:
        started = asyncio.Event()

        async def oven() -> str:
            started.set()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                ended.append("oven")
                raise
            return "hot"

        async with omni.Agent(model=script(calls("oven"), {"text": "here"}), tools=[oven]) as agent:
            turn = asyncio.create_task(agent.turn("bake"))
            await started.wait()
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
            assert (await agent.turn("are you there?")).text == "here"
        assert ended == ["oven"]

    asyncio.run(main())


def test_a_plain_function_hears_of_a_cancel(script: Script) -> None:
    started, ended = threading.Event(), threading.Event()

    def oven(ctx: Context) -> str:
        started.set()
        while not ctx.cancelled:
            ended.wait(0.01)
        ended.set()
        return "cold"

    async def main() -> None:
        async with omni.Agent(model=script(calls("oven"), {"text": "here"}), tools=[oven]) as agent:
            turn = asyncio.create_task(agent.turn("bake"))
            assert await asyncio.to_thread(started.wait, 60)
            turn.cancel()
            assert await asyncio.to_thread(ended.wait, 60)

    asyncio.run(main())


def test_why_there_is_no_answer(script: Script, tmp_path: Path) -> None:
    for wrong in (
        {"model": "no-such-vendor/model"},
        {"settings": {"no": {"such": 1}}},
        {"settings": {"limits.rounds": "many"}},
        {"folder": tmp_path / "nowhere"},
    ):
        with pytest.raises(omni.SetupError):
            omni.ask("hello", **wrong)  # type: ignore[arg-type]
    model = script({"error": {"kind": "unauthorized", "message": "no such key"}})
    with pytest.raises(omni.TurnError) as caught:
        omni.ask("hello", model=model)
    assert caught.value.turn is not None
    assert caught.value.turn.stop == "unauthorized"
    agent = omni.Agent(model="offline")
    agent.close()
    with pytest.raises(RuntimeError, match="closed"):
        agent.ask("hello")


def test_settings_skills_and_folder_are_its_own(script: Script, tmp_path: Path) -> None:
    skill = tmp_path / "skills" / "lab"
    (skill / "scripts").mkdir(parents=True)
    (skill / "SKILL.md").write_text("---\nname: lab\ndescription: Things to try.\n---\n")
    code = "import os\nfrom omni import Context, tool\n@tool(read_only=True)\ndef where(ctx: Context) -> str:\n"
    code += "    'Say where.'\n    return f'{ctx.workspace} {ctx.settings} {os.getpid()}'\n"
    (skill / "scripts/lab.py").write_text(code)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    results = []

    async def main() -> None:
        settings = {"limits": {"rounds": 2}, "skill": {"lab": {"oven": "hot"}}}
        model = script(calls("lab__where"))
        async with omni.Agent(model=model, folder=elsewhere, skills=[skill.parent], settings=settings) as agent:
            async for event in agent.stream("where?"):
                if event["type"] == "tool.completed":
                    results.append(event["result"]["content"][0]["text"])

    asyncio.run(main())
    folder, _, rest = results[0].partition(" ")
    assert folder == str(elsewhere)
    assert "{'oven': 'hot'}" in rest
    assert str(os.getpid()) not in rest


def test_the_streams_of_the_program_stay_its_own(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sys.stdin, sys.stdout, sys.stderr, signal.getsignal(signal.SIGINT))

    def chatty() -> str:
        print("from a tool")
        return "said"

    model = script(calls("chatty"), calls("time__now"), {"text": "Done."})
    omni.ask("talk", model=model, tools=[chatty])
    assert before == (sys.stdin, sys.stdout, sys.stderr, signal.getsignal(signal.SIGINT))
    assert capsys.readouterr().out == "from a tool\n"


def test_many_threads_may_ask(script: Script) -> None:
    answers: list[str] = []
    with omni.Agent(model=script({"text": "here", "loop": True})) as agent:

        def ask(number: int) -> None:
            answers.append(agent.ask("are you there?", session=f"user {number}").text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert answers == ["here"] * 8


def child(code: str, model: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, model], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


WAITING = """
import asyncio, sys, threading, omni
begun = threading.Event()

def waits() -> str:
    "Say that it begins."
    print("waiting", flush=True)
    begun.set()
    return "so"
"""

BLOCKED = (
    WAITING
    + """
try:
    omni.ask("take long", model=sys.argv[1], tools=[waits])
except KeyboardInterrupt:
    print("interrupted", omni.ask("what time is it?", model="offline"), flush=True)
"""
)

LOOPED = (
    WAITING
    + """
async def main():
    async with omni.Agent(model=sys.argv[1], tools=[waits]) as agent:
        try:
            await agent.turn("take long")
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
)


@pytest.mark.parametrize(("code", "says"), [(BLOCKED, "interrupted time.now"), (LOOPED, "cancelled\ninterrupted")])
def test_ctrl_c_is_a_keyboard_interrupt(script: Script, code: str, says: str) -> None:
    process = child(code, script(calls("waits"), FOREVER))
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith(says), out


def test_an_agent_that_nobody_closes_ends_with_its_program(script: Script) -> None:
    code = (
        WAITING
        + """
agent = omni.Agent(model=sys.argv[1], tools=[waits])
threading.Thread(target=agent.ask, args=("take long",), daemon=True).start()
begun.wait()
"""
    )
    process = child(code, script(calls("waits"), FOREVER))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)
    assert "the turn was cancelled" in err


def test_a_fork_is_told_so(script: Script) -> None:
    code = """
import os, sys, warnings, omni
warnings.simplefilter("ignore")  # that of Python itself
omni.ask("one", model=sys.argv[1])
agent = omni.Agent(model=sys.argv[1])
child = os.fork()
if child == 0:
    try:
        agent.ask("two")
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(agent.ask("three").text)
"""
    process = child(code, script({"text": "here", "loop": True}))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    first, second = out.splitlines()
    assert "was forked from" in first
    assert second == "here"
