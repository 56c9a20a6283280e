"""What a person may ask of a running agent, as a table: the words each verb takes, and what it does."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agent.clock import Clock
from agent.core.model import (
    AbortAsked,
    AckAsked,
    AlarmKey,
    ApproveAsked,
    Choice,
    Event,
    HoldAsked,
    LiftAsked,
    ReleaseAsked,
    ResetAsked,
    RunAsked,
    RunChosen,
    ShelveAsked,
    UnshelveAsked,
)
from agent.core.people import (
    SHELVE_S_MAX,
    meant,
    why_not_abort,
    why_not_ack,
    why_not_lift,
    why_not_order,
    why_not_shelve,
)
from agent.core.progress import stopped_by
from agent.core.records import (
    AlarmAcknowledged,
    AlarmShelved,
    AlarmUnshelved,
    BlockLifted,
    HoldReleased,
    HoldSet,
    Record,
    RunAborted,
    RunApproved,
    RunEnded,
    RunLookedAgain,
    RunOpened,
    RunPaused,
    StepDenied,
    StepIntended,
    Unlocked,
)
from agent.core.run import OPEN_STATES, Run, RunState
from agent.core.site import Site
from agent.core.state import State
from agent.core.work import Work
from agent.errors import ChangeoverError
from agent.views import JournalView, UnknownName, explain, plan, status
from agent.views.parts import alarm_key, alarm_plain

TEXT_CHARS_MAX: Final = 200
HOLD_S_MAX: Final = 366 * 86_400.0
CHOSEN: Final = (RunLookedAgain, RunPaused, StepIntended, RunEnded, Unlocked)  # what a choice comes to

Words = Mapping[str, Any]
Check = Callable[[Any], str | None]  # why a word is wrong, None when it is right


class Desk(Protocol):
    """What the control socket needs of the loop."""

    @property
    def site(self) -> Site: ...
    @property
    def state(self) -> State: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def journal_view(self) -> JournalView: ...

    async def ask(self, event: Event) -> tuple[Record, ...]:
        """Take *event*; return its records when they are durable. Raises TimeoutError when they do not become so."""
        ...

    async def reread(self, owner: str) -> Any:
        """Have the site file read anew; return what became of it, when that is durable. Raises TimeoutError."""
        ...


Do = Callable[[Desk, str, Words], Awaitable[Any]]


class Refused(ChangeoverError):
    """The request is not done. `code` is one of those in docs/control.md."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its words with their checks, those that may be left out, and what it does."""

    do: Do
    needs: Mapping[str, Check]
    may_have: Mapping[str, Check]


def checked(request: Mapping[str, Any]) -> tuple[str, Words]:
    """Return verb and words of *request*. Raises Refused for every mistake in it at once."""
    name = request.get("verb")
    if not isinstance(name, str) or name not in VERBS:
        raise Refused("unknown_verb", f"verb must be one of {', '.join(VERBS)}")
    verb = VERBS[name]
    words = {key: value for key, value in request.items() if key != "verb"}
    known = {**verb.needs, **verb.may_have}
    wrong = [f"{key} is missing" for key in verb.needs if key not in words]
    wrong += [f"{key} is not known to {name}" for key in words if key not in known]
    wrong += [f"{key} {why}" for key, value in words.items() if key in known and (why := known[key](value))]
    if wrong:
        raise Refused("bad_request", "; ".join(wrong))
    return name, words


def a_text(value: Any) -> str | None:
    """Check a short text of one line."""
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX or not value.isprintable():
        return f"must be a text of one line and at most {TEXT_CHARS_MAX} characters"
    return None


def a_name(value: Any) -> str | None:
    """Check a name: a text that is not empty."""
    return "must be a name" if value == "" else a_text(value)


def a_flag(value: Any) -> str | None:
    """Check a yes or no."""
    return None if isinstance(value, bool) else "must be true or false"


