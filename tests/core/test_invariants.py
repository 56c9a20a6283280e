"""Each invariant is kept by a guard, and shown here to fail without it: the guard is taken away, the rule speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.core import engine, invariants, people, policy, progress
from agent.core.engine import Stepped, replay
from agent.core.model import (
    At,
    Choice,
    ClockStepped,
    CommandEnded,
    CommandSent,
    Effect,
    HoldAsked,
    Outcome,
    Perform,
    Quality,
    Request,
    RunChosen,
    Started,
    Ticked,
)
from agent.core.records import Record, RunEnded, RunOpened
from agent.core.run import Move, RunState
from agent.core.state import State
from agent.core.work import Work
from agent.errors import InvariantViolation
from tests.fakes.sites import Driver, line, swap
from tests.fakes.swaps import FAR, kill_primary, started

Patch = pytest.MonkeyPatch


def without(patch: Patch, table: str, *codes: str) -> None:
    """Take the guards named *codes* out of one of policy's tables."""
    guards = getattr(policy, table)
    assert set(codes) <= {code for code, _ in guards}
    patch.setattr(policy, table, tuple(row for row in guards if row[0] not in codes))


def violates(rule: str) -> Any:
    return pytest.raises(InvariantViolation, match=rf"^{rule}\b")


def tampered(driver: Driver, change: Callable[[Stepped], Stepped]) -> None:
    """Check a step that did nothing, as *change* forges it."""
    stepped = engine.step(driver.site, driver.state, Ticked(), driver.at())
    invariants.check(driver.site, driver.state, Ticked(), stepped, driver.at())
    invariants.check(driver.site, driver.state, Ticked(), change(stepped), driver.at())


# ---------------------------------------------------------------- I9


BLIND_SWAP = ("target_not_proven", "target_not_better", "failed_together", "headquarters_suspected")


def test_i9_a_swap_on_evidence_that_is_not_seen_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    without(monkeypatch, "SWAP_GUARDS", *BLIND_SWAP)
    for rung in FAR:
        driver.see({f"wan2.{rung}.lost_in_row": None}, quality=Quality.UNKNOWN)
    driver.now_s += 0.3

    with violates("I9"):
        driver.rungs("wan1", FAR)


def test_i9_a_swap_on_evidence_older_than_five_seconds_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    without(monkeypatch, "SWAP_GUARDS", *BLIND_SWAP)
    driver.now_s += 5.1

    with violates("I9"):
        driver.rungs("wan1", FAR)


def test_i9_a_swap_on_no_evidence_at_all_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    monkeypatch.setattr(progress, "evidence", lambda question: ())

    with violates("I9"):
        kill_primary(driver)


def test_i9_with_its_guards_the_same_facts_move_nothing() -> None:
    driver = started()
    driver.now_s += 5.1
    driver.rungs("wan1", FAR)

    assert driver.commands() == []


# ---------------------------------------------------------------- I10


def test_i10_a_command_that_does_not_follow_from_an_intent_is_stopped(monkeypatch: Patch) -> None:
    """The effects of a record are made to run ahead: a run that is only opened already sends its command."""
    usual = engine.effects

    def eager(record: Record) -> tuple[Effect, ...]:
        if isinstance(record.body, RunOpened):
            run = record.body.run
            return (Perform(Request(f"{run}.9", "route", (), False, run, 0, 9, False, (), 0.0)),)
        return usual(record)

    driver = started()
    monkeypatch.setattr(engine, "effects", eager)

    with violates("I10"):
        kill_primary(driver)


# ---------------------------------------------------------------- I11


def undone_again_and_again(driver: Driver) -> None:
    """A run that cannot be undone, and a person who orders it four times."""
    kill_primary(driver)
    driver.answer()
    for _ in range(5):
        for _ in range(30):
            driver.now_s += 1.0
            driver.rungs("wan1", FAR)
            driver.rungs("wan2")
            driver.path(None)
            run = driver.state.durable.runs["R1"]
            if run.returned_s is None and run.key is not None and not run.sent:
                driver.send(CommandSent(run.key))
                driver.send(CommandEnded(run.key, Outcome.FAILED))
        driver.send(RunChosen("li", "R1", Choice.UNDO))


def test_i11_the_same_step_sent_a_third_time_is_stopped(monkeypatch: Patch) -> None:
    monkeypatch.setattr(progress, "SENDS_PER_STEP", 99)
    monkeypatch.setattr(people, "SENDS_PER_STEP", 99)

    with violates("I11"):
        undone_again_and_again(started())


def test_i11_with_its_guard_the_third_time_is_refused_with_a_reason() -> None:
    driver = started()

    undone_again_and_again(driver)

    run = driver.state.durable.runs["R1"]
    assert run.state is RunState.HELD
    assert run.reason == "it was undone twice already: end it by hand"
    assert (run.sends or {})["0u"] == 2


