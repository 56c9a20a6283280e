"""
Runs every probe: asks polled ones at their rhythm, keeps streams alive, and turns what they bring into observations.

A probe can be slow, hang, lie or crash; it then costs its own points and nothing else. Each lane has one task and at
most one poll in flight, so that the number of hung polls cannot exceed the number of lanes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeGuard

from agent.clock import Clock
from agent.core.model import Observation, PointId, Quality
from agent.errors import FAULTS, ProbeFault
from agent.ports import Lane, PolledProbe, Probe, Publish, Readings, StreamProbe, Suspect
from agent.runtime.tally import PollerStats, Tally, phase_s

LOOK_GAP_S: Final = 0.05  # how soon a lane that is being looked at is asked again
STREAM_LOOK_GAP_S: Final = 0.25  # a stream's burst takes some tens of milliseconds; a new one soon enough after it
CANCEL_GRACE_S: Final = 0.2  # what a cancelled poll gets before it is left to itself
RESTART_FIRST_S: Final = 1.0  # back-off of a stream that crashed ...
RESTART_MAX_S: Final = 30.0
RESTART_PROVEN_S: Final = 60.0  # ... and how long it must have run for the back-off to start anew
CLOSE_S: Final = 1.0
RELIEVE_S: Final = 1.0  # what the workers of a probe that is replaced get to end
TIMER_SLACK_S: Final = 1e-6  # a timer may fire by a rounding error too early; nobody waits for so little
REASON_CHARS_MAX: Final = 120

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Gaze:
    """A look at some points, in boot seconds: not before `start`, until `end`."""

    start: float = math.inf
    end: float = -math.inf

    def ask(self, start: float, end: float, now: float) -> None:
        """Take in one more look; two at once become one that serves both."""
        is_open = now <= self.end
        self.start = min(self.start, start) if is_open else start
        self.end = max(self.end, end) if is_open else end

    def next_at(self, now: float, earliest: float) -> float:
        """Return when to ask next, never before *earliest*; infinite when nobody looks."""
        at = max(self.start, earliest)
        return at if max(at, now) <= self.end else math.inf


class _Worker(Protocol):
    """One task of the poller, for one lane or one stream."""

    points: frozenset[PointId]
    gaze: _Gaze
    nudged: asyncio.Event

    async def run(self) -> None:
        """Work until cancelled."""
        ...

    def retire(self) -> None:
        """Publish nothing any more, whatever still comes."""
        ...


@dataclass(slots=True, eq=False)
class _Crew:
    """One probe with its workers and, while the poller runs, their tasks."""

    probe: Probe
    workers: list[_Worker]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Poller:
    """All probes of the site. *publish* gets the observations of one lane and moment at a time; it must not block."""

    def __init__(self, probes: Sequence[Probe], clock: Clock, publish: Publish) -> None:
        self._clock = clock
        self._publish = publish
        self._tally = Tally()
        self._crews = [self._crew(probe) for probe in probes]
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run every probe until cancelled, then close them."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for crew in self._crews:
                    self._start(crew)
                await asyncio.Event().wait()  # without a probe too: one may come
        finally:
            self._group = None
            await _close([crew.probe for crew in self._crews])

    def replace(self, probes: Sequence[Probe]) -> None:
        """
        Run *probes* from now on. Those that run already go on undisturbed, and nothing more is published of those that
        are not among them; one of the same equipment begins when the one before has ended.
        """
        staying = {id(probe) for probe in probes}
        leaving = [crew for crew in self._crews if id(crew.probe) not in staying]
        running = {id(crew.probe): crew for crew in self._crews}
        self._crews = [running.get(id(probe)) or self._crew(probe) for probe in probes]
        for worker in [worker for crew in leaving for worker in crew.workers]:
            worker.retire()
        self._forget(leaving)
        if self._group is not None:
            coming = [crew for crew in self._crews if id(crew.probe) not in running]
            self._group.create_task(self._relieve(leaving, coming))

    async def _relieve(self, leaving: Sequence[_Crew], coming: Sequence[_Crew]) -> None:
        """End the tasks of *leaving*, start those of *coming*, then close what has left."""
        tasks = [task for crew in leaving for task in crew.tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=RELIEVE_S)
        self._forget(leaving)  # a poll may have been counted in the moment before its end
        for crew in coming:
            if crew in self._crews:  # it may have been relieved itself meanwhile
                self._start(crew)
        await _close([crew.probe for crew in leaving])

    def _forget(self, left: Sequence[_Crew]) -> None:
        """Count equipment of *left* no more, unless another probe looks at it now."""
        for name in {crew.probe.equipment for crew in left} - {crew.probe.equipment for crew in self._crews}:
            self._tally.forget(name)

    def _start(self, crew: _Crew) -> None:
        if self._group is not None:
            crew.tasks = [self._group.create_task(worker.run()) for worker in crew.workers]

    def _crew(self, probe: Probe) -> _Crew:
        self._tally.know(probe.equipment)
        if _is_polled(probe):
            lanes = [_LaneWorker(probe, lane, self._clock, self._publish, self._tally) for lane in probe.lanes]
            return _Crew(probe, list(lanes))
        if _is_stream(probe):
            return _Crew(probe, [_StreamWorker(probe, self._clock, self._publish, self._tally)])
        return _Crew(probe, [])

    @property
    def _workers(self) -> list[_Worker]:
        return [worker for crew in self._crews for worker in crew.workers]

    def look(self, points: Sequence[PointId], not_before: float, until: float) -> None:
        """
        Pull forward what brings *points*: asked at once and again and again between these boot seconds.

        Points that no probe brings are told in the log; nothing can be seen of them.
        """
        now = self._clock.now().boot_s
        wanted = frozenset(points)
        for worker in self._workers:
            if wanted & worker.points:
                worker.gaze.ask(not_before, until, now)
                worker.nudged.set()
        if lost := wanted.difference(*(worker.points for worker in self._workers)):
            log.warning("look.no_probe points=%s", ",".join(sorted(lost)))

    def unlook(self, points: Sequence[PointId]) -> None:
        """End every look at what brings *points*."""
        for worker in self._workers:
            if worker.points.intersection(points):
                worker.gaze.end = -math.inf

    def stats(self) -> PollerStats:
        """Return what was done since start."""
        return self._tally.stats()


class _LaneWorker:
    """Asks one lane on an absolute schedule. A slot that passes while a poll is in flight is left out, not made up."""

    def __init__(self, probe: PolledProbe, lane: Lane, clock: Clock, publish: Publish, tally: Tally) -> None:
        self.points = frozenset(_point(probe.equipment, name) for name in lane.points)
        self.gaze = _Gaze()
        self.nudged = asyncio.Event()
        self._probe = probe
        self._lane = lane
        self._clock = clock
        self._publish = publish
        self._tally = tally
        self._silence = _Silence(f"{probe.equipment}.{lane.name}")
        self._left: asyncio.Task[Readings] | None = None

    def retire(self) -> None:
        """Publish nothing any more."""
        self._publish = _unheard

    async def run(self) -> None:
        """Ask at each slot, and in between while somebody looks."""
        loop = asyncio.get_running_loop()
        first = loop.time() + phase_s(self._probe.equipment, self._lane)
        due, asked = first, -math.inf
        while True:
            boot_ahead_s = self._clock.now().boot_s - loop.time()
            look = self.gaze.next_at(loop.time() + boot_ahead_s, asked + boot_ahead_s + LOOK_GAP_S) - boot_ahead_s
            wake = min(due, look)
            if wake - loop.time() > TIMER_SLACK_S:
                await _wait(self.nudged, wake)
                continue
            asked = max(wake, loop.time())
            if asked >= due:
                self._tally.slot(asked - due)
            await self._ask()
            due = _next_slot(first, self._lane.period_s, asked, loop.time())

    async def _ask(self) -> None:
        """Ask once and publish what came of it."""
        asked_at = self._clock.now().boot_s
        if self._left is not None and not self._left.done():
            self._failed(asked_at, "timed_out", "an earlier poll has not ended")
            return
        self._left = None
        self._tally.poll(self._probe.equipment)
        task = asyncio.ensure_future(self._probe.poll(self._lane.name))
        try:
            await asyncio.wait({task}, timeout=self._lane.deadline_s)
            if task.done():
                self._settled(task, asked_at)
            else:
                self._failed(asked_at, "timed_out", f"no answer within {self._lane.deadline_s:g} s")
        finally:
            await self._let_go(task)

    async def _let_go(self, task: asyncio.Task[Readings]) -> None:
        """Cancel *task* when it still runs; if it does not end even so, leave it, and ask no more beside it."""
        if task.done():
            return
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        if not task.done():
            self._left = task
            self._tally.abandoned += 1
            log.error("probe.swallows_cancellation target=%s", self._silence.target)
            return
        if not task.cancelled():
            task.exception()  # it is late either way; asked for, so that asyncio does not complain of it

    def _settled(self, task: asyncio.Task[Readings], asked_at: float) -> None:
        if task.cancelled():
            self._failed(asked_at, "failed", "the probe cancelled itself")
        elif (error := task.exception()) is None:
            if isinstance(readings := task.result(), Mapping):
                self._answered(asked_at, readings)
            else:
                self._failed(asked_at, "failed", f"the probe returned {readings!r}")
        elif isinstance(error, ProbeFault):
            self._failed(asked_at, _fault_name(error.fault), error.detail)
        else:
            self._failed(asked_at, "failed", repr(error), error)

    def _answered(self, asked_at: float, readings: Readings) -> None:
        now = self._clock.now().boot_s
        seen = [
            _observation(_point(self._probe.equipment, name), readings[name], asked_at, now, self._probe.channel)
            for name in self._lane.points
            if name in readings
        ]
        self._silence.ended(now)
        if seen:
            self._publish(seen)

    def _failed(self, asked_at: float, fault: str, detail: str, error: BaseException | None = None) -> None:
        now = self._clock.now().boot_s
        self._tally.fault(self._probe.equipment)
        self._silence.began(now, fault, detail, error)
        points = [_point(self._probe.equipment, name) for name in self._lane.points]
        self._publish([_unknown(point, fault, asked_at, now, self._probe.channel) for point in points])


class _StreamWorker:
    """Keeps one stream running: a crash makes its points unknown and starts it again after a back-off."""

    def __init__(self, probe: StreamProbe, clock: Clock, publish: Publish, tally: Tally) -> None:
        self.points = frozenset(_point(probe.equipment, name) for name in probe.specs)
        self.gaze = _Gaze()
        self.nudged = asyncio.Event()
        self._probe = probe
        self._clock = clock
        self._publish = publish
        self._tally = tally
        self._silence = _Silence(probe.equipment)
        self._is_retired = False

    def retire(self) -> None:
        """Publish nothing any more; a stream that swallows its cancellation goes on, unheard."""
        self._is_retired = True

    async def run(self) -> None:
        """Run the stream, again and again."""
        loop = asyncio.get_running_loop()
        back_off_s = RESTART_FIRST_S
        while True:
            started, asked_at = loop.time(), self._clock.now().boot_s
            stream = asyncio.ensure_future(self._probe.run(self._news))
            looking = asyncio.ensure_future(self._look())
            try:
                await asyncio.wait({stream, looking}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end((stream, looking), self._tally)
            if not stream.done():
                await asyncio.wait({stream})  # its `look` failed and it will not go: two of it would be worse than none
            self._crashed(stream if stream.done() else looking, asked_at)
            back_off_s = RESTART_FIRST_S if loop.time() - started >= RESTART_PROVEN_S else back_off_s
            await asyncio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, RESTART_MAX_S)

    def _news(self, observations: Sequence[Observation]) -> None:
        if self._is_retired:
            return
        self._tally.poll(self._probe.equipment)
        if any(observation.fault is not None for observation in observations):
            self._tally.fault(self._probe.equipment)
        self._silence.ended(self._clock.now().boot_s)
        self._publish(observations)

    async def _look(self) -> None:
        """Ask the stream to look now, as long as somebody looks."""
        loop = asyncio.get_running_loop()
        asked = -math.inf
        while True:
            boot_ahead_s = self._clock.now().boot_s - loop.time()
            earliest = asked + boot_ahead_s + STREAM_LOOK_GAP_S
            wake = self.gaze.next_at(loop.time() + boot_ahead_s, earliest) - boot_ahead_s
            if wake - loop.time() > TIMER_SLACK_S:
                await _wait(self.nudged, wake)
                continue
            asked = max(wake, loop.time())
            self._probe.look()

    def _crashed(self, task: asyncio.Task[None], asked_at: float) -> None:
        """Publish that nothing is known any more."""
        error = None if task.cancelled() else task.exception()
        fault = _fault_name(error.fault) if isinstance(error, ProbeFault) else "failed"
        now = self._clock.now().boot_s
        self._tally.restart(self._probe.equipment)
        self._silence.began(now, fault, repr(error), None if isinstance(error, ProbeFault) else error)
        self._publish([_unknown(point, fault, asked_at, now, self._probe.channel) for point in sorted(self.points)])


class _Silence:
    """Tells in the log when a target goes silent and when it is back: once each, and not of every poll."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._since: float | None = None

    def began(self, now: float, fault: str, detail: str, error: BaseException | None = None) -> None:
        """Tell of the first of a row of failures; *error* when it is a mistake in the probe."""
        if self._since is None:
            self._since = now
            words = (self.target, fault, _plain(detail))
            log.warning("target.silent target=%s fault=%s detail=%s", *words, exc_info=error)

    def ended(self, now: float) -> None:
        """Tell that the target answers again, and how long it did not."""
        if self._since is not None:
            log.info("target.back target=%s silent_s=%.1f", self.target, now - self._since)
            self._since = None


