"""The event loop that asynchronous tools run on."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

from omni.context import Context, Native
from omni.kernel import Handle
from omni.result import Plain

_GRACE = 5.0
"""Seconds that tools get to finish after they were cancelled because everything stops."""


class Ticket(Protocol):
    """Rust's end of one asynchronous call."""

    @property
    def id(self) -> int: ...
    def done(self, result: Plain) -> None: ...
    def failed(self, error: BaseException) -> None: ...


class Jobs(Protocol):
    """Rust's queue of asynchronous calls."""

    def fileno(self) -> int:
        """The eventfd that is readable when there is something to do."""

    def cancelled(self) -> list[int]:
        """Take the ids of the calls that were cancelled. Asked first: what comes later wakes the loop again."""

    def drain(self) -> list[tuple[Ticket, Handle, dict[str, Any], Context | Native | None]]:
        """Take all that wait."""

    def stopping(self) -> bool:
        """Whether to end, after cancelling what is left."""


_loops: dict[int, asyncio.AbstractEventLoop] = {}


def holding(thread: int) -> str | None:
    """Name the tool that the event loop of `thread` is at; asked from another one, because that one is held."""
    loop = _loops.get(thread)
    task = None if loop is None else asyncio.current_task(loop)
    return None if task is None else task.get_name()


def serve(native: Jobs) -> None:
    """Run asynchronous tools on this thread until `native` says stop.

    Every ticket that was drained is answered exactly once, the last ones with
    `asyncio.CancelledError`.
    """
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    asyncio.set_event_loop(loop)
    server = _Server(native, loop)
    loop.add_reader(native.fileno(), server.ready)
    _loops[threading.get_ident()] = loop
    try:
        server.ready()
        _run(loop, server.stopped)
        server.cancel()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            _run(loop, asyncio.ensure_future(asyncio.wait(left, timeout=_GRACE), loop=loop))
        server.abandon()
        _run(loop, asyncio.ensure_future(loop.shutdown_asyncgens(), loop=loop))
    finally:
        del _loops[threading.get_ident()]
        loop.remove_reader(native.fileno())
        asyncio.set_event_loop(None)
        loop.close()


_own: asyncio.AbstractEventLoop | None = None


def run(coroutine: Coroutine[Any, Any, Plain]) -> Plain:
    """Run one asynchronous call to its end, on a loop that is kept for the next one.

    For a process that runs one call at a time. Tasks that the call leaves behind are cancelled.
    """
    global _own
    if _own is None:
        _own = asyncio.new_event_loop()
        asyncio.set_event_loop(_own)
    try:
        return _own.run_until_complete(coroutine)
    finally:
        left = asyncio.all_tasks(_own)
        for task in left:
            task.cancel()
        if left:
            _own.run_until_complete(asyncio.wait(left, timeout=_GRACE))


class _Server:
    """The calls that run on one loop."""

    def __init__(self, native: Jobs, loop: asyncio.AbstractEventLoop) -> None:
        self.stopped: asyncio.Future[None] = loop.create_future()
        self._native = native
        self._loop = loop
        self._running: dict[int, tuple[asyncio.Task[None], Ticket]] = {}

    def ready(self) -> None:
        """Take what waits."""
        # Cancellations come first: whatever happens after they were taken wakes us again, and one whose
        # call is still in the queue is met below.
        with contextlib.suppress(BlockingIOError):
            os.read(self._native.fileno(), 8)
        cancelled = self._native.cancelled()
        stopping = self._native.stopping()
        early = set()
        for number in cancelled:
            if number in self._running:
                self._running[number][0].cancel()
            else:
                early.add(number)
        for ticket, handle, arguments, context in self._native.drain():
            if stopping or ticket.id in early:
                ticket.failed(asyncio.CancelledError())
            else:
                self._start(ticket, handle, arguments, context)
        if stopping and not self.stopped.done():
            self.stopped.set_result(None)

    def cancel(self) -> None:
        for task, _ in list(self._running.values()):
            task.cancel()

    def abandon(self) -> None:
        """Answer for the calls that did not end when they were told to."""
        for _, ticket in self._running.values():
            ticket.failed(asyncio.CancelledError())
        self._running.clear()

    def _start(
        self, ticket: Ticket, handle: Handle, arguments: dict[str, Any], context: Context | Native | None
    ) -> None:
        task = self._loop.create_task(self._play(ticket, handle, arguments, context), name=handle.name)
        if not task.done():
            self._running[ticket.id] = (task, ticket)

    async def _play(
        self, ticket: Ticket, handle: Handle, arguments: dict[str, Any], context: Context | Native | None
    ) -> None:
        # It answers from inside the task: a done-callback would cost another turn of the loop. Nothing
        # may escape, because SystemExit from a task ends the loop.
        try:
            result = await handle(arguments, context)
        except BaseException as error:
            if self._running.pop(ticket.id, None) is not None or not self.stopped.done():
                ticket.failed(error)
        else:
            if self._running.pop(ticket.id, None) is not None or not self.stopped.done():
                ticket.done(result)


def _run(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
    """Run the loop until `future` is done, whatever a stray task or signal throws through it."""
    while True:
        try:
            loop.run_until_complete(future)
            return
        except Exception:
            raise
        except BaseException:
            if future.done():
                return
