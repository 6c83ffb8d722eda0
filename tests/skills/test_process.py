"""Running programs, and ending them."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni import Context, Failed, Retry, testing
from omni.errors import ToolCancelled

Use = Callable[..., Any]


def is_alive(file: Path) -> bool:
    """Tell whether the process whose id a program wrote into a file runs."""
    try:
        os.kill(int(file.read_text()), 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{file.read_text().strip()}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_what_a_program_prints_and_returns(use: Use, workspace: Path) -> None:
    (workspace / "sub").mkdir()
    result = use("process.run", argv=["sh", "-c", "pwd; cat; echo bad >&2; exit 3"], cwd="sub", stdin="given\n")
    assert result == {"exit_code": 3, "stdout": f"{workspace}/sub\ngiven\n", "stderr": "bad\n", "note": ""}


def test_keys_of_model_vendors_stay_here(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", "s3cret")
    monkeypatch.setenv("ACME_REGION", "north")
    printed = use("process.run", argv=["env"])["stdout"]
    assert "ACME_REGION=north" in printed
    assert "s3cret" not in printed


def test_there_is_no_shell(use: Use) -> None:
    assert use("process.run", argv=["echo", "$HOME", "*", ";", "ls"])["stdout"] == "$HOME * ; ls\n"


def test_what_cannot_be_started(use: Use, workspace: Path) -> None:
    (workspace / "plain.txt").write_text("x")
    with pytest.raises(Failed, match="there is no program"):
        use("process.run", argv=["no-such-program"])
    with pytest.raises(Failed, match="cannot be started: Permission denied"):
        use("process.run", argv=["./plain.txt"])
    with pytest.raises(Retry, match="is empty"):
        use("process.run", argv=[])
    with pytest.raises(Retry, match="NUL"):
        use("process.run", argv=["echo", "a\0b"])
    with pytest.raises(Retry, match="at most"):
        use("process.run", argv=["true"], timeout=1e9)
    with pytest.raises(Failed, match="outside the workspace"):
        use("process.run", argv=["true"], cwd="..")
    with pytest.raises(Failed, match="is no folder"):
        use("process.run", argv=["true"], cwd="plain.txt")


def test_a_signal_is_a_negative_code(use: Use) -> None:
    assert use("process.run", argv=["sh", "-c", "kill -TERM $$"])["exit_code"] == -15


def test_long_output_keeps_its_ends(use: Use) -> None:
    script = "import sys; sys.stdout.write('first' + 'x' * 3_000_000 + 'last')"
    out = use("process.run", argv=[sys.executable, "-c", script])["stdout"]
    assert out.startswith("first")
    assert out.endswith("last")
    assert f"[{3_000_009 - 24_000} bytes left out]" in out


def test_what_is_no_text(use: Use) -> None:
    assert use("process.run", argv=["printf", r"a\377b"])["stdout"] == "a\N{REPLACEMENT CHARACTER}b"


def test_when_the_time_is_up_the_whole_family_ends(use: Use, workspace: Path) -> None:
    result = use("process.run", argv=["sh", "-c", "sleep 100 & echo $! > child; echo begun; wait"], timeout=0.5)
    assert result["stdout"] == "begun\n"
    assert result["exit_code"] is None
    assert result["note"] == "stopped after 0.5 s"
    assert until(lambda: not is_alive(workspace / "child"))


def test_what_a_program_leaves_running_ends(use: Use, workspace: Path) -> None:
    result = use("process.run", argv=["sh", "-c", "sleep 100 & echo $! > child; echo done"])
    assert result["exit_code"] == 0
    assert result["stdout"] == "done\n"
    assert result["note"] == "what it left running was ended"
    assert until(lambda: not is_alive(workspace / "child"))


def test_a_program_that_closes_its_output_is_waited_for(use: Use) -> None:
    assert use("process.run", argv=["sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 5"])["exit_code"] == 5


def test_output_is_a_sign_of_life_and_silence_is_none(ctx: Context, use: Use) -> None:
    reports = ctx._native.reports  # type: ignore[attr-defined]
    use("process.run", argv=["sh", "-c", "sleep 0.7"])
    assert reports == []
    use("process.run", argv=["sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.6; done"])
    assert len(reports) >= 3
    assert reports[0][2] == "1"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have programs hear SIGINT: what runs in the background of a shell ignores it, and so does all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("request_", ["INT", "TERM"])
def test_what_has_to_end_may_put_things_in_order(
    ctx: Context, workspace: Path, request_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = testing.load(Path(__file__).parents[2] / "assets/skills/process")
    # A machine that is busy is slow to begin and to end.
    monkeypatch.setattr(process, "_PATIENCE", 5 if request_ == "INT" else 1)
    script = f"trap '' INT; trap 'echo done > order; exit' {request_}; echo begun; while :; do sleep 0.01; done"
    testing.call(process.run, ctx, argv=["sh", "-c", script], timeout=1)
    assert (workspace / "order").read_text() == "done\n"


def test_what_ignores_every_request_is_killed(use: Use, workspace: Path) -> None:
    script = "trap '' INT TERM; echo $$ > child; while :; do sleep 0.01; done"
    use("process.run", argv=["sh", "-c", script], timeout=0.3)
    assert until(lambda: not is_alive(workspace / "child"))


def test_cancelled(ctx: Context, workspace: Path) -> None:
    process = testing.load(Path(__file__).parents[2] / "assets/skills/process")

    def cancel() -> None:
        until(lambda: (workspace / "child").exists())
        ctx._native.is_cancelled = True  # type: ignore[attr-defined]

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(ToolCancelled):
        testing.call(process.run, ctx, argv=["sh", "-c", "echo $$ > tmp; mv tmp child; exec sleep 100"])
    thread.join()
    assert until(lambda: not is_alive(workspace / "child"))
