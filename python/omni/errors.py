"""What a tool raises, by who acts next; and what asking raises.

```text
BaseException
├── ToolCancelled    nobody: the call was called off while the tool ran
└── Exception
    ├── Retry        the model: the arguments can be mended, the sentence says how
    ├── Failed       nobody: it cannot be done, the model is told and moves on
    │   └── Unavailable    an extension cannot be had
    └── any other    the author: traceback to the log, one neutral sentence to the model

    SetupError       whoever asks: settings, folder or model have to be mended first
    TurnError        whoever asks: there is no answer, and why
```
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omni.agent import Turn


class Retry(Exception):
    """The model can correct itself: the message says what to change."""


class Failed(Exception):
    """It cannot be done: the message says what was attempted, on what, and why not."""


class Unavailable(Failed, ImportError):
    """An extension cannot be had: the message says why, and what to do about it."""


class SetupError(Exception):
    """Nothing can be asked: the message says which setting, folder or model is wrong."""


class TurnError(Exception):
    """There is no answer: the message says why. `turn` is what there was, if it began."""

    def __init__(self, reason: str, turn: "Turn | None" = None) -> None:
        super().__init__(reason)
        self.turn = turn


class ToolCancelled(BaseException):
    """The call was cancelled.

    It is no `Exception`, so that `except Exception` in a tool does not swallow it. It may
    surface at any line of a tool that runs in a thread.
    """


def cancels(error: BaseException) -> bool:
    """Whether it says that the call was called off, in our words or in those of Python's own libraries."""
    if isinstance(error, ToolCancelled):
        return True
    # What was never imported was never raised.
    modules = [sys.modules.get(name) for name in ("asyncio.exceptions", "concurrent.futures._base")]
    classes = [getattr(module, "CancelledError", None) for module in modules]
    return any(kind is not None and isinstance(error, kind) for kind in classes)
