"""Tools for an assistant, written as Python functions.

```python
from omni import tool

@tool(read_only=True)
def greet(name: str) -> str:
    "Greet somebody by name."
    return f"Hello, {name}!"
```

Put the file into the `scripts` folder of a skill, and the assistant has the tool.
"""

from omni.context import Context, run_with_heartbeat
from omni.errors import Failed, Retry
from omni.extensions import extension
from omni.nested import ToolResult
from omni.offers import prompt, resource
from omni.result import Audio, Image, Message, Resource, ResourceLink, Text
from omni.tool import skill_command, tool

__all__ = [
    "Audio",
    "Context",
    "Failed",
    "Image",
    "Message",
    "Resource",
    "ResourceLink",
    "Retry",
    "Text",
    "ToolResult",
    "extension",
    "prompt",
    "resource",
    "run_with_heartbeat",
    "skill_command",
    "tool",
]
