"""
The engine: one event in, a new state, records and effects out. It only routes; each machine has its own room.

    see(state, event, now)     -> state with the volatile part changed
    decide(state, event, now)  -> records
    apply(durable, record)     -> durable
    step(state, event, now)    -> all three, and the effects that follow from the records
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.core import alarm as alarms
from agent.core.alarm import Alarm, AlarmState, RungState
from agent.core.apply import apply
from agent.core.incidents import decide_incidents
from agent.core.judge import Verdict
from agent.core.model import (
    AlarmKey,
    Asked,
    AskOutcome,
    At,
    ClockStepped,
    CommandEnded,
    CommandSent,
    Effect,
    Event,
    EvidenceExpired,
    JournalHealth,
    Look,
    Outcome,
    Perform,
    PointId,
    Quality,
    Request,
    Started,
    Tier,
    TimeGap,
)
from agent.core.people import expire_hold, expire_shelves, has_steps, take_person
from agent.core.policy import decide_runbooks
from agent.core.progress import (
    UNTOUCHED,
    end,
    look_again,
    past_no_return,
    progress_runs,
    returned,
    stopped_by,
)
from agent.core.records import (
    AgentStarted,
    AlarmMoved,
    ClockStepSeen,
    DelaysRebased,
    GapSeen,
    HoldSet,
    JournalTrouble,
    Locked,
    Record,
    Refused,
    RunEnded,
    RunLookedAgain,
    StepIntended,
    StepResulted,
    StepSent,
    StepWithdrawn,
)
from agent.core.run import TRANSITIONS, WAITING_S, Move, Run, RunState
from agent.core.sight import see
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one event came to."""

    state: State
    records: tuple[Record, ...]
    effects: tuple[Effect, ...]


def step(site: Site, state: State, event: Event, now: At) -> Stepped:
    """Return the state after *event* at *now*, the records of what was decided, and the effects that follow from them."""
    work = Work(site, see(site, state, event, now), now)
    run_pass(work, event)
    records = tuple(work.records)
    return Stepped(work.state, records, tuple(effect for record in records for effect in effects(record)))


def decide(site: Site, state: State, event: Event, now: At) -> tuple[Record, ...]:
    """Return what *event* makes us decide; *state* has already seen it."""
    work = Work(site, state, now)
    run_pass(work, event)
    return tuple(work.records)


def run_pass(work: Work, event: Event) -> None:
    """One pass: the event itself, then alarms, incidents, runs, and whether another runbook may start."""
    take_event(work, event)
    expire_hold(work)
    expire_shelves(work)
    hold_runs_past_return(work)
    decide_alarms(work)
    decide_incidents(work)
    progress_runs(work)
    decide_runbooks(work)
    progress_runs(work)


def effects(record: Record) -> tuple[Effect, ...]:
    """Return what has to be done outside once *record* is durable."""
    match record.body:
        case StepIntended() as body:
            return (Perform(body.request),)
        case StepResulted() as body:
            return (look(body.look, body.returned_s, body.deadline_s),)
        case RunLookedAgain() as body:
            asked: tuple[Effect, ...] = (AskOutcome(body.ask),) if body.ask is not None else ()
            return (*asked, look(body.look, body.returned_s, body.deadline_s)) if body.look else asked
        case Refused() as body if body.look:
            return (look(body.look, record.at.boot_s, record.at.boot_s + 1.0),)
        case _:
            return ()


def look(points: tuple[str, ...], not_before: float, until: float) -> Look:
    """Return the effect that pulls these points forward."""
    return Look(tuple(PointId(p) for p in points), not_before, until)


def next_deadline_s(state: State) -> float | None:
    """Return the nearest instant (boot seconds) at which something changes by time alone, None when nothing waits."""
    durable = state.durable
    waits = [a.deadline_s() for a in durable.alarms.values()]
    waits += [run.deadline_s for run in durable.open_runs()]
    if 0.0 < state.volatile.guard_until_s < float("inf"):
        waits.append(state.volatile.guard_until_s)
    hold = durable.hold
    if hold is not None and hold.for_s is not None and hold.since.boot_id == durable.boot_id:
        waits.append(hold.since.boot_s + hold.for_s)
    shelves = durable.shelves.values()
    waits += [shelf.since.boot_s + shelf.for_s for shelf in shelves if shelf.since.boot_id == durable.boot_id]
    return min((at for at in waits if at is not None), default=None)


