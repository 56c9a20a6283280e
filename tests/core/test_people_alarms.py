"""People's words about alarms and blocks: what each comes to, what refuses it, and that no order of words breaks a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.engine import next_deadline_s
from agent.core.model import (
    AbortAsked,
    AckAsked,
    AlarmKey,
    Asked,
    Choice,
    CommandEnded,
    HoldAsked,
    LiftAsked,
    Mode,
    Outcome,
    ReleaseAsked,
    ResetAsked,
    RunAsked,
    RunChosen,
    ShelveAsked,
    Tier,
    UnshelveAsked,
)
from agent.core.people import SHELVE_S_MAX
from agent.core.records import AlarmAcknowledged, AlarmUnshelved, RunEnded
from agent.core.run import RunState
from tests.fakes.sites import Driver, bank, in_two_steps, line, swap
from tests.fakes.swaps import FAR, kill_primary, run_state, started, swapped
from tests.fakes.words import changes_nothing, remembered
from tests.fakes.world import World

EDGE_DEAD = AlarmKey("wan1.edge_dead")
HQ_DEAD = AlarmKey("wan1.hq_dead")
DAY_S = 86_400.0


def only_warned(driver: Driver) -> Driver:
    """The mains are absent: two tiers of one alarm that moves no runbook, the first of them active."""
    for _ in range(12):
        driver.now_s += 1.0
        driver.mains("ups-a", present=False)
    return driver


# ---------------------------------------------------------------- acknowledging


def test_alarm_is_acknowledged_by_its_id_and_stays_as_it_is() -> None:
    driver = swapped(started())
    before = driver.state.durable

    driver.send(AckAsked("li", "A1"))

    after = driver.state.durable
    (key,) = after.acknowledgements
    assert after.acknowledgements[key].owner == "li"
    assert after.alarms == before.alarms
    assert after.incidents == before.incidents
    remembered(driver)


def test_incident_acknowledges_every_alarm_that_stands_in_it_and_none_that_comes_later() -> None:
    driver = swapped(started())
    incident = driver.state.durable.incidents["I1"]

    driver.send(AckAsked("li", "I1"))
    only_warned(driver)

    durable = driver.state.durable
    assert sorted(durable.acknowledgements) == sorted(incident.alarms)
    assert "ups-a.mains_absent" in durable.alarms
    assert "ups-a.mains_absent" not in durable.acknowledgements


def test_acknowledgement_ends_with_its_alarm_and_the_next_occurrence_is_new() -> None:
    driver = only_warned(started())
    driver.send(AckAsked("li", "A1"))

    driver.keep_good(1300)
    assert driver.state.durable.alarms == {}
    assert driver.state.durable.acknowledgements == {}

    only_warned(driver)
    assert driver.state.durable.alarms["ups-a.mains_absent"].id == "A2"
    assert driver.state.durable.acknowledgements == {}
    remembered(driver)


def test_alarm_that_becomes_heavier_is_new_to_people_and_comes_off_its_shelf() -> None:
    driver = only_warned(started())
    key = AlarmKey("ups-a.mains_absent")
    light = driver.state.durable.alarms[key].tier()
    driver.send(AckAsked("li", "A1"))
    driver.send(ShelveAsked("li", key, DAY_S, "the grid works on it"))

    while driver.state.durable.alarms[key].tier() is light:
        assert key in driver.state.durable.shelves
        driver.now_s += 1.0
        assert driver.now_s < 5000.0
        driver.mains("ups-a", present=False)

    assert driver.state.durable.acknowledgements == {}
    assert driver.state.durable.shelves == {}
    driver.send(AckAsked("wang", "A1"))
    assert driver.state.durable.acknowledgements[key].owner == "wang"


@pytest.mark.parametrize("name", ["A9", "I9", "R1", "wan1.hq_dead"])
def test_nothing_of_that_name_stands_to_be_acknowledged(name: str) -> None:
    changes_nothing(swapped(started()), AckAsked("li", name))


def test_second_acknowledgement_leaves_the_first_owner() -> None:
    driver = swapped(started())
    driver.send(AckAsked("li", "I1"))

    changes_nothing(driver, AckAsked("wang", "I1"))


# ---------------------------------------------------------------- shelving


def test_shelved_alarm_is_out_of_its_incidents_tier_and_is_judged_on() -> None:
    driver = only_warned(started())
    key = AlarmKey("ups-a.mains_absent")

    driver.send(ShelveAsked("li", key, 3600.0, "known"))

    durable = driver.state.durable
    assert durable.incidents["I1"].tier is Tier.OK
    assert durable.alarms[key].tier() is not Tier.OK
    assert durable.told_alarms() == []
    driver.keep_good(1300)
    assert driver.state.durable.alarms == {}
    assert driver.state.durable.open_incidents() == []
    assert driver.state.durable.shelves == {}
    remembered(driver)


def test_runbook_acts_on_a_shelved_alarm_all_the_same() -> None:
    driver = started(books=swap(Mode.ASK))
    kill_primary(driver)
    for key in tuple(driver.state.durable.alarms):
        driver.send(ShelveAsked("li", AlarmKey(key), 3600.0, "work"))

    driver.send(AbortAsked("li", "R1"))
    driver.send(ResetAsked("li", "standby"))
    driver.now_s += 0.1
    driver.rungs("wan1", FAR)
    driver.rungs("wan2")

    assert [run.runbook for run in driver.state.durable.open_runs()] == ["standby"]


def test_shelf_ends_by_itself_at_its_deadline() -> None:
    driver = only_warned(started())
    driver.send(ShelveAsked("li", AlarmKey("ups-a.mains_absent"), 20.0, "known"))
    since_s = driver.now_s

    deadline_s = next_deadline_s(driver.state)
    assert deadline_s is not None
    assert deadline_s <= since_s + 20.0
    driver.wait(19.0)
    assert driver.state.durable.shelves
    driver.wait(1.0)

    assert driver.state.durable.shelves == {}
    assert driver.bodies(AlarmUnshelved)[-1].by == "its end"
    assert driver.state.durable.incidents["I1"].tier is not Tier.OK
    remembered(driver)


@pytest.mark.parametrize(("utc_s", "is_over"), [(100.0, False), (4000.0, True), (-9000.0, True)])
def test_over_a_reboot_a_shelf_lasts_only_by_a_credible_clock(utc_s: float, is_over: bool) -> None:
    driver = only_warned(started())
    driver.send(ShelveAsked("li", AlarmKey("ups-a.mains_absent"), 3600.0, "known"))

    driver.boot = "boot-2"
    driver.utc_offset_s += driver.now_s + utc_s - 20.0
    driver.now_s = 20.0
    driver.start()

    assert (driver.state.durable.shelves == {}) is is_over


def test_person_ends_a_shelf() -> None:
    driver = only_warned(started())
    key = AlarmKey("ups-a.mains_absent")
    driver.send(ShelveAsked("li", key, 3600.0, "known"))

    driver.send(UnshelveAsked("wang", key))

    assert driver.state.durable.shelves == {}
    changes_nothing(driver, UnshelveAsked("wang", key))


@pytest.mark.parametrize(
    ("key", "for_s"),
    [
        ("ups-a.mains_absent", SHELVE_S_MAX + 1.0),
        ("ups-a.mains_absent", 0.0),
        ("wan1.hq_dead", 60.0),
        ("nothing.at_all", 60.0),
    ],
)
def test_only_an_alarm_that_stands_is_shelved_and_for_a_day_at_most(key: str, for_s: float) -> None:
    changes_nothing(only_warned(started()), ShelveAsked("li", AlarmKey(key), for_s, "known"))


# ---------------------------------------------------------------- lifting


def test_block_is_lifted_and_the_runbook_is_asked_anew() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(CommandEnded(driver.commands()[-1].key, Outcome.REFUSED, "the route is not ours"))
    assert [ended.end for ended in driver.bodies(RunEnded)] == [RunState.UNDONE]
    assert driver.state.durable.blocks["standby"].for_s == 60.0

    driver.send(LiftAsked("li", "standby"))

    assert driver.state.durable.blocks == {}
    assert run_state(driver, "R2") is RunState.ACTING
    remembered(driver)


def test_only_a_block_is_lifted_and_a_lockout_is_left_for_a_reset() -> None:
    driver = started(books=tuple(replace(b, limits=replace(b.limits, block_s=20.0)) for b in swap()))
    changes_nothing(driver, LiftAsked("li", "standby"))
    swapped(driver)
    driver.keep_good(25, via="wan2", dead={"wan1": FAR})
    changes_nothing(driver, LiftAsked("li", "standby"))

    locked = started(books=swap(Mode.ASK))
    kill_primary(locked)
    locked.send(AbortAsked("li", "R1"))
    locked.wait(1.0)
    changes_nothing(locked, LiftAsked("li", "standby"))
    assert locked.state.durable.lockouts


# ---------------------------------------------------------------- any order

PERIOD_S = 10.0
Op = Callable[[World], object]
KEYS = st.sampled_from((EDGE_DEAD, HQ_DEAD, AlarmKey("wan2.hq_dead"), AlarmKey("ups-a.mains_absent")))
RUNS = st.sampled_from(("R1", "R2", "R3", "R4"))
BOOK_NAMES = st.sampled_from(("standby", "standby", "standby.return"))
FATES = ("works", "works", "works", "fails", "lost", "uncertain", "refused")


def breaks(name: str, state: str) -> Op:
    def op(world: World) -> None:
        world.lines[name] = state
        world.driver.now_s += 0.1
        world.see_all()

    return op


def passes(times: int, fate: str) -> Op:
    def op(world: World) -> None:
        for _ in range(times):
            world.driver.now_s += 2.0
            world.see_all()
            world.executor(fate)

    return op


def says(event: Asked) -> Op:
    return lambda world: world.send(event)


WORDS: st.SearchStrategy[Asked] = st.one_of(
    st.builds(AckAsked, st.just("li"), st.sampled_from(("A1", "A2", "I1", "I2", "X"))),
    st.builds(ShelveAsked, st.just("li"), KEYS, st.sampled_from((5.0, 600.0, 90_000.0)), st.just("known")),
    st.builds(UnshelveAsked, st.just("li"), KEYS),
    st.builds(LiftAsked, st.just("li"), BOOK_NAMES),
    st.builds(RunAsked, st.just("li"), BOOK_NAMES),
    st.builds(RunAsked, st.just("li"), BOOK_NAMES),
    st.builds(AbortAsked, st.just("li"), RUNS),
    st.builds(ResetAsked, st.just("li"), BOOK_NAMES),
    st.builds(RunChosen, st.just("li"), RUNS, st.sampled_from(tuple(Choice))),
    st.builds(HoldAsked, st.just("wang"), st.just("work"), st.booleans(), st.sampled_from((None, 8.0))),
    st.just(ReleaseAsked("wang")),
)
OPS: st.SearchStrategy[Op] = st.one_of(
    st.builds(says, WORDS),
    st.builds(says, WORDS),
    st.builds(breaks, st.sampled_from(("wan1", "wan2")), st.sampled_from(("good", "good", "far_dead", "hq_dead"))),
    st.builds(passes, st.integers(1, 8), st.sampled_from(FATES)),
    st.builds(passes, st.integers(1, 8), st.sampled_from(FATES)),
    st.builds(lambda fate: lambda world: world.executor(fate), st.sampled_from(FATES)),
    st.builds(
        lambda boot, lose: lambda world: world.restart(new_boot=boot, lose=lose), st.booleans(), st.integers(0, 3)
    ),
)
BOOKS = st.sampled_from((swap(), swap(Mode.ASK), swap(Mode.WATCH), in_two_steps(), in_two_steps(no_return=True)))


@given(BOOKS, st.lists(OPS, min_size=8, max_size=30))
@settings(max_examples=150)
def test_no_order_of_peoples_words_breaks_an_invariant_and_replay_gives_the_same_state(
    books: tuple[object, ...], ops: list[Op]
) -> None:
    """The driver checks every invariant after every event; shelves and acknowledgements never outlive their alarm."""
    lines = (line("wan1", "primary", rungs=("cpe", "edge", "hq")), line("wan2", "standby", rungs=("cpe", "edge", "hq")))
    world = World(Driver(bank(books=books, lines=lines, period_s=PERIOD_S)))  # type: ignore[arg-type]
    world.start()
    for _ in range(8):
        world.driver.now_s += PERIOD_S
        world.see_all()

    for op in ops:
        op(world)
        durable = world.driver.state.durable
        assert durable.acknowledgements.keys() <= durable.alarms.keys()
        assert durable.shelves.keys() <= durable.alarms.keys()

    remembered(world.driver)


def test_acknowledging_records_one_record_for_each_alarm_and_no_other() -> None:
    driver = swapped(started())

    records = driver.send(AckAsked("li", "I1")).records

    assert {type(record.body) for record in records} == {AlarmAcknowledged}
    assert len(records) == len(driver.state.durable.incidents["I1"].alarms)
