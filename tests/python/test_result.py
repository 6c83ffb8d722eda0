"""What tools return, in the form in which it crosses."""

import base64
import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from omni import Audio, Image, Message, Resource, ResourceLink, Text, kernel
from omni.result import plain


class Colour(enum.Enum):
    RED = "red"


class Word(str, enum.Enum):  # noqa: UP042
    GO = "go"


class Point(BaseModel):
    x: float
    name: str = "p"


class Loose(BaseModel, ser_json_inf_nan="constants"):
    x: float


@dataclass
class Pair:
    a: int
    b: Any = None


def result(value: Any, hint: Any = Any) -> Any:
    def function() -> Any:
        return value

    function.__annotations__["return"] = hint
    return kernel.Handle("demo.function", function)({})


WAVE = base64.b64encode(b"wave").decode()


@pytest.mark.parametrize(
    ("value", "content", "structured"),
    [
        ("text", "text", None),
        ("", "", None),
        (None, "", None),
        (Word.GO, "go", None),
        (Image(b"wave"), [{"type": "image", "mime": "image/png", "data": WAVE}], None),
        (Audio(b"wave", "audio/mp3"), [{"type": "audio", "mime": "audio/mp3", "data": WAVE}], None),
        (Resource("a:b", "t", "x/y"), [{"type": "resource", "uri": "a:b", "mime": "x/y", "text": "t"}], None),
        (Resource("a:b", b"wave"), [{"type": "resource", "uri": "a:b", "blob": WAVE}], None),
        (ResourceLink("a:b", "b"), [{"type": "resource_link", "uri": "a:b", "name": "b"}], None),
        (["a", Text("b")], [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], None),
        ({"a": [1, None, True]}, '{"a":[1,null,true]}', {"a": [1, None, True]}),
        ({}, "{}", {}),
        ([], "[]", {"result": []}),
        ([1, 2], "[1,2]", {"result": [1, 2]}),
        (["a", "b"], '["a","b"]', {"result": ["a", "b"]}),
        (3, "3", {"result": 3}),
        (False, "false", {"result": False}),
        (1.5, "1.5", {"result": 1.5}),
        (float("nan"), "null", {"result": None}),
        ({"a": float("inf"), "b": [float("-inf")]}, '{"a":null,"b":[null]}', {"a": None, "b": [None]}),
        (Point(x=float("nan")), '{"x":null,"name":"p"}', {"x": None, "name": "p"}),
        (Pair(1, Point(x=2)), '{"a":1,"b":{"x":2.0,"name":"p"}}', {"a": 1, "b": {"x": 2.0, "name": "p"}}),
        (Colour.RED, "red", {"result": "red"}),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00Z", {"result": "2030-01-01T00:00:00Z"}),
        (Path("/a"), "/a", {"result": "/a"}),
        (Decimal("1.10"), "1.10", {"result": "1.10"}),
        ({1: "a", "b": {2.5: 1}}, '{"1":"a","b":{"2.5":1}}', {"1": "a", "b": {"2.5": 1}}),
        ({"raw": b"\xff\xfe"}, '{"raw":"__4="}', {"raw": "__4="}),
        ((1, {2}), "[1,[2]]", {"result": [1, [2]]}),
        ("a\ud800b", "a\ufffdb", None),
        ("\ud83d\ude00", "\U0001f600", None),
        (["x", Text("\udfff")], [{"type": "text", "text": "x"}, {"type": "text", "text": "\ufffd"}], None),
        ({"k\ud800": ["v\ud800", Pair(1)]}, None, {"k\ufffd": ["v\ufffd", {"a": 1, "b": None}]}),
        (Pair(1, "\ud800"), '{"a":1,"b":"\ufffd"}', {"a": 1, "b": "\ufffd"}),
    ],
)  # fmt: skip
def test_results(value: Any, content: Any, structured: Any) -> None:
    found = result(value)
    assert found[1] == structured
    assert content is None or found[0] == content


@pytest.mark.parametrize(
    ("hint", "value", "content", "structured"),
    [
        (Literal["a", "b"], "a", "a", {"result": "a"}),
        (Word, Word.GO, "go", {"result": "go"}),
        (int | None, None, "null", {"result": None}),
        (list[Point], [Point(x=1)], '[{"x":1.0,"name":"p"}]', {"result": [{"x": 1.0, "name": "p"}]}),
        (dict[str, int], {"a": 1}, '{"a":1}', {"a": 1}),
        (list[dict[str, int]] | dict[str, int], {"a": 1}, '{"a":1}', {"result": {"a": 1}}),
    ],
)
def test_a_promised_result(hint: Any, value: Any, content: Any, structured: Any) -> None:
    assert result(value, hint) == (content, structured)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circular() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Any, object(), "tool `demo.function` returned `object`: Unable to serialize unknown type"),
        (Any, {"a": [object()]}, "returned `dict`: Unable to serialize"),
        (Any, circular(), "returned `dict`: .*Circular reference"),
        (Any, nested(100_000), "returned `list`"),
        (Any, Loose(x=float("nan")), "returned `Loose`"),
        (Any, b"raw", "returned `bytes`; return an Image"),
        (Any, [Text("x"), 3], "returned `int` in a list of content blocks"),
        (dict[str, int], "text", "returned `str`, but its annotation promises an object"),
        (Point, None, "returned `NoneType`, but its annotation promises an object"),
    ],
)
def test_what_has_no_plain_form(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        result(value, hint)


def test_messages_have_a_block_each() -> None:
    said = [Message("user", "look"), Message("assistant", Image(b"x"))]
    content, structured = plain(said, "t", has_output=False, wrapped=False)
    assert content == []
    assert structured["result"][0] == {"role": "user", "content": {"type": "text", "text": "look"}}
    assert structured["result"][1]["content"] == {"type": "image", "mime": "image/png", "data": "eA=="}
