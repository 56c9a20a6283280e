"""
Virtual time: a loop that jumps to the next timer when nothing is ready, so that twenty minutes take milliseconds.

All time comes from the loop, so that sleeps, time-outs and our deadlines agree. Threads would run in real time beside
it and make every run another one; the loop refuses them. A wait for something that nobody will do ends with an error.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVar

from agent.core.model import At

T = TypeVar("T")

END_GRACE_S: Final = 60.0  # virtual seconds that left-over tasks get to end after their cancellation

log = logging.getLogger(__name__)


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: moves `now_s` to the next timer instead."""

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self.now_s = start_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("virtual time stands still: every task waits for something that nobody will do")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time starts at *start_s* and passes only by jumping to timers."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._jumping = _JumpingSelector(start_s)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._jumping.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> NoReturn:  # type: ignore[override]
        """Refuse: a thread would run in real time."""
        raise RuntimeError(f"virtual time allows no threads: {_name(func)} was to run in one")

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> NoReturn:
        """Refuse: only another thread or a signal handler needs it, and both come in real time."""
        raise RuntimeError(f"virtual time allows no threads: {_name(callback)} was to be called from outside the loop")


class VirtualClock:
    """The clock of a virtual-time loop: boot seconds are the loop's time, UTC runs along from *utc_start*."""

    def __init__(self, loop: asyncio.AbstractEventLoop, boot_id: str = "virtual", utc_start: float = 0.0) -> None:
        self._loop = loop
        self.boot_id = boot_id
        self.utc_step_s = 0.0  # drills step UTC by this; boot time does not follow
        self._utc_start = utc_start
        self._origin_s = loop.time()

    def now(self) -> At:
        """Return the present moment."""
        boot_s = self._loop.time()
        return At(self.boot_id, boot_s, self._utc_start + boot_s - self._origin_s + self.utc_step_s)


def run_virtual(main: Coroutine[Any, Any, T], *, start_s: float = 0.0) -> T:
    """Run *main* in a virtual-time loop of its own and return its result; left-over tasks are cancelled."""
    loop = VirtualTimeLoop(start_s)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _end_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def _end_tasks(loop: VirtualTimeLoop) -> None:
    """Cancel what is left in *loop*; tell of what does not end, and of what ended with an error that nobody saw."""
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    ended, stubborn = loop.run_until_complete(asyncio.wait(tasks, timeout=END_GRACE_S))
    for task in stubborn:
        log.warning("vtime.task_left task=%s", task.get_name())
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            context: Mapping[str, Any] = {"message": "error while ending", "exception": error, "task": task}
            loop.call_exception_handler(dict(context))


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))
