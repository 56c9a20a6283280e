"""Small probes for tests of the poller: they answer, hang, crash or lie as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from agent.core.model import Observation, PointId, PointSpec, Quality
from agent.errors import ProbeFault
from agent.ports import Lane, Publish, Readings

SPECS: Mapping[str, PointSpec] = {"value": PointSpec("", 1.0, "a value"), "other": PointSpec("", 1.0, "another")}


class Polled:
    """A polled probe with one lane; `answer` is called for each poll and may raise."""

    def __init__(
        self,
        equipment: str = "ups",
        answer: Callable[[], Readings] = lambda: {"value": 1},
        *,
        period_s: float = 1.0,
        deadline_s: float = 3.0,
        takes_s: float = 0.0,
    ) -> None:
        self.equipment = equipment
        self.channel = f"fake:{equipment}"
        self.lanes = (Lane("fast", period_s, deadline_s, ("value", "other")),)
        self.specs = SPECS
        self.answer = answer
        self.takes_s = takes_s
        self.asked_at: list[float] = []
        self.in_flight = 0
        self.in_flight_most = 0
        self.is_closed = False

    async def poll(self, lane: str) -> Readings:
        self.asked_at.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            await self._wait()
        finally:
            self.in_flight -= 1
        return self.answer()

    async def _wait(self) -> None:
        await asyncio.sleep(self.takes_s)

    async def close(self) -> None:
        self.is_closed = True


class Tarpit(Polled):
    """A probe whose device accepts and never answers."""

    async def _wait(self) -> None:
        await asyncio.Event().wait()


class Unkillable(Polled):
    """A probe that swallows its cancellation until `may_end` is set."""

    def __init__(self, equipment: str = "ups") -> None:
        super().__init__(equipment)
        self.may_end = asyncio.Event()

    async def _wait(self) -> None:
        while not self.may_end.is_set():
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                continue


class Stream:
    """A stream that publishes once a second and keeps when it was looked at; its first `crashes` runs crash."""

    def __init__(self, equipment: str = "wan1", *, crashes: int = 0, error: Exception | None = None) -> None:
        self.equipment = equipment
        self.channel = f"line:{equipment}"
        self.specs = SPECS
        self.started_at: list[float] = []
        self.looked_at: list[float] = []
        self._crashes = crashes
        self._error = error or ZeroDivisionError("a mistake")

    async def run(self, publish: Publish) -> None:
        loop = asyncio.get_running_loop()
        self.started_at.append(loop.time())
        if self._crashes > 0:
            self._crashes -= 1
            raise self._error
        while True:
            now = loop.time()
            publish([Observation(PointId(f"{self.equipment}.value"), 1, Quality.GOOD, now, now, self.channel)])
            await asyncio.sleep(self.specs["value"].period_s)

    def look(self) -> None:
        self.looked_at.append(asyncio.get_running_loop().time())


class Script:
    """Answers in order; the last one stays. An exception among them is raised."""

    def __init__(self, *answers: Readings | Exception) -> None:
        self._answers = list(answers)

    def __call__(self) -> Readings:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Seen:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.batches: list[tuple[Observation, ...]] = []
        self.news = asyncio.Event()

    def __call__(self, observations: Sequence[Observation]) -> None:
        self.batches.append(tuple(observations))
        self.news.set()

    def of(self, point: str) -> list[Observation]:
        """Return the observations of *point*, oldest first."""
        return [seen for batch in self.batches for seen in batch if seen.point == point]


def refused() -> Readings:
    """Fail as a device does that refuses the connection, with a detail that nobody should print."""
    raise ProbeFault("refused", "line one\nline two\x1b[31m " + "x" * 500)
