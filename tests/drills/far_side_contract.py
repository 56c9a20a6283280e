"""What every far side of a line has to do: the simulated branch's and the small one of the tests pass the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from agent.clock import SystemClock
from agent.core.model import Observation, Quality
from agent.errors import ProbeFault
from agent.ports import ProbeContext
from probes.line import LineProbe
from probes.line_config import LineConfig
from probes.wire.echo import Binding, parse_target
from probes.wire.tcp import ask_once

SOURCE = "127.0.0.11"
SHORT_S = 0.2
PATIENCE_S = 10.0


class FarSide(Protocol):
    """The far side of one line, whose source is SOURCE."""

    @property
    def target(self) -> str:
        """Return it as a target of a line."""
        ...

    def fall_silent(self) -> None:
        """Answer nobody from now on."""

    def recover(self) -> None:
        """Answer again."""


async def told(target: str, source: str | None = SOURCE, deadline_s: float = PATIENCE_S) -> str | None:
    """Return the source that *target* says it saw. Raises ProbeFault."""
    return (await ask_once(parse_target(target), Binding(source=source), deadline_s)).told


async def lost(target: str, source: str = SOURCE) -> str:
    """Return how a call that is not answered ends, "" when it was answered."""
    try:
        await told(target, source, SHORT_S)
    except ProbeFault as fault:
        return fault.fault
    return ""


class Watched:
    """A real line probe on one target, and what it saw last."""

    def __init__(self) -> None:
        self.seen: dict[str, Observation] = {}
        self._news = asyncio.Event()

    def publish(self, observations: object) -> None:
        assert isinstance(observations, list)
        self.seen |= {str(one.point): one for one in observations}
        self._news.set()

    async def until(self, point: str, is_wanted: Callable[[Any], bool]) -> Observation:
        """Return the observation of *point* once it is good and its value as wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                one = self.seen.get(point)
                if one is not None and one.quality is Quality.GOOD and is_wanted(one.value):
                    return one
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(target: str) -> AsyncIterator[Watched]:
    """Give a line probe at work on *target*, bound to SOURCE."""
    watched = Watched()
    config = LineConfig(role="primary", targets={"hq": target}, profile="fast", source=SOURCE)
    probe = LineProbe("wan1", config, ProbeContext(SystemClock(), {}))
    task = asyncio.create_task(probe.run(watched.publish))
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class FarSideContract:
    """Tests of any far side. Fixture: `far`."""

    async def test_each_caller_is_told_the_source_it_was_seen_with(self, far: FarSide):
        assert await told(far.target) == SOURCE
        assert await told(far.target, "127.0.0.77") == "127.0.0.77"

    async def test_a_silent_one_refuses_nothing_and_answers_nothing(self, far: FarSide):
        far.fall_silent()
        assert await lost(far.target) == "timed_out"

        far.recover()
        assert await told(far.target) == SOURCE

    async def test_what_was_lost_is_not_answered_later(self, far: FarSide):
        far.fall_silent()
        waiting = asyncio.create_task(told(far.target, deadline_s=SHORT_S * 2))
        assert await lost(far.target) == "timed_out"  # by now the other call is waiting too
        far.recover()

        with pytest.raises(ProbeFault, match="timed_out"):
            await waiting

    async def test_a_line_probe_sees_it_fall_silent_and_recover(self, far: FarSide):
        async with watching(far.target) as line:
            await line.until("wan1.hq.lost_in_row", lambda lost: lost == 0)
            far.fall_silent()
            dead = await line.until("wan1.hq.lost_in_row", lambda lost: lost >= 4)

            assert dead.since is not None
            assert line.seen["wan1.binding_ok"].value is True
            far.recover()
            await line.until("wan1.hq.lost_in_row", lambda lost: lost == 0)
