"""
What people ask for: each word of theirs, and what comes of it.

A word that is not possible as things stand changes nothing. Why not is asked by the same functions that tell the person.
"""

from __future__ import annotations

from typing import Final

from agent.core.alarm import Alarm
from agent.core.model import (
    SEVERITY,
    AbortAsked,
    AckAsked,
    AlarmKey,
    ApproveAsked,
    Asked,
    Choice,
    HoldAsked,
    LiftAsked,
    Mode,
    ReleaseAsked,
    ResetAsked,
    RunAsked,
    RunChosen,
    ShelveAsked,
    Tier,
    UnshelveAsked,
)
from agent.core.policy import (
    ORDER_GUARDS,
    SITE_GUARDS,
    START_GUARDS,
    Guard,
    Question,
    asked,
    budget_spent,
    facts,
    first_reason,
    incident_id,
)
from agent.core.progress import look_again, stopped_by, take_back, touched, undo, wait_s
from agent.core.records import (
    AlarmAcknowledged,
    AlarmShelved,
    AlarmUnshelved,
    BlockLifted,
    HoldReleased,
    HoldSet,
    RunAborted,
    RunApproved,
    RunOpened,
    RunPaused,
    StepDenied,
    Unlocked,
)
from agent.core.run import OPEN_STATES, SENDS_PER_STEP, WAITING_S, Move, Run, RunState
from agent.core.runbook import Runbook
from agent.core.work import Work

SHELVE_S_MAX: Final = 86_400.0  # what nobody hears of for longer than a day is forgotten

# A person who orders a run takes the place of its cause; all that speaks against acting at all is asked as ever.
ORDERED_GUARDS: Final[tuple[Guard, ...]] = (
    *SITE_GUARDS,
    *START_GUARDS,
    ("budget_spent", budget_spent),
    *ORDER_GUARDS,
)


def take_person(work: Work, event: Asked) -> None:
    """Do what a person asked for."""
    match event:
        case HoldAsked():
            work.emit(HoldSet(event.owner, event.reason, event.let_finish, event.for_s))
        case ReleaseAsked():
            if work.durable.hold is not None:
                work.emit(HoldReleased(event.owner))
        case RunAsked() | ApproveAsked() | RunChosen() | AbortAsked():
            take_word_on_run(work, event)
        case ResetAsked():
            work.emit(Unlocked(event.runbook, event.owner))
        case LiftAsked():
            if why_not_lift(work, event.runbook) is None:
                work.emit(BlockLifted(event.runbook, event.owner))
        case AckAsked() | ShelveAsked() | UnshelveAsked():
            take_word_on_alarm(work, event)


def take_word_on_run(work: Work, event: RunAsked | ApproveAsked | RunChosen | AbortAsked) -> None:
    """Begin a run, or decide about one."""
    match event:
        case RunAsked():
            order(work, event)
        case ApproveAsked():
            run = work.durable.runs.get(event.run)
            if run is not None and run.approved is False and run.state is RunState.WAITING:
                work.emit(RunApproved(run.id, event.owner, work.now_s + WAITING_S))
        case RunChosen():
            choose(work, event)
        case AbortAsked():
            run = work.durable.runs.get(event.run)
            if run is not None and why_not_abort(work, run) is None:
                work.emit(RunAborted(run.id, event.owner))


def take_word_on_alarm(work: Work, event: AckAsked | ShelveAsked | UnshelveAsked) -> None:
    """Note what a person wants to hear of an alarm; the alarm itself stays as it is."""
    match event:
        case AckAsked():
            acknowledge(work, event)
        case ShelveAsked():
            if why_not_shelve(work, event.alarm, event.for_s) is None:
                tier = work.durable.alarms[event.alarm].tier()
                work.emit(AlarmShelved(event.alarm, event.owner, event.reason, event.for_s, tier))
        case UnshelveAsked():
            if event.alarm in work.durable.shelves:
                work.emit(AlarmUnshelved(event.alarm, event.owner))


