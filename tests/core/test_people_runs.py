"""Runs on a person's word: what starts them, what speaks against it, and how one is aborted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.core.engine import replay, why_not_leave
from agent.core.model import (
    AbortAsked,
    Choice,
    EvidenceExpired,
    HoldAsked,
    Mode,
    Quality,
    ReleaseAsked,
    RunAsked,
    RunChosen,
)
from agent.core.records import ArrangementEntered, Locked, RunOpened
from agent.core.run import RunState
from agent.core.state import State
from tests.fakes.sites import Driver, bank, in_two_steps, swap
from tests.fakes.swaps import FAR, kill_primary, run_state, started, swapped
from tests.fakes.words import changes_nothing, remembered

# ---------------------------------------------------------------- a run on a person's word


def finish(driver: Driver, via: str) -> None:
    driver.answer()
    driver.now_s += 0.05
    driver.path(via)


def test_person_moves_a_good_site_and_it_stays_there_until_a_person_moves_it_back() -> None:
    driver = started(books=swap(good_for_s=10.0))

    driver.send(RunAsked("li", "standby"))
    finish(driver, "wan2")

    (opened,) = driver.bodies(RunOpened)
    assert (opened.asked_by, opened.incident, opened.approved) == ("li", "", True)
    assert run_state(driver) is RunState.DONE
    assert driver.bodies(ArrangementEntered)[0].asked_by == "li"
    driver.keep_good(300, via="wan2")
    assert driver.state.durable.open_runs() == []
    assert driver.state.durable.refusals["standby.return"].code == "return_by_hand"

    driver.send(RunAsked("li", "standby.return"))
    finish(driver, "wan1")
    assert driver.state.durable.arrangements == {}
    assert driver.state.durable.lockouts == {}
    remembered(driver)


def test_site_that_a_person_moved_goes_home_by_itself_when_that_line_fails() -> None:
    driver = started()
    driver.send(RunAsked("li", "standby"))
    finish(driver, "wan2")
    driver.keep_good(5, via="wan2")

    driver.now_s += 0.3
    driver.rungs("wan2", FAR)
    driver.now_s += 0.02
    driver.rungs("wan1")

    assert [run.runbook for run in driver.state.durable.open_runs()] == ["standby.return"]


def test_persons_run_about_an_incident_is_recorded_with_it() -> None:
    driver = started(books=swap(Mode.WATCH))
    kill_primary(driver)

    driver.send(RunAsked("li", "standby"))

    assert driver.bodies(RunOpened)[-1].incident == "I1"
    assert driver.commands()


def test_persons_run_is_not_taken_back_because_it_has_no_cause() -> None:
    driver = started(books=in_two_steps())

    driver.send(RunAsked("li", "standby"))
    finish(driver, "wan2")
    driver.keep_good(1, via="wan2")

    assert [request.verb for request in driver.commands()] == ["route", "tell"]


def hold(driver: Driver) -> None:
    driver.send(HoldAsked("wang", "work", True, None))


def standby_dead(driver: Driver) -> None:
    driver.now_s += 0.3
    driver.rungs("wan2", FAR)


def standby_lossy(driver: Driver) -> None:
    driver.now_s += 0.3
    driver.rungs("wan2", loss=0.24)
    driver.see({"wan2.hq.loss_ratio": 0.3})


def standby_unseen(driver: Driver) -> None:
    driver.see({"wan2.hq.lost_in_row": None}, quality=Quality.UNKNOWN)


def already_there(driver: Driver) -> None:
    swapped(driver)


def running_already(driver: Driver) -> None:
    driver.send(RunAsked("wang", "standby"))


@pytest.mark.parametrize(
    "spoil",
    [hold, standby_dead, standby_lossy, standby_unseen, already_there, running_already],
    ids=lambda f: f.__name__,
)
def test_persons_run_does_not_start_while_something_but_the_cause_speaks_against_it(
    spoil: Callable[[Driver], None],
) -> None:
    driver = started()
    spoil(driver)

    changes_nothing(driver, RunAsked("li", "standby"))


def test_persons_run_waits_for_the_start_guard() -> None:
    driver = Driver(bank(boot_guard_s=30.0)).start()
    driver.all_good()
    driver.keep_good(5)
    changes_nothing(driver, RunAsked("li", "standby"))

    driver.keep_good(30)
    driver.send(RunAsked("li", "standby"))

    assert driver.commands()


@pytest.mark.parametrize("name", ["standby.return", "nonsense"])
def test_persons_run_needs_something_to_run(name: str) -> None:
    changes_nothing(started(), RunAsked("li", name))


def test_runbook_that_is_off_is_not_run_by_a_person_either() -> None:
    changes_nothing(started(books=swap(Mode.OFF)), RunAsked("li", "standby"))


def test_persons_runs_spend_the_same_budget() -> None:
    driver = started(books=swap(budget=1))
    driver.send(RunAsked("li", "standby"))
    finish(driver, "wan2")
    driver.keep_good(2, via="wan2")
    driver.send(RunAsked("li", "standby.return"))
    finish(driver, "wan1")
    driver.keep_good(2)

    changes_nothing(driver, RunAsked("li", "standby"))


def test_persons_run_that_may_not_send_ends_and_keeps_the_runbook_ready_for_its_cause() -> None:
    driver = started()
    driver.send(RunAsked("li", "standby"))
    driver.see({"wan2.hq.lost_in_row": None}, quality=Quality.UNKNOWN)
    driver.send(EvidenceExpired(driver.commands()[-1].key))
    assert run_state(driver) is RunState.WAITING

    for _ in range(40):
        driver.now_s += 1.0
        driver.rungs("wan1")
        driver.see({"wan2.hq.lost_in_row": None}, quality=Quality.UNKNOWN)

    assert run_state(driver) is RunState.UNDONE
    assert driver.state.durable.blocks == {}


def test_order_lapses_with_a_reboot_before_anything_was_sent() -> None:
    driver = started()
    driver.send(RunAsked("li", "standby"))
    driver.see({"wan2.hq.lost_in_row": None}, quality=Quality.UNKNOWN)
    driver.send(EvidenceExpired(driver.commands()[-1].key))

    driver.boot, driver.utc_offset_s, driver.now_s = "boot-2", driver.utc_offset_s + driver.now_s, 20.0
    driver.start()
    driver.all_good()

    assert driver.state.durable.runs["R1"].approved is False
    assert len(driver.commands()) == 1


# ---------------------------------------------------------------- aborting


def test_abort_of_a_run_that_asks_ends_it_and_locks_the_runbook_against_the_same_cause() -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)

    driver.send(AbortAsked("li", "R1"))
    driver.keep_good(120, dead={"wan1": FAR})

    run = driver.state.durable.runs["R1"]
    assert (run.state, run.reason) == (RunState.UNDONE, "aborted by li")
    assert driver.commands() == []
    assert list(driver.state.durable.runs) == ["R1"]
    assert driver.bodies(Locked)[0].reason == "run R1 ended undone: aborted by li"
    remembered(driver)


def test_command_that_has_not_left_does_not_leave_after_an_abort() -> None:
    driver = started()
    kill_primary(driver)
    (request,) = driver.commands()

    driver.send(AbortAsked("li", "R1"))
    assert why_not_leave(driver.site, driver.state, request, driver.at()) == "aborted by li"
    driver.send(EvidenceExpired(request.key))

    assert run_state(driver) is RunState.UNDONE
    assert len(driver.commands()) == 1
    remembered(driver)


def test_abort_while_the_command_is_on_its_way_takes_it_back_when_it_has_returned() -> None:
    driver = started()
    kill_primary(driver)

    driver.send(AbortAsked("li", "R1"))
    assert run_state(driver) is RunState.ACTING
    driver.answer()

    undo = driver.commands()[-1]
    assert (undo.undo, run_state(driver)) == (True, RunState.UNDOING)
    assert why_not_leave(driver.site, driver.state, undo, driver.at()) is None
    finish(driver, "wan1")
    run = driver.state.durable.runs["R1"]
    assert (run.state, run.reason) == (RunState.UNDONE, "aborted by li (seen)")
    assert driver.state.durable.arrangements == {}
    remembered(driver)


def test_abort_while_it_is_looked_at_takes_it_back() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()

    driver.send(AbortAsked("li", "R1"))

    assert driver.commands()[-1].undo
    changes_nothing(driver, AbortAsked("wang", "R1"))


def test_abort_between_two_steps_takes_back_what_was_done() -> None:
    driver = started(books=in_two_steps())
    driver.send(RunAsked("li", "standby"))
    finish(driver, "wan2")

    driver.send(AbortAsked("li", "R1"))
    driver.answer()
    finish(driver, "wan2")
    finish(driver, "wan1")

    assert [(request.verb, request.undo) for request in driver.commands()][-2:] == [("tell", True), ("route", True)]
    assert run_state(driver) is RunState.UNDONE


def test_abort_past_the_point_of_no_return_holds_the_run() -> None:
    driver = started(books=in_two_steps(no_return=True))
    kill_primary(driver)
    driver.answer()

    driver.send(AbortAsked("li", "R1"))

    run = driver.state.durable.runs["R1"]
    assert (run.state, run.reason) == (RunState.HELD, "aborted by li past its point of no return")
    assert not any(request.undo for request in driver.commands())


def test_abort_survives_a_restart() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(AbortAsked("li", "R1"))

    driver.state = State(replay(driver.records, State()).durable)
    driver.now_s += 2.0
    driver.start()

    assert driver.commands()[-1].undo
    assert driver.state.durable.runs["R1"].aborted_by == "li"


def test_run_that_is_stopped_by_a_hold_is_aborted_only_if_nothing_must_leave_for_that() -> None:
    waiting, looking = started(books=swap(Mode.ASK)), started()
    for driver in (waiting, looking):
        kill_primary(driver)
    looking.answer()
    for driver in (waiting, looking):
        driver.send(HoldAsked("wang", "work", False, None))
        driver.wait(12.0)

    waiting.send(AbortAsked("li", "R1"))
    changes_nothing(looking, AbortAsked("li", "R1"))

    assert run_state(waiting) is RunState.UNDONE
    looking.send(ReleaseAsked("wang"))
    looking.send(AbortAsked("li", "R1"))
    assert looking.commands()[-1].undo


def test_hold_after_an_abort_leaves_the_choice_to_a_person() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(AbortAsked("li", "R1"))
    driver.send(HoldAsked("wang", "work", False, None))
    driver.answer()
    driver.send(ReleaseAsked("wang"))
    assert [request.undo for request in driver.commands()] == [False]
    assert driver.state.durable.runs["R1"].paused

    driver.send(RunChosen("wang", "R1", Choice.GO_ON))
    driver.now_s += 0.05
    driver.path("wan2")

    assert run_state(driver) is RunState.DONE


def test_ended_and_held_and_unknown_runs_are_not_aborted() -> None:
    driver = swapped(started())
    changes_nothing(driver, AbortAsked("li", "R1"))
    changes_nothing(driver, AbortAsked("li", "R9"))

    driver = started(books=in_two_steps(no_return=True))
    kill_primary(driver)
    driver.answer()
    driver.send(AbortAsked("li", "R1"))
    driver.wait(1.0)
    changes_nothing(driver, AbortAsked("li", "R1"))
