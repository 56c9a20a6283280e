"""What a person may ask of a running agent, as a table: the words each verb takes, and what it does."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from agent.clock import Clock
from agent.core.model import ApproveAsked, Choice, Event, HoldAsked, ReleaseAsked, ResetAsked, RunChosen
from agent.core.progress import stopped_by
from agent.core.records import (
    HoldReleased,
    HoldSet,
    Record,
    RunApproved,
    RunEnded,
    RunLookedAgain,
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
from agent.views import JournalView, UnknownName, explain, status

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


# ---------------------------------------------------------------- deciding


async def told(desk: Desk, event: Event, *expected: type[Any]) -> Any:
    """
    Bring *event* to the core; return what stands afterwards. Raises Refused when no record of an *expected* type came of
    it: beside it, the same pass may have decided other things.
    """
    records = await desk.ask(event)
    if not any(isinstance(record.body, expected) for record in records):
        denied = next((record.body.reason for record in records if isinstance(record.body, StepDenied)), None)
        journal = desk.journal_view
        lost = None if journal.durable else f"it could not be remembered: {journal.reason}"
        raise Refused("refused", denied or lost or "it is not possible as things stand now")
    after = status(desk.site, desk.state, desk.clock.now(), desk.journal_view)
    wanted = {str(state) for state in (*OPEN_STATES, RunState.HELD)}
    runs = [run for run in after["runs"] if run["state"] in wanted]
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
    stop = stopped_by(Work(desk.site, desk.state, desk.clock.now()))
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


def run_of(state: State, name: str) -> Run:
    """Return the run of this id. Raises Refused."""
    run = state.durable.runs.get(name)
    if run is None:
        raise Refused("not_found", f"there is no run {name}")
    return run


VERBS: Final[Mapping[str, Verb]] = {
    "status": Verb(do_status, {}, {}),
    "explain": Verb(do_explain, {"id": a_name}, {}),
    "hold": Verb(do_hold, {}, {"reason": a_text, "for_s": a_length, "let_finish": a_flag}),
    "release": Verb(do_release, {}, {}),
    "choose": Verb(do_choose, {"run": a_name, "choice": a_choice}, {}),
    "approve": Verb(do_approve, {"run": a_name}, {}),
    "reset": Verb(do_reset, {"runbook": a_name}, {}),
}
