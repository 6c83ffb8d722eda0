"""What a tool is told of its call, and how it shows that it lives."""

import asyncio
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from omni import Failed, run_with_heartbeat, testing
from omni.context import current


class Settings(BaseModel):
    unit: str = "C"
    days: int = Field(default=3, ge=1)


def test_settings_are_read_by_a_model(tmp_path: Path) -> None:
    assert testing.context(tmp_path).settings == {}
    assert testing.context(tmp_path).settings_as(Settings) == Settings()
    ctx = testing.context(tmp_path, settings={"unit": "F", "days": 5})
    assert ctx.settings_as(Settings) == Settings(unit="F", days=5)


def test_a_setting_that_does_not_fit_is_named(tmp_path: Path) -> None:
    ctx = testing.context(tmp_path, settings={"days": 0})
    with pytest.raises(Failed, match=r"`skill\.test\.days`: Input should be greater"):
        ctx.settings_as(Settings)


def test_a_silent_wait_beats_for_as_long_as_it_may(tmp_path: Path) -> None:
    ctx = testing.context(tmp_path)
    ctx.progress(3, 4)

    async def wait() -> str:
        return await run_with_heartbeat(asyncio.sleep(0.5, "woken"), every=0.05, max=0.2)

    token = current.set(ctx)
    try:
        assert asyncio.run(wait()) == "woken"
    finally:
        current.reset(token)
    reports = ctx._native.reports  # type: ignore[attr-defined]
    assert 2 <= len(reports) <= 6, reports
    assert set(reports[1:]) == {(3, 4, None)}


def test_what_is_awaited_ends_with_the_wait() -> None:
    async def play() -> bool:
        task = asyncio.ensure_future(run_with_heartbeat(asyncio.sleep(60), max=60))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        return len(asyncio.all_tasks()) == 1

    assert asyncio.run(play())
