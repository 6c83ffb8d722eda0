"""What is read of simple signatures without pydantic is what pydantic says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import Field

from omni import Context, kernel, schema, simple


def plain(a: int, b: float = 1.5, *, c: str, d: bool = False) -> int: ...
def lists(a: list[int], b: list[str], c: list[float], d: list[bool] | None = None) -> list[str]: ...
def choices(a: Literal["x", "y"], b: Optional[Literal["z"]] = None) -> str: ...  # noqa: UP045
def annotated(a: Annotated[int, "how many"], ctx: Context) -> dict[str, float]: ...
def none(a: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def nullable(ctx: Context, a: str | None) -> bool: ...


SIMPLE: list[Callable[..., Any]] = [plain, lists, choices, annotated, none, nullable]


def constrained(a: Annotated[int, Field(ge=1)]) -> int: ...
def default(a: int = Field(3)) -> int: ...
def union(a: int | str) -> int: ...
def nested(a: list[list[int]]) -> int: ...
def anything(a: Any) -> int: ...
def bare(a) -> int: ...  # type: ignore[no-untyped-def]
def mapping(a: dict[str, int]) -> int: ...
def numbers(a: Literal[1, 2]) -> int: ...
def unsaid(a: int): ...  # type: ignore[no-untyped-def]
def blocks(a: int) -> list[Any]: ...
def many(*a: int) -> int: ...
def hidden(_a: int) -> int: ...
def odd(a: "Nowhere") -> int: ...  # type: ignore[name-defined] # noqa: F821


OTHERS: list[Callable[..., Any]] = [
    constrained, default, union, nested, anything, bare, mapping, numbers, unsaid, blocks, many, hidden, odd,
]  # fmt: skip


def full(function: Callable[..., Any]) -> simple.Facts:
    signature = schema.read(function)
    return simple.Facts(signature.context, signature.kinds, signature.output is not None, signature.wrapped)


@pytest.mark.parametrize("function", SIMPLE)
def test_simple_signatures_are_read_as_pydantic_reads_them(function: Callable[..., Any]) -> None:
    assert simple.read(function) == full(function)


@pytest.mark.parametrize("function", OTHERS)
def test_of_all_others_nothing_is_said(function: Callable[..., Any]) -> None:
    assert simple.read(function) is None


def test_the_built_in_tools_are_read_alike() -> None:
    root = Path(__file__).parents[2] / "assets/skills"
    seen = 0
    for script in sorted(root.glob("*/scripts/*.py")):
        skill = script.parents[1]
        found = kernel.describe(skill.name, str(skill), str(script.relative_to(skill)))
        for tool in found["tools"]:
            function = kernel.resolve(skill.name, str(skill), tool["file"], tool["function"]).direct[0]
            facts = simple.read(function)
            assert facts in (None, full(function)), json.dumps(tool)
            seen += facts is not None
    assert seen > 5
