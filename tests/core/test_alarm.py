"""An alarm: the table of its rungs, its delays, what not seeing does to it, flapping, and what a restart does."""

from __future__ import annotations

import itertools

import pytest

from agent.core.alarm import (
    FLAP_ACTIVATIONS,
    FLAP_OFF_DELAY_S,
    FLAP_WINDOW_S,
    TRANSITIONS,
    AlarmSpec,
    AlarmState,
    Rung,
    RungState,
    Seen,
    advance,
    off_delay_s,
    rebase,
    step,
)
from agent.core.judge import Condition, Op, Verdict
from agent.core.model import AlarmKey, PointId, PointSpec, Quality, Started, Tier, TimeGap
from agent.core.records import AlarmMoved, DelaysRebased
from agent.core.site import Equipment, Site, make_site
from agent.core.topology import candidates_of
from tests.fakes.sites import Driver

S = AlarmState
LOAD = PointId("box.load_ratio")
KEY = AlarmKey("box.load_high")
YELLOW = Rung(
    Tier.YELLOW, (Condition(LOAD, Op.ABOVE, 0.7),), (Condition(LOAD, Op.BELOW, 0.6),), on_delay_s=10.0, off_delay_s=60.0
)
RED = Rung(Tier.RED, (Condition(LOAD, Op.ABOVE, 0.9),), (Condition(LOAD, Op.BELOW, 0.8),), 30.0, 60.0)
PLAIN = Rung(Tier.YELLOW, (), (), on_delay_s=10.0, off_delay_s=60.0)


def site(*rungs: Rung) -> Site:
    alarm = AlarmSpec(KEY, "box", "load_high", rungs or (YELLOW, RED), "the load is high")
    equipment = {"box": Equipment("box", "host")}
    return make_site(
        id="b1",
        name="Branch one",
        language="en",
        digest="x",
        equipment=equipment,
        points={LOAD: PointSpec("ratio", 1.0, "load")},
        alarms=(alarm,),
        candidates=candidates_of(equipment, [KEY]),
        runbooks=(),
    )


def started(*rungs: Rung) -> Driver:
    driver = Driver(site(*rungs)).start()
    driver.see({LOAD: 0.1})
    return driver


def hold(driver: Driver, load: float | None, seconds: float) -> None:
    """See the same value each second."""
    for _ in range(int(seconds)):
        driver.now_s += 1.0
        driver.see({LOAD: load}, quality=Quality.GOOD if load is not None else Quality.UNKNOWN)


def state(driver: Driver, tier: Tier = Tier.YELLOW) -> AlarmState:
    alarm = driver.state.durable.alarms.get(KEY)
    return alarm.rungs[str(tier)].state if alarm is not None else S.NORMAL


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(("at", "seen"), list(itertools.product(AlarmState, Seen)))
def test_every_pair_moves_as_the_table_says_and_one_that_is_not_listed_stays(at: AlarmState, seen: Seen) -> None:
    before = RungState(at, 1010.0 if at in (S.PENDING, S.CLEARING) else None)

    after = step(PLAIN, before, seen, 1000.0, 60.0)

    target = TRANSITIONS.get((at, seen))
    if target is None:
        assert after is before
    else:
        assert after.state is target
        assert after.deadline_s == {S.PENDING: 1010.0, S.CLEARING: 1060.0}.get(target)


def test_every_state_is_reached_from_normal_and_normal_from_every_state() -> None:
    def reach(start: AlarmState) -> set[AlarmState]:
        found = {start}
        while more := {to for (at, _), to in TRANSITIONS.items() if at in found} - found:
            found |= more
        return found

    assert all(reach(state) == set(AlarmState) for state in AlarmState)


def test_not_seeing_never_leads_towards_normal() -> None:
    for (at, seen), target in TRANSITIONS.items():
        if seen is Seen.UNKNOWN:
            assert (at, target) == (S.CLEARING, S.ACTIVE)


def test_a_delay_of_zero_is_passed_through_at_once() -> None:
    rung = Rung(Tier.ORANGE, (), (), 0.0, 0.0)

    active = step(rung, RungState(), Seen.BAD, 1000.0, 0.0)

    assert active == RungState(S.ACTIVE)
    assert step(rung, active, Seen.GOOD, 1001.0, 0.0) == RungState(S.NORMAL)


