"""Opening, refining, merging and closing incidents from the causes that the alarms of now have."""

from __future__ import annotations

from dataclasses import replace

from agent.core.alarm import AlarmState
from agent.core.incident import Cause, Incident
from agent.core.judge import Verdict
from agent.core.model import AlarmKey, Fact, Tier, worst
from agent.core.records import IncidentChanged, IncidentClosed, IncidentMerged, IncidentOpened
from agent.core.topology import Named, name_causes, refutation
from agent.core.work import Work

EVIDENCE_POINTS = 12  # facts kept with an incident's cause
SPLIT_S = 10.0  # alarms that were in one incident part when a cause of their own has stood for so long


def decide_incidents(work: Work) -> None:
    """Bring the open incidents in line with the alarms of now."""
    standing = {k for k, a in work.durable.alarms.items() if a.id is not None and a.tier() is not Tier.OK}
    bad = frozenset(AlarmKey(k) for k in standing if work.durable.alarms[k].state() is AlarmState.ACTIVE)
    taken: set[str] = set()
    if bad:
        for named in together(work, name_causes(work.site.candidates, bad, work.volatile.raw)):
            place(work, named, taken)
    for incident in work.durable.open_incidents():
        if incident.id not in taken:
            settle(work, incident, standing)


def together(work: Work, groups: tuple[Named, ...]) -> list[Named]:
    """
    Return *groups* with those joined that are in one incident and do not leave it yet.

    A parent that recovers first, alarm by alarm, does not scatter what came of it: what only a late cause explains stays.
    A line that flaps does not open and merge incidents: what has become bad anew stays until it has been so for a while,
    and so long the cause is not settled.
    """
    found: list[Named] = []
    for group in groups:
        mine = {a for i in work.durable.open_incidents() if group.alarms & set(i.alarms) for a in i.alarms}
        host = next((n for n, other in enumerate(found) if other.alarms & mine), None)
        if host is not None and group.late:
            found[host] = replace(found[host], alarms=found[host].alarms | group.alarms)
        elif host is not None and is_new(work, group):
            found[host] = unsettled(found[host], group)
        else:
            found.append(group)
    return found


def is_new(work: Work, group: Named) -> bool:
    """Tell whether *group* has been bad only for a moment by its evidence, or has not been seen bad at all."""
    since = [e.since for a in group.alarms if (e := work.volatile.raw.get(a)) is not None and e.since is not None]
    return work.now_s - min(since, default=work.now_s) < SPLIT_S


def unsettled(one: Named, other: Named) -> Named:
    """Return two groups as one whose cause is not settled between theirs."""
    causes = tuple(dict.fromkeys(one.causes + other.causes))
    against = tuple(dict.fromkeys(one.against + other.against))
    return Named(causes, one.alarms | other.alarms, False, (), against, late=one.late)


def place(work: Work, named: Named, taken: set[str]) -> None:
    """Give a named group its incident: the oldest that shares an alarm with it, or a new one."""
    mine = [i for i in work.durable.open_incidents() if i.id not in taken and named.alarms & set(i.alarms)]
    cause = cause_of(work, named)
    if not mine:
        number = work.durable.incident_no + 1
        alarms = tuple(sorted(named.alarms))
        tier = tier_of(work, alarms, f"I{number}")
        work.emit(IncidentOpened(f"I{number}", cause, tier, alarms, named.against, evidence(work, alarms)))
        taken.add(f"I{number}")
        return
    oldest, younger = mine[0], mine[1:]
    taken.add(oldest.id)
    keeps = still_explains(work, oldest.cause, named) or (cause.late and not oldest.cause.late)
    if keeps or not is_seen_bad(work, named):
        cause = oldest.cause  # neither not seeing (after a restart) nor a receding fault renames what was found
    clearing = {a for i in mine for a in i.alarms if a in work.durable.alarms and is_clearing(work, a)}
    kept = clearing.intersection(oldest.alarms)
    for other in younger:
        if set(other.alarms) <= named.alarms | clearing:
            work.emit(IncidentMerged(other.id, oldest.id))
            taken.add(other.id)
            kept |= clearing.intersection(other.alarms)
    change(work, oldest, cause, tuple(sorted(named.alarms | kept)), named.against)


def is_seen_bad(work: Work, named: Named) -> bool:
    """Tell whether any alarm of the group is seen bad now, and does not only stand until it has been good long enough."""
    seen = (work.volatile.raw.get(alarm) for alarm in named.alarms)
    return any(Verdict.BAD in entry.rungs.values() for entry in seen if entry is not None)


def still_explains(work: Work, cause: Cause, named: Named) -> bool:
    """Tell whether a settled cause still explains the whole group, and nothing refutes it."""
    if not cause.settled or cause.late or cause.marks != named.marks:
        return False
    raw = work.volatile.raw
    rows = [c for c in work.site.candidates if c.id in cause.candidates]
    return bool(rows) and all(named.alarms <= c.explains() and refutation(c, named.alarms, raw) is None for c in rows)


def settle(work: Work, incident: Incident, standing: set[str]) -> None:
    """Keep an incident while an alarm of it stands, close it when the last is normal."""
    elsewhere = {a for i in work.durable.open_incidents() if i.id != incident.id for a in i.alarms}
    alarms = tuple(a for a in incident.alarms if a in standing and a not in elsewhere)
    if alarms:
        change(work, incident, incident.cause, alarms, incident.against)
    else:
        work.emit(IncidentClosed(incident.id))


def change(work: Work, old: Incident, cause: Cause, alarms: tuple[AlarmKey, ...], against: tuple[str, ...]) -> None:
    """Record a change of an incident, if it is one."""
    tier = tier_of(work, alarms, old.id)
    if (cause, tier, alarms) == (old.cause, old.tier, old.alarms):
        return
    facts = evidence(work, alarms) if cause != old.cause else ()
    work.emit(IncidentChanged(old.id, cause, tier, alarms, against, facts))


def cause_of(work: Work, named: Named) -> Cause:
    """Return the cause of a named group as an incident keeps it."""
    rows = {c.id: c for c in work.site.candidates}
    chosen = [rows[name] for name in named.causes]
    equipment = tuple(dict.fromkeys(e for c in chosen for e in c.equipment))
    kind = chosen[0].kind if named.settled and chosen else "unsettled"
    text = " or ".join(c.text for c in chosen) or "nothing that this site knows of explains it"
    return Cause(named.causes, kind, equipment, named.settled, named.marks, text, named.late)


def tier_of(work: Work, alarms: tuple[AlarmKey, ...], incident: str) -> Tier:
    """Return the tier of an incident: its heaviest alarm on no shelf, and red when a runbook for it is locked."""
    if any(lockout.incident == incident for lockout in work.durable.lockouts.values()):
        return Tier.RED
    found = work.durable.alarms
    return worst([found[a].tier() for a in alarms if a in found and a not in work.durable.shelves])


def is_clearing(work: Work, alarm: AlarmKey) -> bool:
    """Tell whether *alarm* is on its way to normal."""
    return work.durable.alarms[alarm].state() is AlarmState.CLEARING


def evidence(work: Work, alarms: tuple[AlarmKey, ...]) -> tuple[Fact, ...]:
    """Return the facts of now behind *alarms*."""
    points = [p for a in alarms for p in sorted(work.site.alarms[a].points())]
    return work.facts(points[:EVIDENCE_POINTS])