# ---------------------------------------------------------------- I12


def swap_and_return(driver: Driver) -> None:
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    driver.keep_good(64, via="wan2")
    driver.answer()
    driver.path("wan1")
    driver.keep_good(2)


def test_i12_a_swap_beyond_the_budget_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    swap_and_return(driver)
    swap_and_return(driver)
    monkeypatch.setattr(policy, "budget_spent", lambda question: None)

    with violates("I12"):
        kill_primary(driver)


def test_i12_the_budget_is_counted_over_restarts(monkeypatch: Patch) -> None:
    driver = started()
    swap_and_return(driver)
    swap_and_return(driver)
    driver.state = State(replay(driver.records, State()).durable)
    driver.boot, driver.now_s = "boot-2", driver.now_s + 100.0
    driver.start()
    driver.all_good()
    driver.keep_good(65)
    monkeypatch.setattr(policy, "budget_spent", lambda question: None)

    with violates("I12"):
        kill_primary(driver)


# ---------------------------------------------------------------- I14


def test_i14_a_command_on_hold_is_stopped(monkeypatch: Patch) -> None:
    """Two guards keep it: no run starts, and a run that is open stands still. Without either the rule speaks."""
    driver = started()
    without(monkeypatch, "SITE_GUARDS", "held")
    without(monkeypatch, "COMMAND_GUARDS", "held")
    monkeypatch.setattr(progress, "stopped_by", lambda work: None)
    driver.send(HoldAsked("wang", "work on the rack", False, None))

    with violates("I14"):
        kill_primary(driver)


def test_i14_a_command_in_safe_mode_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    without(monkeypatch, "SITE_GUARDS", "held", "safe_mode")
    without(monkeypatch, "COMMAND_GUARDS", "held", "safe_mode")
    monkeypatch.setattr(progress, "stopped_by", lambda work: None)
    driver.send(Started("1", "x", False, "record 7 is altered"))
    driver.keep_good(65)

    with violates("I14"):
        kill_primary(driver)


def test_i14_undoing_in_safe_mode_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    monkeypatch.setattr(progress, "stopped_by", lambda work: None)
    driver.send(Started("1", "x", False, "record 7 is altered"))

    with violates("I14"):
        driver.wait(15.0)


def test_i14_with_its_guards_an_open_run_stands_still_in_safe_mode_until_a_person_chooses() -> None:
    driver = started()
    kill_primary(driver)
    driver.answer()
    sent = len(driver.commands())
    driver.send(Started("1", "x", False, "record 7 is altered"))

    driver.wait(600.0)

    assert len(driver.commands()) == sent
    assert driver.state.durable.runs["R1"].paused


# ---------------------------------------------------------------- I23


def test_i23_a_swap_on_to_a_line_that_is_bad_is_stopped(monkeypatch: Patch) -> None:
    driver = started()
    without(monkeypatch, "SWAP_GUARDS", "cause_elsewhere", "headquarters_suspected", *BLIND_SWAP[:3])

    driver.now_s += 0.3
    driver.rungs("wan2", FAR)
    driver.now_s += 0.3

    with violates("I23"):
        driver.rungs("wan1", FAR)


def test_i23_a_swap_for_a_cause_that_is_not_the_lines_is_stopped(monkeypatch: Patch) -> None:
    """Headquarters is dead, and the standby, which is good, has no target there that could show it."""
    lines = (line("wan1", "primary"), line("wan2", "standby", rungs=("cpe", "edge", "second_site")))
    driver = started(lines=lines)
    without(monkeypatch, "SWAP_GUARDS", "cause_elsewhere", "headquarters_suspected")
    driver.now_s += 0.3
    driver.rungs("wan1", ("hq",))
    driver.now_s += 0.3

    with violates("I23: R1 would swap although the cause is not wan1"):
        driver.rungs("wan1", ("hq",))
        driver.rungs("wan2")


def test_i23_with_its_guards_equally_dead_lines_move_nothing() -> None:
    driver = started()
    kill_primary(driver, standby=FAR)

    driver.keep_good(60, dead={"wan1": FAR, "wan2": FAR})

    assert driver.commands() == []


# ---------------------------------------------------------------- I24


def test_i24_a_run_that_forgets_its_deadline_is_found(monkeypatch: Patch) -> None:
    driver = started()
    kill_primary(driver)
    monkeypatch.setattr(progress, "late", lambda work, run: False)

    with violates("I24"):
        driver.wait(progress.ACTING_S + invariants.STUCK_S + 2.0)


