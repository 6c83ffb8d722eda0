"""What stands between a call and a function."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from omni.calls import bind


def test_a_coroutine_that_is_left_can_be_closed_from_anywhere() -> None:
    async def waits() -> None:
        """Wait for ever."""
        await asyncio.Future(loop=loop)

    loop = asyncio.new_event_loop()
    left = bind("test.waits", waits)({}, None)
    copy_context().run(left.send, None)
    # As the collector does: outside of the context that it began in.
    left.close()
    loop.close()
