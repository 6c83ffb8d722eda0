"""What omni does wherever it comes from: the wheel's command and the single file have to pass the same.

    python tests/dist/acceptance.py COMMAND [ARGUMENT...]

Needs nothing but Python's own library, a shell's `git`, and a network only for the skill with packages, which is left
out with `--offline` before the command. Prints a line for each check; the exit code is 1 if one failed.
"""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds that anything may take, on a slow and busy machine."""

SKILL = {
    "SKILL.md": "---\nname: lab\ndescription: Things to try.\n---\n\n# Lab\n",
    "scripts/lab.py": '''
import multiprocessing
import os
import sys
import time

from omni import Failed, tool


@tool(read_only=True, examples=["how hot is the oven"])
def heat(degrees: int = 180) -> dict[str, int]:
    """Say how hot the oven is."""
    return {"degrees": degrees, "pid": os.getpid(), "parent": os.getppid()}


@tool(read_only=True)
def burn() -> str:
    """Fail."""
    raise Failed("the cake is burnt")


@tool(read_only=True, timeout=1)
def simmer() -> str:
    """Take longer than it may."""
    time.sleep(600)
    return "done"


@tool(read_only=True, examples=["how long does it take to bake"])
def bake(file: str = "talked") -> str:
    """Bake a cake, which takes very long."""
    with open(file, "w") as stream:
        stream.write("baking")
    time.sleep(600)
    return "done"


@tool(read_only=True)
def modules() -> list[str]:
    """Import what skills may want of Python itself."""
    import asyncio, ctypes, decimal, lzma, sqlite3, ssl, uuid, zlib, zoneinfo
    zoneinfo.ZoneInfo("Europe/Oslo")
    return sorted(m.__name__ for m in (asyncio, ctypes, decimal, lzma, sqlite3, ssl, uuid, zlib, zoneinfo))


@tool
def raze() -> str:
    """Destroy something."""
    return "razed"
''',
}

PACKED = {
    "SKILL.md": "---\nname: packed\ndescription: A skill with a package.\n---\n\n# Packed\n",
    "scripts/packed.py": '''
# /// script
# dependencies = ["humanize==4.12.3"]
# ///
import humanize

from omni import tool


@tool(read_only=True)
def size(number: int) -> str:
    """Say a number of bytes in words."""
    return humanize.naturalsize(number)
''',
}


class World:
    """A home and a folder of their own, and the command that is tried in them."""

    def __init__(self, command: list[str], root: Path) -> None:
        self.command = command
        self.home = root / "home"
        self.folder = root / "work"
        self.folder.mkdir()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OMNI_", "PYTHON", "VIRTUAL_ENV"))
        }
        self.environment |= {"OMNI_HOME": str(self.home), "OMNI_MODEL__NAME": "offline", "NO_COLOR": "1"}
        self.write(self.home / "config/skills/lab", SKILL)

    def write(self, folder: Path, files: dict[str, str]) -> None:
        for name, text in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> tuple[str, str]:
        """Run it to its end, which has to be this exit code; return what it said on both streams."""
        process = self.start(*arguments, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        assert process.returncode == code, f"{arguments} ended with {process.returncode}:\n{out}\n{err}"
        assert "Traceback" not in err, err
        return out, err

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool, and return what it came to."""
        out, _ = self.run("tool", "call", tool, json.dumps(arguments), "--json")
        return json.loads(out.splitlines()[-1])


CHECKS: list[Callable[[World], None]] = []


def check(function: Callable[[World], None]) -> Callable[[World], None]:
    CHECKS.append(function)
    return function


@check
def it_says_which_version_it_is(world: World) -> None:
    out, _ = world.run("--version")
    assert out.startswith("omni "), out


@check
def a_question_without_a_model_goes_to_a_python_tool(world: World) -> None:
    out, err = world.run("ask", "what time is it?")
    assert "UTC" in out and "time.now" in err, (out, err)
    out, err = world.run("ask", "how hot is the oven?")
    assert "degrees: 180" in out, out


@check
def what_is_piped_in_is_a_question(world: World) -> None:
    out, _ = world.run("ask", stdin="what time is it?\n")
    assert "UTC" in out, out


