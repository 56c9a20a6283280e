"""Why an incident (I3), alarm (A7 or wan1.hq_dead), run (R2) or runbook is as it is: facts, limits, reasons."""

from __future__ import annotations

from agent.core.alarm import AlarmState, Rung, RungState
from agent.core.incident import Incident, IncidentState
from agent.core.judge import Condition, Verdict, holds
from agent.core.model import AlarmKey, At, Mode
from agent.core.policy import Question, asked, used
from agent.core.run import OPEN_STATES, Run, RunState
from agent.core.runbook import Runbook, Step
from agent.core.site import Candidate, Predicted, Site
from agent.core.state import State
from agent.core.work import Work
from agent.errors import ChangeoverError
from agent.views.guards import NOTHING, answer_now, guards_now, target_facts
from agent.views.parts import (
    Plain,
    alarm_key,
    alarm_plain,
    facts_plain,
    fault_of,
    gone_s,
    incident_plain,
    left_s,
    locks_of,
    refusal_plain,
    run_plain,
)


class UnknownName(ChangeoverError):
    """There is no incident, alarm, run or runbook of this name in what the agent keeps."""


def explain(site: Site, state: State, now: At, name: str) -> Plain:
    """
    Return why *name* is as it is, as plain data; its "type" is incident, alarm, run or runbook.

    Raises:
        UnknownName: nothing of that name stands; what is long over is in the journal.
    """
    work = Work(site, state, now)
    if name in work.durable.incidents:
        return explain_incident(work, work.durable.incidents[name])
    if name in work.durable.runs:
        return explain_run(work, work.durable.runs[name])
    if name in site.runbooks:
        return explain_runbook(work, site.runbooks[name])
    key = alarm_key(work, name)
    if key is not None:
        return explain_alarm(work, key)
    known = [*work.durable.incidents, *work.durable.runs, *site.runbooks]
    known += [alarm.id for alarm in work.durable.alarms.values() if alarm.id is not None]
    raise UnknownName(f"nothing here is called {name}; known are {', '.join(known) or 'none at all'}")


# ---------------------------------------------------------------- incidents


def explain_incident(work: Work, incident: Incident) -> Plain:
    """Return where an incident comes from, what spoke against other causes, and what the runbooks made of it."""
    rows = {c.id: c for c in work.site.candidates}
    chosen = [rows[name] for name in incident.cause.candidates if name in rows]
    is_open = incident.state is IncidentState.OPEN
    bad = frozenset(incident.alarms)
    standing = [work.durable.alarms[key] for key in incident.alarms if key in work.durable.alarms]
    return {
        "type": "incident",
        **incident_plain(work, incident),
        "for_s": gone_s(work, incident.opened_at) if is_open else None,
        "late": incident.cause.late,
        "named": [candidate_plain(work, c, bad, now=is_open) for c in chosen],
        "not_taken": [not_taken(rows, reason) for reason in incident.against],
        "standing": [alarm_plain(work, alarm) for alarm in standing],
        "facts": facts_now(work, incident.alarms) if is_open else [],
        "runbooks": [book_for(work, book, incident) for book in work.site.runbooks.values()],
    }


def candidate_plain(work: Work, candidate: Candidate, bad: frozenset[AlarmKey], *, now: bool) -> Plain:
    """Return a candidate with what it predicts and, while it matters, how each of that is seen now."""
    predicts = [
        {
            "alarms": [str(a) for a in p.alarms],
            "equipment": p.equipment,
            "seen": predicted_seen(work, p, bad) if now else None,
        }
        for p in candidate.predicts
    ]
    return {"id": candidate.id, "text": candidate.text, "predicts": predicts}


def predicted_seen(work: Work, predicted: Predicted, bad: frozenset[AlarmKey]) -> str:
    """Return whether a predicted point is bad, good or unknown now."""
    if bad.intersection(predicted.alarms):
        return "bad"
    entries = [work.volatile.raw.get(alarm) for alarm in predicted.alarms]
    return "good" if all(entry is not None and entry.is_good() for entry in entries) else "unknown"


