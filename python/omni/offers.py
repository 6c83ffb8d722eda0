"""What a skill offers besides tools: documents to read, and prompts to begin with."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, overload

from omni.tool import ATTRIBUTE, tool

F = TypeVar("F", bound=Callable[..., Any])

_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s{}]*(\{[A-Za-z_][A-Za-z0-9_]*\}[^\s{}]*)*")


def resource(
    uri: str,
    *,
    mime: str = "text/plain",
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    cache_ttl: float | None = None,
) -> Callable[[F], F]:
    """Make a function a document that others can read: `@resource("notes://today")`.

    A URI with variables, `notes://{name}`, stands for many documents; the function has a parameter for
    each. It returns the text, or `Resource` with bytes. The other arguments are those of `@tool`.

    Raises `ValueError` when `uri` is none.
    """
    if not _URI.fullmatch(uri):
        raise ValueError(f"{uri!r} is no URI: write a scheme first, as in `notes://today` or `notes://{{name}}`")

    def mark(function: F) -> F:
        tool(
            name=name,
            title=title,
            description=description,
            read_only=True,
            open_world=False,
            timeout=timeout,
            cache_ttl=cache_ttl,
        )(function)
        setattr(function, ATTRIBUTE, replace(getattr(function, ATTRIBUTE), kind="resource", uri=uri, mime=mime))
        return function

    return mark


@overload
def prompt(function: F, /) -> F: ...
@overload
def prompt(
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
) -> Callable[[F], F]: ...
def prompt(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
) -> F | Callable[[F], F]:
    """Make a function a prompt that a person can begin with: `@prompt`.

    Its parameters are texts. It returns what the person would say, or a list of `Message`. The arguments
    are those of `@tool`.
    """

    def mark(function: F) -> F:
        tool(name=name, title=title, description=description, read_only=True, open_world=False, timeout=timeout)(
            function
        )
        setattr(function, ATTRIBUTE, replace(getattr(function, ATTRIBUTE), kind="prompt"))
        return function

    return mark if function is None else mark(function)


def kind(options: Any, parameters: dict[str, Any]) -> Any:
    """Say what a marked function is, in the form that Rust reads.

    `parameters` are the properties of its input schema. Raises `ValueError` when they do not go with it.
    """
    if options.kind == "resource":
        variables = set(re.findall(r"\{(\w+)\}", options.uri))
        if variables != set(parameters):
            told = ", ".join(f"`{name}`" for name in sorted(variables ^ set(parameters)))
            raise ValueError(f"`{options.uri}` and the function's parameters differ in {told}")
        return {"resource": {"uri": options.uri, "mime": options.mime}}
    if options.kind == "prompt":
        for name, parameter in parameters.items():
            kinds = {arm.get("type") for arm in parameter.get("anyOf", [parameter])}
            if not kinds <= {"string", "null"}:
                raise ValueError(f"the parameter `{name}` of a prompt is no text")
        return "prompt"
    return "tool"
