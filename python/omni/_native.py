"""The one file that knows the Rust half's two names.

Inside the binary it is the built-in module `_omni`; in a wheel it is `omni._omni`. Where there
is neither, as when a skill's tests run under plain pytest, a small substitute stands in.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any


class _Substitute:
    """Enough of the Rust half to import the package and to run tools."""

    __version__ = "0"

    def main(self, argv: list[str]) -> None:
        print("omni: the Rust half is missing; install the wheel, or run the `omni` binary", file=sys.__stderr__)
        sys.exit(1)

    def log(self, level: str, call_id: str | None, text: str) -> None:
        if sys.__stderr__ is not None:
            print(f"{level} [{call_id}] {text}" if call_id else f"{level} {text}", file=sys.__stderr__)


if TYPE_CHECKING:
    from omni import _omni as native
    from omni._omni import Agent as Agent
    from omni._omni import Pending as Pending
    from omni._omni import Turn as Turn
elif "_omni" in sys.builtin_module_names:
    native = importlib.import_module("_omni")
else:
    try:
        native = importlib.import_module("omni._omni")
    except ModuleNotFoundError as error:
        if error.name != "omni._omni":
            raise
        native = _Substitute()

log = native.log
version = native.__version__


def main(argv: list[str]) -> None:
    """Run the command line and end the process. The binary's own module has none: there it is the binary itself."""
    native.main(argv)


def agent(*arguments: Any) -> "Agent":
    """Make the Rust half of an `omni.Agent`."""
    if not hasattr(native, "Agent"):
        raise RuntimeError(
            "`omni.Agent` and `omni.ask` are for programs that have installed the wheel; here is only what tools need: "
            "a tool asks the model with `ctx.sample` and calls others with `ctx.call_tool`"
        )
    return native.Agent(*arguments)


def leave() -> None:
    """Have threads of the Rust half leave Python, which is about to end."""
    if hasattr(native, "leave"):
        native.leave()
