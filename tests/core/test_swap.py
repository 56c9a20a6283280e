"""The line swap in the core: from the first loss to the return, and every row that must not swap."""

from __future__ import annotations

import pytest

from agent.core.model import (
    ApproveAsked,
    AskOutcome,
    Choice,
    ClockStepped,
    CommandEnded,
    EvidenceExpired,
    HoldAsked,
    Mode,
    Outcome,
    Perform,
    Quality,
    ReleaseAsked,
    ResetAsked,
    RunChosen,
    Started,
    TimeGap,
)
from agent.core.records import (
    ArrangementLeft,
    IncidentOpened,
    Refused,
    RunEnded,
    RunOpened,
    StepIntended,
)
from agent.core.run import RunState
from tests.fakes.sites import RUNGS, Driver, bank, line, swap

FAR = ("edge", "hq", "second_site")


def started(**site: object) -> Driver:
    driver = Driver(bank(**site)).start()  # type: ignore[arg-type]
    driver.all_good()
    driver.keep_good(70)
    return driver


def kill_primary(driver: Driver, dead: tuple[str, ...] = FAR, **more: object) -> None:
    driver.now_s += 0.3
    driver.rungs("wan1", dead, **more)  # type: ignore[arg-type]
    driver.now_s += 0.02
    driver.rungs("wan2")


def swapped(driver: Driver) -> Driver:
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    return driver


def test_dead_access_line_is_swapped_and_proven_by_traffic() -> None:
    driver = started()

    kill_primary(driver)

    (opened,) = driver.bodies(IncidentOpened)
    assert opened.cause.candidates == ("line:wan1:access",)
    assert opened.cause.settled
    (request,) = driver.commands()
    assert dict(request.wanted) == {"from": "wan1", "to": "wan2"}
    driver.answer()
    assert driver.state.durable.runs["R1"].state is RunState.VERIFYING
    driver.now_s += 0.05
    driver.path("wan2")
    assert driver.state.durable.runs["R1"].state is RunState.DONE
    assert driver.state.durable.arrangements["on_standby_line"].line == "wan2"


def test_proof_that_was_asked_before_the_command_returned_does_not_count() -> None:
    driver = started()
    driver.path("wan2")
    kill_primary(driver)

    driver.answer()

    assert driver.state.durable.runs["R1"].state is RunState.VERIFYING


def test_no_swap_before_the_standby_is_asked_after_the_first_loss() -> None:
    driver = started()
    driver.now_s += 0.3

    driver.rungs("wan1", FAR)

    assert driver.commands() == []
    assert driver.bodies(Refused)[-1].code == "target_not_proven"


@pytest.mark.parametrize(
    ("primary", "standby", "cause"),
    [
        (("hq",), ("hq",), "hq"),
        (FAR, FAR, "unsettled"),
        (RUNGS, RUNGS, "observer"),
    ],
)
def test_no_swap_when_the_lines_are_not_to_blame(
    primary: tuple[str, ...], standby: tuple[str, ...], cause: str
) -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", primary)
    driver.rungs("wan2", standby)
    driver.keep_good(30, dead={"wan1": primary, "wan2": standby})

    assert driver.commands() == []
    (incident,) = driver.state.durable.open_incidents()
    assert incident.cause.kind == cause
    assert driver.state.durable.refusals["standby"].text


@pytest.mark.parametrize(
    ("dead", "carrier", "place"),
    [
        (RUNGS, False, "line:wan1:port"),
        (RUNGS, True, "line:wan1:cpe"),
        (FAR, True, "line:wan1:access"),
        (("hq", "second_site"), True, "line:wan1:core"),
    ],
)
def test_the_place_of_the_break_is_named(dead: tuple[str, ...], carrier: bool, place: str) -> None:
    driver = started()

    kill_primary(driver, dead, carrier=carrier)
    driver.keep_good(1, dead={"wan1": dead}) if carrier else None

    (incident,) = driver.state.durable.open_incidents()
    assert incident.cause.candidates == (place,)
    assert len(driver.commands()) == 1


def test_shared_provider_is_named_and_nothing_swaps() -> None:
    lines = (line("wan1", "primary", provider="telecom"), line("wan2", "standby", provider="telecom"))
    driver = started(lines=lines)
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.rungs("wan2", FAR)

    (incident,) = driver.state.durable.open_incidents()
    assert incident.cause.candidates == ("provider:telecom",)
    assert driver.commands() == []


def test_a_lossy_line_is_swapped_once_and_only_to_a_better_one() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", loss=0.44)
    driver.now_s += 0.02
    driver.rungs("wan2", loss=0.20)
    assert len(driver.commands()) == 1  # a fifth lost is still better than nearly half

    other = started()
    other.now_s += 0.3
    other.rungs("wan2", loss=0.30)
    other.keep_good(11)
    other.now_s += 0.3
    other.rungs("wan1", loss=0.26)
    other.now_s += 0.02
    other.rungs("wan2", loss=0.24)
    assert other.commands() == []