# ---------------------------------------------------------------- alarms


def acknowledge(work: Work, event: AckAsked) -> None:
    """Note for each alarm that is meant, and of which nobody has taken note yet, that a person has."""
    for alarm in meant(work, event.id):
        if alarm.id is not None and not is_noted(work, alarm):
            work.emit(AlarmAcknowledged(alarm.key, alarm.id, event.owner, alarm.tier()))


def meant(work: Work, name: str) -> list[Alarm]:
    """Return the alarms that stand and that *name* means: one by its id, or all of an open incident."""
    standing = [alarm for alarm in work.durable.alarms.values() if alarm.tier() is not Tier.OK]
    incident = work.durable.incidents.get(name)
    keys = incident.alarms if incident is not None else ()
    return [alarm for alarm in standing if alarm.id == name or alarm.key in keys]


def is_noted(work: Work, alarm: Alarm) -> bool:
    """Tell whether a person has taken note of *alarm* as heavy as it is now."""
    noted = work.durable.acknowledgements.get(alarm.key)
    return noted is not None and SEVERITY[noted.tier] >= SEVERITY[alarm.tier()]


def why_not_ack(work: Work, name: str) -> str | None:
    """Return why there is nothing to take note of under *name* (A7 or I3), None when there is."""
    alarms = meant(work, name)
    if not alarms:
        return f"no alarm of {name} stands"
    if all(is_noted(work, alarm) for alarm in alarms):
        owners = dict.fromkeys(work.durable.acknowledgements[alarm.key].owner for alarm in alarms)
        return f"{name} has been acknowledged by {', '.join(owners)}"
    return None


def why_not_shelve(work: Work, key: AlarmKey, for_s: float) -> str | None:
    """Return why alarm *key* cannot be shelved for so long, None when it can."""
    alarm = work.durable.alarms.get(key)
    if alarm is None or alarm.tier() is Tier.OK:
        return f"{key} does not stand: there is nothing to shelve"
    if not 0.0 < for_s <= SHELVE_S_MAX:
        return f"an alarm is shelved for {SHELVE_S_MAX / 3600:.0f} h at most"
    return None


def expire_shelves(work: Work) -> None:
    """Tell again of the alarms whose time on the shelf is over."""
    for key, shelf in work.durable.shelves.items():
        if shelf.left_s(work.now) <= 0.0:
            work.emit(AlarmUnshelved(AlarmKey(key), "its end"))


def expire_hold(work: Work) -> None:
    """End a hold whose time is over."""
    hold = work.durable.hold
    if hold is not None and hold.for_s is not None and work.durable.elapsed_s(hold.since, work.now) >= hold.for_s:
        work.emit(HoldReleased("its end"))


# ---------------------------------------------------------------- runbooks


def order(work: Work, event: RunAsked) -> None:
    """Open a run because a person wants it; it is that person's approval too."""
    book = work.site.runbooks.get(event.runbook)
    if book is None or why_not_order(work, book) is not None:
        return
    q = ordered(work, book)
    work.emit(
        RunOpened(
            run=f"R{work.durable.run_no + 1}",
            runbook=book.name,
            runbook_digest=book.digest,
            incident=incident_id(q),
            approved=True,
            deadline_s=work.now_s + WAITING_S,
            facts=facts(q),
            asked_by=event.owner,
        )
    )


def ordered(work: Work, book: Runbook) -> Question:
    """Return the question whether *book* may run on a person's word, about the incident that it would be for, if any."""
    question = asked(work, book)
    return Question(work, book, question.incident if question is not None else None, ordered=True)


