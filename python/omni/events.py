"""What happens in a turn, as dicts: those of `omni ask --json`, of `omni serve` and of `Agent.stream`.

They are told apart by their `type`, which type checkers know about:

```python
if event["type"] == "message.delta":
    print(event["text"], end="")
```
"""

from typing import Any, Literal, NotRequired, TypeAlias, Union

from typing_extensions import TypedDict


class _Event(TypedDict):
    id: int
    """Its place in the turn, from 1."""
    session: str
    turn: str


class Started(_Event):
    """The message is kept, and the turn begins."""

    type: Literal["turn.started"]
    model: str


class Recalled(_Event):
    """What earlier turns taught was put in front of the question."""

    type: Literal["memory.recalled"]
    episodes: list[str]


class Text(_Event):
    """A piece of the answer."""

    type: Literal["message.delta"]
    text: str


class Reasoning(_Event):
    """A piece of what the model thinks."""

    type: Literal["reasoning.delta"]
    text: str


class ToolStarted(_Event):
    """A tool is called."""

    type: Literal["tool.started"]
    call: str
    parent: NotRequired[str]
    tool: str
    arguments: dict[str, Any]


class ToolProgress(_Event):
    """A tool says how far it is."""

    type: Literal["tool.progress"]
    call: str
    progress: float
    total: float | None
    message: str | None


class Change(TypedDict):
    """What a call has put into a file of the workspace, and what was in its place."""

    path: str
    old: NotRequired[str]
    new: str


class ToolResult(TypedDict):
    """What a call came to: blocks of content, and the same as one value where there is one."""

    call: str
    name: str
    content: list[dict[str, Any]]
    structured: NotRequired[Any]
    is_error: NotRequired[bool]
    changes: NotRequired[list[Change]]


class ToolCompleted(_Event):
    """A call has ended."""

    type: Literal["tool.completed"]
    call: str
    parent: NotRequired[str]
    tool: str
    result: ToolResult
    milliseconds: float


class Approval(_Event):
    """A tool may only run if somebody agrees."""

    type: Literal["approval.requested"]
    call: str
    tool: str
    arguments: dict[str, Any]
    reason: str


class Elicitation(_Event):
    """A tool wants to know something: an object that fits the schema."""

    type: Literal["elicitation.requested"]
    call: str
    tool: str
    message: str
    schema: dict[str, Any]


class Usage(TypedDict):
    """What the model took: tokens, and millionths of a dollar where the price is known."""

    input: int
    cached: int
    output: int
    cost: NotRequired[int]


class ModelUsage(_Event):
    """What one call of the model took."""

    type: Literal["usage"]
    input: int
    cached: int
    output: int
    cost: NotRequired[int]


class Notice(_Event):
    """A line that ends nothing: a retry, a fallback, a loop that was broken."""

    type: Literal["notice"]
    text: str


Stop: TypeAlias = Literal[
    "answered", "length", "limit", "loop", "cancelled", "unauthorized", "model_failed", "exhausted", "failed"
]


class Result(_Event):
    """The end of the turn; always the last."""

    type: Literal["result"]
    text: str
    stop: Stop
    error: NotRequired[str]
    usage: Usage
    rounds: int
    tool_calls: int
    milliseconds: float


Event: TypeAlias = Union[  # noqa: UP007 (classes made by `TypedDict` of 3.11 have no `|`)
    Started,
    Recalled,
    Text,
    Reasoning,
    ToolStarted,
    ToolProgress,
    ToolCompleted,
    Approval,
    Elicitation,
    ModelUsage,
    Notice,
    Result,
]
