"""
State: a durable part that only records change, and a volatile part that is unknown after a restart.

Mappings are never changed in place: a new state shares what did not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from agent.core.alarm import Alarm
from agent.core.incident import Incident, IncidentState
from agent.core.judge import Points
from agent.core.model import AlarmKey, At, Fact, Observation, Outcome, PointId, Tier, Value
from agent.core.run import OPEN_STATES, Run
from agent.core.site import Site
from agent.core.topology import Raw

T = TypeVar("T")

CREDIBLE_S: Final = 30 * 86_400.0  # UTC that claims a longer absence than this is not believed
KEEP_ENDED: Final = 20  # ended incidents and runs that stay in state; older ones are in the journal
KEEP_SPENT: Final = 32  # runs that a budget remembers; more than any budget allows in its time


@dataclass(frozen=True, slots=True)
class Arrangement:
    """
    An abnormal arrangement that lasts: the site is on line `line` since `since`, by run `run`. `asked_by`: the person who
    ordered that run, and who then decides about the return too.
    """

    name: str
    runbook: str
    run: str
    incident: str
    line: str
    since: At
    asked_by: str | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """No new command leaves, for `for_s` seconds since `since` or until released."""

    owner: str
    reason: str
    let_finish: bool
    since: At
    for_s: float | None


@dataclass(frozen=True, slots=True)
class Lockout:
    """A runbook that a person must reset before it acts again."""

    runbook: str
    reason: str
    since: At
    incident: str


@dataclass(frozen=True, slots=True)
class Block:
    """A runbook that stays quiet for `for_s` seconds since `since`."""

    runbook: str
    reason: str
    since: At
    for_s: float


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A person has taken note of alarm `id` as it stood at `tier`; when it becomes heavier, that is new."""

    id: str
    owner: str
    tier: Tier
    at: At


@dataclass(frozen=True, slots=True)
class Shelf:
    """
    Nobody wants to hear of an alarm for `for_s` seconds since `since`. It is judged and acted on all the same, and when it
    becomes heavier than `tier` it is told of again.
    """

    owner: str
    reason: str
    tier: Tier
    since: At
    for_s: float

    def left_s(self, now: At) -> float:
        """
        Return how long it still lasts, zero or less when it is over. Over a reboot UTC counts; where that is not
        credible it is over, for a notice too many does less harm than one too few.
        """
        if self.since.boot_id == now.boot_id:
            return self.for_s - (now.boot_s - self.since.boot_s)
        gone_s = now.utc_s - self.since.utc_s
        return self.for_s - gone_s if gone_s >= 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a runbook did not act, with the facts it was decided on."""

    runbook: str
    incident: str
    code: str
    text: str
    at: At
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of the last reload since the agent started; `problems` is why it was refused, empty when it was taken."""

    at: At
    owner: str
    code: str
    problems: tuple[str, ...] = ()
    no_longer_covered: tuple[str, ...] = ()
    newly_covered: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Durable:
    """All that survives a restart. Replaying the journal's records gives exactly this."""

    boot_id: str = ""
    last_utc_s: float = 0.0
    alarm_no: int = 0
    incident_no: int = 0
    run_no: int = 0
    alarms: Mapping[str, Alarm] = field(default_factory=dict)
    acknowledgements: Mapping[str, Acknowledgement] = field(default_factory=dict)  # by alarm, gone when that is over
    shelves: Mapping[str, Shelf] = field(default_factory=dict)  # the same
    activations: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    arrangements: Mapping[str, Arrangement] = field(default_factory=dict)
    lockouts: Mapping[str, Lockout] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)
    spent: Mapping[str, Mapping[str, At]] = field(default_factory=dict)
    hold: Hold | None = None
    reload: Reload | None = None

    def open_incidents(self) -> list[Incident]:
        """Return the open incidents, oldest first."""
        return [i for i in self.incidents.values() if i.state is IncidentState.OPEN]

    def incident_now(self, incident: str) -> Incident | None:
        """Return the incident of this id, or the one that it was merged into; None when it is no longer remembered."""
        found = self.incidents.get(incident)
        while found is not None and found.merged_into is not None:
            found = self.incidents.get(found.merged_into)
        return found

    def told_alarms(self) -> list[Alarm]:
        """Return the alarms that people want to hear of: all but the shelved ones."""
        return [alarm for key, alarm in self.alarms.items() if key not in self.shelves]

    def open_runs(self) -> list[Run]:
        """Return the runs that have not ended, oldest first."""
        return [r for r in self.runs.values() if r.state in OPEN_STATES]

    def elapsed_s(self, since: At, now: At) -> float:
        """
        Return how long ago *since* was. Within one boot this is boot time; over a reboot UTC, if it is credible (not
        before the last record, at most 30 days on), else zero: a limit then runs its full length again.
        """
        if since.boot_id == now.boot_id:
            return now.boot_s - since.boot_s
        gone_s = now.utc_s - since.utc_s
        credible = now.utc_s >= self.last_utc_s and 0.0 <= gone_s <= CREDIBLE_S
        return gone_s if credible else 0.0


def in_order(durable: Durable) -> Durable:
    """
    Return *durable*, read from text, with incidents, runs and spent runs oldest first again.

    Text has its keys sorted as words, I10 before I2; which is the oldest, and which is forgotten first, goes by order.
    """
    spent = {runbook: by_number(times) for runbook, times in durable.spent.items()}
    return replace(durable, incidents=by_number(durable.incidents), runs=by_number(durable.runs), spent=spent)


def by_number(numbered: Mapping[str, T]) -> Mapping[str, T]:
    """Return *numbered* in the order of the numbers behind the first letter of its keys."""
    return dict(sorted(numbered.items(), key=lambda item: int(item[0][1:])))


@dataclass(frozen=True, slots=True)
class Volatile:
    """
    What is only known while we run. `blind_before`: what was asked earlier does not count. `guard_until_s`: end of the
    boot guard in boot seconds, zero once it is over.
    """

    seen: Mapping[PointId, Observation] = field(default_factory=dict)
    last_good: Mapping[PointId, Value] = field(default_factory=dict)
    raw: Mapping[AlarmKey, Raw] = field(default_factory=dict)
    seen_good: frozenset[AlarmKey] = frozenset()
    touched: tuple[AlarmKey, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    blind_before: float = 0.0
    started_s: float = 0.0
    guard_until_s: float = float("inf")
    journal_durable: bool = True
    journal_reason: str = ""
    safe_reason: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The whole state of one engine."""

    durable: Durable = field(default_factory=Durable)
    volatile: Volatile = field(default_factory=Volatile)

    def points(self, site: Site) -> Points:
        """Return the sight of the core."""
        v = self.volatile
        return Points(v.seen, v.last_good, site.points, v.blind_before)