def a_length(value: Any) -> str | None:
    """Check a length of time in seconds, or null."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return None if is_number and 0 < value <= HOLD_S_MAX else f"must be a number of seconds up to {HOLD_S_MAX:.0f}"


def a_shelf_length(value: Any) -> str | None:
    """Check for how long an alarm is shelved."""
    wrong = f"must be a number of seconds up to {SHELVE_S_MAX:.0f}"
    return wrong if value is None or a_length(value) is not None or value > SHELVE_S_MAX else None


def a_choice(value: Any) -> str | None:
    """Check what a person may choose for a run."""
    words = [str(choice) for choice in Choice]
    return None if value in words else f"must be one of {', '.join(words)}"


# ---------------------------------------------------------------- looking


async def do_status(desk: Desk, owner: str, words: Words) -> Any:
    """Return what stands now."""
    return status(desk.site, desk.state, desk.clock.now(), desk.journal_view)


async def do_explain(desk: Desk, owner: str, words: Words) -> Any:
    """Return why something is as it is."""
    try:
        return explain(desk.site, desk.state, desk.clock.now(), words["id"])
    except UnknownName as error:
        raise Refused("not_found", str(error)) from error


async def do_plan(desk: Desk, owner: str, words: Words) -> Any:
    """Return what a runbook would do now."""
    try:
        return plan(desk.site, desk.state, desk.clock.now(), words["runbook"])
    except UnknownName as error:
        raise Refused("not_found", str(error)) from error


def now(desk: Desk) -> Work:
    """Return what stands now, to ask the core by."""
    return Work(desk.site, desk.state, desk.clock.now())


# ---------------------------------------------------------------- deciding


async def told(desk: Desk, event: Event, *expected: type[Any]) -> Any:
    """Bring *event* to the core; return what stands afterwards. Raises Refused as `recorded`."""
    await recorded(desk, event, *expected)
    return afterwards(desk)


async def recorded(desk: Desk, event: Event, *expected: type[Any]) -> tuple[Record, ...]:
    """
    Bring *event* to the core; return the records that came of it. Raises Refused when none of them is of an *expected*
    type: beside it, the same pass may have decided other things.
    """
    records = await desk.ask(event)
    if not any(isinstance(record.body, expected) for record in records):
        denied = next((record.body.reason for record in records if isinstance(record.body, StepDenied)), None)
        journal = desk.journal_view
        lost = None if journal.durable else f"it could not be remembered: {journal.reason}"
        raise Refused("refused", denied or lost or "it is not possible as things stand now")
    return records


def afterwards(desk: Desk, run: str = "") -> Any:
    """Return what stands after a person's word: with the runs that are open or held, and *run* however it stands."""
    after = status(desk.site, desk.state, desk.clock.now(), desk.journal_view)
    wanted = {str(state) for state in (*OPEN_STATES, RunState.HELD)}
    runs = [one for one in after["runs"] if one["state"] in wanted or one["id"] == run]
    return {key: after[key] for key in ("mode", "hold", "acting", "blocks")} | {"runs": runs}


async def do_hold(desk: Desk, owner: str, words: Words) -> Any:
    """Let no new command leave."""
    length = words.get("for_s")
    event = HoldAsked(
        owner=owner,
        reason=words.get("reason") or "no reason given",
        let_finish=words.get("let_finish", False),
        for_s=None if length is None else float(length),
    )
    return await told(desk, event, HoldSet)


async def do_release(desk: Desk, owner: str, words: Words) -> Any:
    """End the hold."""
    if desk.state.durable.hold is None:
        raise Refused("refused", "there is no hold")
    return await told(desk, ReleaseAsked(owner), HoldReleased)


async def do_choose(desk: Desk, owner: str, words: Words) -> Any:
    """Decide about a run that stands still."""
    run = run_of(desk.state, words["run"])
    choice = Choice(words["choice"])
    if choice is Choice.RESET:
        if run.state is not RunState.HELD:
            raise Refused("refused", f"{run.id} is {run.state}, not held: there is nothing to reset")
    elif not run.paused and run.state is not RunState.HELD:
        raise Refused("refused", f"{run.id} is {run.state} and does not stand still: there is nothing to choose")
    stop = stopped_by(now(desk))
    if stop is not None:
        raise Refused("refused", f"stopped by {stop}: no run goes on before that ends (changeover release)")
    return await told(desk, RunChosen(owner, run.id, choice), *CHOSEN)


async def do_approve(desk: Desk, owner: str, words: Words) -> Any:
    """Approve a run that asks."""
    run = run_of(desk.state, words["run"])
    if run.approved is not False or run.state is not RunState.WAITING:
        raise Refused("refused", f"{run.id} is {run.state} and asks nobody")
    return await told(desk, ApproveAsked(owner, run.id), RunApproved)


async def do_reset(desk: Desk, owner: str, words: Words) -> Any:
    """Lift the lockout, the block and the spent budget of a runbook, named itself or by one of its runs."""
    name = words["runbook"]
    run = desk.state.durable.runs.get(name)
    runbook = (run.runbook if run is not None else name).removesuffix(".return")
    if runbook not in desk.site.runbooks and runbook not in desk.state.durable.lockouts:
        known = ", ".join(book.name for book in desk.site.runbooks.values() if not book.is_return)
        raise Refused("not_found", f"there is no runbook {name}; known are {known or 'none at all'}")
    return await told(desk, ResetAsked(owner, runbook), Unlocked)


async def do_lift(desk: Desk, owner: str, words: Words) -> Any:
    """End the quiet time of a runbook."""
    runbook = words["runbook"]
    if runbook not in desk.site.runbooks and runbook not in desk.state.durable.blocks:
        raise Refused(
            "not_found", f"there is no runbook {runbook}; known are {', '.join(desk.site.runbooks) or 'none'}"
        )
    refuse(why_not_lift(now(desk), runbook))
    return await told(desk, LiftAsked(owner, runbook), BlockLifted)