def not_taken(rows: dict[str, Candidate], reason: str) -> Plain:
    """Return one "candidate id: reason" of an incident in its parts. Ids hold colons themselves."""
    for name, candidate in rows.items():
        if reason.startswith(f"{name}: "):
            return {"id": name, "text": candidate.text, "reason": reason.removeprefix(f"{name}: ")}
    name, _, why = reason.rpartition(": ")
    return {"id": name, "text": None, "reason": why}


def facts_now(work: Work, alarms: tuple[AlarmKey, ...]) -> list[Plain]:
    """Return the points behind *alarms* as they are seen now."""
    points = [p for key in alarms if key in work.site.alarms for p in sorted(work.site.alarms[key].points())]
    return facts_plain(work.facts(points), work)


def book_for(work: Work, book: Runbook, incident: Incident) -> Plain:
    """Return what *book* did about an incident, or why it did nothing."""
    runs = [run for run in work.durable.runs.values() if run.runbook == book.name and run.incident == incident.id]
    refusal = refusal_plain(work, book.name)
    mine = refusal if refusal is not None and refusal["incident"] == incident.id else None
    question = asked(work, book) if incident.state is IncidentState.OPEN and book.mode is not Mode.OFF else None
    is_asked = question is not None and question.incident is not None and question.incident.id == incident.id
    return {
        "runbook": book.name,
        "mode": str(book.mode),
        "runs": [run_plain(work, run) for run in runs],
        "refusal": mine,
        "now": answer_now(work, book) if is_asked or runs or mine is not None else NOTHING | {"text": idle(book)},
    }


def idle(book: Runbook) -> str:
    """Return why a runbook has nothing to do with an incident."""
    if book.mode is Mode.OFF:
        return f"{book.name} is switched off"
    if book.is_return:
        return f"{book.name} is for the way home, and the site did not leave on this incident"
    return f"{book.name} is for a dead or bad {book.leaves}, and none of its alarms of that kind stands here"


# ---------------------------------------------------------------- alarms


def explain_alarm(work: Work, key: AlarmKey) -> Plain:
    """Return what an alarm looks at, its limits and delays, and where each rung stands."""
    spec, alarm = work.site.alarms.get(key), work.durable.alarms.get(key)
    equipment, _, name = key.partition(".")
    plain: Plain = {"type": "alarm", "id": None, "alarm": name, "equipment": equipment, "key": str(key)}
    plain |= {"tier": "ok", "state": "normal", "since": None, "text": spec.text if spec is not None else None}
    if alarm is not None:
        plain |= alarm_plain(work, alarm)
    raw = work.volatile.raw.get(key)
    rungs = spec.rungs if spec is not None else ()
    if alarm is None and (raw is None or all(v is Verdict.UNKNOWN for v in raw.rungs.values())):
        plain["tier"] = "unknown"
    states = alarm.rungs if alarm is not None else {}
    return plain | {
        "acts": spec.acts if spec is not None else None,
        "rungs": [rung_plain(work, key, rung, states.get(str(rung.tier), RungState())) for rung in rungs],
        "facts": facts_now(work, (key,)),
        "faults": faults(work, key),
        "incidents": [i.id for i in work.durable.open_incidents() if key in i.alarms],
    }


def rung_plain(work: Work, key: AlarmKey, rung: Rung, at: RungState) -> Plain:
    """Return one tier of an alarm: limits, delays in seconds, where it stands, what the evidence of now says."""
    raw = work.volatile.raw.get(key)
    verdict = raw.rungs.get(str(rung.tier), Verdict.UNKNOWN) if raw is not None else Verdict.UNKNOWN
    return {
        "tier": str(rung.tier),
        "state": str(at.state),
        "seen": str(verdict),
        "enter": [condition_plain(work, c) for c in rung.enter],
        "leave": [condition_plain(work, c) for c in rung.leave],
        "on_delay_s": rung.on_delay_s,
        "off_delay_s": rung.off_delay_s,
        "changes_in_s": left_s(work, at.deadline_s),
        "next": {AlarmState.PENDING: "active", AlarmState.CLEARING: "normal"}.get(at.state),
    }


def condition_plain(work: Work, condition: Condition) -> Plain:
    """Return one condition, with whether it holds now (null: cannot be seen)."""
    return {"text": str(condition), "holds": holds(condition, work.points, work.now_s)}


