"""
What must always hold, checked after every step of the engine, in production too.

Each rule is asked of the state before, the records and effects, and the state after; none of them leans on the guard that
keeps it. A violation puts the agent on hold: it goes on watching, and no command leaves. Numbers: docs/invariants.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.core.alarm import AlarmState
from agent.core.engine import Stepped
from agent.core.incident import Incident
from agent.core.model import At, ClockStepped, Event, Perform, Quality
from agent.core.records import RunEnded, Spent, StepIntended, StepSent
from agent.core.run import OPEN_STATES, SENDS_PER_STEP, RunState
from agent.core.site import Site
from agent.core.state import State
from agent.errors import InvariantViolation

STUCK_S: Final = 60.0  # a run may be so long past its deadline, for a pass that comes late
EVIDENCE_S: Final = 5.0

Rule = Callable[[Site, State, Event, Stepped, At], str | None]


def intents(stepped: Stepped) -> list[StepIntended]:
    """Return the intents recorded in this step."""
    return [r.body for r in stepped.records if isinstance(r.body, StepIntended)]


def fresh_evidence(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I9: no command is decided on evidence older than 5 s, or not seen well."""
    seen = stepped.state.volatile.seen
    for intent in intents(stepped):
        if intent.request.undo:
            continue
        if not intent.request.evidence:
            return f"{intent.request.key} rests on no evidence"
        for evidence in intent.request.evidence:
            observation = seen.get(evidence.point)
            old = observation is None or now.boot_s - observation.asked_at > EVIDENCE_S
            if old or observation is None or observation.quality is not Quality.GOOD:
                return f"{intent.request.key} rests on {evidence.point}, which is old or not seen"
    return None


def intent_first(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I10: every command has its intent among the records that must be durable before it leaves."""
    keys = {intent.request.key for intent in intents(stepped)}
    for effect in stepped.effects:
        if isinstance(effect, Perform) and effect.request.key not in keys:
            return f"{effect.request.key} would leave without an intent"
    return None


def sent_once(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I11: a step's command is sent once, and at most once more after a restart."""
    if not any(isinstance(r.body, StepSent) for r in stepped.records):
        return None
    for run in stepped.state.durable.runs.values():
        for slot, count in (run.sends or {}).items():
            if count > SENDS_PER_STEP:
                return f"step {slot} of {run.id} was sent {count} times"
    return None


def within_budget(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I12: no runbook acts more often than its budget, over restarts too."""
    durable = stepped.state.durable
    for record in stepped.records:
        if not isinstance(record.body, Spent):
            continue
        limits = site.runbooks[record.body.runbook].limits
        times = durable.spent.get(record.body.runbook, {})
        count = sum(1 for at in times.values() if durable.elapsed_s(at, now) < limits.budget_s)
        if limits.budget is not None and count > limits.budget:
            return f"{record.body.runbook} acted {count} times"
    return None


def nothing_on_hold(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I14: on hold, or in safe mode, no command leaves."""
    hold, safe = stepped.state.durable.hold, stepped.state.volatile.safe_reason
    commands = [e for e in stepped.effects if isinstance(e, Perform)]
    if commands and ((hold is not None and not hold.let_finish) or safe is not None):
        return f"{commands[0].request.key} would leave although nothing may"
    return None


def swap_helps(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I23: no swap on to a line that is bad itself, nor by ourselves for a cause that is not that line's."""
    durable = stepped.state.durable
    for intent in intents(stepped):
        run = durable.runs[intent.run]
        book = site.runbooks[run.runbook]
        if intent.request.undo or book.is_return:
            continue
        bad = [
            key
            for key, alarm in durable.alarms.items()
            if site.alarms[alarm.key].equipment == book.enters
            and site.alarms[alarm.key].acts
            and alarm.state() is AlarmState.ACTIVE
        ]
        if bad:
            return f"{run.id} would swap on to {book.enters} although {bad[0]} stands"
        if run.asked_by is None and not blames(durable.incident_now(run.incident), book.leaves):
            return f"{run.id} would swap although the cause is not {book.leaves}"
    return None


def blames(incident: Incident | None, line: str) -> bool:
    """Tell whether the settled cause of an open incident is this line."""
    if incident is None or incident.ended_at is not None:
        return False
    return incident.cause.settled and incident.cause.equipment == (line,)


def runs_end(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I24: a run ends as done, undone or held, and is never silently stuck past its deadline."""
    for record in stepped.records:
        if isinstance(record.body, RunEnded) and record.body.end not in (RunState.DONE, RunState.UNDONE, RunState.HELD):
            return f"{record.body.run} would end as {record.body.end}"
    for run in stepped.state.durable.runs.values():
        stuck = run.state in OPEN_STATES and not run.paused
        if stuck and run.deadline_s is None:
            return f"{run.id} waits without a deadline"
        if stuck and run.deadline_s is not None and now.boot_s - run.deadline_s > STUCK_S:
            return f"{run.id} is stuck {now.boot_s - run.deadline_s:.0f} s past its deadline"
    return None


def clock_moves_nothing(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> str | None:
    """I26: a step of the wall clock changes no alarm, no run and no deadline."""
    if not isinstance(event, ClockStepped):
        return None
    old, new = waits(before), waits(stepped.state)
    moved = [name for name, (state, deadline_s) in old.items() if new.get(name, (None,))[0] == state]
    moved = [name for name in moved if new[name] != old[name]]
    return f"a step of the wall clock moved the deadline of {moved[0]}" if moved else None


def waits(state: State) -> dict[str, tuple[str, float | None]]:
    """Return what stands where and until when: each run, and each rung of each alarm, by name."""
    runs = {key: (str(run.state), run.deadline_s) for key, run in state.durable.runs.items()}
    rungs = {
        f"{key} ({tier})": (str(rung.state), rung.deadline_s)
        for key, alarm in state.durable.alarms.items()
        for tier, rung in alarm.rungs.items()
    }
    return {**runs, **rungs}


RULES: Final[dict[str, Rule]] = {
    "I9": fresh_evidence,
    "I10": intent_first,
    "I11": sent_once,
    "I12": within_budget,
    "I14": nothing_on_hold,
    "I23": swap_helps,
    "I24": runs_end,
    "I26": clock_moves_nothing,
}


def check(site: Site, before: State, event: Event, stepped: Stepped, now: At) -> None:
    """Raise InvariantViolation for the first rule that this step breaks."""
    for name, rule in RULES.items():
        broken = rule(site, before, event, stepped, now)
        if broken is not None:
            raise InvariantViolation(name, broken)
