"""The Rust half, as Python sees it. Its twin is the `_omni` module in the Rust sources.

Inside the binary there is no `main`, `Agent`, `Turn` and `Pending`.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, Generic, NoReturn, TypeVar, final

from omni.events import Event
from omni.kernel import Description, Handle

_T = TypeVar("_T")

__version__: str

def main(argv: list[str]) -> NoReturn:
    """Run the command line; `argv` includes the program's name. Ends the process with the exit code."""

def log(level: str, call: str | None, text: str) -> None:
    """Write one line to the program's log: `debug`, `info`, `warning` or `error`."""

def leave() -> None:
    """Let no thread of ours into Python any more, and wait for those that are inside: it is about to end."""

@final
class Agent:
    """An assistant with its settings, its tools and its database."""

    def __new__(
        cls,
        folder: str | os.PathLike[str],
        model: str | None,
        skills: Iterable[str | os.PathLike[str]],
        settings: Iterable[str],
        tools: Iterable[tuple[Description, Handle]],
    ) -> Agent: ...
    def submit(self, message: str, session: str, asks: bool, instructions: str | None) -> Pending[Turn]:
        """Hand a message over. `asks` says whether questions of tools will be answered."""

    def close(self) -> Pending[None]:
        """Stop what still goes on, and close the database."""

@final
class Turn:
    """A turn that goes on. Dropping it ends it early."""

    def next(self) -> Pending[Event | None]:
        """Come to the next event, and to `None` after the last."""

    def answer(self, answer: bool | dict[str, Any] | None) -> None:
        """Answer the question in the event that came last. Without one it is a no."""

    def cancel(self) -> None:
        """End it early. Its events go on to the last one."""

@final
class Pending(Generic[_T]):
    """Something that goes on without the interpreter. Nothing happens before it is waited for."""

    def wait(self) -> _T:
        """Wait for it. Signals are heard meanwhile."""

    def then(self, done: Callable[[_T | None, BaseException | None], object]) -> None:
        """Have `done` called with the value and the exception, one of them `None`, on another thread."""

@final
class NativeContext:
    """The Rust side of a call; `omni.context.Native` says what it has."""

@final
class Jobs:
    """Rust's queue of asynchronous calls; `omni.loop.Jobs` says what it has."""

@final
class Ticket:
    """Rust's end of one asynchronous call; `omni.loop.Ticket` says what it has."""

@final
class Asked:
    """What a tool has asked for and not waited for."""

    def cancel(self) -> None:
        """Do without it."""
