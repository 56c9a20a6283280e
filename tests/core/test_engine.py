"""The engine as a whole: effects follow from records, the same in gives the same out, what leaves and what is next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.engine import decide, effects, next_deadline_s, replay, step, why_not_leave
from agent.core.model import (
    AskOutcome,
    Choice,
    CommandEnded,
    Event,
    EvidenceExpired,
    HoldAsked,
    Look,
    Outcome,
    Perform,
    Quality,
    RunChosen,
    Started,
    Ticked,
    TimeGap,
)
from agent.core.records import (
    StepIntended,
    StepResulted,
    StepWithdrawn,
)
from agent.core.run import RunState
from agent.core.sight import see
from agent.core.state import State
from tests.fakes.sites import Driver, bank, in_two_steps
from tests.fakes.swaps import FAR, kill_primary, run_state, started, swapped

# ---------------------------------------------------------------- effects and records


def test_effects_follow_from_records_and_from_nothing_else() -> None:
    driver = swapped(started())

    assert tuple(driver.effects) == tuple(effect for record in driver.records for effect in effects(record))


def test_an_intent_performs_a_result_looks_and_a_restart_asks_and_looks() -> None:
    driver = started()
    kill_primary(driver)
    request = driver.answer()
    driver.send(Started("1", "x", True))
    kinds = [(type(r.body), tuple(type(e) for e in effects(r))) for r in driver.records]

    assert (StepIntended, (Perform,)) in kinds
    assert (StepResulted, (Look,)) in kinds
    looks = [e for e in driver.effects if isinstance(e, Look)]
    assert looks[-1].points == ("path.answered", "path.line")
    assert looks[-1].not_before == driver.now_s
    assert not [e for e in driver.effects if isinstance(e, AskOutcome)]  # its result is on record
    assert request.key == "R1.0.1"


def test_a_restart_asks_for_a_command_of_which_no_result_is_on_record() -> None:
    driver = started()
    kill_primary(driver)

    driver.send(Started("1", "x", True))

    assert [e.key for e in driver.effects if isinstance(e, AskOutcome)] == ["R1.0.1"]


def test_a_refusal_for_want_of_proof_asks_the_standby_at_once() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)

    looks = [e for e in driver.effects if isinstance(e, Look)]
    assert looks[-1].points == ("wan2.edge.lost_in_row", "wan2.hq.lost_in_row")


def test_the_same_state_event_and_moment_give_the_same_answer() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    event: Event = Ticked()

    first = step(driver.site, driver.state, event, driver.at())
    second = step(driver.site, driver.state, event, driver.at())

    assert first == second


def test_step_is_see_and_decide_and_apply() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    now = driver.at()
    whole = step(driver.site, driver.state, HoldAsked("wang", "work", False, None), now)

    seen = see(driver.site, driver.state, HoldAsked("wang", "work", False, None), now)
    records = decide(driver.site, seen, HoldAsked("wang", "work", False, None), now)

    assert records == whole.records
    assert replay(records, driver.state).durable == whole.state.durable


def test_a_step_leaves_the_state_that_it_was_given_as_it_was() -> None:
    driver = started()
    before = driver.state
    copy = replace(before, durable=replace(before.durable), volatile=replace(before.volatile))

    kill_primary(driver)

    assert before == copy
    assert driver.state != before


def test_a_point_that_the_site_does_not_have_is_not_kept() -> None:
    driver = started()
    driver.see({"nobody.knows": 1.0})

    assert "nobody.knows" not in driver.state.volatile.seen


def test_an_observation_asked_earlier_than_what_we_have_is_not_taken() -> None:
    driver = started()
    late, driver.now_s = driver.now_s + 1.0, driver.now_s + 2.0
    driver.rungs("wan1")
    driver.now_s = late
    driver.see({"wan1.hq.lost_in_row": 4})

    assert driver.state.volatile.seen["wan1.hq.lost_in_row"].value == 0  # type: ignore[index]


# ---------------------------------------------------------------- leaving


def test_a_request_leaves_while_its_evidence_is_fresh() -> None:
    driver = started()
    kill_primary(driver)
    (request,) = driver.commands()

    assert why_not_leave(driver.site, driver.state, request, driver.at()) is None


def test_a_request_does_not_leave_with_evidence_that_has_grown_old() -> None:
    driver = started()
    kill_primary(driver)
    (request,) = driver.commands()
    driver.now_s += 5.1

    assert why_not_leave(driver.site, driver.state, request, driver.at()) == ("wan2.edge.lost_in_row is older than 5 s")


def test_a_request_does_not_leave_when_its_evidence_can_no_longer_be_seen() -> None:
    driver = started()
    kill_primary(driver)
    (request,) = driver.commands()
    driver.now_s += 0.5
    driver.see({"wan2.hq.lost_in_row": None}, quality=Quality.UNKNOWN)

    assert why_not_leave(driver.site, driver.state, request, driver.at()) == "wan2.hq.lost_in_row cannot be seen"


def test_a_request_does_not_leave_on_hold_but_does_when_it_may_finish() -> None:
    driver = started()
    kill_primary(driver)
    (request,) = driver.commands()
    driver.send(HoldAsked("wang", "work", True, None))
    assert why_not_leave(driver.site, driver.state, request, driver.at()) is None

    driver.send(HoldAsked("wang", "work", False, None))

    assert why_not_leave(driver.site, driver.state, request, driver.at()) == "on hold by wang"


def test_a_request_does_not_leave_after_its_expiry_nor_after_its_run_has_moved_on() -> None:
    driver = started()
    kill_primary(driver)
    (request,) = driver.commands()
    late = replace(driver.at(), boot_s=request.expires_at + 0.1)
    assert why_not_leave(driver.site, driver.state, request, late) == "the request has expired"

    driver.answer()

    assert why_not_leave(driver.site, driver.state, request, driver.at()) == "the run has moved on"
    stranger = replace(request, run="R9")
    assert why_not_leave(driver.site, driver.state, stranger, driver.at()) == "the run has moved on"


def test_a_command_that_could_not_leave_is_withdrawn_and_asked_about_anew() -> None:
    driver = started()
    kill_primary(driver)
    driver.now_s += 6.0
    driver.send(EvidenceExpired("R1.0.1"))

    assert driver.bodies(StepWithdrawn)
    assert run_state(driver) is RunState.WAITING
    assert len(driver.commands()) == 1


# ---------------------------------------------------------------- deadlines


def test_nothing_waits_when_all_is_well_and_the_boot_guard_is_over() -> None:
    driver = Driver(bank(boot_guard_s=30.0)).start()
    driver.all_good()
    assert next_deadline_s(driver.state) == driver.now_s + 30.0

    driver.keep_good(31)

    assert next_deadline_s(driver.state) is None
    assert next_deadline_s(State()) is None


def test_the_nearest_of_all_delays_deadlines_and_ends_of_hold_is_next() -> None:
    driver = started()
    driver.mains("ups-a", present=False)
    alarm_s = driver.now_s + 10.0
    assert next_deadline_s(driver.state) == alarm_s

    driver.send(HoldAsked("wang", "work", False, 4.0))
    assert next_deadline_s(driver.state) == driver.now_s + 4.0
    driver.wait(5.0)
    assert next_deadline_s(driver.state) == alarm_s

    kill_primary(driver)
    driver.answer()
    assert next_deadline_s(driver.state) == min(alarm_s, driver.state.durable.runs["R1"].deadline_s or 0.0)


# ---------------------------------------------------------------- the executor's word


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.FAILED, Outcome.UNCERTAIN])
def test_a_command_that_came_back_is_followed_by_looking_however_it_went(outcome: Outcome) -> None:
    driver = started()
    kill_primary(driver)
    driver.answer(outcome)
    driver.now_s += 0.05
    driver.path("wan2")

    assert run_state(driver) is RunState.DONE


def test_a_word_about_another_key_or_a_second_word_changes_nothing() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    before = driver.state.durable

    driver.send(CommandEnded("R7.0.1", Outcome.DONE))
    driver.send(CommandEnded("R1.0.1", Outcome.FAILED))
    driver.send(EvidenceExpired("R1.0.1"))

    assert driver.state.durable.runs == before.runs


def test_never_about_a_command_whose_result_is_on_record_sends_nothing_again() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    driver.send(Started("1", "x", True))

    driver.send(CommandEnded("R1.0.1", Outcome.NEVER))

    assert len(driver.commands()) == 1


def test_a_command_that_does_not_come_back_is_given_up_and_the_plant_is_asked() -> None:
    driver = started()
    kill_primary(driver)
    driver.wait(16.0)
    assert driver.bodies(StepResulted)[-1].outcome is Outcome.UNCERTAIN

    driver.now_s += 0.1
    driver.path("wan2")

    assert run_state(driver) is RunState.DONE


# ---------------------------------------------------------------- a site file that changed


def test_an_open_run_whose_runbook_is_gone_is_held_at_the_next_start() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    driver.site = bank(books=())

    driver.send(Started("1", "y", True))
    driver.keep_good(5, dead={"wan1": FAR})

    run = driver.state.durable.runs["R1"]
    assert (run.state, run.reason) == (RunState.HELD, "the site file no longer has its runbook as it was")
    assert "standby" in driver.state.durable.lockouts
    for choice in (Choice.GO_ON, Choice.UNDO):
        driver.send(RunChosen("li", "R1", choice))
        assert driver.state.durable.runs["R1"].reason == (
            "the site file no longer has its runbook as it was: end it by hand"
        )


def test_an_open_run_whose_runbook_lost_the_step_it_stands_at_is_held() -> None:
    driver = started(books=in_two_steps())
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    driver.site = bank()

    driver.send(Started("1", "y", True))

    assert run_state(driver) is RunState.HELD


def test_a_command_that_is_out_while_we_were_suspended_is_still_waited_for() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    for _ in range(11):
        driver.now_s += 1.0
        driver.path(None)
    assert run_state(driver) is RunState.UNDOING

    driver.now_s += 3.0
    driver.send(TimeGap(3.0, "suspended"))

    assert driver.state.durable.runs["R1"].returned_s is None
