"""Tells what the agent decides in plain words, one line per decision, and keeps what has been shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent.core.incident import Cause
from agent.core.model import SEVERITY, At, Outcome, PointId, Quality, Value
from agent.core.records import (
    AlarmMoved,
    Body,
    GapSeen,
    HoldReleased,
    HoldSet,
    IncidentChanged,
    IncidentClosed,
    IncidentMerged,
    IncidentOpened,
    JournalTrouble,
    Locked,
    Record,
    Refused,
    RunEnded,
    RunOpened,
    StepDenied,
    StepIntended,
    StepResulted,
    StepVerified,
    StepWithdrawn,
)
from agent.core.run import RunState
from agent.core.runbook import Runbook
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work
from agent.views.parts import equipment_tier, points_by_equipment, site_tier
from drills.simsite.sentences import say

MS_PER_S: Final = 1000.0
MAINS_KIND: Final = "utility"


@dataclass(slots=True)
class Shown:
    """What the agent has been seen to do. `swap_ms`: from the break of the line to the proof, of the first swap."""

    swap_ms: float | None = None
    swapped: asyncio.Event = field(default_factory=asyncio.Event)
    returned: asyncio.Event = field(default_factory=asyncio.Event)
    mains: asyncio.Event = field(default_factory=asyncio.Event)
    mains_over: asyncio.Event = field(default_factory=asyncio.Event)

    def in_words(self) -> list[str]:
        """Return what was shown, in the order in which it is told."""
        told = [(self.swap_ms is not None, "shown_swap"), (self.returned.is_set(), "shown_return")]
        told.append((self.mains.is_set(), "shown_mains"))
        return [say(key, ms=self.swap_ms) for was_seen, key in told if was_seen]


class Narrator:
    """
    Knows the runbooks and the causes of *site*, which a reload may change. *state* gives the agent's present state,
    *broken_at* since when a line is broken on purpose (boot seconds), None when it is not.
    """

    def __init__(
        self, site: Callable[[], Site], state: Callable[[], State], broken_at: Callable[[str], float | None]
    ) -> None:
        self.shown = Shown()
        self._site = site
        self._state = state
        self._broken_at = broken_at
        self._books: dict[str, Runbook] = {}  # run -> its runbook
        self._commanded_at: dict[str, float] = {}
        self._causes: dict[str, Cause] = {}

    def tell(self, record: Record) -> list[str]:
        """Return the sentences for *record*, none for what a reader need not follow."""
        body, now_s = record.body, record.at.boot_s
        return [*self._trouble(body, now_s), *self._run(body, now_s), *self._rest(body)]

    def status(self, now: At) -> str:
        """Return in one line how the branch stands."""
        work = Work(self._site(), self._state(), now)
        points = points_by_equipment(work)
        answered, line = seen(work, "path.answered"), seen(work, "path.line")
        mains = seen(work, "ups-a.mains_present")
        mains_key = "mains_unknown" if mains is None else "mains_on" if mains else "mains_off"
        tiers = {name: str(equipment_tier(work, name, points.get(name, ()))) for name in ("wan1", "wan2")}
        by_line = answered is True and line is not None
        traffic = say("traffic_by", line=line) if by_line else say("traffic_none")
        return say("stands", traffic=traffic, mains=say(mains_key), site=site_tier(work), **tiers)

    # ------------------------------------------------------------ trouble

    def _trouble(self, body: Body, now_s: float) -> list[str]:
        match body:
            case AlarmMoved() if SEVERITY[body.tier] > SEVERITY[body.was]:
                spec = self._site().alarms[body.key]
                return [say("alarm", tier=body.tier, text=spec.text)]
            case IncidentOpened() | IncidentChanged():
                return self._incident(body)
            case IncidentMerged():
                return [say("incident_merged", id=body.id, into=body.into)]
            case IncidentClosed():
                cause = self._causes.pop(body.id, None)
                if cause is not None and cause.kind == MAINS_KIND:
                    self.shown.mains_over.set()
                return [say("incident_over", id=body.id, cause=cause.text if cause is not None else "")]
        return []

    def _incident(self, body: IncidentOpened | IncidentChanged) -> list[str]:
        before = self._causes.get(body.id)
        self._causes[body.id] = body.cause
        if body.cause.kind == MAINS_KIND:
            self.shown.mains.set()
        if before is not None and (before.text, before.settled) == (body.cause.text, body.cause.settled):
            return []
        key = "incident" if before is None else "incident_now"
        unsettled = "" if body.cause.settled else say("unsettled")
        return [say(key, id=body.id, cause=body.cause.text, unsettled=unsettled)]

    # ------------------------------------------------------------ runs

    def _run(self, body: Body, now_s: float) -> list[str]:
        match body:
            case Refused():
                return [say("refused", line=self._site().runbooks[body.runbook].leaves, why=body.text)]
            case RunOpened():
                book = self._books[body.run] = self._site().runbooks[body.runbook]
                key = "approval" if body.approved is False else "decided"
                return [say(key, run=body.run, leaves=book.leaves, enters=book.enters)]
            case StepIntended():
                self._commanded_at[body.run] = now_s
                words = dict(body.request.wanted)
                to = words.get("from" if body.request.undo else "to")
                key = "undoing" if body.request.undo else "commanded"
                return [say(key, run=body.run, verb=body.request.verb, to=to)]
            case StepWithdrawn():
                return [say("withdrawn", run=body.run, why=body.reason)]
            case StepResulted() if body.outcome is not Outcome.DONE:
                return [say("failed", run=body.run, outcome=body.outcome, detail=body.detail)]
            case StepVerified():
                return [self._proven(body, now_s)]
            case StepDenied():
                return [say("denied", run=body.run, why=body.reason)]
            case RunEnded() if body.end is not RunState.DONE:
                return [say("ended", run=body.run, end=body.end, why=body.reason)]
        return []

    def _proven(self, body: StepVerified, now_s: float) -> str:
        book = self._books[body.run]
        broken_at = None if book.is_return else self._broken_at(book.leaves)
        since_s = self._commanded_at[body.run] if broken_at is None else broken_at
        ms = (now_s - since_s) * MS_PER_S
        if book.is_return:
            self.shown.returned.set()
        else:
            self.shown.swap_ms = ms if self.shown.swap_ms is None else self.shown.swap_ms
            self.shown.swapped.set()
        since = say("since_command") if broken_at is None else say("since_broke", line=book.leaves)
        return say("proven", run=body.run, line=book.enters, ms=ms, since=since)

    # ------------------------------------------------------------ the rest

    @staticmethod
    def _rest(body: Body) -> list[str]:
        match body:
            case Locked():
                return [say("locked", runbook=body.runbook, why=body.reason)]
            case GapSeen():
                return [say("gap", gap_s=body.gap_s)]
            case HoldSet():
                return [say("hold", owner=body.owner, why=body.reason)]
            case HoldReleased():
                return [say("released", owner=body.owner)]
            case JournalTrouble() if not body.durable:
                return [say("journal", why=body.reason)]
        return []


def seen(work: Work, point: str) -> Value:
    """Return the value of *point* as it is seen now, None when it is not."""
    fact = work.points.fact(PointId(point), work.now_s)
    return fact.value if fact.quality is Quality.GOOD else None