def test_a_deadline_that_has_come_counts_only_after_the_evidence_of_now() -> None:
    """Seen good in the very pass in which the on-delay ends, the alarm does not become active."""
    pending = RungState(S.PENDING, 1000.0)

    assert advance(PLAIN, pending, Verdict.GOOD, 1000.0, 60.0).state is S.NORMAL
    assert advance(PLAIN, pending, Verdict.BAD, 1000.0, 60.0).state is S.ACTIVE
    assert advance(PLAIN, pending, Verdict.BAD, 999.9, 60.0) is pending


# ---------------------------------------------------------------- delays


@pytest.mark.parametrize("seconds", [1, 5, 9])
def test_a_dip_shorter_than_the_on_delay_never_becomes_active(seconds: int) -> None:
    driver = started()

    hold(driver, 0.75, seconds)
    hold(driver, 0.5, 1)
    hold(driver, 0.5, 100)

    assert all(record.tier is Tier.OK for record in driver.bodies(AlarmMoved))
    assert driver.state.durable.alarms == {}
    assert driver.state.durable.incidents == {}


def test_dips_with_breaks_do_not_add_up() -> None:
    driver = started()

    for _ in range(10):
        hold(driver, 0.75, 9)
        hold(driver, 0.65, 1)  # between enter and leave: the condition did not hold without a break

    assert all(record.tier is Tier.OK for record in driver.bodies(AlarmMoved))


def test_an_alarm_becomes_active_exactly_when_its_on_delay_is_over() -> None:
    driver = started()

    hold(driver, 0.75, 10)
    assert state(driver) is S.PENDING
    hold(driver, 0.75, 1)

    assert state(driver) is S.ACTIVE


def test_a_tick_alone_ends_the_on_delay() -> None:
    driver = started()
    hold(driver, 0.75, 1)

    driver.wait(10.0)

    assert state(driver) is S.ACTIVE


def test_it_ends_only_when_it_has_been_good_for_the_whole_off_delay() -> None:
    driver = started()
    hold(driver, 0.75, 12)

    hold(driver, 0.5, 59)
    assert state(driver) is S.CLEARING
    hold(driver, 0.65, 1)  # between
    assert state(driver) is S.ACTIVE
    hold(driver, 0.5, 60)
    assert state(driver) is S.CLEARING
    hold(driver, 0.5, 1)

    assert driver.state.durable.alarms == {}


def test_the_tier_is_that_of_the_highest_rung_and_the_id_stays_from_first_active_to_normal() -> None:
    driver = started()

    hold(driver, 0.95, 12)
    assert driver.state.durable.alarms[KEY].tier() is Tier.YELLOW
    hold(driver, 0.95, 20)
    assert driver.state.durable.alarms[KEY].tier() is Tier.RED
    hold(driver, 0.75, 62)
    assert driver.state.durable.alarms[KEY].tier() is Tier.YELLOW
    hold(driver, 0.5, 62)
    assert driver.state.durable.alarms == {}

    moves = driver.bodies(AlarmMoved)
    assert [m.id for m in moves if m.tier is Tier.OK and m.was is Tier.OK] == [None]  # pending has no id yet
    assert {m.id for m in moves if m.tier is not Tier.OK or m.was is not Tier.OK} == {"A1"}


def test_the_next_time_it_becomes_active_it_is_another_alarm() -> None:
    driver = started()
    for _ in range(2):
        hold(driver, 0.75, 12)
        hold(driver, 0.5, 62)

    assert [m.id for m in driver.bodies(AlarmMoved) if m.was is Tier.OK and m.tier is not Tier.OK] == ["A1", "A2"]


# ---------------------------------------------------------------- not seeing


def test_silence_neither_clears_an_active_alarm_nor_starts_a_new_one() -> None:
    driver = started()
    hold(driver, None, 300)
    assert driver.state.durable.alarms == {}

    hold(driver, 0.75, 12)
    hold(driver, None, 300)

    assert state(driver) is S.ACTIVE


def test_silence_while_clearing_goes_back_to_active() -> None:
    driver = started()
    hold(driver, 0.75, 12)
    hold(driver, 0.5, 30)
    assert state(driver) is S.CLEARING

    hold(driver, None, 1)

    assert state(driver) is S.ACTIVE


def test_an_alarm_that_becomes_active_in_silence_is_blind_until_it_is_seen_bad() -> None:
    driver = started()
    hold(driver, 0.75, 2)
    hold(driver, None, 12)
    assert driver.state.durable.alarms[KEY].blind

    hold(driver, 0.75, 1)

    assert not driver.state.durable.alarms[KEY].blind