def test_i24_a_run_without_a_deadline_is_found() -> None:
    driver = started()
    kill_primary(driver)

    def forget(stepped: Stepped) -> Stepped:
        durable = stepped.state.durable
        runs = {key: replace(run, deadline_s=None) for key, run in durable.runs.items()}
        return replace(stepped, state=replace(stepped.state, durable=replace(durable, runs=runs)))

    with violates("I24"):
        tampered(driver, forget)


def test_i24_a_run_ends_as_done_undone_or_held_and_as_nothing_else() -> None:
    driver = started()
    ended = Record(driver.at(), RunEnded("R1", RunState.VERIFYING, Move.STUCK, ""))

    with violates("I24"):
        tampered(driver, lambda stepped: replace(stepped, records=(*stepped.records, ended)))


def test_i24_a_run_that_stands_still_by_a_hold_is_not_stuck() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(HoldAsked("wang", "work on the rack", False, None))

    driver.wait(7200.0, every=60.0)

    assert driver.state.durable.runs["R1"].paused


# ---------------------------------------------------------------- I26


def test_i26_a_clock_step_that_moves_a_deadline_is_stopped(monkeypatch: Patch) -> None:
    """A core that starts its delays anew on a step of the wall clock, as it rightly does after a time gap."""
    usual = engine.take_event

    def moved_by_the_clock(work: Work, event: object) -> None:
        usual(work, event)  # type: ignore[arg-type]
        if isinstance(event, ClockStepped):
            engine.rebase(work)
            for run in work.durable.open_runs():
                if run.state is RunState.VERIFYING:
                    engine.look_again(work, run, Move.RESTARTED)

    monkeypatch.setattr(engine, "take_event", moved_by_the_clock)
    alarm = started()
    alarm.mains("ups-a", present=False)
    alarm.now_s += 2.0
    run = started()
    kill_primary(run)
    run.answer()
    run.now_s += 2.0

    for driver in (alarm, run):
        with violates("I26"):
            driver.send(ClockStepped(-3600.0))


@pytest.mark.parametrize("step_s", [-86_400.0, -1.0, 3600.0, 40 * 86_400.0])
def test_i26_hold_block_and_budget_run_by_boot_time(step_s: float) -> None:
    driver = started(books=swap(budget=1))
    kill_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    driver.send(HoldAsked("wang", "an hour", False, 3600.0))

    driver.utc_offset_s += step_s
    driver.send(ClockStepped(step_s))
    driver.wait(60.0)

    durable, now = driver.state.durable, driver.at()
    assert durable.hold is not None
    assert durable.elapsed_s(durable.hold.since, now) == pytest.approx(60.0)
    assert durable.elapsed_s(durable.spent["standby"]["R1"], now) < 61.0


@pytest.mark.parametrize(
    ("utc_s", "elapsed_s"),
    [
        (1_700_000_100.0, 100.0),  # credible: later than the last record, and not too far
        (1_699_999_000.0, 0.0),  # before it
        (1_700_000_000.0 + 31 * 86_400.0, 0.0),  # an absence of a month is not believed
    ],
)
def test_i26_over_a_reboot_only_credible_utc_counts_else_a_limit_runs_its_full_length(
    utc_s: float, elapsed_s: float
) -> None:
    since = At("boot-1", 500.0, 1_700_000_000.0)
    durable = replace(State().durable, boot_id="boot-1", last_utc_s=1_700_000_000.0)

    assert durable.elapsed_s(since, At("boot-2", 20.0, utc_s)) == elapsed_s


# ---------------------------------------------------------------- I19 and the whole


def test_i19_replaying_all_records_gives_the_durable_state() -> None:
    driver = started()
    for _ in range(2):
        swap_and_return(driver)
    kill_primary(driver)
    driver.keep_good(30, dead={"wan1": FAR})
    driver.send(HoldAsked("wang", "work", False, 60.0))
    driver.wait(120.0)

    assert replay(driver.records, State()).durable == driver.state.durable


def test_i19_a_state_that_changed_without_a_record_is_not_what_replay_gives() -> None:
    driver = started()
    kill_primary(driver)
    durable = driver.state.durable
    runs = {key: replace(run, step=1) for key, run in durable.runs.items()}

    assert replay(driver.records, State()).durable != replace(durable, runs=runs)


def test_every_rule_of_the_table_has_a_test_here_that_shows_it_failing() -> None:
    shown = {name.split("_")[1].upper() for name in globals() if name.startswith("test_i")}

    assert set(invariants.RULES) <= shown


def test_a_violation_names_its_rule() -> None:
    violation = InvariantViolation("I9", "R1.0.1 rests on no evidence")

    assert (violation.rule, str(violation)) == ("I9", "I9: R1.0.1 rests on no evidence")
