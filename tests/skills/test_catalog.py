"""What all built-in skills have in common."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from omni import kernel

SKILLS = sorted((Path(__file__).parents[2] / "assets" / "skills").iterdir())


def tools() -> list[dict[str, Any]]:
    found = []
    for folder in SKILLS:
        for file in sorted((folder / "scripts").glob("*.py")):
            told = kernel.describe(folder.name, str(folder), f"scripts/{file.name}")
            assert told["problem"] is None
            found += told["tools"]
    return found


def test_the_tools_there_are() -> None:
    assert [tool["name"] for tool in tools()] == [
        *("fs.read", "fs.write", "fs.edit", "fs.list", "fs.search", "fs.stat"),
        *("git.status", "git.diff", "git.log", "git.show", "git.branch", "git.propose", "git.commit"),
        *("notes.add", "notes.search", "notes.list"),
        "process.run",
        *("time.now", "time.convert"),
        "web.fetch",
    ]


def test_what_may_be_lost_and_what_reaches_out() -> None:
    assert [tool["name"] for tool in tools() if tool["annotations"]["destructive"]] == [
        *("fs.write", "fs.edit", "git.commit", "process.run")
    ]
    assert [tool["name"] for tool in tools() if tool["annotations"]["open_world"]] == ["process.run", "web.fetch"]


@pytest.mark.parametrize("folder", SKILLS, ids=lambda folder: folder.name)
def test_front_matter_is_as_the_agent_skills_format_wants_it(folder: Path) -> None:
    _, front, body = (folder / "SKILL.md").read_text().split("---\n", 2)
    fields = dict(re.findall(r"^([a-z]+):(?: (.*))?$", front, re.MULTILINE))
    assert set(fields) == {"name", "description", "license", "metadata"}
    assert fields["name"] == folder.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", folder.name)
    assert len(folder.name) <= 64
    assert 0 < len(fields["description"]) <= 1024
    # Plain YAML text: a colon or a hash in it would mean something else.
    assert not re.search(r": | #|^[\"'\[{&*!|>%@`]", fields["description"])
    assert len(body.strip().splitlines()) < 60


def test_examples_tell_tools_apart() -> None:
    found = [(tool["name"], tool["examples"]) for tool in tools()]
    assert [name for name, examples in found if not 2 <= len(examples) <= 3] == []
    everything = [example.casefold() for _, examples in found for example in examples]
    assert len(set(everything)) == len(everything)


def compact(schema: Any) -> Any:
    """Leave out what is not sent to a model."""
    if isinstance(schema, list):
        return [compact(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("additionalProperties", "title")}
    names = kept.pop("properties", None)
    small = {key: compact(value) for key, value in kept.items() if not (key == "default" and value is None)}
    return small if names is None else {"properties": {key: compact(value) for key, value in names.items()}, **small}


def test_what_is_sent_to_a_model_stays_small() -> None:
    sent = [
        {
            "name": tool["name"].replace(".", "__"),
            "description": tool["description"],
            "parameters": compact(tool["input"]),
        }
        for tool in tools()
    ]
    # A bit more than four characters make a token here: 1100 tokens are the budget, this is below it.
    assert len(json.dumps(sent, separators=(",", ":"))) < 4200
