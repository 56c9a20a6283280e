"""Tries every probe of the site once, all at the same time, each within its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeGuard

from agent.app import built_probes
from agent.core.model import Observation
from agent.doctor.answers import READINGS, Asked, Seen, read_lane, read_stream
from agent.doctor.finding import Finding, Patient
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
    asked = Asked(patient, probe.equipment, kind, own)
    if is_polled(probe):
        answers = await ask_lanes(probe)
        return [await read_lane(asked, lane, answer) for lane, answer in zip(probe.lanes, answers, strict=True)]
    assert not is_polled(probe)
    return await read_stream(asked, probe.specs, await listen(asked, probe))


def is_polled(probe: Probe) -> TypeGuard[PolledProbe]:
    """Tell a probe that is asked from one that keeps its own rhythm."""
    return hasattr(probe, "lanes")


async def ask_lanes(probe: PolledProbe) -> list[Readings | ProbeFault]:
    """Return what each lane brings, or why it brings nothing."""
    try:
        return await asyncio.gather(*(ask_lane(probe, lane) for lane in probe.lanes))
    finally:
        await settled(asyncio.ensure_future(probe.close()), END_S)


async def ask_lane(probe: PolledProbe, lane: Lane) -> Readings | ProbeFault:
    """Return what *lane* brings, or why it brings nothing."""
    within_s = min(lane.deadline_s, LANE_S_MAX)
    found = await settled(asyncio.ensure_future(probe.poll(lane.name)), within_s)
    if isinstance(found, TimeoutError):
        return ProbeFault("timed_out", f"no answer within {within_s:g} s")
    if isinstance(found, BaseException) and not isinstance(found, ProbeFault):
        return ProbeFault("failed", repr(found))
    answer: Readings | ProbeFault = found
    return answer


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


async def listen(asked: Asked, probe: StreamProbe) -> Seen:
    """Run a stream until it has told enough, or its time is up; return the last word on each point."""
    seen: Seen = {}
    told = asyncio.Event()
    is_enough = READINGS[asked.kind].is_enough if asked.kind in READINGS else None

    def publish(observations: Sequence[Observation]) -> None:
        seen.update({str(one.point).partition(".")[2]: one for one in observations})
        if probe.specs.keys() <= seen.keys() or (is_enough is not None and is_enough(asked, seen)):
            told.set()

    stream = asyncio.ensure_future(probe.run(publish))
    waiting = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({stream, waiting}, timeout=STREAM_S, return_when=asyncio.FIRST_COMPLETED)
        if stream.done() and not stream.cancelled() and (error := stream.exception()) is not None:
            asked.crashes.append(repr(error))
    finally:
        for task in (stream, waiting):
            await settled(task, 0)
    return seen
