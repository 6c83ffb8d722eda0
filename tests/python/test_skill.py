"""Loading scripts: each skill in a namespace of its own, siblings found, problems told."""

import gc
import os
import pickle
import sys
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from omni import kernel, skill


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    path, known = list(sys.path), set(sys.modules)
    yield
    for name in {package.skill for package in skill._packages.values()}:
        kernel.forget(name)
    assert sys.path == path
    assert [name for name in set(sys.modules) - known if name.startswith("omni_skills.")] == []


def write(folder: Path, **files: str) -> Path:
    for name, source in files.items():
        file = folder / "scripts" / f"{name.replace('__in__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return folder


def load(folder: Path, name: str = "main") -> ModuleType:
    return skill.load(folder.name, str(folder), f"scripts/{name}.py")


def describe(folder: Path, name: str = "main") -> dict[str, Any]:
    return kernel.describe(folder.name, str(folder), f"scripts/{name}.py")


def test_siblings_in_every_way_of_saying_it(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "one",
        main=(
            "import utils\nimport utils as u\nfrom utils import NAME\nfrom . import utils as r\n"
            "from .utils import NAME as other\nimport deep.inner\nfrom deep import inner\n"
            "from deep.inner import NAME as far\n"
            "import os.path, xml.dom\nfrom concurrent import futures\n"
            "def late():\n    import utils, json\n    return utils, json\n"
        ),
        utils="NAME = 'utils of one'",
        deep__in__inner="from .. import utils\nNAME = utils.NAME + '!'\nimport utils as again\nassert again is utils",
    )
    module = load(folder)
    assert module.utils is module.u is module.r is module.late()[0]
    assert module.NAME == module.other == "utils of one"
    assert module.far == module.deep.inner.NAME == module.inner.NAME == "utils of one!"
    assert module.os.path is os.path
    assert module.xml.dom is sys.modules["xml.dom"]
    assert module.late()[1] is sys.modules["json"]
    assert module.__name__ == "omni_skills.one.main"


def test_two_skills_with_siblings_of_the_same_name(tmp_path: Path) -> None:
    first = load(write(tmp_path / "first", main="import utils", utils="X = 1"))
    second = load(write(tmp_path / "second", main="import utils", utils="X = 2"))
    assert (first.utils.X, second.utils.X) == (1, 2)
    assert "utils" not in sys.modules


def test_skills_whose_names_fall_together(tmp_path: Path) -> None:
    modules = [load(write(tmp_path / name, main=f"X = {name!r}")) for name in ("a-b", "a_b", "elsewhere/a-b")]
    assert [module.X for module in modules] == ["a-b", "a_b", "elsewhere/a-b"]
    kernel.forget("a-b")
    assert load(tmp_path / "a_b") is modules[1]


def test_a_sibling_named_like_a_standard_module(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "shadow",
        main="import json, decimal\nfrom statistics import mean\nwhole = mean([1, 3])",
        json="import json as real\nMINE = real.dumps([1])",
        random="raise RuntimeError('the standard library imports the standard `random`')",
    )
    sys.modules.pop("statistics", None)
    module = load(folder)
    assert module.json.MINE == "[1]"
    assert module.whole == 2
    assert sys.modules["json"].__name__ == "json"


def test_a_package_with_an_init(tmp_path: Path) -> None:
    folder = write(tmp_path / "packed", __init__="import helper\nY = helper.X", helper="X = 3", main="from . import Y")
    assert load(folder).Y == 3


def test_classes_of_a_script_can_be_pickled_and_hinted(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom omni import tool\n"
        "@dataclass\nclass Point:\n    x: int\n"
        "@tool\ndef move(point: Point) -> Point:\n    return Point(point.x + 1)\n"
    )
    folder = write(tmp_path / "shapes", main=source)
    module = load(folder)
    assert pickle.loads(pickle.dumps(module.Point(1))) == module.Point(1)
    handle = kernel.resolve("shapes", str(folder), "scripts/main.py", "move")
    assert handle({"point": {"x": 1}}) == ('{"x":2}', {"x": 2})


