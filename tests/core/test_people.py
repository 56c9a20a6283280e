"""People: approvals, holds, choices about runs that stand still, and what a cause that clears does to a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.model import (
    ApproveAsked,
    Choice,
    Event,
    EvidenceExpired,
    HoldAsked,
    Mode,
    Outcome,
    ReleaseAsked,
    RunChosen,
    Started,
    TimeGap,
)
from agent.core.records import (
    RunEnded,
    RunPaused,
    StepUndone,
)
from agent.core.run import APPROVAL_S, RunState
from agent.core.runbook import OnReturn
from tests.fakes.sites import Driver, in_two_steps, swap
from tests.fakes.swaps import FAR, kill_primary, refused, run_state, started


def test_an_approval_counts_for_its_run_and_the_guards_are_asked_again() -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.send(ApproveAsked("li", "R9"))
    assert driver.commands() == []

    driver.now_s += 6.0
    driver.send(ApproveAsked("li", "R1"))
    assert driver.commands() == []  # the evidence is old by now
    driver.rungs("wan1", FAR)
    driver.now_s += 0.3
    driver.rungs("wan2")

    assert len(driver.commands()) == 1


@pytest.mark.parametrize("event", [Started("1", "x", True), TimeGap(3.0, "starved")])
def test_an_approval_is_waited_for_ten_minutes_also_after_a_restart_or_a_gap(event: Event) -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.send(event)

    driver.keep_good(APPROVAL_S - 5.0, dead={"wan1": FAR})
    assert run_state(driver) is RunState.WAITING
    driver.send(ApproveAsked("li", "R1"))

    assert len(driver.commands()) == 1


def test_an_approval_lapses_with_a_reboot() -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.send(HoldAsked("wang", "wait", False, None))
    driver.send(ApproveAsked("li", "R1"))
    assert driver.state.durable.runs["R1"].approved is True

    driver.boot, driver.now_s = "boot-2", 20.0
    driver.send(Started("1", "x", True))

    assert driver.state.durable.runs["R1"].approved is False


def test_a_closed_incident_no_longer_permits_what_it_once_asked_for() -> None:
    """The run asked for approval; meanwhile its incident is over, and headquarters is dead."""
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.keep_good(70)
    assert driver.state.durable.open_incidents() == []

    driver.send(ApproveAsked("li", "R1"))
    driver.keep_good(31)

    assert driver.commands() == []
    assert driver.bodies(RunEnded)[-1].reason == "its incident is over"


def test_a_hold_that_lets_finish_lets_a_run_end_and_starts_none() -> None:
    driver = started(books=in_two_steps())
    kill_primary(driver)
    driver.send(HoldAsked("wang", "work at nine", True, None))
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    assert [request.verb for request in driver.commands()] == ["route", "tell"]
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")

    assert run_state(driver) is RunState.DONE
    driver.keep_good(70, via="wan2")
    assert len(driver.commands()) == 2
    assert refused(driver, "standby.return")[0] == "held"


def test_a_run_past_its_point_of_no_return_is_held_at_once() -> None:
    driver = started(books=in_two_steps(no_return=True))
    kill_primary(driver)
    driver.answer()

    driver.send(HoldAsked("wang", "stop", False, None))

    assert run_state(driver) is RunState.HELD
    assert driver.bodies(RunEnded)[-1].reason == "put on hold past its point of no return"


def test_a_command_that_is_out_past_the_point_of_no_return_comes_back_before_its_run_is_held() -> None:
    driver = started(books=in_two_steps(no_return=True))
    kill_primary(driver)
    driver.send(HoldAsked("wang", "stop", False, None))
    assert run_state(driver) is RunState.ACTING

    driver.answer()

    assert run_state(driver) is RunState.HELD


def test_a_cause_that_clears_half_way_takes_back_what_was_done() -> None:
    """Two steps; the first is done, the second still waits when the primary is good again."""
    driver = started(books=in_two_steps())
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    driver.send(HoldAsked("wang", "wait", False, None))
    driver.send(EvidenceExpired(driver.commands()[-1].key))
    driver.keep_good(70, via="wan2")
    driver.send(ReleaseAsked("wang"))
    driver.send(RunChosen("wang", "R1", Choice.GO_ON))

    undo = driver.commands()[-1]
    assert undo.undo
    for via in ("wan2", "wan1"):
        driver.answer()
        driver.now_s += 0.05
        driver.path(via)
    assert run_state(driver) is RunState.UNDONE
    assert [body.step for body in driver.bodies(StepUndone)] == [1]


@pytest.mark.parametrize("on_return", list(OnReturn))
def test_a_cause_that_clears_while_the_proof_is_awaited_undoes_or_lets_finish_as_the_runbook_says(
    on_return: OnReturn,
) -> None:
    there, back = swap()
    slow = replace(there, steps=(replace(there.steps[0], within_s=300.0),), on_return=on_return)
    driver = started(books=(slow, back))
    kill_primary(driver)
    driver.answer()

    for _ in range(70):
        driver.now_s += 1.0
        driver.rungs("wan1")
        driver.rungs("wan2")
        driver.path(None)

    assert driver.commands()[-1].undo is (on_return is OnReturn.UNDO)


def held_run(driver: Driver) -> Driver:
    """A swap that can neither be proven nor undone."""
    kill_primary(driver)
    driver.answer()
    for _ in range(12):
        driver.now_s += 1.0
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)
    driver.answer(Outcome.FAILED)
    for _ in range(12):
        driver.now_s += 1.0
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)
    return driver


def test_what_can_neither_be_proven_nor_undone_is_held_and_locks_its_runbook() -> None:
    driver = held_run(started())

    assert run_state(driver) is RunState.HELD
    assert "standby" in driver.state.durable.lockouts


def test_a_person_lets_a_held_run_look_again_and_it_ends_by_what_is_seen() -> None:
    driver = held_run(started())

    driver.send(RunChosen("li", "R1", Choice.GO_ON))
    driver.now_s += 0.1
    driver.path("wan2")

    assert run_state(driver) is RunState.DONE


def test_a_held_run_does_not_go_on_beside_another_run_of_its_lock() -> None:
    driver = held_run(started())
    driver.send(RunChosen("li", "R1", Choice.RESET))
    driver.keep_good(1, dead={"wan1": FAR})
    assert run_state(driver, "R2") is RunState.ACTING

    driver.send(RunChosen("li", "R1", Choice.GO_ON))

    assert run_state(driver) is RunState.HELD
    assert driver.state.durable.runs["R1"].reason == "run R2 of standby is not finished"


def test_undo_of_a_run_that_stood_still_while_undoing_goes_on_undoing() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    for _ in range(11):
        driver.now_s += 1.0
        driver.path(None)
    driver.send(HoldAsked("wang", "stop", False, None))
    driver.send(EvidenceExpired(driver.commands()[-1].key))
    assert driver.bodies(RunPaused)
    driver.send(ReleaseAsked("wang"))
    sent = len(driver.commands())

    driver.send(RunChosen("wang", "R1", Choice.UNDO))

    assert len(driver.commands()) == sent + 1
    assert driver.commands()[-1].undo


def test_nobody_chooses_for_a_run_that_moves_by_itself_or_is_on_hold() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(RunChosen("wang", "R1", Choice.UNDO))
    assert run_state(driver) is RunState.ACTING

    driver.answer()
    driver.send(HoldAsked("wang", "stop", False, None))
    driver.wait(15.0)
    driver.send(RunChosen("wang", "R1", Choice.UNDO))

    assert run_state(driver) is RunState.VERIFYING
