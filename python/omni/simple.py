"""What a simple signature says of its tool. pydantic takes its time to be imported, and is not needed for these."""

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omni.context import Context

_PLAIN = {str: "str", int: "int", float: "float", bool: "bool"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What has to be known for a call where nothing is to be converted."""

    context: str | None
    """The parameter that takes the `Context`."""
    kinds: dict[str, set[str]]
    """The types of JSON that each parameter takes as they are, as in `schema.Signature.kinds`."""
    has_output: bool
    """Whether the result has a schema."""
    wrapped: bool
    """Whether that puts the result under `result`."""


def read(function: Callable[..., Any]) -> Facts | None:
    """Read a signature of plain types, lists of them and choices of texts; `None` for any other.

    Says the same as `schema.read` where it says anything.
    """
    try:
        hints = read_hints(function)
    except Exception:
        # `schema.read` has the words for it.
        return None
    context: str | None = None
    kinds: dict[str, set[str]] = {}
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is Context and context is None:
            context = parameter.name
            continue
        kind = _kind(hint)
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if kind is None or not by_name or parameter.name.startswith("_") or not _is_plain(parameter.default):
            return None
        kinds[parameter.name] = kind | {"null"} if parameter.default is None else kind
    output = _output(hints.get("return"))
    return None if output is None else Facts(context, kinds, *output)


def read_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Read the type hints of a tool, whatever is wrapped around it. Raises what evaluating them raises."""
    plain = inspect.unwrap(function)
    # `Context` is often imported for the type checker alone.
    local = {} if "Context" in plain.__globals__ else {"Context": Context}
    return typing.get_type_hints(plain, localns=local, include_extras=True)


def _kind(hint: Any) -> set[str] | None:
    """What `schema.Signature.kinds` has for this type; `None` where it takes more than a look."""
    if isinstance(hint, type) and hint in _PLAIN:
        return {_PLAIN[hint]}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal and all(type(value) is str for value in arguments):
        return {"str"}
    if origin is Annotated and all(isinstance(item, str) for item in arguments[1:]):
        return _kind(arguments[0])
    if origin is list and isinstance(arguments[0], type) and arguments[0] in _PLAIN:
        return {f"[{_PLAIN[arguments[0]]}]"}
    if origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        other = _kind(next(arm for arm in arguments if arm is not type(None)))
        return None if other is None else other | {"null"}
    return None


def _is_plain(default: Any) -> bool:
    """Whether this is a default like any other; pydantic has some of its own."""
    return default is inspect.Parameter.empty or default is None or type(default) in _PLAIN


def _output(hint: Any) -> tuple[bool, bool] | None:
    """Whether a result of this type has a schema, and whether that is wrapped."""
    if hint is str or hint is type(None):
        return False, False
    if isinstance(hint, type) and hint in _PLAIN:
        return True, True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list and isinstance(arguments[0], type) and arguments[0] in _PLAIN:
        return True, True
    if origin is dict and arguments[0] is str and isinstance(arguments[1], type) and arguments[1] in _PLAIN:
        return True, False
    return None