async def do_run(desk: Desk, owner: str, words: Words) -> Any:
    """Start a run on a person's word."""
    book = desk.site.runbooks.get(words["runbook"])
    if book is None:
        known = ", ".join(desk.site.runbooks) or "none at all"
        raise Refused("not_found", f"there is no runbook {words['runbook']}; known are {known}")
    refusal = why_not_order(now(desk), book)
    refuse(refusal[1] if refusal is not None else None)
    records = await recorded(desk, RunAsked(owner, book.name), RunOpened)
    opened = (record.body for record in records if isinstance(record.body, RunOpened))
    run = next((body.run for body in opened if body.asked_by is not None), None)
    refuse(None if run is not None else "another run began at the same moment")
    return afterwards(desk, run or "")


async def do_abort(desk: Desk, owner: str, words: Words) -> Any:
    """Let a run go no further, and take back what it has done."""
    run = run_of(desk.state, words["run"])
    refuse(why_not_abort(now(desk), run))
    await recorded(desk, AbortAsked(owner, run.id), RunAborted)
    return afterwards(desk, run.id)


def refuse(reason: str | None) -> None:
    """Raise Refused for *reason*, if there is one."""
    if reason is not None:
        raise Refused("refused", reason)


# ---------------------------------------------------------------- alarms


async def do_ack(desk: Desk, owner: str, words: Words) -> Any:
    """Take note of an alarm, or of all that stand in an incident; return them."""
    work, name = now(desk), words["id"]
    if name not in work.durable.incidents:
        key = key_of(work, name)
        alarm = work.durable.alarms.get(key)
        name = alarm.id if alarm is not None and alarm.id is not None else name
    refuse(why_not_ack(work, name))
    keys = [alarm.key for alarm in meant(work, name)]
    await recorded(desk, AckAsked(owner, name), AlarmAcknowledged)
    return alarms_now(desk, keys)


async def do_shelve(desk: Desk, owner: str, words: Words) -> Any:
    """Let nobody be told of an alarm for a time; return it."""
    work = now(desk)
    key, for_s = key_of(work, words["alarm"]), float(words["for_s"])
    refuse(why_not_shelve(work, key, for_s))
    await recorded(desk, ShelveAsked(owner, key, for_s, words["reason"]), AlarmShelved)
    return alarms_now(desk, [key])


async def do_unshelve(desk: Desk, owner: str, words: Words) -> Any:
    """Let a shelved alarm be told of again; return it."""
    key = key_of(now(desk), words["alarm"])
    refuse(None if key in desk.state.durable.shelves else f"{key} is not shelved")
    await recorded(desk, UnshelveAsked(owner, key), AlarmUnshelved)
    return alarms_now(desk, [key])


def key_of(work: Work, name: str) -> AlarmKey:
    """Return the key of the alarm that *name* means (A7 or wan1.hq_dead). Raises Refused."""
    key = alarm_key(work, name)
    if key is None:
        raise Refused("not_found", f"there is no alarm {name}")
    return key


def alarms_now(desk: Desk, keys: list[AlarmKey]) -> Any:
    """Return the alarms of *keys* as they stand, those that have ended left out."""
    work = now(desk)
    return {"alarms": [alarm_plain(work, work.durable.alarms[key]) for key in keys if key in work.durable.alarms]}


async def do_reload(desk: Desk, owner: str, words: Words) -> Any:
    """Have the site file read anew, and return what became of it: a file that is not taken is an answer, no error."""
    return await desk.reread(owner)


def run_of(state: State, name: str) -> Run:
    """Return the run of this id. Raises Refused."""
    run = state.durable.runs.get(name)
    if run is None:
        raise Refused("not_found", f"there is no run {name}")
    return run


VERBS: Final[Mapping[str, Verb]] = {
    "status": Verb(do_status, {}, {}),
    "explain": Verb(do_explain, {"id": a_name}, {}),
    "plan": Verb(do_plan, {"runbook": a_name}, {}),
    "hold": Verb(do_hold, {}, {"reason": a_text, "for_s": a_length, "let_finish": a_flag}),
    "release": Verb(do_release, {}, {}),
    "choose": Verb(do_choose, {"run": a_name, "choice": a_choice}, {}),
    "approve": Verb(do_approve, {"run": a_name}, {}),
    "reset": Verb(do_reset, {"runbook": a_name}, {}),
    "lift": Verb(do_lift, {"runbook": a_name}, {}),
    "run": Verb(do_run, {"runbook": a_name}, {}),
    "abort": Verb(do_abort, {"run": a_name}, {}),
    "ack": Verb(do_ack, {"id": a_name}, {}),
    "shelve": Verb(do_shelve, {"alarm": a_name, "for_s": a_shelf_length, "reason": a_name}, {}),
    "unshelve": Verb(do_unshelve, {"alarm": a_name}, {}),
    "reload": Verb(do_reload, {}, {}),
}
LOOKING: Final = frozenset({"status", "explain", "plan"})  # the verbs that change nothing