def faults(work: Work, key: AlarmKey) -> list[Plain]:
    """Return what hides the points of an alarm."""
    spec = work.site.alarms.get(key)
    found = work.facts(sorted(spec.points())) if spec is not None else ()
    return [{"point": str(f.point), "fault": why} for f in found if (why := fault_of(work, f)) is not None]


# ---------------------------------------------------------------- runs and runbooks


def explain_run(work: Work, run: Run) -> Plain:
    """Return what a run has done, step by step, what it waits for, and what it left behind."""
    book = work.site.runbooks.get(run.runbook)
    steps = book.steps if book is not None else ()
    incident = work.durable.incidents.get(run.incident)
    may_leave = answer_now(work, book, command=True) if book is not None and run.state is RunState.WAITING else None
    return {
        "type": "run",
        **run_plain(work, run),
        "title": title(book),
        "for_s": gone_s(work, run.opened_at) if run.state in OPEN_STATES else None,
        "cause": incident.cause.text if incident is not None else None,
        "outcome": str(run.outcome) if run.outcome is not None else None,
        "restarted": run.restarted,
        "step_list": [step_plain(work, step, place, run) for place, step in enumerate(steps)],
        "facts": facts_plain(work.facts(list(steps[run.step].points())), work) if run.step < len(steps) else [],
        "command": may_leave,
        "arrangements": [a.name for a in work.durable.arrangements.values() if a.run == run.id],
        "locks": locks_of(work, book) if book is not None else [],
        "choices": choices(run),
    }


def choices(run: Run) -> list[str]:
    """Return what a person may choose about *run* now."""
    if run.state is RunState.HELD:
        return ["go-on", "undo", "reset"]
    if run.paused:
        return ["go-on", "undo"]
    if run.state not in OPEN_STATES or run.state is RunState.UNDOING or run.aborted_by is not None:
        return []
    return ["approve", "abort"] if run.approved is False and run.state is RunState.WAITING else ["abort"]


def step_plain(work: Work, step: Step, place: int, run: Run | None = None) -> Plain:
    """Return one step: the wanted state, its proof with whether it holds now, and where *run* stands with it."""
    plain: Plain = {
        "step": place,
        "title": step.title_en or None,
        "verb": step.verb,
        "wanted": dict(step.wanted),
        "proof": [condition_plain(work, c) for c in step.proof],
        "within_s": step.within_s,
        "if_denied": str(step.if_denied),
        "point_of_no_return": step.point_of_no_return,
    }
    if run is not None:
        sends = run.sends or {}
        is_done = place < run.step or run.state is RunState.DONE
        plain["progress"] = "done" if is_done else str(run.state) if place == run.step else "not begun"
        plain["commands_sent"] = sends.get(str(place), 0)
        plain["undo_commands_sent"] = sends.get(f"{place}u", 0)
    return plain


def explain_runbook(work: Work, book: Runbook) -> Plain:
    """Return what a runbook is for, what it may do, and what it would say if it were asked now."""
    durable, limits, failback = work.durable, book.limits, book.failback
    return {
        "type": "runbook",
        "id": book.name,
        "title": title(book),
        "mode": str(book.mode),
        "starts_on": book.cause,
        "leaves": book.leaves,
        "enters": book.enters,
        "is_return": book.is_return,
        "arrangement": book.arrangement,
        "digest": book.digest,
        "steps": [step_plain(work, step, place) for place, step in enumerate(book.steps)],
        "limits": {"budget": limits.budget, "budget_s": limits.budget_s, "block_s": limits.block_s},
        "spent": used(Question(work, book, None), limits.budget_s),
        "failback": None
        if failback is None
        else {"automatic": failback.automatic, "good_for_s": failback.good_for_s, "per_day": failback.per_day},
        "on_return": str(book.on_return),
        "locks": locks_of(work, book),
        "refusal": refusal_plain(work, book.name),
        "runs": [run_plain(work, run) for run in durable.runs.values() if run.runbook == book.name],
        "now": answer_now(work, book),
        "guards": guards_now(work, book),
        "facts": facts_plain(target_facts(work, book), work),
    }


def title(book: Runbook | None) -> str | None:
    """Return the title of a runbook, None when it has none."""
    return (book.title_en or None) if book is not None else None
