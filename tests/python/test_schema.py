"""From signatures to JSON Schema, as a table of cases."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from omni import Image, Text, kernel, schema
from omni.context import Context as Ctx
from omni.errors import Retry

if TYPE_CHECKING:
    from omni import Context


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    title: str
    x: int = Field(0, description="across", ge=0)
    at: datetime | None = None


@dataclass
class Pair:
    left: int
    right: str = "r"


class Options(TypedDict):
    deep: bool
    title: NotRequired[str]


class Node(BaseModel):
    children: list[Node] = []


def plain(a: int, b: str = "x", c: float = 1.5, d: bool = False) -> None: ...
def nullable(a: Optional[int] = None, b: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013, UP045
def untyped(a, b=3): ...  # type: ignore[no-untyped-def]
def choices(a: Literal["x", "y"], b: Colour = Colour.RED) -> None: ...
def names(title: str, self: int, name: str, schema: str, model_config: str, json: str, copy: str = "c") -> None: ...
def constrained(
    a: Annotated[int, Field(ge=1, le=9)], b: Annotated[str, Field(pattern="^a", max_length=5)] = "a"
) -> None: ...
def field_default(a: int = Field(5, description="five", ge=1)) -> None: ...  # type: ignore[assignment]
def collections(a: list[str], b: dict[str, int], c: tuple[int, str], d: set[int] = frozenset()) -> None: ...  # type: ignore[assignment]
def nested(point: Point, pair: Pair, options: Options) -> None: ...
def union(a: int | str | list[float]) -> None: ...
def special(a: Path, b: datetime, c: bytes = b"") -> None: ...
def recursive(node: Node) -> None: ...
def hidden(ctx: Context, a: int) -> None: ...
def hidden_optional(a: int, ctx: Context | None = None) -> None: ...
def hidden_other_name(a: int, *, call: Annotated[Optional[Ctx], "the call"] = None) -> None: ...  # noqa: UP045
def keyword_only(*, a: int) -> None: ...
def unserialisable(a: int = object()) -> None: ...  # type: ignore[assignment]


INPUTS: list[tuple[Callable[..., Any], dict[str, Any], list[str]]] = [
    (
        plain,
        {
            "a": {"type": "integer"},
            "b": {"type": "string", "default": "x"},
            "c": {"type": "number", "default": 1.5},
            "d": {"type": "boolean", "default": False},
        },
        ["a"],
    ),
    (
        nullable,
        {
            "a": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "b": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        [],
    ),
    (untyped, {"a": {}, "b": {"default": 3}}, ["a"]),
    (
        choices,
        {"a": {"enum": ["x", "y"], "type": "string"}, "b": {"$ref": "#/$defs/Colour", "default": "red"}},
        ["a"],
    ),
    (
        names,
        {
            **{name: {"type": "string"} for name in ("title", "name", "schema", "model_config", "json")},
            "self": {"type": "integer"},
            "copy": {"type": "string", "default": "c"},
        },
        ["title", "self", "name", "schema", "model_config", "json"],
    ),
    (
        constrained,
        {
            "a": {"type": "integer", "minimum": 1, "maximum": 9},
            "b": {"type": "string", "pattern": "^a", "maxLength": 5, "default": "a"},
        },
        ["a"],
    ),
    (field_default, {"a": {"type": "integer", "minimum": 1, "default": 5, "description": "five"}}, []),
    (
        collections,
        {
            "a": {"type": "array", "items": {"type": "string"}},
            "b": {"type": "object", "additionalProperties": {"type": "integer"}},
            "c": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
            "d": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "default": []},
        },
        ["a", "b", "c"],
    ),
    (
        nested,
        {"point": {"$ref": "#/$defs/Point"}, "pair": {"$ref": "#/$defs/Pair"}, "options": {"$ref": "#/$defs/Options"}},
        ["point", "pair", "options"],
    ),
    (
        union,
        {"a": {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "array", "items": {"type": "number"}}]}},
        ["a"],
    ),
    (
        special,
        {
            "a": {"type": "string", "format": "path"},
            "b": {"type": "string", "format": "date-time"},
            "c": {"type": "string", "format": "binary", "default": ""},
        },
        ["a", "b"],
    ),
    (recursive, {"node": {"$ref": "#/$defs/Node"}}, ["node"]),
    (hidden, {"a": {"type": "integer"}}, ["a"]),
    (hidden_optional, {"a": {"type": "integer"}}, ["a"]),
    (hidden_other_name, {"a": {"type": "integer"}}, ["a"]),
    (keyword_only, {"a": {"type": "integer"}}, ["a"]),
    (unserialisable, {"a": {"type": "integer"}}, []),
]


@pytest.mark.parametrize(("function", "properties", "required"), INPUTS, ids=[case[0].__name__ for case in INPUTS])
def test_input(function: Callable[..., Any], properties: dict[str, Any], required: list[str]) -> None:
    found = schema.read(function).input
    found.pop("$defs", None)
    assert found.pop("required", []) == required
    assert found == {"type": "object", "properties": properties, "additionalProperties": False}


def test_definitions_lose_made_up_titles_and_keep_a_property_of_that_name() -> None:
    definitions = schema.read(nested).input["$defs"]
    assert definitions["Point"] == {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "x": {"type": "integer", "minimum": 0, "default": 0, "description": "across"},
            "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
        },
        "required": ["title"],
    }
    assert set(definitions["Options"]["properties"]) == {"deep", "title"}
    assert "title" not in definitions["Pair"]


GOOGLE = """Does a thing.