def test_a_condition_that_holds_at_first_sight_is_marked_older_than_the_start() -> None:
    late = Driver(site()).start()
    hold(late, 0.75, 12)
    fresh = started()
    hold(fresh, 0.75, 12)

    assert late.state.durable.alarms[KEY].older_than_start
    assert not fresh.state.durable.alarms[KEY].older_than_start


# ---------------------------------------------------------------- flapping


def test_four_activations_in_ten_minutes_make_clearing_take_ten_minutes() -> None:
    driver = started()
    for _ in range(FLAP_ACTIVATIONS - 1):
        hold(driver, 0.75, 12)
        hold(driver, 0.5, 62)
        assert driver.state.durable.alarms == {}
    hold(driver, 0.75, 12)

    hold(driver, 0.5, FLAP_OFF_DELAY_S - 1)
    assert state(driver) is S.CLEARING
    hold(driver, 0.5, 2)

    assert driver.state.durable.alarms == {}


def test_old_activations_are_no_flapping() -> None:
    recent = tuple(1000.0 - at for at in range(FLAP_ACTIVATIONS))
    old = tuple(at - FLAP_WINDOW_S for at in recent)

    assert off_delay_s(PLAIN, recent, 1000.0) == FLAP_OFF_DELAY_S
    assert off_delay_s(PLAIN, old, 1000.1) == PLAIN.off_delay_s
    assert off_delay_s(PLAIN, recent[1:], 1000.0) == PLAIN.off_delay_s


def test_an_off_delay_that_is_longer_than_the_flap_delay_stays() -> None:
    rung = Rung(Tier.YELLOW, (), (), 0.0, 3600.0)

    assert off_delay_s(rung, (1000.0,) * FLAP_ACTIVATIONS, 1000.0) == 3600.0


# ---------------------------------------------------------------- restart and gap


def test_a_restart_keeps_state_and_id_and_marks_what_it_has_not_seen_yet() -> None:
    driver = started()
    hold(driver, 0.75, 12)

    driver.send(Started("1", "x", True))
    assert driver.state.durable.alarms[KEY].unconfirmed
    assert (driver.state.durable.alarms[KEY].id, state(driver)) == ("A1", S.ACTIVE)
    hold(driver, 0.75, 1)

    assert not driver.state.durable.alarms[KEY].unconfirmed


def test_a_reboot_starts_running_delays_anew() -> None:
    driver = started()
    hold(driver, 0.75, 5)
    assert state(driver) is S.PENDING

    driver.boot, driver.now_s = "boot-2", 30.0
    driver.send(Started("1", "x", True))

    assert len(driver.bodies(DelaysRebased)) == 1
    assert driver.state.durable.alarms[KEY].rungs["yellow"].deadline_s == 40.0


def test_a_restart_within_a_boot_goes_on_counting() -> None:
    driver = started()
    hold(driver, 0.75, 5)
    before = driver.state.durable.alarms[KEY].rungs["yellow"].deadline_s

    driver.send(Started("1", "x", True))

    assert driver.state.durable.alarms[KEY].rungs["yellow"].deadline_s == before
    assert driver.bodies(DelaysRebased) == []


def test_a_time_gap_starts_running_delays_anew_so_that_no_suspend_is_an_on_delay() -> None:
    driver = started()
    hold(driver, 0.75, 5)

    driver.now_s += 600.0
    driver.send(TimeGap(600.0, "suspended"))

    assert state(driver) is S.PENDING
    hold(driver, 0.5, 1)
    assert state(driver) is S.NORMAL


def test_rebase_leaves_what_waits_for_nothing() -> None:
    driver = started()
    hold(driver, 0.95, 15)
    alarm = driver.state.durable.alarms[KEY]

    moved = rebase(driver.site.alarms[KEY], alarm, 5000.0)

    assert moved.rungs["yellow"] == RungState(S.ACTIVE)
    assert moved.rungs["red"] == RungState(S.PENDING, 5030.0)


def test_an_alarm_that_the_site_file_no_longer_has_ends_at_the_next_start() -> None:
    driver = started()
    hold(driver, 0.75, 12)
    assert driver.state.durable.open_incidents()

    driver.site = make_site(
        id="b1",
        name="Branch one",
        language="en",
        digest="y",
        equipment={},
        points={},
        alarms=(),
        candidates=(),
        runbooks=(),
    )
    driver.send(Started("1", "y", True))

    assert driver.state.durable.alarms == {}
    assert driver.state.durable.open_incidents() == []
