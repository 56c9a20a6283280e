"""Taking runs forward: what each open run does next, given what is seen now."""

from __future__ import annotations

from dataclasses import replace

from agent.core.judge import Condition, holds
from agent.core.model import Outcome, PointId, Request
from agent.core.policy import Question, evidence, family, why_not_command
from agent.core.records import (
    ArrangementEntered,
    ArrangementLeft,
    Blocked,
    Body,
    Locked,
    RunEnded,
    RunLookedAgain,
    RunPaused,
    Spent,
    StepDenied,
    StepIntended,
    StepResulted,
    StepUndone,
    StepVerified,
)
from agent.core.run import ACTING_S, APPROVAL_S, SENDS_PER_STEP, WAITING_S, IllegalMove, Move, Run, RunState
from agent.core.runbook import IfDenied, OnReturn, Runbook, Step
from agent.core.work import Work

REQUEST_LIFE_S = 10.0  # a request that has not left by then does not leave
UNTOUCHED_QUIET_S = 60.0  # after a run that was refused before its first command
DECIDED = (Outcome.DONE, Outcome.FAILED, Outcome.REFUSED)
UNTOUCHED = (Outcome.NEVER, Outcome.REFUSED)


def progress_runs(work: Work) -> None:
    """Take every open run as far as it goes now."""
    for run in work.durable.open_runs():
        progress(work, run.id)


def progress(work: Work, run_id: str) -> None:
    """Take one run as far as it goes now; each turn of the loop is one record, and the table bounds them."""
    for _ in range(8):
        run = work.durable.runs[run_id]
        count = len(work.records)
        STATES.get(run.state, nothing)(work, run)
        if len(work.records) == count:
            return


def nothing(work: Work, run: Run) -> None:
    """An ended run does nothing."""


# ---------------------------------------------------------------- waiting


def waiting(work: Work, run: Run) -> None:
    """Ask the guards; send the command, wait on, or give up."""
    if aborting(work, run) or pausing(work, run):
        return
    book = work.site.runbooks[run.runbook]
    if run.approved is False:
        if late(work, run):
            end(work, run, RunState.UNDONE, Move.REFUSED, "not approved")
        return
    if receding(work, run, book):
        take_back(work, run, "the cause has cleared")
        return
    refusal = why_not_command(question(work, run, book))
    if refusal is None:
        intend(work, run, Move.PERMITTED, undo=False, resend=False)
    elif late(work, run):
        state, move = (RunState.HELD, Move.STUCK) if touched(run) else (RunState.UNDONE, Move.REFUSED)
        end(work, run, state, move, refusal[1])


def touched(run: Run) -> bool:
    """Tell whether a command of this run has left, or may have."""
    return run.step > 0 or bool(run.sends) or run.resent


def take_back(work: Work, run: Run, reason: str) -> None:
    """End a run that waits: at once when nothing has been touched, else by undoing."""
    if touched(run):
        undo(work, run, Move.UNDO)
    else:
        end(work, run, RunState.UNDONE, Move.REFUSED, reason)


def aborting(work: Work, run: Run) -> bool:
    """
    End or take back a run that a person aborted; past its point of no return it is held. Returns whether it was aborted.
    """
    if run.aborted_by is None:
        return False
    reason = f"aborted by {run.aborted_by}"
    if past_no_return(run, work.site.runbooks[run.runbook]):
        end(work, run, RunState.HELD, Move.STUCK, f"{reason} past its point of no return")
    elif not touched(run) and (run.state is RunState.WAITING or never_left(work, run)):
        end(work, run, RunState.UNDONE, Move.REFUSED, reason)
    elif not pausing(work, run):
        undo(work, run, Move.UNDO)
    return True


def pausing(work: Work, run: Run) -> bool:
    """
    Keep a run where it stands while a hold or safe mode lasts, and after it until a person chooses. Returns whether it
    stands still.
    """
    by = stopped_by(work)
    if by is not None and not run.paused:
        work.emit(RunPaused(run.id, True, by, None))
        return True
    return run.paused


