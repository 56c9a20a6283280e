"""Applying records: the only door through which durable state changes. Replay is this, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

from agent.core.alarm import Alarm, AlarmState
from agent.core.incident import TRANSITIONS as INCIDENT_TRANSITIONS
from agent.core.incident import Incident, IncidentState, Turn
from agent.core.model import SEVERITY, At, Tier
from agent.core.records import (
    AgentStarted,
    AlarmAcknowledged,
    AlarmMoved,
    AlarmShelved,
    AlarmUnshelved,
    ArrangementEntered,
    ArrangementLeft,
    ArrangementLost,
    Blocked,
    BlockLifted,
    ConfigRefused,
    DelaysRebased,
    HoldReleased,
    HoldSet,
    IncidentChanged,
    IncidentClosed,
    IncidentMerged,
    IncidentOpened,
    Locked,
    Record,
    Refused,
    RunAborted,
    RunApproved,
    RunEnded,
    RunLookedAgain,
    RunOpened,
    RunPaused,
    SiteReloaded,
    Spent,
    StepDenied,
    StepIntended,
    StepResulted,
    StepSent,
    StepUndone,
    StepVerified,
    StepWithdrawn,
    Unlocked,
)
from agent.core.run import OPEN_STATES, Move, Run, RunState, move
from agent.core.state import (
    KEEP_ENDED,
    KEEP_SPENT,
    Acknowledgement,
    Arrangement,
    Block,
    Durable,
    Hold,
    Lockout,
    Refusal,
    Reload,
    Shelf,
)


def apply(durable: Durable, record: Record) -> Durable:
    """Return *durable* after *record*."""
    changed = fold(record.body, durable, record.at)
    return replace(changed, boot_id=record.at.boot_id, last_utc_s=max(changed.last_utc_s, record.at.utc_s))


@singledispatch
def fold(body: object, durable: Durable, at: At) -> Durable:
    """Return *durable* after *body*; a body without a rule of its own is only remembered."""
    return durable


@fold.register
def _(body: AgentStarted, durable: Durable, at: At) -> Durable:
    alarms = {key: replace(alarm, unconfirmed=True) for key, alarm in durable.alarms.items()}
    activations = {} if body.new_boot else durable.activations
    runs = {
        key: replace(run, approved=False) if body.new_boot and run.approved and run.state in OPEN_STATES else run
        for key, run in durable.runs.items()
    }
    return replace(durable, alarms=alarms, activations=activations, runs=runs, reload=None)


@fold.register
def _(body: DelaysRebased, durable: Durable, at: At) -> Durable:
    return replace(durable, alarms={**durable.alarms, **body.alarms})


@fold.register
def _(body: AlarmMoved, durable: Durable, at: At) -> Durable:
    alarms = dict(durable.alarms)
    if all(rung.state is AlarmState.NORMAL for rung in body.rungs.values()):
        alarms.pop(body.key, None)
        durable = unnoted(unshelved(durable, body.key), body.key)
    else:
        old = alarms.get(body.key)
        since = old.since if old is not None else at
        alarms[body.key] = Alarm(
            body.key, since, body.rungs, body.id, body.blind, body.unconfirmed, body.older_than_start
        )
    activations = durable.activations
    if body.was is Tier.OK and body.tier is not Tier.OK:
        activations = {**activations, body.key: (*activations.get(body.key, ()), at.boot_s)[-8:]}
    number = durable.alarm_no
    if body.id is not None:
        number = max(number, int(body.id[1:]))
    noted, shelf = durable.acknowledgements.get(body.key), durable.shelves.get(body.key)
    if noted is not None and SEVERITY[body.tier] > SEVERITY[noted.tier]:
        durable = unnoted(durable, body.key)
    if shelf is not None and SEVERITY[body.tier] > SEVERITY[shelf.tier]:
        durable = unshelved(durable, body.key)
    return replace(durable, alarms=alarms, activations=activations, alarm_no=number)


@fold.register
def _(body: AlarmAcknowledged, durable: Durable, at: At) -> Durable:
    noted = Acknowledgement(body.id, body.owner, body.tier, at)
    return replace(durable, acknowledgements={**durable.acknowledgements, body.key: noted})


@fold.register
def _(body: AlarmShelved, durable: Durable, at: At) -> Durable:
    shelf = Shelf(body.owner, body.reason, body.tier, at, body.for_s)
    return replace(durable, shelves={**durable.shelves, body.key: shelf})


@fold.register
def _(body: AlarmUnshelved, durable: Durable, at: At) -> Durable:
    return unshelved(durable, body.key)


def unnoted(durable: Durable, key: str) -> Durable:
    """Return *durable* without an acknowledgement of alarm *key*."""
    kept = {k: noted for k, noted in durable.acknowledgements.items() if k != key}
    return replace(durable, acknowledgements=kept) if len(kept) < len(durable.acknowledgements) else durable


def unshelved(durable: Durable, key: str) -> Durable:
    """Return *durable* with alarm *key* on no shelf."""
    kept = {k: shelf for k, shelf in durable.shelves.items() if k != key}
    return replace(durable, shelves=kept) if len(kept) < len(durable.shelves) else durable


@fold.register
def _(body: IncidentOpened, durable: Durable, at: At) -> Durable:
    incident = Incident(body.id, body.cause, body.tier, at, body.alarms, body.alarms, body.against, body.evidence)
    number = max(durable.incident_no, int(body.id[1:]))
    return with_incident(replace(durable, incident_no=number), incident)


@fold.register
def _(body: IncidentChanged, durable: Durable, at: At) -> Durable:
    old = durable.incidents[body.id]
    incident = replace(
        old,
        state=INCIDENT_TRANSITIONS[old.state, Turn.UPDATED],
        cause=body.cause,
        tier=body.tier,
        alarms=body.alarms,
        children=tuple(dict.fromkeys(old.children + body.alarms)),
        against=body.against,
        evidence=body.evidence or old.evidence,
    )
    return with_incident(durable, incident)


@fold.register
def _(body: IncidentMerged, durable: Durable, at: At) -> Durable:
    old = durable.incidents[body.id]
    state = INCIDENT_TRANSITIONS[old.state, Turn.ABSORBED]
    return with_incident(durable, replace(old, state=state, ended_at=at, merged_into=body.into, alarms=()))


@fold.register
def _(body: IncidentClosed, durable: Durable, at: At) -> Durable:
    old = durable.incidents[body.id]
    state = INCIDENT_TRANSITIONS[old.state, Turn.CLEARED]
    return with_incident(durable, replace(old, state=state, tier=Tier.OK, ended_at=at, alarms=()))


def with_incident(durable: Durable, incident: Incident) -> Durable:
    """Return *durable* with *incident* in it, and only the newest of the ended ones."""
    incidents = {**durable.incidents, incident.id: incident}
    ended = [key for key, i in incidents.items() if i.state is not IncidentState.OPEN]
    for key in ended[: max(0, len(ended) - KEEP_ENDED)]:
        del incidents[key]
    return replace(durable, incidents=incidents)


@fold.register
def _(body: Refused, durable: Durable, at: At) -> Durable:
    refusal = Refusal(body.runbook, body.incident, body.code, body.text, at, body.facts)
    return replace(durable, refusals={**durable.refusals, body.runbook: refusal})


@fold.register
def _(body: RunOpened, durable: Durable, at: At) -> Durable:
    run = Run(
        body.run,
        body.runbook,
        body.incident,
        at,
        deadline_s=body.deadline_s,
        approved=body.approved,
        asked_by=body.asked_by,
    )
    refusals = {key: refusal for key, refusal in durable.refusals.items() if key != body.runbook}
    number = max(durable.run_no, int(body.run[1:]))
    return with_run(replace(durable, refusals=refusals, run_no=number), run)


@fold.register
def _(body: RunApproved, durable: Durable, at: At) -> Durable:
    return with_run(durable, replace(durable.runs[body.run], approved=True, deadline_s=body.deadline_s))


@fold.register
def _(body: StepIntended, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    run = replace(
        old,
        state=move(old.state, body.move),
        step=body.step,
        attempt=body.request.attempt,
        key=body.request.key,
        sent=False,
        returned_s=None,
        deadline_s=body.deadline_s,
        outcome=None,
        resent=body.request.resend,
        paused=False,
    )
    return with_run(durable, run)


@fold.register
def _(body: StepWithdrawn, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    state = move(old.state, Move.WITHDRAWN)
    return with_run(durable, replace(old, state=state, key=None, deadline_s=body.deadline_s, reason=body.reason))


@fold.register
def _(body: StepSent, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    counts = old.sends or {}
    slot = old.send_slot()
    return with_run(durable, replace(old, sent=True, sends={**counts, slot: counts.get(slot, 0) + 1}))


@fold.register
def _(body: StepResulted, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    state = move(old.state, Move.RETURNED)
    return with_run(
        durable,
        replace(
            old,
            state=state,
            outcome=body.outcome,
            returned_s=body.returned_s,
            deadline_s=body.deadline_s,
            # Why it is taken back stays the reason.
            reason=old.reason if state is RunState.UNDOING or old.aborted_by is not None else body.detail,
        ),
    )


@fold.register
def _(body: StepVerified, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    if body.last:
        return durable
    following = replace(
        old,
        state=move(old.state, Move.NEXT),
        step=body.step + 1,
        attempt=0,
        key=None,
        returned_s=None,
        outcome=None,
        restarted=False,
        resent=False,
        deadline_s=body.deadline_s,
    )
    return with_run(durable, following)


@fold.register
def _(body: StepDenied, durable: Durable, at: At) -> Durable:
    return with_run(durable, replace(durable.runs[body.run], reason=body.reason))


@fold.register
def _(body: StepUndone, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    state = move(old.state, Move.NEXT)
    return with_run(durable, replace(old, state=state, step=body.step - 1, key=None, returned_s=None, outcome=None))


@fold.register
def _(body: RunLookedAgain, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    run = replace(
        old,
        state=move(old.state, body.move),
        returned_s=body.returned_s,
        deadline_s=body.deadline_s,
        restarted=body.move is Move.RESTARTED or old.restarted,
        paused=old.paused and body.move is not Move.GO_ON,
        aborted_by=None if body.move is Move.GO_ON else old.aborted_by,
    )
    return with_run(durable, run)


@fold.register
def _(body: RunPaused, durable: Durable, at: At) -> Durable:
    # Once it stands still, or goes on from there, a person's later word counts, and no longer an earlier one to abort it.
    run = replace(durable.runs[body.run], paused=body.paused, deadline_s=body.deadline_s, aborted_by=None)
    return with_run(durable, run)


@fold.register
def _(body: RunAborted, durable: Durable, at: At) -> Durable:
    reason = f"aborted by {body.owner}"
    run = replace(durable.runs[body.run], aborted_by=body.owner, reason=reason, paused=False)
    return with_run(durable, run)


@fold.register
def _(body: RunEnded, durable: Durable, at: At) -> Durable:
    old = durable.runs[body.run]
    state = move(old.state, body.move)
    ended = replace(old, state=state, reason=body.reason, deadline_s=None, paused=False, ended_at=at)
    spent = durable.spent
    if body.move is Move.REFUSED and not old.sends and not old.resent:
        # It ended before its first command, so that it counts for nothing.
        times = {run: then for run, then in spent.get(old.runbook, {}).items() if run != old.id}
        spent = {**spent, old.runbook: times}
    return with_run(replace(durable, spent=spent), ended)


def with_run(durable: Durable, run: Run) -> Durable:
    """Return *durable* with *run* in it, and only the newest of the ended ones."""
    runs = {**durable.runs, run.id: run}
    ended = [key for key, r in runs.items() if r.state not in OPEN_STATES]
    for key in ended[: max(0, len(ended) - KEEP_ENDED)]:
        del runs[key]
    return replace(durable, runs=runs)


@fold.register
def _(body: ArrangementEntered, durable: Durable, at: At) -> Durable:
    entered = Arrangement(body.name, body.runbook, body.run, body.incident, body.line, at, body.asked_by)
    old = durable.arrangements.get(body.name)
    if old is not None and old.run == body.run:
        return durable
    return replace(durable, arrangements={**durable.arrangements, body.name: entered})


@fold.register(ArrangementLeft)
@fold.register(ArrangementLost)
def _(body: ArrangementLeft | ArrangementLost, durable: Durable, at: At) -> Durable:
    return replace(durable, arrangements={k: a for k, a in durable.arrangements.items() if k != body.name})


@fold.register
def _(body: Spent, durable: Durable, at: At) -> Durable:
    times = {**durable.spent.get(body.runbook, {})}
    times.setdefault(body.run, at)  # recorded again after a crash, it still counts once
    for run in list(times)[: max(0, len(times) - KEEP_SPENT)]:
        del times[run]
    return replace(durable, spent={**durable.spent, body.runbook: times})


@fold.register
def _(body: Locked, durable: Durable, at: At) -> Durable:
    lockout = Lockout(body.runbook, body.reason, at, body.incident)
    return replace(durable, lockouts={**durable.lockouts, body.runbook: lockout})


@fold.register
def _(body: Unlocked, durable: Durable, at: At) -> Durable:
    name = body.runbook
    return replace(
        durable,
        lockouts={k: v for k, v in durable.lockouts.items() if k != name},
        blocks={k: v for k, v in durable.blocks.items() if k != name},
        spent={k: v for k, v in durable.spent.items() if k != name},
        refusals={k: v for k, v in durable.refusals.items() if k != name},
    )


@fold.register
def _(body: Blocked, durable: Durable, at: At) -> Durable:
    block = Block(body.runbook, body.reason, at, body.for_s)
    return replace(durable, blocks={**durable.blocks, body.runbook: block})


@fold.register
def _(body: BlockLifted, durable: Durable, at: At) -> Durable:
    return replace(durable, blocks={k: v for k, v in durable.blocks.items() if k != body.runbook})


@fold.register
def _(body: HoldSet, durable: Durable, at: At) -> Durable:
    return replace(durable, hold=Hold(body.owner, body.reason, body.let_finish, at, body.for_s))


@fold.register
def _(body: HoldReleased, durable: Durable, at: At) -> Durable:
    return replace(durable, hold=None)


@fold.register
def _(body: SiteReloaded, durable: Durable, at: At) -> Durable:
    told = Reload(at, body.owner, "", (), body.no_longer_covered, body.newly_covered, body.needs_restart)
    return replace(durable, reload=told)


@fold.register
def _(body: ConfigRefused, durable: Durable, at: At) -> Durable:
    return replace(durable, reload=Reload(at, body.owner, body.code, body.problems))
