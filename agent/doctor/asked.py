"""One probe that was tried, and how its answers are read where its kind says nothing of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.core.model import Observation, PointSpec, Quality
from agent.doctor.finding import Finding, Patient, note, ok, wrong
from agent.errors import ProbeFault
from agent.ports import Lane, Readings, Suspect

FAULTS: Final = {  # fault -> in plain words, where the detail of the fault does not say it
    "refused": "the connection is refused",
    "timed_out": "no answer in time",
    "closed": "the connection ended in the middle",
    "unreachable": "the network knows no way there",
    "send_failed": "the kernel sends nothing there",
    "binding_failed": "the probes do not leave by this line",
    "access_denied": "access is denied",
    "bad_reply": "the answer breaks the protocol",
}
CURES: Final = {
    "refused": "start the service there, or mend its address",
    "timed_out": "look whether it is up and whether a firewall stands between",
    "closed": "look into its log: it hangs up on us",
    "unreachable": "look at address and routes",
    "send_failed": "look at address, routes and firewall of this host",
    "access_denied": "let this host in there",
    "bad_reply": "look what really listens there",
}
OTHERWISE: Final = "look into the detail; docs/probes.md says what the probe needs"


@dataclass(frozen=True, slots=True)
class Asked:
    """One piece of equipment whose probe is tried: the kind of its probe, and the site file's keys for it."""

    patient: Patient
    equipment: str
    kind: str
    config: Any


@dataclass(frozen=True, slots=True)
class Heard:
    """What a stream told: the last word on each of its points by name, and how it crashed, None when it did not."""

    specs: Mapping[str, PointSpec]
    seen: Mapping[str, Observation]
    crash: str | None = None

    def value(self, point: str) -> Any:
        """Return the value of *point* where it was seen well, else None."""
        one = self.seen.get(point)
        return one.value if one is not None and one.quality is Quality.GOOD else None

    def fault(self, point: str) -> str | None:
        """Return the fault that hid *point*, None where there was none."""
        one = self.seen.get(point)
        return one.fault if one is not None else None


async def read_fault(asked: Asked, lane: Lane, fault: ProbeFault) -> Finding:
    """Return what kept *lane* from answering."""
    return wrong(about(asked, lane), fault_text(fault.fault, fault.detail), CURES.get(fault.fault, OTHERWISE))


def read_lane(asked: Asked, lane: Lane, readings: Readings) -> Finding:
    """Return what *lane* brought: a doubtful value is told, and so is what the device does not have."""
    doubts = [f"{point}: {value.reason}" for point, value in readings.items() if isinstance(value, Suspect)]
    if doubts:
        return note(about(asked, lane), f"answers, but {'; '.join(doubts)}")
    return ok(about(asked, lane), f"answers, {len(readings)} of {len(lane.points)} values")


def read_stream(asked: Asked, heard: Heard) -> list[Finding]:
    """Return what a stream told of each of its points together."""
    if heard.crash is not None:
        return [wrong(asked.equipment, f"the probe ended: {heard.crash}", OTHERWISE)]
    faults = sorted({fault for point in heard.specs if (fault := heard.fault(point)) is not None})
    if faults:
        return [wrong(asked.equipment, "; ".join(map(fault_text, faults)), CURES.get(faults[0], OTHERWISE))]
    if not heard.seen:
        return [wrong(asked.equipment, "nothing was told in time", CURES["timed_out"])]
    return [ok(asked.equipment, f"{len(heard.seen)} of {len(heard.specs)} points are told")]


def is_all_told(asked: Asked, heard: Heard) -> bool:
    """Tell whether every point was spoken of."""
    return heard.specs.keys() <= heard.seen.keys()


@dataclass(frozen=True, slots=True)
class Reading:
    """
    How the answers of one kind of probe are read.

    `is_enough`: a stream has told all that is to be known; until then it runs on, as long as it may.
    """

    lane: Callable[[Asked, Lane, Readings], Finding] = read_lane
    fault: Callable[[Asked, Lane, ProbeFault], Awaitable[Finding]] = read_fault
    stream: Callable[[Asked, Heard], list[Finding]] = read_stream
    is_enough: Callable[[Asked, Heard], bool] = is_all_told


def about(asked: Asked, lane: Lane) -> str:
    """Return what a finding on *lane* is about."""
    return f"{asked.equipment} {lane.name}"


def fault_text(fault: str, detail: str = "") -> str:
    """Return a fault in plain words, with its detail."""
    plain = FAULTS.get(fault, fault.replace("_", " "))
    return f"{plain} ({detail})" if detail else plain
