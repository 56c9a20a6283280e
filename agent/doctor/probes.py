"""Tries every probe of the site once, all at the same time, each within its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeGuard, cast

from agent.app import built_probes
from agent.core.model import Observation
from agent.doctor.asked import Asked, Heard, Reading
from agent.doctor.finding import Finding, Patient
from agent.doctor.readings import READINGS
from agent.errors import ProbeFault
from agent.ports import Lane, PolledProbe, Probe, Readings, StreamProbe

LANE_S_MAX: Final = 15.0
STREAM_S: Final = 3.5  # a service at headquarters is given up after 3 s, and that is to be heard
END_S: Final = 1.0


async def try_probes(patient: Patient) -> list[Finding]:
    """Return what each probe found, in the order of the site file."""
    groups = await asyncio.gather(*(try_one(patient, probe) for probe in built_probes(patient.config, patient.around)))
    return [finding for group in groups for finding in group]


async def try_one(patient: Patient, probe: Probe) -> list[Finding]:
    """Return what one probe found."""
    kind, own = patient.config.probe_configs[probe.equipment]
    asked, reading = Asked(patient, probe.equipment, kind, own), READINGS.get(kind, Reading())
    if is_stream(probe):
        return reading.stream(asked, await listen(asked, probe, reading))
    polled = cast(PolledProbe, probe)
    try:
        return await asyncio.gather(*(try_lane(asked, polled, lane, reading) for lane in polled.lanes))
    finally:
        await settled(asyncio.ensure_future(polled.close()), END_S)


def is_stream(probe: Probe) -> TypeGuard[StreamProbe]:
    """Tell a probe that keeps its own rhythm from one that is asked."""
    return not hasattr(probe, "lanes")


async def try_lane(asked: Asked, probe: PolledProbe, lane: Lane, reading: Reading) -> Finding:
    """Return what *lane* brought, or why it brought nothing."""
    answer = await ask_lane(probe, lane)
    if isinstance(answer, ProbeFault):
        return await reading.fault(asked, lane, answer)
    return reading.lane(asked, lane, answer)


async def ask_lane(probe: PolledProbe, lane: Lane) -> Readings | ProbeFault:
    """Return the readings of *lane*, or why there are none."""
    within_s = min(lane.deadline_s, LANE_S_MAX)
    answer = await settled(asyncio.ensure_future(probe.poll(lane.name)), within_s)
    if isinstance(answer, TimeoutError):
        return ProbeFault("timed_out", f"no answer within {within_s:g} s")
    if isinstance(answer, BaseException) and not isinstance(answer, ProbeFault):
        return ProbeFault("failed", repr(answer))
    found: Readings | ProbeFault = answer
    return found


async def settled(task: asyncio.Future[Any], within_s: float) -> Any:
    """Return the result of *task*, or its error; a TimeoutError when it does not end in time and is cancelled."""
    await asyncio.wait({task}, timeout=within_s)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=END_S)
        return TimeoutError()
    if task.cancelled():
        return ProbeFault("failed", "it cancelled itself")
    return task.exception() or task.result()


async def listen(asked: Asked, probe: StreamProbe, reading: Reading) -> Heard:
    """Run a stream until it has told enough, or its time is up; return the last word on each point."""
    seen: dict[str, Observation] = {}
    told = asyncio.Event()

    def publish(observations: Sequence[Observation]) -> None:
        seen.update({str(one.point).partition(".")[2]: one for one in observations})
        if reading.is_enough(asked, Heard(probe.specs, seen)):
            told.set()

    stream = asyncio.ensure_future(probe.run(publish))
    waiting = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({stream, waiting}, timeout=STREAM_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        ended = await settled(stream, 0)
    is_crash = isinstance(ended, BaseException) and not isinstance(ended, TimeoutError)
    return Heard(probe.specs, seen, repr(ended) if is_crash else None)