def why_not_leave(site: Site, state: State, request: Request, now: At) -> str | None:
    """
    Return why *request* may not leave now although its intent is durable, None when it may.

    Asked at the last moment: a hold, an expiry, or evidence that has grown too old since it was decided.
    """
    hold = state.durable.hold
    if hold is not None and not hold.let_finish:
        return f"on hold by {hold.owner}"
    run = state.durable.runs.get(request.run)
    if run is None or run.key != request.key or run.returned_s is not None:
        return "the run has moved on"
    if run.aborted_by is not None and not request.undo:
        return f"aborted by {run.aborted_by}"
    if now.boot_s > request.expires_at:
        return "the request has expired"
    points = state.points(site)
    for evidence in request.evidence:
        observation = points.fresh(evidence.point, now.boot_s, evidence.max_age_s)
        if observation is None:
            return f"{evidence.point} is older than {evidence.max_age_s:.0f} s"
        if observation.quality is not Quality.GOOD:
            return f"{evidence.point} cannot be seen"
    return None


# ---------------------------------------------------------------- events


def take_event(work: Work, event: Event) -> None:
    """Decide what the event itself means, before anything is judged."""
    match event:
        case Started():
            take_start(work, event)
        case TimeGap():
            work.emit(GapSeen(event.gap_s, event.reason))
            rebase(work)
            for run in work.durable.open_runs():
                if run.key is None or run.returned_s is not None:  # else its command is on its way, and will answer
                    look_again(work, run, Move.RESTARTED)
        case ClockStepped():
            work.emit(ClockStepSeen(event.step_s))
        case JournalHealth():
            work.emit(JournalTrouble(event.durable, event.reason))
        case CommandSent() | CommandEnded() | EvidenceExpired():
            take_command(work, event)
        case _ if isinstance(event, Asked):
            take_person(work, event)
        case _:
            pass


def take_start(work: Work, event: Started) -> None:
    """We are up: delays start anew after a reboot, and every open run looks first."""
    new_boot = work.durable.boot_id not in ("", work.now.boot_id)
    safe = None if event.journal_intact else event.why_not
    work.emit(AgentStarted(event.version, event.site_digest, new_boot, safe))
    if safe is not None and work.durable.hold is None:
        # Holds, lockouts and budgets may be lost with the journal, so a person says when it may act again.
        work.emit(HoldSet("changeover", f"safe mode: {safe}", False, None))
    if new_boot:
        rebase(work)
    drop_lost_alarms(work)
    for run in work.durable.open_runs():
        if has_steps(work, run):
            look_again(work, run, Move.RESTARTED)
        else:
            hold_lost_run(work, run)


def drop_lost_alarms(work: Work) -> None:
    """End the alarms that the site file no longer has: nothing would ever clear them."""
    for key, old in work.durable.alarms.items():
        if key not in work.site.alarms:
            older = old.older_than_start
            work.emit(AlarmMoved(old.key, old.id, old.tier(), Tier.OK, {}, False, False, older, ()))


def hold_lost_run(work: Work, run: Run) -> None:
    """Hold an open run whose runbook the site file no longer has: a person ends it by hand."""
    reason = "the site file no longer has its runbook as it was"
    work.emit(RunLookedAgain(run.id, Move.RESTARTED, work.now_s, work.now_s, None, ()))
    work.emit(Locked(run.runbook.removesuffix(".return"), f"run {run.id} ended held: {reason}", run.incident))
    work.emit(RunEnded(run.id, RunState.HELD, Move.STUCK, reason))


def rebase(work: Work) -> None:
    """Start every running delay anew."""
    specs, now_s = work.site.alarms, work.now_s
    waiting = {
        key: alarms.rebase(specs[AlarmKey(key)], a, now_s)
        for key, a in work.durable.alarms.items()
        if a.deadline_s() is not None and key in specs
    }
    if waiting:
        work.emit(DelaysRebased(waiting))