def test_denied_swap_is_undone_and_locked_until_a_person_resets_it() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()

    for _ in range(11):
        driver.now_s += 1
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)

    undo = driver.commands()[-1]
    assert undo.undo
    driver.answer()
    for _ in range(12):
        driver.now_s += 1
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)
    (ended,) = driver.bodies(RunEnded)
    assert ended.end is RunState.UNDONE
    assert "standby" in driver.state.durable.lockouts
    assert driver.state.durable.open_incidents()[0].tier == "red"
    count = len(driver.commands())
    driver.keep_good(5, dead={"wan1": FAR})
    assert len(driver.commands()) == count
    driver.send(ResetAsked("li", "standby"))
    driver.keep_good(2, dead={"wan1": FAR})
    assert len(driver.commands()) == count + 1


def test_return_waits_until_the_primary_has_been_good_for_its_time_and_loses_nothing() -> None:
    driver = swapped(started())

    driver.keep_good(59, via="wan2")
    assert len(driver.commands()) == 1
    driver.keep_good(5, via="wan2")

    assert dict(driver.commands()[-1].wanted) == {"from": "wan2", "to": "wan1"}
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan1")
    assert driver.bodies(ArrangementLeft)
    assert driver.state.durable.arrangements == {}
    driver.keep_good(2)
    assert driver.state.durable.open_incidents() == []


def test_dead_standby_brings_a_good_primary_back_at_once_and_not_after_ten_minutes() -> None:
    driver = swapped(started(books=swap(good_for_s=600.0)))
    driver.keep_good(70, via="wan2")
    assert len(driver.commands()) == 1

    driver.keep_good(2, via="wan2", dead={"wan2": FAR})

    assert dict(driver.commands()[-1].wanted)["to"] == "wan1"


def test_third_swap_within_an_hour_is_frozen_until_reset() -> None:
    driver = started()
    for _ in range(2):
        swapped(driver)
        driver.keep_good(64, via="wan2")
        driver.answer()
        driver.path("wan1")
        driver.keep_good(2)
    assert len(driver.bodies(ArrangementLeft)) == 2
    count = len(driver.commands())

    kill_primary(driver)
    driver.keep_good(20, dead={"wan1": FAR})

    assert len(driver.commands()) == count
    assert driver.state.durable.refusals["standby"].code == "locked"
    driver.keep_good(3700, dead={"wan1": FAR})
    assert len(driver.commands()) == count
    driver.send(ResetAsked("li", "standby"))
    driver.keep_good(1, dead={"wan1": FAR})
    assert len(driver.commands()) == count + 1


def test_hold_lets_no_command_leave_and_release_resumes_nothing() -> None:
    driver = started()
    driver.send(HoldAsked("wang", "work on the rack", False, None))

    kill_primary(driver)
    driver.keep_good(5, dead={"wan1": FAR})

    assert driver.commands() == []
    assert driver.state.durable.refusals["standby"].code == "held"
    driver.send(ReleaseAsked("wang"))
    driver.keep_good(1, dead={"wan1": FAR})
    assert len(driver.commands()) == 1  # no run stood still: the question is asked anew


def test_hold_stops_a_run_where_it_stands_until_a_person_chooses() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    driver.send(HoldAsked("wang", "stop", False, None))
    driver.keep_good(30, dead={"wan1": FAR})
    assert driver.state.durable.runs["R1"].state is RunState.VERIFYING
    assert len(driver.commands()) == 1

    driver.send(ReleaseAsked("wang"))
    driver.keep_good(20, dead={"wan1": FAR})
    assert len(driver.commands()) == 1
    driver.send(RunChosen("wang", "R1", Choice.UNDO))

    assert driver.commands()[-1].undo


def test_hold_ends_by_itself_after_its_time() -> None:
    driver = started()
    driver.send(HoldAsked("wang", "one minute", False, 60.0))
    driver.keep_good(59)
    assert driver.state.durable.hold is not None
    driver.keep_good(2)
    assert driver.state.durable.hold is None


@pytest.mark.parametrize("mode", [Mode.WATCH, Mode.OFF])
def test_watch_says_what_it_would_have_done_and_off_says_nothing(mode: Mode) -> None:
    driver = started(books=swap(mode))
    kill_primary(driver)

    assert driver.commands() == []
    refusals = driver.bodies(Refused)
    assert [r.code for r in refusals if r.runbook == "standby"][-1:] == (["watch_only"] if mode is Mode.WATCH else [])


def test_ask_waits_for_a_person_and_asks_the_guards_again_afterwards() -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.keep_good(30, dead={"wan1": FAR})
    assert driver.commands() == []

    driver.send(ApproveAsked("li", "R1"))

    assert len(driver.commands()) == 1