def stopped_by(work: Work) -> str | None:
    """Return who or what lets no command leave, not even to finish a run, None when commands may leave."""
    hold = work.durable.hold
    if hold is not None and not hold.let_finish:
        return hold.owner
    return "safe mode" if work.volatile.safe_reason is not None else None


def receding(work: Work, run: Run, book: Runbook) -> bool:
    """Tell whether the cause is gone and the runbook wants to be taken back then."""
    if run.asked_by is not None or book.is_return or book.on_return is not OnReturn.UNDO or past_no_return(run, book):
        return False
    incident = work.durable.incident_now(run.incident)
    return incident is None or incident.ended_at is not None


def past_no_return(run: Run, book: Runbook) -> bool:
    """Tell whether a step that cannot be taken back has been started."""
    return any(step.point_of_no_return for step in book.steps[: run.step + (run.key is not None)])


# ---------------------------------------------------------------- acting


def acting(work: Work, run: Run) -> None:
    """Wait for the command to come back; give it up when it does not."""
    if late(work, run):
        returned(work, run, Outcome.UNCERTAIN, "the command did not come back")


def returned(work: Work, run: Run, outcome: Outcome, detail: str) -> None:
    """Record what came back, and from now on look."""
    if run.key is None:
        raise IllegalMove(f"{run.id} has no command that could come back")
    if outcome is Outcome.REFUSED and run.state is RunState.ACTING and run.step == 0:
        end(work, run, RunState.UNDONE, Move.REFUSED, f"the executor refused: {detail}")
        return
    step = step_of(work, run)
    work.emit(
        StepResulted(
            run=run.id,
            key=run.key,
            outcome=outcome,
            detail=detail,
            returned_s=work.now_s,
            deadline_s=work.now_s + step.within_s,
            look=tuple(step.points()),
        )
    )


# ---------------------------------------------------------------- verifying


def verifying(work: Work, run: Run) -> None:
    """Look for the wanted state; when it does not show in time, undo, hold or go on, as the step says."""
    if aborting(work, run):
        return
    book = work.site.runbooks[run.runbook]
    step = book.steps[run.step]
    if proven(work, run, step.proof):
        verified(work, run, book, step)
    elif run.restarted and never_left(work, run):
        send_again(work, run, book)
    elif receding(work, run, book) and not pausing(work, run):
        undo(work, run, Move.UNDO)
    elif late(work, run) and not pausing(work, run):
        not_proven(work, run, book, step)


def proven(work: Work, run: Run, conditions: tuple[Condition, ...]) -> bool:
    """Tell whether all *conditions* are seen, each by an observation asked for after the command came back."""
    if run.returned_s is None or not conditions:
        return False
    points = replace(work.points, blind_before=max(run.returned_s, work.volatile.blind_before))
    return all(holds(condition, points, work.now_s) is True for condition in conditions)


def verified(work: Work, run: Run, book: Runbook, step: Step) -> None:
    """Record a proven step; begin the next, or end the run."""
    last = run.step + 1 == len(book.steps)
    work.emit(StepVerified(run.id, run.step, last, work.now_s + WAITING_S, work.facts(list(step.points()))))
    if last:
        end(work, run, RunState.DONE, Move.CONFIRMED, "")


def never_left(work: Work, run: Run) -> bool:
    """Tell whether the executor has said that the interrupted command never reached it, or was refused at its door."""
    return run.key is not None and run.outcome is None and work.volatile.outcomes.get(run.key) in UNTOUCHED


def send_again(work: Work, run: Run, book: Runbook) -> None:
    """After a restart: the command was not performed, so it is sent once more if the guards still allow it."""
    if pausing(work, run):
        return
    refusal = why_not_command(question(work, run, book))
    if run.resent:
        end(work, run, RunState.HELD, Move.STUCK, "sent again after a restart, and again interrupted")
    elif refusal is None:
        intend(work, run, Move.RESEND, undo=False, resend=True)
    elif late(work, run):
        # This step touched nothing: the executor's own record says so. There is nothing to undo, and nothing is wrong.
        state, move = (RunState.HELD, Move.STUCK) if touched(run) else (RunState.UNDONE, Move.REFUSED)
        end(work, run, state, move, refusal[1])


