"""Who acts next: what leaves a call, and as what."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from omni import Context, Failed, Retry, kernel, testing
from omni.context import current
from omni.errors import ToolCancelled


class Model(BaseModel):
    x: int


def call(error: BaseException) -> None:
    def function() -> None:
        raise error

    kernel.Handle("f", function)({})


@pytest.mark.parametrize(
    "error", [Retry("a"), Failed("b"), ToolCancelled(), asyncio.CancelledError(), SystemExit(3), KeyError("k")]
)
def test_what_a_tool_raises_leaves_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        call(error)
    assert caught.value is error


def test_cancellation_passes_by_a_broad_handler() -> None:
    assert not issubclass(ToolCancelled, Exception)


def test_a_validation_error_inside_the_tool_is_the_authors() -> None:
    def function(x: int) -> str:
        Model(x="no")  # type: ignore[arg-type]
        return ""

    async def asynchronous(x: int) -> str:
        return function(x)

    with pytest.raises(ValidationError):
        kernel.Handle("f", function)({"x": 1})
    with pytest.raises(ValidationError):
        asyncio.run(kernel.Handle("f", asynchronous)({"x": 1}))
    with pytest.raises(Retry):
        asyncio.run(kernel.Handle("f", asynchronous)({"x": "no"}))


def test_the_context_is_given_and_current(tmp_path: Path) -> None:
    seen: list[Any] = []

    def named(ctx: Context) -> None:
        seen.extend([ctx, current.get()])

    def unnamed() -> None:
        seen.append(current.get())

    ctx = testing.context(tmp_path)
    assert kernel.Handle("f", named).wants_context
    kernel.Handle("f", named)({}, ctx)
    kernel.Handle("f", unnamed)({}, ctx)
    assert seen == [ctx, ctx, ctx]
    assert current.get() is None
    with pytest.raises(Retry, match="`ctx` is no argument"):
        kernel.Handle("f", named)({"ctx": 1}, ctx)


def test_a_context_reports_and_keeps_data(tmp_path: Path) -> None:
    play = testing.Call(str(tmp_path), str(tmp_path / "deep/data"), session="s", call_id="c1")
    ctx = Context(play)
    ctx.heartbeat()
    ctx.progress(1, 4, "a quarter")
    ctx.heartbeat()
    assert play.reports == [(0.0, None, None), (1, 4, "a quarter"), (1, 4, None)]
    assert (ctx.session, ctx.call_id, ctx.workspace, ctx.cancelled) == ("s", "c1", tmp_path, False)
    play.is_cancelled = True
    assert ctx.cancelled
    assert not (tmp_path / "deep").exists()
    assert ctx.data.is_dir()


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("a.txt", "a.txt"),
        (".", "."),
        ("", "."),
        ("sub/../a.txt", "a.txt"),
        ("new/deep/../file", "new/file"),
        ("inner/x", "sub/x"),
        ("~/x", "~/x"),
        ("..a", "..a"),
    ],
)
def test_paths_inside(tmp_path: Path, path: str, where: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "inner").symlink_to("sub")
    assert testing.context(root).resolve(path) == root / where
    assert testing.context(root).resolve(root / path) == root / where


@pytest.mark.parametrize(
    "path", ["..", "../root2/x", "/", "sub/../../x", "out", "out/new", "loop/../../x", "up/up/x", "a\0", "\ud800"]
)
def test_paths_outside(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "out").symlink_to("/etc")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    with pytest.raises(Failed, match=r"outside the workspace|is no path"):
        testing.context(root).resolve(path)


def test_a_workspace_that_is_a_link_and_one_that_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert testing.context(tmp_path / "link").resolve("x") == tmp_path / "real/x"
    assert testing.context("/").resolve("etc/hosts") == Path("/etc/hosts").resolve()


def test_a_path_that_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="there is no `x`"):
        testing.context(tmp_path).resolve("x", must_exist=True)
