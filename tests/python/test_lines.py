"""What tools print becomes lines of the log."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni import _native, kernel, lines, testing

Logged = list[tuple[str, str | None, str]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    logged: Logged = []
    monkeypatch.setattr(_native, "log", lambda *line: logged.append(line))
    yield logged
    lines.partial.clear()


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Replace the streams inside a test: pytest puts its own back before each."""
    before = sys.stdin, sys.stdout, sys.stderr
    kernel.install()
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def test_whole_lines_of_both_streams(logged: Logged) -> None:
    with installed():
        print("a", "b", end="")
        assert logged == []
        print("c\nd\r")
        print("bad", file=sys.stderr)
        sys.stdout.buffer.write("ü\n".encode())
        assert logged == [
            ("info", None, "a bc"),
            ("info", None, "d"),
            ("warning", None, "bad"),
            ("info", None, "ü"),
        ]


def test_a_call_is_named_and_its_last_line_not_lost(logged: Logged, tmp_path: Path) -> None:
    with installed():

        def speak() -> None:
            print("one\ntwo", end="")

        async def speak_slowly(word: str) -> None:
            for letter in word:
                print(letter, end="")
                await asyncio.sleep(0)

        kernel.Handle("f", speak)({}, testing.context(tmp_path, call_id="c1"))
        assert logged == [("info", "c1", "one"), ("info", "c1", "two")]
        logged.clear()

        async def both() -> None:
            handle = kernel.Handle("f", speak_slowly)
            contexts = [testing.context(tmp_path, call_id=name) for name in ("c2", "c3")]
            await asyncio.gather(handle({"word": "abc"}, contexts[0]), handle({"word": "xyz"}, contexts[1]))

        asyncio.run(both())
        assert logged == [("info", "c2", "abc"), ("info", "c3", "xyz")]
        assert lines.partial == {}


def test_threads_do_not_mix(logged: Logged) -> None:
    with installed():
        ready = threading.Barrier(4)

        def speak(number: int) -> None:
            for _ in range(50):
                for piece in ("<", number, ">\n"):
                    ready.wait()
                    print(piece, end="")

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(text for _, _, text in logged) == sorted(f"<{number}>" for number in range(4) for _ in range(50))


def test_a_line_without_end_comes_in_pieces(logged: Logged) -> None:
    with installed():
        print("ü" * 10_000)
        assert "".join(text for _, _, text in logged) == "ü" * 10_000
        assert max(len(text.encode()) for _, _, text in logged) <= lines.LONGEST


def test_what_utf8_cannot_hold(logged: Logged) -> None:
    with installed():
        print("a\ud800b")
        assert logged == [("info", None, "a\\ud800b")]


def test_there_is_nothing_to_read_and_no_file_behind(logged: Logged) -> None:
    with installed():
        with pytest.raises(EOFError):
            input()
        with pytest.raises(OSError, match="fileno"):
            sys.stdout.fileno()
        assert not sys.stdout.isatty()


def test_standard_output_stays_empty() -> None:
    code = "from omni import kernel; kernel.install(); print('hello'); import sys; sys.stdout.flush()"
    root = Path(kernel.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout == ""
    assert "info hello" in done.stderr
