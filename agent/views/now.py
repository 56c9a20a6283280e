"""What stands now: the shape of `changeover status --json` (docs/status-json.md). Keys may be added, never renamed."""

from __future__ import annotations

from agent.core.incident import Incident, IncidentState
from agent.core.model import SEVERITY, At, PointId
from agent.core.policy import Question, used, why_not_acting
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work
from agent.views.parts import (
    JournalView,
    Plain,
    alarm_plain,
    blocks_plain,
    equipment_tier,
    fault_of,
    gone_s,
    incident_plain,
    left_s,
    locks_of,
    plain_value,
    points_by_equipment,
    refusal_plain,
    run_plain,
    seconds,
    site_tier,
    split_point,
    utc_text,
)
from agent.views.ready import readiness

NOT_RUNNING = "the agent is not running"


def status(site: Site, state: State, now: At, journal: JournalView, *, running: bool = True) -> Plain:
    """
    Return the whole of what stands, as plain data without NaN.

    *running* False: *state* was read from the journal while the agent is down; nothing is seen and nothing acts.
    """
    work = Work(site, state, now)
    incidents = list(work.durable.incidents.values())
    still_open = [i for i in incidents if i.state is IncidentState.OPEN]
    return {
        "site": {
            "id": site.id,
            "tier": str(site_tier(work)),
            "cause": heaviest(still_open).cause.text if still_open else None,
            "name": site.name,
        },
        "mode": mode(work, journal),
        "hold": hold_plain(work),
        "acting": acting(work, running=running),
        "arrangements": arrangements_plain(work),
        "blocks": blocks_plain(work),
        "journal": journal_plain(journal),
        "equipment": equipment_plain(work),
        "alarms": [alarm_plain(work, alarm) for alarm in work.durable.alarms.values()],
        "incidents": [incident_plain(work, incident) for incident in still_open],
        "runs": [run_plain(work, run) for run in work.durable.runs.values()],
        "readiness": readiness(work),
        "ended_incidents": [incident_plain(work, i) for i in incidents if i.state is not IncidentState.OPEN],
        "runbooks": runbooks_plain(work),
        "agent": {"running": running, "at": utc_text(now)},
        "reload": reload_plain(work),
    }


def heaviest(incidents: list[Incident]) -> Incident:
    """Return the incident of the heaviest tier, the oldest of several."""
    return max(incidents, key=lambda incident: SEVERITY[incident.tier])


def mode(work: Work, journal: JournalView) -> str:
    """Return normal, hold or safe; safe stands above hold, for release does not end it."""
    if work.volatile.safe_reason is not None or journal.safe_reason is not None:
        return "safe"
    return "hold" if work.durable.hold is not None else "normal"


def hold_plain(work: Work) -> Plain | None:
    """Return the hold in force, None when there is none."""
    hold = work.durable.hold
    if hold is None:
        return None
    gone = work.durable.elapsed_s(hold.since, work.now)
    return {
        "owner": hold.owner,
        "reason": hold.reason or None,
        "let_finish": hold.let_finish,
        "since": utc_text(hold.since),
        "for_s": hold.for_s,
        "ends_in_s": None if hold.for_s is None else seconds(max(0.0, hold.for_s - gone)),
    }


def acting(work: Work, *, running: bool) -> Plain:
    """Return whether anything may act on this site now, and if not, why."""
    if not running:
        return {"allowed": False, "why_not": NOT_RUNNING, "code": "not_running"}
    refusal = why_not_acting(work)
    code, why_not = refusal if refusal is not None else (None, None)
    return {"allowed": refusal is None, "why_not": why_not, "code": code}


def arrangements_plain(work: Work) -> list[Plain]:
    """Return the abnormal arrangements that the site is in."""
    return [
        {
            "name": one.name,
            "runbook": one.runbook,
            "run": one.run,
            "incident": one.incident or None,
            "line": one.line,
            "since": utc_text(one.since),
            "for_s": gone_s(work, one.since),
            "asked_by": one.asked_by,
        }
        for one in work.durable.arrangements.values()
    ]


def journal_plain(journal: JournalView) -> Plain:
    """Return how the journal stands."""
    return {
        "durable": journal.durable,
        "last_sequence": journal.seq,
        "durable_sequence": journal.durable_seq,
        "head": journal.head or None,
        "reason": journal.reason or None,
        "cut": journal.cut,
        "safe_reason": journal.safe_reason,
    }


def reload_plain(work: Work) -> Plain | None:
    """Return what became of the last reload since the agent started, None when there was none."""
    last = work.durable.reload
    if last is None:
        return None
    return {
        "ok": not last.code,
        "code": last.code or None,
        "at": utc_text(last.at),
        "owner": last.owner,
        "problems": list(last.problems),
        "no_longer_covered": list(last.no_longer_covered),
        "newly_covered": list(last.newly_covered),
        "needs_restart": list(last.needs_restart),
    }


def equipment_plain(work: Work) -> dict[str, Plain]:
    """Return every piece of equipment with its points as they are seen now."""
    found: dict[str, Plain] = {}
    for name, points in points_by_equipment(work).items():
        equipment = work.site.equipment.get(name)
        found[name] = {
            "kind": equipment.kind if equipment is not None else None,
            "tier": str(equipment_tier(work, name, points)),
            "points": {split_point(point)[1]: point_plain(work, point) for point in points},
        }
    return found


def point_plain(work: Work, point: PointId) -> Plain:
    """Return one point as it is seen now; a value that is not fresh is unknown and null."""
    fact = work.points.fact(point, work.now_s)
    return {
        "value": plain_value(fact.value),
        "unit": work.site.points[point].unit,
        "quality": str(fact.quality),
        "age_s": seconds(fact.age_s),
        "source": fact.source or None,
        "fault": fault_of(work, fact),
    }


def runbooks_plain(work: Work) -> dict[str, Plain]:
    """Return every runbook: its mode, its open run, what keeps it quiet, why it last did not act, and its spent budget."""
    found: dict[str, Plain] = {}
    for name, book in work.site.runbooks.items():
        running = next((run for run in work.durable.open_runs() if run.runbook == name), None)
        found[name] = {
            "mode": str(book.mode),
            "leaves": book.leaves,
            "enters": book.enters,
            "run": running.id if running is not None else None,
            "run_ends_in_s": left_s(work, running.deadline_s) if running is not None else None,
            "locks": locks_of(work, book),
            "refusal": refusal_plain(work, name),
            "budget": book.limits.budget,
            "budget_s": book.limits.budget_s,
            "spent": used(Question(work, book, None), book.limits.budget_s),
        }
    return found
