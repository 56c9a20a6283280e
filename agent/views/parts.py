"""The pieces that both views are made of. Unknown is null, instants are UTC text, lengths of time are seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from agent.core.alarm import Alarm
from agent.core.incident import Incident
from agent.core.model import AlarmKey, At, Fact, Observation, PointId, Quality, Tier, Value, worst
from agent.core.people import is_noted
from agent.core.run import Run
from agent.core.runbook import Runbook
from agent.core.state import Shelf
from agent.core.work import Work

Plain = dict[str, Any]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class JournalView(Protocol):
    """
    How the journal stands. `seq`: last record that was decided; `durable_seq`: last one that is on disk; `head`: digest
    of the last record; `reason`: why it is not durable, "" when it is; `cut`: what was cut off as a torn tail at start;
    `safe_reason`: why what it remembers cannot be trusted.
    """

    @property
    def seq(self) -> int: ...
    @property
    def durable_seq(self) -> int: ...
    @property
    def head(self) -> str: ...
    @property
    def durable(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def cut(self) -> str | None: ...
    @property
    def safe_reason(self) -> str | None: ...


def utc_text(at: At | None) -> str | None:
    """Return the UTC of *at* as ISO 8601 with milliseconds, None when there is none or it is no date."""
    if at is None or not math.isfinite(at.utc_s):
        return None
    try:
        moment = EPOCH + timedelta(milliseconds=round(at.utc_s * 1000))
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain_value(value: Value) -> Value:
    """Return *value*, None where it is no finite number: JSON has no word for those."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def seconds(value: float | None) -> float | None:
    """Return a length of time rounded to the millisecond, None where it is unknown or without end."""
    return round(value, 3) if value is not None and math.isfinite(value) else None


def left_s(work: Work, deadline_s: float | None) -> float | None:
    """Return how long until *deadline_s* (boot seconds), never below zero."""
    return None if deadline_s is None else seconds(max(0.0, deadline_s - work.now_s))


def gone_s(work: Work, since: At) -> float | None:
    """Return how long ago *since* was."""
    return seconds(max(0.0, work.durable.elapsed_s(since, work.now)))


def fault_of(work: Work, fact: Fact) -> str | None:
    """Return what hides the value behind *fact*, or makes it suspect; None when it is good."""
    if fact.quality is Quality.GOOD:
        return None
    observation = work.volatile.seen.get(fact.point)
    if observation is None or fact.age_s is None:
        return "not_seen"
    return observation.fault or "stale"


def fact_plain(fact: Fact, work: Work | None = None) -> Plain:
    """Return *fact*; with *work*, also the unit of its point."""
    plain: Plain = {
        "point": str(fact.point),
        "value": plain_value(fact.value),
        "quality": str(fact.quality),
        "age_s": seconds(fact.age_s),
        "source": fact.source or None,
    }
    if work is not None and (spec := work.site.points.get(fact.point)) is not None:
        plain["unit"] = spec.unit
    return plain


def facts_plain(facts: Iterable[Fact], work: Work) -> list[Plain]:
    """Return *facts* with their units."""
    return [fact_plain(fact, work) for fact in facts]


def split_point(point: str) -> tuple[str, str]:
    """Return (equipment, point within it)."""
    equipment, _, name = point.partition(".")
    return equipment, name


def is_known(work: Work, observation: Observation | None) -> bool:
    """Tell whether *observation* is fresh and brought a value."""
    if observation is None or work.points.fresh(observation.point, work.now_s) is None:
        return False
    return observation.quality is not Quality.UNKNOWN


def nothing_seen(work: Work) -> bool:
    """Tell whether no point of the site can be seen now: then there is nothing to judge by."""
    return not any(is_known(work, observation) for observation in work.volatile.seen.values())


def site_tier(work: Work) -> Tier:
    """
    Return the heaviest of the site's alarms and open incidents (a locked runbook raises an incident above its alarms),
    shelved alarms left out; unknown when there is none and nothing has been seen yet.
    """
    tiers = [alarm.tier() for alarm in work.durable.told_alarms()]
    tiers += [incident.tier for incident in work.durable.open_incidents()]
    return worst([*tiers, Tier.UNKNOWN] if nothing_seen(work) else tiers)


def equipment_tier(work: Work, name: str, points: Iterable[PointId]) -> Tier:
    """
    Return the heaviest alarm of equipment *name*, whose points are *points*; shelved ones are left out.

    Without an alarm it is unknown when nothing of it is seen, or when a point that an alarm looks at was seen once
    since start and cannot be seen now: not seen is not good.
    """
    tiers = [alarm.tier() for alarm in work.durable.told_alarms() if split_point(alarm.key)[0] == name]
    seen = work.volatile.seen
    own = tuple(points)
    lost = any(
        p in work.volatile.last_good and work.site.alarms_of.get(p) and not is_known(work, seen.get(p)) for p in own
    )
    if own and (lost or not any(is_known(work, seen.get(p)) for p in own)):
        tiers.append(Tier.UNKNOWN)
    return worst(tiers)


def points_by_equipment(work: Work) -> dict[str, list[PointId]]:
    """Return the points of the site, by equipment; equipment without points has an empty list."""
    found: dict[str, list[PointId]] = {name: [] for name in work.site.equipment}
    for point in work.site.points:
        found.setdefault(split_point(point)[0], []).append(point)
    return found


