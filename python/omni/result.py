"""What a tool returns, and the plain form in which it crosses to Rust."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Plain: TypeAlias = "tuple[str | list[dict[str, Any]], Any]"
"""Content, a text or a list of blocks, and the same as one JSON value where there is one."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text among other blocks."""

    text: str

    def plain(self) -> dict[str, Any]:
        return {"type": "text", "text": clean(self.text)}


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, given as its bytes."""

    data: bytes
    mime: str = "image/png"

    def plain(self) -> dict[str, Any]:
        return {"type": "image", "mime": self.mime, "data": _base64(self.data)}


@dataclass(frozen=True, slots=True)
class Audio:
    """A recording, given as its bytes."""

    data: bytes
    mime: str = "audio/wav"

    def plain(self) -> dict[str, Any]:
        return {"type": "audio", "mime": self.mime, "data": _base64(self.data)}


@dataclass(frozen=True, slots=True)
class Resource:
    """A document with its content, text or bytes."""

    uri: str
    content: str | bytes
    mime: str | None = None

    def plain(self) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "resource", "uri": clean(self.uri)}
        if self.mime is not None:
            block["mime"] = self.mime
        if isinstance(self.content, str):
            block["text"] = clean(self.content)
        else:
            block["blob"] = _base64(self.content)
        return block


@dataclass(frozen=True, slots=True)
class ResourceLink:
    """A pointer to a document, with a short name for it."""

    uri: str
    name: str
    mime: str | None = None

    def plain(self) -> dict[str, Any]:
        block = {"type": "resource_link", "uri": clean(self.uri), "name": clean(self.name)}
        if self.mime is not None:
            block["mime"] = self.mime
        return block


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt: a text, or one of the blocks above."""

    role: Literal["user", "assistant"]
    content: "str | Text | Image | Audio | Resource | ResourceLink"

    def plain(self) -> dict[str, Any]:
        block = Text(self.content) if isinstance(self.content, str) else self.content
        return {"role": self.role, "content": block.plain()}


BLOCKS = (Text, Image, Audio, Resource, ResourceLink)


def plain(value: Any, name: str, *, has_output: bool, wrapped: bool) -> Plain:
    """Bring what tool `name` returned into plain form.

    `has_output` says whether it has an output schema, and `wrapped` whether that schema puts the
    value under `result`. Not-a-number and the infinities become null, bytes inside a structure
    base64, halves of surrogate pairs U+FFFD. Its twin for everyday values is `kernel::handle`.

    Raises `TypeError` when the value has no plain form, or not the promised one.
    """
    if not has_output:
        if isinstance(value, str):
            return clean(str.__str__(value)), None
        if value is None:
            return "", None
        if isinstance(value, BLOCKS):
            return [value.plain()], None
        if isinstance(value, list | tuple) and any(isinstance(item, BLOCKS) for item in value):
            return [_block(item, name) for item in value], None
        if isinstance(value, list | tuple) and value and all(isinstance(item, Message) for item in value):
            return [], {"result": [item.plain() for item in value]}
    text, structured = _json(value, name)
    if isinstance(structured, str):
        text = structured
    if not wrapped and isinstance(structured, dict):
        return text, structured
    if has_output and not wrapped:
        raise TypeError(f"tool `{name}` returned `{type(value).__name__}`, but its annotation promises an object")
    return text, {"result": structured}


def clean(text: str) -> str:
    """Replace halves of surrogate pairs, which UTF-8 cannot hold, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _block(item: Any, name: str) -> dict[str, Any]:
    if isinstance(item, BLOCKS):
        return item.plain()
    if isinstance(item, str):
        return Text(item).plain()
    raise TypeError(f"tool `{name}` returned `{type(item).__name__}` in a list of content blocks")


def _json(value: Any, name: str) -> tuple[str, Any]:
    """Return the value as JSON text and as a plain value."""
    kind = type(value)
    if kind is int or kind is bool:
        return ("true" if value else "false") if kind is bool else str(value), value
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"tool `{name}` returned `{kind.__name__}`; return an Image, Audio or Resource, or text")
    from pydantic_core import PydanticSerializationError, from_json

    try:
        try:
            text = _text(value)
        except (UnicodeEncodeError, PydanticSerializationError) as error:
            # The one thing worth a second try is half a surrogate pair somewhere inside.
            if "surrogates" not in str(error):
                raise
            text = _text(_cleaned(value))
        # Read back rather than converted separately: one set of rules, and both say the same.
        return text.decode(), from_json(text, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise TypeError(f"tool `{name}` returned `{kind.__name__}`: {error}") from error


def _text(value: Any) -> bytes:
    from pydantic_core import to_json

    return to_json(value, bytes_mode="base64", inf_nan_mode="null")


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    if value is None or isinstance(value, int | float):
        return value
    from pydantic_core import to_jsonable_python

    return _cleaned(to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="null"))