def test_ask_that_nobody_answers_ends_undone() -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    driver.keep_good(601, dead={"wan1": FAR})

    assert driver.bodies(RunEnded)[0].reason == "not approved"
    assert driver.commands() == []


def test_evidence_that_expires_on_the_way_out_makes_the_step_ask_again() -> None:
    driver = started()
    kill_primary(driver)
    key = driver.commands()[-1].key

    driver.now_s += 6
    driver.send(EvidenceExpired(key))

    assert driver.state.durable.runs["R1"].state is RunState.WAITING
    driver.rungs("wan1", FAR)
    driver.now_s += 0.3
    driver.rungs("wan2")
    assert driver.commands()[-1].key != key


def test_boot_guard_only_looks_after_a_reboot() -> None:
    driver = Driver(bank(boot_guard_s=30.0)).start()
    driver.all_good()
    kill_primary(driver)
    driver.keep_good(20, dead={"wan1": FAR})
    assert driver.commands() == []
    driver.keep_good(12, dead={"wan1": FAR})
    assert len(driver.commands()) == 1


def test_time_gap_forgets_what_was_seen_and_looks_again() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    driver.now_s += 600
    driver.send(TimeGap(600, "suspended"))
    assert driver.state.durable.runs["R1"].state is RunState.VERIFYING
    driver.now_s += 0.1
    driver.path("wan2")
    assert driver.state.durable.runs["R1"].state is RunState.DONE


def test_wall_clock_step_changes_nothing() -> None:
    driver = started()
    kill_primary(driver)
    before = driver.state.durable
    driver.utc_offset_s -= 3600
    driver.send(ClockStepped(-3600))
    assert driver.state.durable.runs == before.runs
    assert driver.state.durable.alarms == before.alarms


@pytest.mark.parametrize("cut", range(1, 8))
@pytest.mark.parametrize("new_boot", [False, True])
def test_restart_anywhere_in_a_swap_looks_first_and_ends_rightly(cut: int, new_boot: bool) -> None:
    """Stop after the *cut*-th record of the run's course, restart from the records alone, and see how it ends."""
    from agent.core.engine import replay
    from agent.core.state import State

    whole = swapped(started())
    first = next(i for i, r in enumerate(whole.records) if isinstance(r.body, RunOpened))
    kept = whole.records[: first + cut]
    intended = any(isinstance(r.body, StepIntended) for r in kept)
    performed = cut >= 4  # sent: the executor has it, and the route is changed
    driver = Driver(whole.site, replay(kept, State()), now_s=whole.now_s + 5, boot="boot-2" if new_boot else "boot-1")
    driver.start()
    done = driver.state.durable.runs["R1"].state is RunState.DONE
    if intended and not done:
        assert not any(isinstance(e, Perform) for e in driver.effects)
    for ask in [e for e in driver.effects if isinstance(e, AskOutcome)]:
        driver.send(CommandEnded(ask.key, Outcome.UNCERTAIN if performed else Outcome.NEVER))
    moved = performed
    for _ in range(45):
        driver.now_s += 1
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path("wan2" if moved else None)
        if driver.commands() and not moved:
            moved = True
            driver.answer()

    run = driver.state.durable.runs["R1"]
    assert run.state is RunState.DONE
    assert len(driver.commands()) == (0 if performed else 1)
    assert driver.state.durable.open_incidents()[0].id == "I1"
    assert driver.state.durable.open_incidents()[0].opened_at == whole.state.durable.incidents["I1"].opened_at


def test_restarted_run_that_cannot_be_proven_after_one_resend_is_held_or_undone() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(Started("1", "x", True))
    (ask,) = [e for e in driver.effects if isinstance(e, AskOutcome)]
    driver.send(CommandEnded(ask.key, Outcome.UNCERTAIN))
    for _ in range(40):
        driver.now_s += 1
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)

    run = driver.state.durable.runs["R1"]
    assert run.state in (RunState.HELD, RunState.UNDONE, RunState.UNDOING)
    assert len([c for c in driver.commands() if not c.undo]) == 2


def test_incident_keeps_id_and_start_when_its_cause_is_refined() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", ("hq",))
    driver.now_s += 0.1
    driver.rungs("wan2", ("hq",))

    (incident,) = driver.state.durable.open_incidents()
    assert incident.id == "I1"
    assert incident.cause.kind == "hq"


def test_unknown_never_clears_and_never_permits() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.1
    driver.path("wan2")
    for _ in range(120):
        driver.now_s += 1
        for rung in RUNGS:
            driver.see({f"wan1.{rung}.lost_in_row": None, f"wan1.{rung}.loss_ratio": None}, quality=Quality.UNKNOWN)
        driver.rungs("wan2")
        driver.path("wan2")

    assert driver.state.durable.open_incidents()
    assert len(driver.commands()) == 1
