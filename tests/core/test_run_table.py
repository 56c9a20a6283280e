"""The table of a run: every pair, every way in and out, and what the core does with a move that is not listed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from agent.core.apply import apply
from agent.core.model import At, Outcome, Request
from agent.core.records import (
    Body,
    Record,
    RunEnded,
    RunLookedAgain,
    RunOpened,
    StepIntended,
    StepResulted,
    StepUndone,
    StepVerified,
    StepWithdrawn,
)
from agent.core.run import OPEN_STATES, TRANSITIONS, IllegalMove, Move, RunState, move
from agent.core.state import Durable

NOW = At("boot-1", 1000.0, 1_700_000_000.0)
ENDED = frozenset({RunState.DONE, RunState.UNDONE, RunState.HELD})


def durable(state: RunState) -> Durable:
    """A run that stands in *state*, by an opening record and a change by hand."""
    opened = apply(Durable(), Record(NOW, RunOpened("R1", "standby", "d", "I1", None, 1030.0, ())))
    return replace(opened, runs={"R1": replace(opened.runs["R1"], state=state, key="R1.0.1")})


def request() -> Request:
    return Request("R1.0.1", "route", (), False, "R1", 0, 1, False, (), 1010.0)


def record_of(what: Move) -> Body:
    """Return a record by which *what* reaches a run."""
    bodies: dict[Move, Body] = {
        Move.PERMITTED: StepIntended("R1", 0, what, request(), 1015.0),
        Move.RESEND: StepIntended("R1", 0, what, request(), 1015.0),
        Move.UNDO: StepIntended("R1", 0, what, request(), 1015.0),
        Move.WITHDRAWN: StepWithdrawn("R1", "R1.0.1", "", 1030.0),
        Move.RETURNED: StepResulted("R1", "R1.0.1", Outcome.DONE, "", 1000.0, 1010.0, ()),
        Move.NEXT: StepVerified("R1", 0, False, 1030.0, ()),
        Move.RESTARTED: RunLookedAgain("R1", what, 1000.0, 1010.0, None, ()),
        Move.GO_ON: RunLookedAgain("R1", what, 1000.0, 1010.0, None, ()),
        Move.REFUSED: RunEnded("R1", RunState.UNDONE, what, ""),
        Move.CONFIRMED: RunEnded("R1", RunState.DONE, what, ""),
        Move.DENIED: RunEnded("R1", RunState.HELD, what, ""),
        Move.STUCK: RunEnded("R1", RunState.HELD, what, ""),
    }
    return bodies[what]


@pytest.mark.parametrize(("state", "what"), list(itertools.product(RunState, Move)))
def test_a_listed_pair_moves_and_any_other_is_refused_and_leaves_the_run(state: RunState, what: Move) -> None:
    target = TRANSITIONS.get((state, what))
    before = durable(state)

    if target is not None:
        assert move(state, what) is target
        assert apply(before, Record(NOW, record_of(what))).runs["R1"].state is target
    else:
        with pytest.raises(IllegalMove, match=f"{state} cannot be {what}"):
            apply(before, Record(NOW, record_of(what)))
        assert before.runs["R1"].state is state


def test_every_move_is_used() -> None:
    assert {what for _, what in TRANSITIONS} == set(Move)


def test_every_open_state_knows_what_a_restart_does() -> None:
    assert [state for state in OPEN_STATES if (state, Move.RESTARTED) not in TRANSITIONS] == []


def test_a_restart_never_leads_to_a_state_in_which_a_command_is_out() -> None:
    targets = {to for (_, what), to in TRANSITIONS.items() if what is Move.RESTARTED}

    assert RunState.ACTING not in targets
    assert targets <= OPEN_STATES


def reachable(start: RunState) -> set[RunState]:
    found = {start}
    while more := {to for (at, _), to in TRANSITIONS.items() if at in found} - found:
        found |= more
    return found


def test_every_state_is_reached_from_the_first() -> None:
    assert reachable(RunState.WAITING) == set(RunState)


def test_every_open_state_has_a_way_to_each_end_that_is_left_to_it() -> None:
    for state in OPEN_STATES:
        assert reachable(state) >= {RunState.UNDONE, RunState.HELD}


def test_done_and_undone_are_final_and_only_a_person_moves_what_is_held() -> None:
    moves = {state: {what for at, what in TRANSITIONS if at is state} for state in ENDED}

    assert moves == {RunState.DONE: set(), RunState.UNDONE: set(), RunState.HELD: {Move.GO_ON, Move.UNDO}}


def test_nothing_is_confirmed_before_it_is_looked_at() -> None:
    assert {at for at, what in TRANSITIONS if what is Move.CONFIRMED} == {RunState.VERIFYING, RunState.UNDOING}


def test_what_was_denied_is_undone_and_what_cannot_be_undone_is_held() -> None:
    assert move(RunState.VERIFYING, Move.DENIED) is RunState.UNDOING
    assert move(RunState.UNDOING, Move.DENIED) is RunState.HELD


def test_undoing_one_step_leads_to_the_one_before_it() -> None:
    start = durable(RunState.UNDOING)
    second = replace(start, runs={"R1": replace(start.runs["R1"], step=1)})

    after = apply(second, Record(NOW, StepUndone("R1", 1, "taken back", ())))

    assert (after.runs["R1"].step, after.runs["R1"].key, after.runs["R1"].state) == (0, None, RunState.UNDOING)