@check
def the_events_of_a_turn_are_lines_of_json(world: World) -> None:
    out, _ = world.run("ask", "--json", "what time is it?")
    kinds = [json.loads(line)["type"] for line in out.splitlines()]
    assert kinds[0] == "turn.started" and kinds[-1] == "result" and "tool.completed" in kinds, kinds


@check
def files_and_git_are_at_hand(world: World) -> None:
    subprocess.run(["git", "init", "--quiet", str(world.folder)], check=True)
    (world.folder / "cake.txt").write_text("flour and sugar\n")
    out, _ = world.run("ask", "what is the git status of this repository?")
    assert "cake.txt" in out, out
    out, _ = world.run("tool", "call", "fs.read", '{"path": "cake.txt"}')
    assert "flour and sugar" in out, out


@check
def a_skill_runs_in_a_worker(world: World) -> None:
    out, _ = world.run("tool", "call", "lab.heat", '{"degrees": 200}', "--json")
    heat = json.loads(out)["structured"]
    assert heat["degrees"] == 200 and heat["pid"] != heat["parent"], heat


@check
def a_worker_has_pythons_own_library(world: World) -> None:
    out, _ = world.run("tool", "call", "lab.modules")
    assert "ssl" in out and "zoneinfo" in out, out


@check
def a_skill_brings_its_packages(world: World) -> None:
    skill = world.folder / "packed"
    world.write(skill, PACKED)
    world.run("skill", "install", str(skill), "--yes")
    out, _ = world.run("tool", "call", "packed.size", '{"number": 2000000}')
    assert "2.0 MB" in out, out


@check
def a_note_is_remembered_and_forgotten(world: World) -> None:
    world.run("tool", "call", "memory.note", '{"note": "the deploy key is in the vault"}', "--yes")
    out, _ = world.run("memory", "search", "where is the deploy key")
    assert "in the vault" in out, out
    out, _ = world.run("memory", "list", "--json")
    world.run("memory", "forget", json.loads(out.splitlines()[0])["id"], "--yes")
    out, _ = world.run("memory", "list")
    assert "vault" not in out, out


@check
def a_conversation_goes_on(world: World) -> None:
    world.run("ask", "what time is it?")
    world.run("ask", "--continue", "how hot is the oven?")
    out, _ = world.run("session", "show", "--json", latest(world))
    assert "what time is it?" in out and "how hot is the oven?" in out, out


def latest(world: World) -> str:
    out, _ = world.run("session", "list", "--json")
    session = json.loads(out.splitlines()[0])
    return str(session.get("id") or session["session"])


@check
def exit_codes_say_what_went_wrong(world: World) -> None:
    world.run("no-such-command", code=2)
    world.run("tool", "call", "no.such", code=2)
    _, err = world.run("tool", "call", "lab.burn", code=1)
    assert "the cake is burnt" in err, err
    world.run("tool", "call", "lab.raze", code=5)
    out, _ = world.run("tool", "call", "lab.raze", "--yes")
    assert "razed" in out, out
    world.run("ask", "hello", "--set", "no.such=1", code=3)
    world.run("tool", "call", "lab.simmer", code=124)


@check
def ctrl_c_ends_a_call_and_its_worker(world: World) -> None:
    marker = world.folder / "baking"
    process = world.start("tool", "call", "lab.bake", json.dumps({"file": str(marker)}))
    until(marker.exists)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    took = time.monotonic() - began
    assert process.returncode == 130 and "Traceback" not in err, (process.returncode, err)
    assert took < 10, f"{took:.1f} s"


@check
def ctrl_c_in_a_talk_ends_the_turn_and_then_the_talk(world: World) -> None:
    marker = world.folder / "talked"
    with terminal(world, "chat") as talk:
        talk.until("offline")
        talk.say("what time is it?\r")
        talk.until("UTC")
        # What is typed before the line can be edited is lost.
        talk.until("› ")
        talk.say("never mind")
        talk.until("mind")
        talk.say("\x03")
        talk.until("› ")
        talk.say("how hot is the oven?\r")
        talk.until("180")
        talk.say("how long does it take to bake?\r")
        until(marker.exists)
        talk.say("\x03")
        talk.until("cancelled")
        talk.until("› ")
        talk.say("\x03")
        talk.until("again")
        talk.say("\x03")
        assert talk.end() in (0, 130), talk.seen