def not_proven(work: Work, run: Run, book: Runbook, step: Step) -> None:
    """The time for proof is over."""
    known = run.key is not None and (run.outcome or work.volatile.outcomes.get(run.key)) in DECIDED
    if undone_by_reboot(work, run, step) and why_not_command(question(work, run, book)) is None:
        intend(work, run, Move.RESEND, undo=False, resend=False)
        return
    if run.restarted and not known:
        harmless = step.resendable and not contradicted(work, run, step.start)
        if harmless and not run.resent and why_not_command(question(work, run, book)) is None:
            intend(work, run, Move.RESEND, undo=False, resend=True)
            return
        if not harmless:
            end(work, run, RunState.HELD, Move.STUCK, "interrupted, and nothing shows whether it was done")
            return
    reason = f"not proven within {step.within_s:.0f} s"
    work.emit(StepDenied(run.id, run.step, reason, work.facts(list(step.points()))))
    if past_no_return(run, book) or step.if_denied is IfDenied.HOLD:
        end(work, run, RunState.HELD, Move.STUCK, reason)
    elif step.if_denied is IfDenied.NEXT:
        verified(work, run, book, step)
    else:
        undo(work, run, Move.DENIED)


def undone_by_reboot(work: Work, run: Run, step: Step) -> bool:
    """Tell whether what was done may be gone with the boot it was done in, as a route is, and may be done once more."""
    if run.opened_at.boot_id == work.now.boot_id or not step.resendable:
        return False
    sends = (run.sends or {}).get(run.send_slot(), 0)
    return sends < SENDS_PER_STEP and not contradicted(work, run, step.start)


def contradicted(work: Work, run: Run, conditions: tuple[Condition, ...]) -> bool:
    """Tell whether one of *conditions* is seen not to hold, by an observation asked for after the command came back."""
    if run.returned_s is None:
        return False
    points = replace(work.points, blind_before=max(run.returned_s, work.volatile.blind_before))
    return any(holds(condition, points, work.now_s) is False for condition in conditions)


# ---------------------------------------------------------------- undoing


def undo(work: Work, run: Run, move: Move) -> None:
    """Take the current step back, and those before it after that."""
    intend(work, run, move, undo=True, resend=False)


def undoing(work: Work, run: Run) -> None:
    """Wait for the undoing command, then look whether the plant stands as before."""
    if run.key is None:
        if not pausing(work, run):
            intend(work, run, Move.NEXT, undo=True, resend=False)
        return
    if run.returned_s is None:
        if late(work, run):
            returned(work, run, Outcome.UNCERTAIN, "the command did not come back")
        return
    step = step_of(work, run)
    outcome = run.outcome or work.volatile.outcomes.get(run.key)
    unsure = outcome in (None, Outcome.UNCERTAIN) and step.resendable and late(work, run)
    if proven(work, run, step.start):
        undone(work, run, "seen")
    elif (outcome is Outcome.NEVER or unsure) and not run.resent:
        if not pausing(work, run):
            intend(work, run, Move.RESEND, undo=True, resend=True)
    elif late(work, run):
        still_there = proven(work, run, step.proof) or contradicted(work, run, step.start)
        if outcome is Outcome.DONE and not still_there:
            # With the primary dead, traffic cannot show the start state; the command's word stands, and nothing speaks
            # against it.
            undone(work, run, "not shown by traffic")
        else:
            end(work, run, RunState.HELD, Move.DENIED, "undoing it is not proven")


def undone(work: Work, run: Run, how: str) -> None:
    """One step is taken back; go on with the one before, or end."""
    facts = work.facts(list(step_of(work, run).points()))
    reason = f"{run.reason or 'taken back'} ({how})"
    if run.step > 0:
        work.emit(StepUndone(run.id, run.step, reason, facts))
    else:
        end(work, run, RunState.UNDONE, Move.CONFIRMED, reason)


# ---------------------------------------------------------------- shared

STATES = {
    RunState.WAITING: waiting,
    RunState.ACTING: acting,
    RunState.VERIFYING: verifying,
    RunState.UNDOING: undoing,
}


