"""The loop for asynchronous tools, driven through a real eventfd."""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from omni import Retry, kernel, loop
from omni.errors import ToolCancelled

WAIT = 20.0


class Ticket:
    def __init__(self, number: int) -> None:
        self.id = number
        self.answers: list[Any] = []
        self._answered = threading.Event()

    def done(self, result: Any) -> None:
        self.answers.append(result)
        self._answered.set()

    def failed(self, error: BaseException) -> None:
        self.answers.append(error)
        self._answered.set()

    def answer(self) -> Any:
        assert self._answered.wait(WAIT), "the call was never answered"
        return self.answers[0]


class Jobs:
    """The queue as Rust keeps it: a lock, an eventfd, and three lists."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._jobs: list[Any] = []
        self._cancelled: list[int] = []
        self._stopping = False
        self._number = 0

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> list[Any]:
        with self._lock:
            jobs, self._jobs = self._jobs, []
        return jobs

    def cancelled(self) -> list[int]:
        with self._lock:
            numbers, self._cancelled = self._cancelled, []
        return numbers

    def stopping(self) -> bool:
        return self._stopping

    def submit(
        self, function: Callable[..., Any], *, cancel: bool = False, wake: bool = True, **arguments: Any
    ) -> Ticket:
        self._number += 1
        ticket = Ticket(self._number)
        with self._lock:
            self._jobs.append((ticket, kernel.Handle(function.__name__, function), arguments, None))
            if cancel:
                self._cancelled.append(ticket.id)
        if wake:
            self.wake()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        with self._lock:
            self._cancelled.append(ticket.id)
        self.wake()

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    thread = threading.Thread(target=loop.serve, args=(jobs,))
    thread.start()
    yield jobs
    jobs.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    os.close(jobs.fileno())


async def double(x: int) -> int:
    return 2 * x


async def forever() -> None:
    await asyncio.Event().wait()


def test_calls_are_answered(jobs: Jobs) -> None:
    tickets = [jobs.submit(double, x=number, wake=number % 10 == 9) for number in range(100)]
    assert [ticket.answer() for ticket in tickets] == [(str(2 * n), {"result": 2 * n}) for n in range(100)]


def test_calls_wait_side_by_side(jobs: Jobs) -> None:
    meeting: list[asyncio.Barrier] = []

    async def meet() -> str:
        if not meeting:
            meeting.append(asyncio.Barrier(50))
        await meeting[0].wait()
        return "met"

    tickets = [jobs.submit(meet) for _ in range(50)]
    assert {ticket.answer() for ticket in tickets} == {("met", None)}


@pytest.mark.parametrize("error", [Retry("r"), ValueError("v"), SystemExit(3), KeyboardInterrupt(), ToolCancelled()])
def test_errors_are_answers_and_the_loop_goes_on(jobs: Jobs, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    assert jobs.submit(fail).answer() is error
    assert jobs.submit(fail_later).answer() is error
    assert jobs.submit(double, x=1).answer()[0] == "2"


def test_arguments_that_do_not_fit(jobs: Jobs) -> None:
    assert isinstance(jobs.submit(double, x="no").answer(), Retry)


def test_a_stray_task_that_exits_does_not_take_the_loop_along(jobs: Jobs) -> None:
    async def stray() -> str:
        async def leave() -> None:
            raise SystemExit(1)

        task = asyncio.get_running_loop().create_task(leave())
        await asyncio.sleep(0.01)
        task.exception()
        return "still here"

    jobs.submit(stray)
    assert jobs.submit(double, x=2).answer()[0] == "4"


def test_cancelled_while_it_waits(jobs: Jobs) -> None:
    ticket = jobs.submit(forever)
    jobs.submit(double, x=1).answer()
    jobs.cancel(ticket)
    assert isinstance(ticket.answer(), asyncio.CancelledError)


def test_cancelled_before_it_began(jobs: Jobs) -> None:
    ran: list[int] = []

    async def run() -> None:
        ran.append(1)

    ticket = jobs.submit(run, cancel=True)
    assert isinstance(ticket.answer(), asyncio.CancelledError)
    assert ran == []


def test_cancelled_after_it_ended(jobs: Jobs) -> None:
    ticket = jobs.submit(double, x=1)
    ticket.answer()
    jobs.cancel(ticket)
    jobs.submit(double, x=1).answer()
    assert len(ticket.answers) == 1


def test_a_tool_that_swallows_the_cancellation_once_is_answered_once(jobs: Jobs) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "kept on"
        return ""

    ticket = jobs.submit(stubborn)
    jobs.submit(double, x=1).answer()
    jobs.cancel(ticket)
    assert ticket.answer() == ("kept on", None)


def test_each_call_has_variables_of_its_own(jobs: Jobs) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def count() -> int:
        variable.set(variable.get() + 1)
        await asyncio.sleep(0)
        return variable.get()

    assert {jobs.submit(count).answer()[0] for _ in range(5)} == {"1"}


def test_at_the_end_everything_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_GRACE", 0.2)
    jobs = Jobs()

    async def never_ends() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    waiting = [jobs.submit(forever), jobs.submit(never_ends), jobs.submit(double, x="no")]
    thread = threading.Thread(target=loop.serve, args=(jobs,))
    thread.start()
    waiting[-1].answer()
    last = jobs.submit(forever, wake=False)
    jobs.stop()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert [type(ticket.answer()) for ticket in waiting] == [asyncio.CancelledError, asyncio.CancelledError, Retry]
    assert isinstance(last.answer(), asyncio.CancelledError)
    assert [len(ticket.answers) for ticket in [*waiting, last]] == [1, 1, 1, 1]
    os.close(jobs.fileno())
