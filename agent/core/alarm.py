"""
An alarm: one measure with a ladder of tiers, each rung with its own enter, leave, on-delay and off-delay.

Every rung is a machine of four states. It becomes pending when its conditions hold, active when they have held for the
on-delay, clearing when they are left, and normal when they have stayed left for the off-delay. Not seeing is neither:
a pending rung goes on towards active (silence must not hide a fault), a clearing one goes back to active (silence must
not clear one). The alarm keeps one id from the first rung that becomes active until the last is normal; its tier is that
of the highest rung that is active or clearing.

Terms after ISA-18.2 (on-delay, off-delay, deadband) and the Prometheus words pending and firing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from agent.core.judge import Condition, Verdict
from agent.core.model import AlarmKey, At, PointId, Tier, worst


class AlarmState(StrEnum):
    """Where a rung stands."""

    NORMAL = "normal"
    PENDING = "pending"
    ACTIVE = "active"
    CLEARING = "clearing"


class Seen(StrEnum):
    """What may happen to a rung."""

    BAD = "bad"
    GOOD = "good"
    BETWEEN = "between"
    UNKNOWN = "unknown"
    ELAPSED = "elapsed"


S = AlarmState

TRANSITIONS: Final[Mapping[tuple[AlarmState, Seen], AlarmState]] = {
    (S.NORMAL, Seen.BAD): S.PENDING,
    (S.PENDING, Seen.GOOD): S.NORMAL,
    (S.PENDING, Seen.BETWEEN): S.NORMAL,  # the condition must hold without a break
    (S.PENDING, Seen.ELAPSED): S.ACTIVE,
    (S.ACTIVE, Seen.GOOD): S.CLEARING,
    (S.CLEARING, Seen.BAD): S.ACTIVE,
    (S.CLEARING, Seen.BETWEEN): S.ACTIVE,  # clearing must hold without a break too
    (S.CLEARING, Seen.UNKNOWN): S.ACTIVE,
    (S.CLEARING, Seen.ELAPSED): S.NORMAL,
}  # a pair that is not listed keeps the state

FLAP_ACTIVATIONS: Final = 4  # this many activations ...
FLAP_WINDOW_S: Final = 600.0  # ... within this time is flapping, and then
FLAP_OFF_DELAY_S: Final = 600.0  # clearing takes at least this long

TIERS: Final = {str(tier): tier for tier in Tier}
SEEN_AS: Final = {
    Verdict.BAD: Seen.BAD,
    Verdict.GOOD: Seen.GOOD,
    Verdict.BETWEEN: Seen.BETWEEN,
    Verdict.UNKNOWN: Seen.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Rung:
    """One tier of an alarm's ladder. Delays in seconds."""

    tier: Tier
    enter: tuple[Condition, ...]
    leave: tuple[Condition, ...]
    on_delay_s: float = 0.0
    off_delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """
    One alarm of one piece of equipment: its ladder, lowest tier first.

    `acts`: whether it may move a runbook (a degraded line warns, a dead one acts). `text` says it in plain words.
    """

    key: AlarmKey
    equipment: str
    name: str
    rungs: tuple[Rung, ...]
    text: str
    acts: bool = False
    looks_at: frozenset[PointId] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Collect once what is asked for at every observation."""
        looks_at = frozenset(c.point for rung in self.rungs for c in rung.enter + rung.leave)
        object.__setattr__(self, "looks_at", looks_at)

    def points(self) -> frozenset[PointId]:
        """Return every point that the ladder looks at."""
        return self.looks_at


@dataclass(frozen=True, slots=True)
class RungState:
    """Where one rung stands; `deadline_s` (boot seconds) ends a pending or clearing time."""

    state: AlarmState = AlarmState.NORMAL
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """
    An alarm that is not wholly normal. `id` is given when the first rung becomes active.

    `blind`: became active while it could not be seen; it warns, and permits no act until it is seen bad.
    `unconfirmed`: not yet seen since the agent started.
    """

    key: AlarmKey
    since: At
    rungs: Mapping[str, RungState] = field(default_factory=dict)
    id: str | None = None
    blind: bool = False
    unconfirmed: bool = False
    older_than_start: bool = False

    def tier(self) -> Tier:
        """Return the highest tier that is active or clearing, OK when none is."""
        return worst([TIERS[t] for t, r in self.rungs.items() if r.state is S.ACTIVE or r.state is S.CLEARING])

    def state(self) -> AlarmState:
        """Return the furthest state of any rung: active, then clearing, then pending, then normal."""
        states = {rung.state for rung in self.rungs.values()}
        for state in (S.ACTIVE, S.CLEARING, S.PENDING):
            if state in states:
                return state
        return S.NORMAL

    def deadline_s(self) -> float | None:
        """Return the nearest deadline of its rungs, in boot seconds."""
        return min((r.deadline_s for r in self.rungs.values() if r.deadline_s is not None), default=None)


def step(rung: Rung, at: RungState, seen: Seen, now_s: float, off_delay_s: float) -> RungState:
    """Return *at* after one piece of evidence at *now_s* (boot seconds); a zero delay is passed through at once."""
    target = TRANSITIONS.get((at.state, seen), at.state)
    if target is at.state:
        return at
    delay_s = {S.PENDING: rung.on_delay_s, S.CLEARING: off_delay_s}.get(target)
    moved = replace(at, state=target, deadline_s=None if delay_s is None else now_s + delay_s)
    return step(rung, moved, Seen.ELAPSED, now_s, off_delay_s) if delay_s is not None and delay_s <= 0 else moved


def advance(rung: Rung, at: RungState, verdict: Verdict, now_s: float, off_delay_s: float) -> RungState:
    """Return *at* after the evidence of now and, if its deadline has come, after that too."""
    moved = step(rung, at, SEEN_AS[verdict], now_s, off_delay_s)
    if moved.deadline_s is not None and now_s >= moved.deadline_s:
        return step(rung, moved, Seen.ELAPSED, now_s, off_delay_s)
    return moved


def off_delay_s(rung: Rung, activations: tuple[float, ...], now_s: float) -> float:
    """Return the off-delay of *rung*, longer while the alarm flaps. *activations* are boot seconds."""
    recent = sum(1 for at in activations if now_s - at <= FLAP_WINDOW_S)
    return max(rung.off_delay_s, FLAP_OFF_DELAY_S) if recent >= FLAP_ACTIVATIONS else rung.off_delay_s


def rebase(spec: AlarmSpec, alarm: Alarm, now_s: float) -> Alarm:
    """Return *alarm* with every running delay started anew at *now_s* (after a reboot or a time gap)."""
    delays = {str(r.tier): r for r in spec.rungs}
    rungs: dict[str, RungState] = {}
    for tier, at in alarm.rungs.items():
        rung = delays.get(tier)
        if at.deadline_s is not None and rung is not None:
            delay_s = rung.on_delay_s if at.state is S.PENDING else rung.off_delay_s
            rungs[tier] = replace(at, deadline_s=now_s + delay_s)
        else:
            rungs[tier] = at
    return replace(alarm, rungs=rungs)