def test_an_edit_within_the_same_second_is_seen(tmp_path: Path) -> None:
    folder = write(tmp_path / "edited", main="X = 1")
    old = load(folder)
    times = (folder / "scripts/main.py").stat()
    write(folder, main="X = 2")
    os.utime(folder / "scripts/main.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load(folder) is old
    kernel.forget("edited")
    assert load(folder).X == 2
    assert not list(folder.rglob("__pycache__"))


def test_old_code_goes_on_after_a_reload(tmp_path: Path) -> None:
    source = "from omni import tool\nWORD = '{}'\n@tool\ndef say() -> str:\n    return WORD\n"
    folder = write(tmp_path / "versions", main=source.format("old"))
    old = kernel.resolve("versions", str(folder), "scripts/main.py", "say")
    assert kernel.resolve("versions", str(folder), "scripts/main.py", "say") is old
    write(folder, main=source.format("new"))
    kernel.forget("versions")
    new = kernel.resolve("versions", str(folder), "scripts/main.py", "say")
    assert (old({})[0], new({})[0]) == ("old", "new")


def test_modules_that_are_neither_own_nor_pythons_are_named(tmp_path: Path) -> None:
    main = "import json, pydantic, near\nfrom pydantic import fields, BaseModel\nfrom omni import tool\n"
    folder = write(tmp_path / "imports", main=main, near="import typing_extensions\n")
    assert describe(folder)["modules"] == ["pydantic", "pydantic.fields", "typing_extensions"]


def test_a_tool_is_described_where_it_is_written(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "demo",
        main=(
            "from omni import tool, skill_command\nfrom shared import helper\n\n"
            "@tool(name='sum-up', title='Sum', read_only=True, open_world=False, timeout=3, examples=['add these'])\n"
            "def add(a: int, b: int = 2) -> int:\n    'Add.'\n    return a + b\n\n"
            "@skill_command(description='Said here.')\nasync def wait(): 'Doc.'\n\nalias = wait\n\n"
            "def private(): ...\n"
        ),
        shared="from omni import tool\n@tool\ndef helper() -> str: return ''\n",
    )
    assert describe(folder) == {
        "problem": None,
        "modules": [],
        "tools": [
            {
                "name": "demo.sum-up",
                "title": "Sum",
                "description": "Add.",
                "input": {
                    "type": "object",
                    "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
                    "required": ["a"],
                    "additionalProperties": False,
                },
                "output": {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]},
                "annotations": {"read_only": True, "destructive": False, "idempotent": False, "open_world": False},
                "timeout": 3.0,
                "idle_timeout": None,
                "confirm": False,
                "cache_ttl": None,
                "concurrency": None,
                "kind": "tool",
                "examples": ["add these"],
                "file": "scripts/main.py",
                "isolation": None,
                "function": "add",
                "line": 4,
                "is_async": False,
            },
            {
                "name": "demo.wait",
                "title": None,
                "description": "Said here.",
                "input": {"type": "object", "properties": {}, "additionalProperties": False},
                "output": None,
                "annotations": {"read_only": False, "destructive": True, "idempotent": False, "open_world": True},
                "timeout": None,
                "idle_timeout": None,
                "confirm": False,
                "cache_ttl": None,
                "concurrency": None,
                "kind": "tool",
                "examples": [],
                "file": "scripts/main.py",
                "isolation": None,
                "function": "wait",
                "line": 9,
                "is_async": True,
            },
        ],
    }
    assert [tool["name"] for tool in describe(folder, "shared")["tools"]] == ["demo.helper"]


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("x = 1\ndef f(:\n", 2, "SyntaxError: invalid syntax"),
        ("\n\nimport no_such_module_at_all\n", 3, "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("from . import missing\n", 1, "ImportError: cannot import name 'missing'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        ("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError: division by zero"),
        ("x = '\0'\n", 1, "source code string cannot contain null bytes"),
        ("# coding: nonsense\n", 1, "SyntaxError: "),
        ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E\n", 3, "E: (its message cannot be shown)"),
        (
            "from omni import tool\n@tool(category='x')\ndef f(): ...\n",
            2,
            "@tool has no argument `category`; group tools",
        ),
        ("from omni import tool\n\n@tool\ndef f(*a): ...\n", 3, "tool `f` takes `*a`"),
        ("from omni import tool\n@tool\ndef f(a: 'Nope'): ...\n", 2, "cannot be read: name 'Nope' is not defined"),
    ],
)
def test_a_problem_has_a_place(tmp_path: Path, source: str, line: int, message: str) -> None:
    found = describe(write(tmp_path / "broken", main=source))
    assert found["tools"] == []
    assert found["problem"]["file"] == "scripts/main.py"
    assert found["problem"]["line"] == line
    assert message in found["problem"]["message"]


def test_a_problem_in_a_sibling_is_told_there(tmp_path: Path) -> None:
    folder = write(tmp_path / "broken", main="import other\n", other="x = 1\nx +\n")
    assert describe(folder)["problem"] == {
        "file": "scripts/other.py",
        "line": 2,
        "message": "SyntaxError: invalid syntax",
    }
    write(folder, other="x = 1\n\nraise ValueError('no')\n")
    kernel.forget("broken")
    assert describe(folder)["problem"] == {"file": "scripts/other.py", "line": 3, "message": "ValueError: no"}


def test_one_bad_tool_leaves_the_others(tmp_path: Path) -> None:
    source = (
        "from omni import tool\n@tool\ndef bad(*a): ...\n@tool\ndef good(): ...\n@tool(name='good')\ndef twin(): ...\n"
    )
    found = describe(write(tmp_path / "partly", main=source))
    assert [tool["name"] for tool in found["tools"]] == ["partly.good"]
    assert found["problem"]["line"] == 2
    write(tmp_path / "partly", main=source.replace("*a", ""))
    kernel.forget("partly")
    assert describe(tmp_path / "partly")["problem"] == {
        "file": "scripts/main.py",
        "line": 6,
        "message": "there is another tool `partly.good` in line 4",
    }


