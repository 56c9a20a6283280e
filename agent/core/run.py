"""
A run: one execution of a runbook, as a machine.

Intent is durable before a command leaves. A command that came back, well or not, is followed by looking: a failed command
may still have moved something. A restart looks first and never repeats blindly. Denial undoes, and what cannot be undone
or proven is held for a person. A run ends as done, undone or held; held and denied runs lock the runbook.

    waiting --permitted--> acting --returned--> verifying --confirmed--> done (or waiting for the next step)
                             |                     |-- denied --> undoing --confirmed--> undone
                             '-- withdrawn --> waiting              '---- denied -----> held
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.core.model import At, Outcome
from agent.errors import ChangeoverError


class RunState(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"
    ACTING = "acting"
    VERIFYING = "verifying"
    UNDOING = "undoing"
    DONE = "done"
    UNDONE = "undone"
    HELD = "held"


class Move(StrEnum):
    """What may happen to a run."""

    PERMITTED = "permitted"  # the guards allow the command; its intent is in the journal
    REFUSED = "refused"  # the guards do not allow it, and nothing has been touched
    WITHDRAWN = "withdrawn"  # the intent was recorded, but the command did not leave
    RETURNED = "returned"  # the command came back, well or not, or is given up
    CONFIRMED = "confirmed"  # the wanted state (or, undoing, the start state) is seen
    NEXT = "next"  # confirmed, and there is another step
    DENIED = "denied"  # it was not seen in time
    STUCK = "stuck"  # nothing that we may do by ourselves is safe
    RESEND = "resend"  # after a restart: not done, harmless to send again, once
    RESTARTED = "restarted"  # the agent came back in the middle
    GO_ON = "go-on"  # a person: look again and go on
    UNDO = "undo"  # a person, or the cause clearing: take it back


S, M = RunState, Move

TRANSITIONS: Final[Mapping[tuple[RunState, Move], RunState]] = {
    (S.WAITING, M.PERMITTED): S.ACTING,
    (S.WAITING, M.REFUSED): S.UNDONE,
    (S.WAITING, M.STUCK): S.HELD,
    (S.WAITING, M.RESTARTED): S.WAITING,
    (S.WAITING, M.UNDO): S.UNDOING,
    (S.ACTING, M.WITHDRAWN): S.WAITING,
    (S.ACTING, M.REFUSED): S.UNDONE,
    (S.ACTING, M.RETURNED): S.VERIFYING,
    (S.ACTING, M.RESTARTED): S.VERIFYING,
    (S.VERIFYING, M.CONFIRMED): S.DONE,
    (S.VERIFYING, M.NEXT): S.WAITING,
    (S.VERIFYING, M.DENIED): S.UNDOING,
    (S.VERIFYING, M.REFUSED): S.UNDONE,
    (S.VERIFYING, M.STUCK): S.HELD,
    (S.VERIFYING, M.RESEND): S.ACTING,
    (S.VERIFYING, M.RESTARTED): S.VERIFYING,
    (S.VERIFYING, M.UNDO): S.UNDOING,
    (S.UNDOING, M.WITHDRAWN): S.UNDOING,
    (S.UNDOING, M.RETURNED): S.UNDOING,
    (S.UNDOING, M.RESEND): S.UNDOING,
    (S.UNDOING, M.NEXT): S.UNDOING,
    (S.UNDOING, M.CONFIRMED): S.UNDONE,
    (S.UNDOING, M.DENIED): S.HELD,
    (S.UNDOING, M.STUCK): S.HELD,
    (S.UNDOING, M.RESTARTED): S.UNDOING,
    (S.HELD, M.GO_ON): S.VERIFYING,
    (S.HELD, M.UNDO): S.UNDOING,
}  # a pair that is not listed is refused and leaves the run as it was

OPEN_STATES: Final = frozenset({S.WAITING, S.ACTING, S.VERIFYING, S.UNDOING})

WAITING_S: Final = 30.0  # a run that is not permitted for so long ends
ACTING_S: Final = 15.0  # a command that does not come back for so long is given up, and the plant is asked
APPROVAL_S: Final = 600.0  # an approval is waited for so long
SENDS_PER_STEP: Final = 2  # the first time, and once more after a restart


class IllegalMove(ChangeoverError):
    """A run was asked to move in a way that its table does not know."""


@dataclass(frozen=True, slots=True)
class Run:
    """
    One run. Times in boot seconds of `boot_id`.

    `key`: of the command that is out or was last sent. `returned_s`: when it came back; proof must have been asked for
    later. `deadline_s`: end of waiting, of acting or of looking. `paused`: a hold keeps it where it stands, and after
    release a person chooses. `approved`: None when nobody is asked. `sends`: commands sent so far, by step. `asked_by`:
    the person who ordered it. `aborted_by`: the person who wants it to be taken back.
    """

    id: str
    runbook: str
    incident: str
    opened_at: At
    state: RunState = RunState.WAITING
    step: int = 0
    attempt: int = 0
    key: str | None = None
    sent: bool = False
    returned_s: float | None = None
    deadline_s: float | None = None
    outcome: Outcome | None = None
    paused: bool = False
    restarted: bool = False
    resent: bool = False
    approved: bool | None = None
    sends: Mapping[str, int] | None = None
    reason: str = ""
    ended_at: At | None = None
    asked_by: str | None = None
    aborted_by: str | None = None

    def send_slot(self) -> str:
        """Return the name under which this step's commands are counted."""
        return f"{self.step}{'u' if self.state is RunState.UNDOING else ''}"


def move(state: RunState, what: Move) -> RunState:
    """Return the state after *what*. Raises IllegalMove for a pair that the table does not list."""
    target = TRANSITIONS.get((state, what))
    if target is None:
        raise IllegalMove(f"a run that is {state} cannot be {what}")
    return target