def _unheard(observations: Sequence[Observation]) -> None:
    """Take *observations* of a probe that has been replaced, and let them go."""


def _is_polled(probe: Probe) -> TypeGuard[PolledProbe]:
    return hasattr(probe, "lanes")


def _is_stream(probe: Probe) -> TypeGuard[StreamProbe]:
    return not hasattr(probe, "lanes")


def _point(equipment: str, name: str) -> PointId:
    return PointId(f"{equipment}.{name}")


def _observation(point: PointId, reading: object, asked_at: float, answered_at: float, channel: str) -> Observation:
    """Return *reading* as an observation. What is no value, or a number that is none, is a bad reply."""
    value = reading.value if isinstance(reading, Suspect) else reading
    if not isinstance(value, bool | int | float | str | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        return _unknown(point, "bad_reply", asked_at, answered_at, channel)
    if isinstance(reading, Suspect):
        return Observation(point, value, Quality.SUSPECT, asked_at, answered_at, channel, _plain(reading.reason))
    return Observation(point, value, Quality.GOOD, asked_at, answered_at, channel)


def _unknown(point: PointId, fault: str, asked_at: float, answered_at: float, channel: str) -> Observation:
    return Observation(point, None, Quality.UNKNOWN, asked_at, answered_at, channel, fault)


def _fault_name(fault: str) -> str:
    return fault if fault in FAULTS else "failed"


def _plain(text: str) -> str:
    """Return *text* without control characters and within 120 characters: it may come from a device."""
    return "".join(character if character.isprintable() else " " for character in text)[:REASON_CHARS_MAX]


def _next_slot(first: float, period_s: float, taken: float, now: float) -> float:
    """Return the first slot behind *taken* that is not before *now*. Slots are *first* plus whole periods."""
    slot = max(math.floor((taken - first) / period_s + 1e-9) + 1, math.ceil((now - first) / period_s - 1e-9), 0)
    return first + slot * period_s


async def _wait(nudged: asyncio.Event, until: float) -> None:
    """Wait for loop time *until* or a nudge, whichever comes first."""
    nudged.clear()
    try:
        async with asyncio.timeout_at(None if math.isinf(until) else until):
            await nudged.wait()
    except TimeoutError:
        pass


async def _close(probes: Sequence[Probe]) -> None:
    """Close every polled probe among *probes*, each within its time."""
    closing = [asyncio.ensure_future(probe.close()) for probe in probes if _is_polled(probe)]
    if not closing:
        return
    done, late = await asyncio.wait(closing, timeout=CLOSE_S)
    for task in late:
        task.cancel()
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("probe.not_closed error=%s", _plain(repr(error)))


async def _end(tasks: Sequence[asyncio.Task[None]], tally: Tally) -> None:
    """Cancel *tasks* and wait for their end; one that swallows its cancellation is counted and left."""
    for task in tasks:
        task.cancel()
    _, stubborn = await asyncio.wait(tasks, timeout=CANCEL_GRACE_S)
    tally.abandoned += len(stubborn)