def alarm_plain(work: Work, alarm: Alarm) -> Plain:
    """Return one alarm as `status` shows it."""
    equipment, name = split_point(alarm.key)
    spec = work.site.alarms.get(alarm.key)
    noted, shelf = work.durable.acknowledgements.get(alarm.key), work.durable.shelves.get(alarm.key)
    return {
        "id": alarm.id,
        "alarm": name,
        "equipment": equipment,
        "tier": str(alarm.tier()),
        "state": str(alarm.state()),
        "since": utc_text(alarm.since),
        "unconfirmed": alarm.unconfirmed,
        "acknowledged_by": noted.owner if noted is not None else None,
        "shelved_until": shelf_end(shelf) if shelf is not None else None,
        "shelved_by": shelf.owner if shelf is not None else None,
        "shelve_reason": shelf.reason if shelf is not None else None,
        "key": str(alarm.key),
        "text": spec.text if spec is not None else None,
        "blind": alarm.blind,
        "older_than_start": alarm.older_than_start,
        "changes_in_s": left_s(work, alarm.deadline_s()),
    }


def shelf_end(shelf: Shelf) -> str | None:
    """Return the UTC at which a shelf ends."""
    return utc_text(replace(shelf.since, utc_s=shelf.since.utc_s + shelf.for_s))


def acknowledged_by(work: Work, incident: Incident) -> str | None:
    """Return who took note of an incident: of every alarm that stands in it. None while one of them is new to people."""
    standing = [work.durable.alarms[key] for key in incident.alarms if key in work.durable.alarms]
    if not standing or not all(is_noted(work, alarm) for alarm in standing):
        return None
    return ", ".join(dict.fromkeys(work.durable.acknowledgements[alarm.key].owner for alarm in standing))


def incident_plain(work: Work, incident: Incident) -> Plain:
    """Return one incident as `status` shows it."""
    cause = incident.cause
    return {
        "id": incident.id,
        "cause": cause.text,
        "tier": str(incident.tier),
        "opened_at": utc_text(incident.opened_at),
        "evidence": facts_plain(incident.evidence, work),
        "children": [str(key) for key in incident.children],
        "state": str(incident.state),
        "kind": cause.kind,
        "candidates": list(cause.candidates),
        "equipment": list(cause.equipment),
        "settled": cause.settled,
        "marks": list(cause.marks),
        "alarms": [str(key) for key in incident.alarms],
        "against": list(incident.against),
        "ended_at": utc_text(incident.ended_at),
        "merged_into": incident.merged_into,
        "acknowledged_by": acknowledged_by(work, incident),
    }


def run_plain(work: Work, run: Run) -> Plain:
    """Return one run as `status` shows it."""
    book = work.site.runbooks.get(run.runbook)
    return {
        "id": run.id,
        "runbook": run.runbook,
        "state": str(run.state),
        "step": run.step,
        "reason": run.reason or None,
        "steps": len(book.steps) if book is not None else None,
        "verb": book.steps[run.step].verb if book is not None and run.step < len(book.steps) else None,
        "incident": run.incident or None,
        "opened_at": utc_text(run.opened_at),
        "ended_at": utc_text(run.ended_at),
        "ends_in_s": left_s(work, run.deadline_s),
        "paused": run.paused,
        "approved": run.approved,
        "asked_by": run.asked_by,
        "aborted_by": run.aborted_by,
    }


def refusal_plain(work: Work, runbook: str) -> Plain | None:
    """Return the last recorded reason why *runbook* did not act, None when there is none."""
    refusal = work.durable.refusals.get(runbook)
    if refusal is None:
        return None
    return {
        "code": refusal.code,
        "text": refusal.text,
        "at": utc_text(refusal.at),
        "incident": refusal.incident or None,
        "facts": facts_plain(refusal.facts, work),
    }


def locks_of(work: Work, book: Runbook) -> list[Plain]:
    """Return what keeps *book* quiet: the lockout of its family, and its own block while that lasts."""
    family = book.name.removesuffix(".return")
    return [b for b in blocks_plain(work) if b["runbook"] == (family if b["kind"] == "lockout" else book.name)]


def blocks_plain(work: Work) -> list[Plain]:
    """Return every lockout (until a person resets it) and every block that still runs."""
    rows: list[Plain] = [
        {
            "kind": "lockout",
            "runbook": lockout.runbook,
            "reason": lockout.reason,
            "since": utc_text(lockout.since),
            "left_s": None,
            "incident": lockout.incident or None,
        }
        for lockout in work.durable.lockouts.values()
    ]
    for block in work.durable.blocks.values():
        remaining_s = block.for_s - work.durable.elapsed_s(block.since, work.now)
        if remaining_s > 0:
            rows.append(
                {
                    "kind": "block",
                    "runbook": block.runbook,
                    "reason": block.reason,
                    "since": utc_text(block.since),
                    "left_s": seconds(remaining_s),
                    "incident": None,
                }
            )
    return rows


def alarm_key(work: Work, name: str) -> AlarmKey | None:
    """Return the key of the alarm that *name* means: its id (A7) or its key (wan1.hq_dead)."""
    for key, alarm in work.durable.alarms.items():
        if alarm.id == name:
            return AlarmKey(key)
    return AlarmKey(name) if AlarmKey(name) in work.site.alarms or name in work.durable.alarms else None
