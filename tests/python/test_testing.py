"""Testing tools that ask for something."""

import asyncio
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from omni import Failed, nested, testing


class Order(BaseModel):
    size: Literal["small", "large"]
    count: int = 1


def double(number: int) -> dict[str, int]:
    """Double a number."""
    return {"number": 2 * number}


def test_tools_stand_for_others(tmp_path: Path) -> None:
    ctx = testing.context(tmp_path, tools={"math.double": double})
    result = ctx.call_tool("math.double", {"number": 4})
    assert result.value == {"number": 8}
    with pytest.raises(Failed, match="no answer"):
        ctx.call_tool("math.treble", {"number": 4})
    assert asyncio.run(ctx.acall_tool("math.double", {"number": 4})).value == {"number": 8}


def test_a_person_answers_or_declines(tmp_path: Path) -> None:
    ctx = testing.context(tmp_path, person=lambda question: {"size": "large"} if question == "How?" else None)
    assert ctx.elicit("How?", Order) == Order(size="large")
    assert ctx.elicit("Why?", Order) is None
    assert asyncio.run(ctx.aelicit("How?", Order)) == Order(size="large")


def test_a_model_answers(tmp_path: Path) -> None:
    ctx = testing.context(tmp_path, model=str.upper)
    assert ctx.sample("hi") == "HI"
    assert asyncio.run(ctx.asample("hi")) == "HI"


def test_without_answers_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"`testing.context` takes them"):
        testing.context(tmp_path).sample("hi")
    with pytest.raises(Failed, match=r"`testing.context` takes them"):
        asyncio.run(testing.context(tmp_path).asample("hi"))


def test_a_plain_question_on_a_running_loop_is_refused(tmp_path: Path) -> None:
    async def asks() -> None:
        testing.context(tmp_path, model=str.upper).sample("hi")

    with pytest.raises(RuntimeError, match=r"await ctx.asample\(...\)"):
        asyncio.run(asks())


def test_only_plain_values_are_asked_for() -> None:
    class Deep(BaseModel):
        items: list[str]

    with pytest.raises(TypeError, match=r"`Deep.items`"):
        nested.elicit("What?", Deep)
    fields = nested.elicit("What?", Order)["elicit"]["schema"]["properties"]
    assert (fields["size"]["enum"], fields["count"]["default"]) == (["small", "large"], 1)


def test_where_no_client_is_the_workspace_is_its_folder(tmp_path: Path) -> None:
    ctx = testing.context(tmp_path)
    assert ctx.roots() == [tmp_path.as_uri()]
    assert not ctx.detach(required=True)
    ctx.changed("tools")