def why_not_order(work: Work, book: Runbook) -> tuple[str, str] | None:
    """Return (code, reason) when a person may not start *book* now, else None."""
    if book.mode is Mode.OFF:
        return "switched_off", f"{book.name} is switched off in the site file"
    if book.is_return and book.arrangement not in work.durable.arrangements:
        return (
            "nothing_to_do",
            f"the site is not in the arrangement {book.arrangement}: there is nothing to return from",
        )
    if not book.is_return and book.arrangement in work.durable.arrangements:
        return "nothing_to_do", f"the site is in the arrangement {book.arrangement} already"
    return first_reason(ordered(work, book), ORDERED_GUARDS)


def why_not_lift(work: Work, runbook: str) -> str | None:
    """Return why there is no quiet time of *runbook* to end, None when there is."""
    block = work.durable.blocks.get(runbook)
    if block is not None and work.durable.elapsed_s(block.since, work.now) < block.for_s:
        return None
    lockout = work.durable.lockouts.get(runbook.removesuffix(".return"))
    if lockout is not None:
        return f"{runbook} is locked, not blocked: {lockout.reason} (changeover runbook reset)"
    return f"there is no block on {runbook}"


# ---------------------------------------------------------------- runs


def why_not_abort(work: Work, run: Run) -> str | None:
    """Return why *run* cannot be aborted, None when it can."""
    if run.state is RunState.HELD:
        return f"{run.id} is held and goes no further by itself: choose undo or reset (changeover runbook)"
    if run.state not in OPEN_STATES:
        return f"{run.id} is {run.state}: there is nothing to abort"
    if run.state is RunState.UNDOING:
        return f"{run.id} is being taken back already"
    if run.aborted_by is not None:
        return f"{run.id} has been aborted by {run.aborted_by}"
    stop = stopped_by(work)
    if stop is not None and (touched(run) or run.state is not RunState.WAITING):
        return f"stopped by {stop}: nothing is taken back before that ends (changeover release)"
    return None


def choose(work: Work, event: RunChosen) -> None:
    """A person decides what becomes of a run that stands still."""
    run = work.durable.runs.get(event.run)
    if run is None or stopped_by(work) is not None or not (run.paused or run.state is RunState.HELD):
        return
    if event.choice is Choice.RESET:
        if run.state is RunState.HELD:
            work.emit(Unlocked(run.runbook.removesuffix(".return"), event.owner))
        return
    reason = why_not_chosen(work, run, event.choice)
    if reason is not None:
        work.emit(StepDenied(run.id, run.step, reason, ()))
    elif event.choice is Choice.GO_ON or run.state is RunState.UNDOING:
        go_on(work, run)
    elif run.state is RunState.WAITING:
        take_back(work, run, f"taken back by {event.owner}")
    else:
        undo(work, run, Move.UNDO)


def why_not_chosen(work: Work, run: Run, choice: Choice) -> str | None:
    """Return why a run that stands still can neither go on nor be undone by us, None when it can."""
    if not has_steps(work, run):
        return "the site file no longer has its runbook as it was: end it by hand"
    lock = work.site.runbooks[run.runbook].lock
    for other in work.durable.open_runs():
        if other.id != run.id and work.site.runbooks[other.runbook].lock == lock:
            return f"run {other.id} of {other.runbook} is not finished"
    if choice is Choice.UNDO and (run.sends or {}).get(f"{run.step}u", 0) >= SENDS_PER_STEP:
        return "it was undone twice already: end it by hand"
    return None


def has_steps(work: Work, run: Run) -> bool:
    """Tell whether the site file still has the step that *run* stands at."""
    book = work.site.runbooks.get(run.runbook)
    return book is not None and run.step < len(book.steps)


def go_on(work: Work, run: Run) -> None:
    """Look again, then go on from what is seen."""
    if run.state is RunState.HELD:
        look_again(work, run, Move.GO_ON)
    else:
        within_s = work.site.runbooks[run.runbook].steps[run.step].within_s
        more_s = wait_s(run) if run.state is RunState.WAITING else within_s
        work.emit(RunPaused(run.id, False, "", work.now_s + more_s))