@check
def an_mcp_client_is_served(world: World) -> None:
    with spoken(world, "mcp") as server:
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "acceptance", "version": "1"},
        }
        said = server.ask("initialize", hello)
        assert said["serverInfo"]["name"] == "omni", said
        server.tell("notifications/initialized", {})
        tools = [tool["name"] for tool in server.ask("tools/list", {})["tools"]]
        assert {"lab__heat", "time__now"} <= set(tools), tools
        said = server.ask("tools/call", {"name": "lab__heat", "arguments": {"degrees": 90}})
        assert said["structuredContent"]["degrees"] == 90, said


@check
def an_editor_is_served(world: World) -> None:
    with spoken(world, "acp") as server:
        said = server.ask("initialize", {"protocolVersion": 1, "clientCapabilities": {}})
        assert said["protocolVersion"] == 1, said
        session = server.ask("session/new", {"cwd": str(world.folder), "mcpServers": []})["sessionId"]
        prompt = [{"type": "text", "text": "what time is it?"}]
        said = server.ask("session/prompt", {"sessionId": session, "prompt": prompt})
        assert said["stopReason"] == "end_turn", said


@check
def it_answers_over_http(world: World) -> None:
    process = world.start("serve", "--bind", "127.0.0.1:0")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), url
        body = json.dumps({"session_id": "mine", "message": "how hot is the oven?"}).encode()
        request = urllib.request.Request(f"{url}/message", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            said = json.load(answer)
        assert said["session_id"] == "mine" and "180" in said["output"], said
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 130) and "Traceback" not in err, (process.returncode, err)


@check
def nothing_is_left_running(world: World) -> None:
    until(lambda: not children(world))


def children(world: World) -> list[str]:
    """Processes that have this world's home in their environment."""
    mark = f"OMNI_HOME={world.home}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found.append(entry.name)
    return found


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


class Spoken:
    """A server that speaks JSON-RPC, a line a message."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._last = 0

    def tell(self, method: str, params: dict[str, Any], **more: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}) + "\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        self.tell(method, params, id=self._last)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("id") == self._last and "method" not in message:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
        raise AssertionError(f"no answer to {method}")


@contextlib.contextmanager
def spoken(world: World, *arguments: str) -> Iterator[Spoken]:
    """Talk to a server, which ends by itself when nothing more comes."""
    process = world.start(*arguments, stdin=subprocess.PIPE)
    try:
        yield Spoken(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class Terminal:
    """A terminal with somebody in front of it."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.descriptor = descriptor
        self.seen = ""

    def say(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def until(self, text: str) -> None:
        """Wait until the screen has shown this, from where was waited for last."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            self._read()
        self.seen = self.seen.partition(text)[2]

    def end(self) -> int:
        """Wait for its end, and return the exit code."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it does not end: {self.seen!r}")

    def _read(self) -> None:
        if select.select([self.descriptor], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                data = os.read(self.descriptor, 65536)
                self.seen += data.decode("utf-8", "replace")
                # A terminal says where its cursor is when it is asked.
                if b"\x1b[6n" in data:
                    os.write(self.descriptor, b"\x1b[1;1R")


@contextlib.contextmanager
def terminal(world: World, *arguments: str) -> Iterator[Terminal]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(world.folder)
        command = [*world.command, *arguments]
        os.execvpe(command[0], command, world.environment | {"TERM": "xterm"})
    talk = Terminal(pid, descriptor)
    try:
        yield talk
    finally:
        if talk.pid:
            os.kill(talk.pid, signal.SIGKILL)
            os.waitpid(talk.pid, 0)
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    offline = arguments[:1] == ["--offline"]
    command = arguments[1:] if offline else arguments
    if not command:
        print(__doc__)
        return 2
    left_out = {a_skill_brings_its_packages} if offline or shutil.which("uv") is None else set()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="omni-acceptance-") as root:
        world = World([str(Path(command[0]).absolute()), *command[1:]], Path(root).resolve())
        for function in CHECKS:
            name = function.__name__.replace("_", " ")
            if function in left_out:
                print(f"-    {name}", flush=True)
                continue
            began = time.monotonic()
            try:
                function(world)
            except Exception:
                failed += 1
                print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
            else:
                print(f"ok   {name}  {1000 * (time.monotonic() - began):.0f} ms", flush=True)
    print(f"{len(CHECKS) - failed - len(left_out)} passed, {failed} failed: {' '.join(command)}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