And more of it.

Args:
    a: the first
    b (str): the second,
        continued

Returns:
    nothing
"""
NUMPY = """Does a thing.

And more of it.

Parameters
----------
a : int
    the first
b : str
    the second,
    continued
"""
SPHINX = """Does a thing.

And more of it.

:param a: the first
:param b: the second,
    continued
:return: nothing
"""
DASHES = """Does a thing.

And more of it.

Args:
    - a: the first
    - b: the second, continued
"""


@pytest.mark.parametrize("doc", [GOOGLE, NUMPY, SPHINX, DASHES], ids=["google", "numpy", "sphinx", "dashes"])
def test_docstrings(doc: str) -> None:
    def function(a: int, b: Annotated[str, Field(max_length=3)] = "") -> None: ...

    function.__doc__ = doc
    found = schema.read(function)
    assert found.description == "Does a thing.\n\nAnd more of it."
    assert found.input["properties"]["a"] == {"type": "integer", "description": "the first"}
    assert found.input["properties"]["b"] == {
        "type": "string",
        "maxLength": 3,
        "default": "",
        "description": "the second, continued",
    }


def test_a_description_in_the_hint_comes_first() -> None:
    def function(a: Annotated[int, Field(description="hint")], b: Annotated[int, "word"]) -> None:
        """Do.

        Args:
            a: doc
            b: doc
        """

    properties = schema.read(function).input["properties"]
    assert [properties[name]["description"] for name in "ab"] == ["hint", "word"]


def test_without_a_docstring_the_name_describes() -> None:
    def find_all_things() -> None: ...

    assert schema.read(find_all_things).description == "find all things"


def test_a_wrapped_function_shows_its_own_signature() -> None:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> Any: ...

    assert list(schema.read(wrapper).input["properties"]) == ["a", "b", "c", "d"]


def stars(*words: str) -> None: ...
def double_stars(**options: int) -> None: ...
def by_position(a: int, /) -> None: ...
def underscore(_a: int) -> None: ...
def two_contexts(a: Ctx, b: Ctx) -> None: ...
def unknown_name(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def no_schema(a: Callable[[int], int]) -> None: ...
def foreign(a: Ellipsis) -> None: ...  # type: ignore[valid-type]


class Foreign:
    pass


def foreign_class(a: Foreign) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (stars, r"`\*words`.*name its parameters"),
        (double_stars, r"`\*\*options`"),
        (by_position, "by position only"),
        (underscore, "`_a` of tool `underscore` starts with an underscore"),
        (two_contexts, "the context twice: `a` and `b`"),
        (unknown_name, "type hints of tool `unknown_name` cannot be read: name 'Missing'"),
        (no_schema, "have no JSON schema"),
        (foreign_class, "have no schema"),
    ],
)
def test_what_no_schema_can_say(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        schema.read(function)


def returns(hint: Any) -> Callable[..., Any]:
    def function() -> None: ...

    function.__annotations__["return"] = hint
    return function


INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    "hint", [str, None, Any, bytes, Image, list[Text], list[str | Image], Image | str, str | Point, dict, list, object]
)
def test_free_results_have_no_schema(hint: Any) -> None:
    assert schema.read(returns(hint)).output is None


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
        (
            Pair,
            {
                "type": "object",
                "properties": {"left": INTEGER, "right": {"type": "string", "default": "r"}},
                "required": ["left"],
            },
        ),
        (int, {"type": "object", "properties": {"result": INTEGER}, "required": ["result"]}),
        (
            list[int],
            {"type": "object", "properties": {"result": {"type": "array", "items": INTEGER}}, "required": ["result"]},
        ),
        (
            int | None,
            {
                "type": "object",
                "properties": {"result": {"anyOf": [INTEGER, {"type": "null"}]}},
                "required": ["result"],
            },
        ),
        (
            Literal["a"],
            {"type": "object", "properties": {"result": {"type": "string", "const": "a"}}, "required": ["result"]},
        ),
        (
            date,
            {"type": "object", "properties": {"result": {"type": "string", "format": "date"}}, "required": ["result"]},
        ),
    ],
)
def test_output(hint: Any, expected: dict[str, Any]) -> None:
    assert schema.read(returns(hint)).output == expected


def test_output_of_models_beside_and_below_a_result() -> None:
    beside = schema.read(returns(list[Point])).output
    assert beside is not None
    assert beside["properties"]["result"]["items"] == {"$ref": "#/$defs/Point"}
    assert "title" in beside["$defs"]["Point"]["properties"]
    recursive_output = schema.read(returns(Node)).output
    assert recursive_output is not None
    assert recursive_output["type"] == "object"
    assert recursive_output["$ref"] == "#/$defs/Node"


def called(function: Callable[..., Any], **arguments: Any) -> Any:
    return kernel.Handle(function.__name__, function)(arguments)


def test_arguments_are_converted() -> None:
    seen: dict[str, Any] = {}

    def function(
        path: Path, when: datetime, colour: Colour, point: Point, pair: Pair, n: int = 1, d: int = Field(5)
    ) -> str:  # type: ignore[assignment]
        seen.update(locals())
        return ""

    point = {"title": "t"}
    called(function, path="a", when="2030-01-01T00:00:00Z", colour="blue", point=point, pair={"left": "3"}, n="7")
    assert seen["path"] == Path("a")
    assert seen["when"].year == 2030
    assert seen["colour"] is Colour.BLUE
    assert seen["point"] == Point(title="t")
    assert seen["pair"] == Pair(3)
    assert (seen["n"], seen["d"]) == (7, 5)


def test_arguments_that_do_not_fit_are_explained() -> None:
    with pytest.raises(Retry) as caught:
        called(plain, b=3, c="no", e=1)
    assert str(caught.value) == (
        "the arguments do not fit: `a` is missing; `b`: Input should be a valid string, not 3; `c`: Input should be a "
        "valid number, unable to parse string as a number, not 'no'; `e` is no argument of this tool; it takes: "
        "`a`, `b`, `c`, `d`"
    )
    with pytest.raises(Retry, match=r"`point\.x`: Input should be greater than or equal to 0, not -1"):
        called(nested, point={"title": "", "x": -1}, pair={"left": 1}, options={"deep": True})
    with pytest.raises(Retry, match="and 990 more"):
        called(collections, a=[1] * 1000, b={}, c=[1, "a"])
    with pytest.raises(Retry, match="it takes: none"):
        called(returns(None), context=1)


def test_a_long_value_is_cut_in_the_explanation() -> None:
    with pytest.raises(Retry) as caught:
        called(plain, a="x" * 10_000)
    assert len(str(caught.value)) < 300