def question(work: Work, run: Run, book: Runbook) -> Question:
    """Return the question whether the next command of *run* may leave."""
    return Question(work, book, work.durable.incident_now(run.incident), run.asked_by is not None)


def step_of(work: Work, run: Run) -> Step:
    """Return the step that *run* stands at."""
    return work.site.runbooks[run.runbook].steps[run.step]


def late(work: Work, run: Run) -> bool:
    """Tell whether the run's deadline has come."""
    return run.deadline_s is not None and work.now_s >= run.deadline_s


def intend(work: Work, run: Run, move: Move, *, undo: bool, resend: bool) -> None:
    """Record the intent of one command; it leaves when this record is durable."""
    book = work.site.runbooks[run.runbook]
    step = book.steps[run.step]
    attempt = run.attempt if resend else run.attempt + 1
    key = run.key if resend and run.key is not None else f"{run.id}.{run.step}.{attempt}{'u' if undo else ''}"
    slot = f"{run.step}{'u' if undo else ''}"
    if (run.sends or {}).get(slot, 0) >= SENDS_PER_STEP:
        end(work, run, RunState.HELD, Move.STUCK, "sent twice already")
        return
    request = Request(
        key=key,
        verb=step.verb,
        wanted=step.wanted,
        undo=undo,
        run=run.id,
        step=run.step,
        attempt=attempt,
        resend=resend,
        evidence=() if undo else evidence(question(work, run, book)),
        expires_at=work.now_s + REQUEST_LIFE_S,
    )
    if run.step == 0 and attempt == 1 and not undo and not resend:
        work.emit(Spent(run.runbook, run.id))
    work.emit(StepIntended(run.id, run.step, move, request, work.now_s + ACTING_S))


def look_again(work: Work, run: Run, move: Move) -> None:
    """After a restart, a gap or a person's word: ask the executor, ask the plant, and only then go on."""
    step = step_of(work, run)
    interrupted = move is Move.RESTARTED and run.key is not None and run.outcome is None
    points: tuple[PointId, ...] = step.points()
    waits = run.state is RunState.WAITING
    # While the agent only looks, the time for proof does not run out.
    from_s = max(work.now_s, work.volatile.guard_until_s) if move is Move.RESTARTED else work.now_s
    deadline_s = from_s + (wait_s(run) if waits else step.within_s)
    ask = run.key if interrupted else None
    work.emit(RunLookedAgain(run.id, move, work.now_s, deadline_s, ask, () if waits else tuple(points)))


def wait_s(run: Run) -> float:
    """Return how long a run that waits may go on waiting."""
    return APPROVAL_S if run.approved is False else WAITING_S


def end(work: Work, run: Run, state: RunState, move: Move, reason: str) -> None:
    """
    End a run. What follows from its end is recorded first: a crash in between leaves an open run, which looks again.
    """
    book = work.site.runbooks[run.runbook]
    for body in consequences(work, run, book, state, reason):
        work.emit(body)
    work.emit(RunEnded(run.id, state, move, reason))


def consequences(work: Work, run: Run, book: Runbook, state: RunState, reason: str) -> list[Body]:
    """Return what an ended run leaves behind: an arrangement, a block or a lockout."""
    if state is RunState.DONE:
        if book.is_return:
            return [ArrangementLeft(book.arrangement, run.id)]
        entered = ArrangementEntered(book.arrangement, book.name, run.id, run.incident, book.enters, run.asked_by)
        acted = [Blocked(book.name, "it has just acted", book.limits.block_s)] if book.limits.block_s > 0 else []
        return [entered, *acted]
    locked = Locked(family(book), f"run {run.id} ended {state}: {reason}", run.incident)
    if state is RunState.UNDONE and not touched(run):
        quiet = Blocked(book.name, reason, max(UNTOUCHED_QUIET_S, book.limits.block_s))
        # What a person ordered does not start anew by itself; what a person aborted must not.
        return [] if run.asked_by is not None else [quiet if run.aborted_by is None else locked]
    standing = work.durable.arrangements.get(book.arrangement)
    if standing is not None and standing.run == run.id:  # entered, and then a crash came before the run could end
        return [ArrangementLeft(book.arrangement, run.id), locked]
    return [locked]