@pytest.mark.parametrize("file", ["scripts/missing.py", "../main.py", "scripts/../../x.py", "SKILL.md"])
def test_what_is_no_script(tmp_path: Path, file: str) -> None:
    folder = write(tmp_path / "empty", main="")
    (tmp_path / "main.py").write_text("")
    found = kernel.describe("empty", str(folder), file)
    assert found["tools"] == []
    assert found["problem"]["message"].startswith("ImportError: ")


def test_a_missing_function(tmp_path: Path) -> None:
    folder = write(tmp_path / "few", main="def f(): ...")
    with pytest.raises(LookupError, match="no tool function `f`"):
        kernel.resolve("few", str(folder), "scripts/main.py", "f")


def test_after_a_failed_load_the_mended_file_loads(tmp_path: Path) -> None:
    folder = write(tmp_path / "mended", main="import other", other="x +")
    assert describe(folder)["problem"] is not None
    write(folder, other="X = 1")
    assert load(folder).other.X == 1


def test_a_traceback_shows_the_script_alone(tmp_path: Path) -> None:
    source = (
        "from omni import tool\n@tool\ndef outer(a: int) -> str:\n    try:\n        inner()\n"
        "    except KeyError as error:\n        raise RuntimeError('outer') from error\n\n"
        "def inner():\n    raise KeyError('inner')\n"
    )
    folder = write(tmp_path / "trace", main=source)
    handle = kernel.resolve("trace", str(folder), "scripts/main.py", "outer")
    with pytest.raises(RuntimeError) as caught:
        handle({"a": 1})
    text = kernel.format_broken(caught.value)
    assert "KeyError: 'inner'" in text
    assert text.rstrip().endswith("RuntimeError: outer")
    assert 'main.py", line 5, in outer\n    inner()' in text
    machinery = str(Path(kernel.__file__).parent)
    assert machinery not in text
    assert "kernel.py" in "".join(traceback.format_exception(caught.value))


def test_a_traceback_is_bounded() -> None:
    assert len(kernel.format_broken(ValueError("x" * 1_000_000))) < 17_000


VERSION = (
    "from omni import tool\nimport near\nWORD = {0!r}\n"
    "@tool\ndef say(short: bool = False) -> list[str]:\n"
    "    if short:\n        return [WORD, near.WORD]\n"
    "    import late\n    return [WORD, near.WORD, late.WORD]\n"
)


def contents(word: str) -> dict[str, bytes]:
    files = {"main": VERSION.format(word), "near": f"WORD = {word!r}", "late": f"WORD = {word!r}"}
    return {f"scripts/{name}.py": source.encode() for name, source in files.items()}


def test_versions_side_by_side(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "a-b", main="nothing of this ("))
    say = [
        kernel.resolve("a-b", folder, "scripts/main.py", "say", version, contents(word))
        for version, word in ((1, "one"), (2, "two"), (3, "three"))
    ]
    # A sibling that is imported late follows the version of its importer, and nobody reads the disk.
    assert [handle({})[1]["result"] for handle in say] == [["one"] * 3, ["two"] * 3, ["three"] * 3]
    assert say[1].direct[0].__module__ == "omni_skills.a_b@2.main"
    kernel.forget("a-b", 2)
    assert {name for name in sys.modules if name.startswith("omni_skills.a_b@2")} == set()
    assert not hasattr(sys.modules["omni_skills"], "a_b@2")
    assert say[1]({"short": True})[1]["result"] == ["two"] * 2
    assert kernel.resolve("a-b", folder, "scripts/main.py", "say", 3) is say[2]


def test_folders_of_held_files(tmp_path: Path) -> None:
    held = {
        "scripts/main.py": b"from deep.er import inner\nimport deep\nX = inner.X",
        "scripts/deep/er/inner.py": b"from ... import main\nX = 4",
    }
    assert skill.load("held", str(tmp_path / "held"), "scripts/main.py", 2, held).X == 4
    with pytest.raises(ImportError, match=r"there is no `scripts/other\.py`"):
        skill.load("held", str(tmp_path / "held"), "scripts/other.py", 2, held)


def test_dataclasses_and_pickles_of_a_version(tmp_path: Path) -> None:
    source = b"from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: 'int'\n"
    module = skill.load("shapes", str(tmp_path / "shapes"), "scripts/main.py", 7, {"scripts/main.py": source})
    assert pickle.loads(pickle.dumps(module.Point(1))) == module.Point(1)


def test_old_versions_leave_no_memory(tmp_path: Path) -> None:
    folder, known = str(tmp_path / "flat"), len(sys.modules)
    seen = []
    for version in range(2, 52):
        handle = kernel.resolve("flat", folder, "scripts/main.py", "say", version, contents(str(version)))
        seen.append(weakref.ref(handle.direct[0]))
        kernel.forget("flat", version - 1)
    assert len(sys.modules) - known <= 5
    gc.collect()
    assert [ref() is not None for ref in seen[-3:]] == [False, False, True]
    assert sum(ref() is not None for ref in seen) == 1
