"""Tools for an assistant, written as Python functions.

```python
from omni import tool

@tool(read_only=True)
def greet(name: str) -> str:
    "Greet somebody by name."
    return f"Hello, {name}!"
```

Put the file into the `scripts` folder of a skill, and the assistant has the tool. And the assistant for programs:
`omni.ask` and `omni.Agent`, where the wheel is installed.
"""

from typing import TYPE_CHECKING, Any

from omni.context import Context, run_with_heartbeat
from omni.errors import Failed, Retry, SetupError, TurnError
from omni.extensions import extension
from omni.nested import ToolResult
from omni.offers import prompt, resource
from omni.result import Audio, Image, Message, Resource, ResourceLink, Text
from omni.tool import skill_command, tool

if TYPE_CHECKING:
    from omni.agent import Agent, Turn, ask
    from omni.events import Event

__all__ = [
    "Agent",
    "Audio",
    "Context",
    "Event",
    "Failed",
    "Image",
    "Message",
    "Resource",
    "ResourceLink",
    "Retry",
    "SetupError",
    "Text",
    "ToolResult",
    "Turn",
    "TurnError",
    "ask",
    "extension",
    "prompt",
    "resource",
    "run_with_heartbeat",
    "skill_command",
    "tool",
]

_LATER = {"Agent": "omni.agent", "Turn": "omni.agent", "ask": "omni.agent", "Event": "omni.events"}
"""What takes its time to be imported and no tool needs."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return found
