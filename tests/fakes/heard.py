"""Everything that a probe has published, and waiting for what it will."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agent.core.model import Observation, Quality, Value

PATIENCE_S = 10.0


class Heard:
    """Publish into it; `seen` holds every observation in order."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self._news = asyncio.Event()

    def publish(self, observations: Sequence[Observation]) -> None:
        """Take *observations*."""
        self.seen.extend(observations)
        self._news.set()

    async def until(self, is_it: Callable[[Observation], bool], since: float = 0.0) -> Observation:
        """Return the first observation told after *since* for which *is_it* holds. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._news.clear()
                for observation in self.seen:
                    if observation.answered_at >= since and is_it(observation):
                        return observation
                await self._news.wait()

    async def good(self, point: str, is_it: Callable[[Value], bool], since: float = 0.0) -> Observation:
        """Return the first good observation of *point* told after *since* whose value satisfies *is_it*."""
        return await self.until(lambda it: it.point == point and it.quality is Quality.GOOD and is_it(it.value), since)

    async def unseen(self, point: str, since: float = 0.0) -> Observation:
        """Return the first observation of unknown quality of *point* told after *since*."""
        return await self.until(lambda it: it.point == point and it.quality is Quality.UNKNOWN, since)

    def values(self, point: str, since: float = 0.0) -> list[Value]:
        """Return the good values of *point* told after *since*."""
        good = (it for it in self.seen if it.point == point and it.quality is Quality.GOOD)
        return [it.value for it in good if it.answered_at >= since]
