"""
The words that every part of the core shares: instants, points, observations, events, records and effects.

An event is what reaches the core; a record is what the core decided, and the only thing that changes durable state; an
effect is what has to be done outside once its records are durable.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

Value = bool | int | float | str | None

PointId = NewType("PointId", str)  # "<equipment>.<point>", as in "wan1.hq.loss_ratio"
AlarmKey = NewType("AlarmKey", str)  # "<equipment>.<alarm>", as in "wan1.hq_dead"


@dataclass(frozen=True, slots=True)
class At:
    """One moment: seconds of boot time (suspend included) within a boot, and UTC seconds beside it for people."""

    boot_id: str
    boot_s: float
    utc_s: float


class Quality(StrEnum):
    """How far an observation can be trusted."""

    GOOD = "good"
    SUSPECT = "suspect"
    UNKNOWN = "unknown"


class Tier(StrEnum):
    """A judgement's weight. UNKNOWN stands beside the ladder, not on it."""

    OK = "ok"
    YELLOW = "yellow"
    ORANGE = "orange"
    RED = "red"
    UNKNOWN = "unknown"


SEVERITY: Final = {Tier.OK: 0, Tier.UNKNOWN: 1, Tier.YELLOW: 2, Tier.ORANGE: 3, Tier.RED: 4}


def worst(tiers: list[Tier] | tuple[Tier, ...]) -> Tier:
    """Return the heaviest of *tiers*, OK when there is none."""
    return max(tiers, key=SEVERITY.__getitem__, default=Tier.OK)


class Mode(StrEnum):
    """How far a runbook may go by itself."""

    OFF = "off"
    WATCH = "watch"
    ASK = "ask"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class PointSpec:
    """
    What a point is: its unit ("", "s", "ratio", "percent", "volt", "hertz", "celsius", "bool", "bytes", "state"), how
    often a fresh value is expected, and how far it must move before points.db keeps a new row.
    """

    unit: str
    period_s: float
    text: str
    deadband: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What one probe saw of one point, or why it could not look.

    `asked_at` and `answered_at` are boot seconds. `since` is, where the probe keeps a history itself, the send time of
    the first piece of evidence for the present value (of a line: the first lost probe of the present run of losses).
    `source` is the channel by which it came, as in "nut:192.0.2.9:3493". `fault` names what hid the value.
    """

    point: PointId
    value: Value
    quality: Quality
    asked_at: float
    answered_at: float
    source: str
    fault: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """An observation as a decision used it, kept in the decision's record."""

    point: PointId
    value: Value
    quality: Quality
    age_s: float | None
    source: str


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Started:
    """The agent is up. `journal_intact` False means safe mode: watch and notify, do not act."""

    version: str
    site_digest: str
    journal_intact: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """Observations of one target, of one moment."""

    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Ticked:
    """A deadline may have come; nothing else happened."""


@dataclass(frozen=True, slots=True)
class TimeGap:
    """We were suspended, stopped or starved for `gap_s` seconds: nothing that we knew is fresh any more."""

    gap_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """UTC moved against boot time by `step_s` seconds. Recorded; changes no point and no deadline."""

    step_s: float


class Outcome(StrEnum):
    """What became of a request that carries a key."""

    DONE = "done"  # the command returned well
    FAILED = "failed"  # the command returned with an error; the plant may have moved
    REFUSED = "refused"  # the executor refused before it touched anything
    UNCERTAIN = "uncertain"  # accepted, no result on record: it may or may not have been performed
    NEVER = "never"  # the executor has no record of the key


@dataclass(frozen=True, slots=True)
class CommandSent:
    """The executor has durably accepted the request of this key."""

    key: str


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """The answer for a key: of a performance, or of a question after a restart."""

    key: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EvidenceExpired:
    """Between decision and departure the evidence of this request grew too old; the step asks again."""

    key: str


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """The journal can, or cannot, make records durable. Without it no new run starts."""

    durable: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HoldAsked:
    """A person wants no new command to leave, for `for_s` seconds or (None) until released."""

    owner: str
    reason: str
    let_finish: bool
    for_s: float | None


@dataclass(frozen=True, slots=True)
class ReleaseAsked:
    """A person ends the hold. It resumes no run by itself."""

    owner: str


class Choice(StrEnum):
    """What a person wants done with a run that stands still."""

    GO_ON = "go-on"
    UNDO = "undo"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class RunChosen:
    """A person decides about a run that waits or is held."""

    owner: str
    run: str
    choice: Choice


@dataclass(frozen=True, slots=True)
class ApproveAsked:
    """A person approves a run that asks."""

    owner: str
    run: str


@dataclass(frozen=True, slots=True)
class ResetAsked:
    """A person lifts the lockout of a runbook."""

    owner: str
    runbook: str


@dataclass(frozen=True, slots=True)
class AckAsked:
    """A person has taken note of an alarm (`id` "A7"), or of every alarm that stands in an incident ("I3")."""

    owner: str
    id: str


@dataclass(frozen=True, slots=True)
class ShelveAsked:
    """A person wants to hear nothing of an alarm for `for_s` seconds. It is judged and acted on all the same."""

    owner: str
    alarm: AlarmKey
    for_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class UnshelveAsked:
    """A person wants to hear of a shelved alarm again."""

    owner: str
    alarm: AlarmKey


@dataclass(frozen=True, slots=True)
class LiftAsked:
    """A person ends the quiet time of a runbook."""

    owner: str
    runbook: str


@dataclass(frozen=True, slots=True)
class RunAsked:
    """A person orders a run of this runbook, whatever the cause."""

    owner: str
    runbook: str


@dataclass(frozen=True, slots=True)
class AbortAsked:
    """A person wants a run to go no further, and what it has done to be taken back."""

    owner: str
    run: str


Asked = (
    HoldAsked
    | ReleaseAsked
    | RunChosen
    | ApproveAsked
    | ResetAsked
    | AckAsked
    | ShelveAsked
    | UnshelveAsked
    | LiftAsked
    | RunAsked
    | AbortAsked
)  # what people ask for

Event = (
    Started
    | Observed
    | Ticked
    | TimeGap
    | ClockStepped
    | CommandSent
    | CommandEnded
    | EvidenceExpired
    | JournalHealth
    | Asked
)


# ---------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Evidence:
    """A point that a request rests on, and how old it may be when the request leaves."""

    point: PointId
    max_age_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """
    One command for the executor. `key` is the same for every resend of one attempt, so that a repeated request is
    answered from the executor's record. `wanted` is data of the verb, as in (("to", "wan2"),).
    """

    key: str
    verb: str
    wanted: tuple[tuple[str, Value], ...]
    undo: bool
    run: str
    step: int
    attempt: int
    resend: bool
    evidence: tuple[Evidence, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class Perform:
    """Hand this request to the executor."""

    request: Request


@dataclass(frozen=True, slots=True)
class AskOutcome:
    """Ask the executor what became of this key (after a restart)."""

    key: str


@dataclass(frozen=True, slots=True)
class Look:
    """Pull the probes of these points forward, as often as they allow, until `until` (boot seconds)."""

    points: tuple[PointId, ...]
    not_before: float
    until: float


Effect = Perform | AskOutcome | Look