def take_command(work: Work, event: CommandSent | CommandEnded | EvidenceExpired) -> None:
    """Bring the executor's word to the run that it is about; a word about another key is late and changes nothing."""
    run = next((r for r in work.durable.open_runs() if r.key == event.key), None)
    if run is None:
        return
    match event:
        case CommandSent() if not run.sent and run.returned_s is None:
            work.emit(StepSent(run.id, event.key))
        case CommandEnded() if run.returned_s is not None and not run.sent and event.outcome not in UNTOUCHED:
            work.emit(StepSent(run.id, event.key))  # we died before we could note it: the executor's record has it
        case CommandEnded() if run.returned_s is None and event.outcome is not Outcome.NEVER:
            returned(work, run, event.outcome, event.detail)
        case EvidenceExpired() if run.returned_s is None and not run.sent:
            reason = "the evidence grew too old before the command left"
            work.emit(StepWithdrawn(run.id, event.key, reason, work.now_s + WAITING_S))
        case _:
            pass


def hold_runs_past_return(work: Work) -> None:
    """
    While nothing may leave, a run that is past its point of no return is held, so that a person ends it safely by hand;
    one whose command is on its way, as soon as that has come back.
    """
    if stopped_by(work) is None:
        return
    for run in work.durable.open_runs():
        if past_no_return(run, work.site.runbooks[run.runbook]) and (run.state, Move.STUCK) in TRANSITIONS:
            end(work, run, RunState.HELD, Move.STUCK, "put on hold past its point of no return")


# ---------------------------------------------------------------- alarms


def decide_alarms(work: Work) -> None:
    """Move the alarms that were looked at in this pass, and those whose delay is over."""
    due = [AlarmKey(k) for k, a in work.durable.alarms.items() if (d := a.deadline_s()) is not None and d <= work.now_s]
    for key in dict.fromkeys((*work.volatile.touched, *due)):
        if key in work.site.alarms:
            decide_alarm(work, key)


def decide_alarm(work: Work, key: AlarmKey) -> None:
    """Move one alarm by the evidence of now; record it if anything changed."""
    spec = work.site.alarms[key]
    old = work.durable.alarms.get(key)
    raw = work.volatile.raw.get(key)
    if old is None and (raw is None or Verdict.BAD not in raw.rungs.values()):
        return
    before = old or Alarm(key, work.now)
    # What moves a runbook is damped by how long it must be good again and by the budget, which the site sets itself.
    activations = () if spec.acts else work.durable.activations.get(key, ())
    rungs: dict[str, RungState] = {}
    blind = before.blind
    for rung in spec.rungs:
        tier = str(rung.tier)
        verdict = raw.rungs.get(tier, Verdict.UNKNOWN) if raw is not None else Verdict.UNKNOWN
        was = before.rungs.get(tier, RungState())
        off_s = alarms.off_delay_s(rung, activations, work.now_s)
        rungs[tier] = alarms.advance(rung, was, verdict, work.now_s, off_s)
        if rungs[tier].state is AlarmState.ACTIVE and was.state is AlarmState.PENDING and verdict is Verdict.UNKNOWN:
            blind = True
    verdicts = raw.rungs.values() if raw is not None else ()
    blind = blind and Verdict.BAD not in verdicts
    unconfirmed = before.unconfirmed and all(v is Verdict.UNKNOWN for v in verdicts)
    moved = replace(before, rungs=rungs, blind=blind, unconfirmed=unconfirmed)
    if moved == before:
        return
    record_alarm(work, before, moved, new=old is None)


def record_alarm(work: Work, before: Alarm, moved: Alarm, *, new: bool) -> None:
    """Record the change of one alarm."""
    key = moved.key
    was, tier = before.tier(), moved.tier()
    number = before.id
    if number is None and tier is not Tier.OK:
        number = f"A{work.durable.alarm_no + 1}"
    older = key not in work.volatile.seen_good if new else before.older_than_start
    facts = work.facts(sorted(work.site.alarms[key].points()))
    work.emit(AlarmMoved(key, number, was, tier, moved.rungs, moved.blind, moved.unconfirmed, older, facts))


def replay(records: Iterable[Record], state: State) -> State:
    """Return *state* after *records*, by apply alone."""
    durable = state.durable
    for record in records:
        durable = apply(durable, record)
    return replace(state, durable=durable)
