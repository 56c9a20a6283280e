"""An echo by something that stands for the host's own routing, as drills and the demo have it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from agent.clock import boot_s
from agent.errors import ProbeFault
from probes.wire.echo import Reply, Target

DEADLINE_S: Final = 1.0  # of an echo by the path, whoever carries it

# Target and deadline -> the source address that the far end saw. Raises ProbeFault.
Opener = Callable[[str, float], Awaitable[str]]


class OpenerEcho:
    """An echo by something that stands for the host's routing: it returns the source address that the far end saw."""

    def __init__(self, opener: Opener, text: str, wake: Callable[[], None]) -> None:
        self._opener = opener
        self._text = text
        self._wake = wake
        self._ended: list[Reply] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, target: Target, sequence: int) -> None:
        """Ask under *sequence*."""
        task = asyncio.get_running_loop().create_task(self._ask(target, sequence))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drain(self) -> Sequence[Reply]:
        """Return how echoes have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()

    async def _ask(self, target: Target, sequence: int) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                told = await self._opener(self._text, DEADLINE_S)
            reply = Reply(target, sequence, boot_s(), told=told)
        except TimeoutError:
            reply = Reply(target, sequence, boot_s(), fault="timed_out")
        except ProbeFault as fault:
            reply = Reply(target, sequence, boot_s(), fault=fault.fault)
        self._ended.append(reply)
        self._wake()
