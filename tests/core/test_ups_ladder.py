"""The shipped alarms of a UPS: from its flags and values to tiers, with their delays."""

from __future__ import annotations

import pytest

from agent.core.alarm import AlarmSpec, Rung
from agent.core.judge import Op
from agent.core.ladders import LEAVE_DELAY_S, RUNTIME_DERATING, ups_alarms
from agent.core.model import Observation, Observed, PointId, PointSpec, Quality, Tier, Value
from agent.core.site import Equipment, make_site
from agent.core.topology import candidates_of
from tests.fakes.sites import Driver

UPS = "ups-a"
SPECS: dict[str, AlarmSpec] = {spec.name: spec for spec in ups_alarms(UPS)}
FLAGS = (
    *(
        "battery_low",
        "replace_battery",
        "overloaded",
        "bypass",
        "calibrating",
        "output_off",
        "forced_shutdown",
        "alarm",
    ),
)
ON_MAINS: dict[str, Value] = {"on_battery": False, "mains_present": True} | dict.fromkeys(FLAGS, False)
ON_BATTERY = ON_MAINS | {"on_battery": True, "mains_present": False}
VALUES: dict[str, Value] = {
    "battery_runtime_s": 9000.0,
    "battery_charge_ratio": 1.0,
    "battery_temperature_celsius": 25.0,
    "load_ratio": 0.3,
    "input_voltage_volt": 220.0,
    "input_frequency_hertz": 50.0,
}


class Ups:
    """A UPS in front of the core: it says the same each second until told otherwise."""

    def __init__(self, *, period_s: float = 1.0) -> None:
        alarms = ups_alarms(UPS)
        equipment = {UPS: Equipment(UPS, "ups", fed_by=("utility",))}
        points = {point: PointSpec("", period_s, "") for spec in alarms for point in spec.points()}
        site = make_site(
            id="b1",
            name="Branch one",
            language="en",
            digest="x",
            equipment=equipment,
            points=points,
            alarms=alarms,
            candidates=candidates_of(equipment, [spec.key for spec in alarms]),
            runbooks=(),
        )
        self.every_s = period_s
        self.driver = Driver(site).start()
        self.says(ON_MAINS | VALUES, 5)

    def says(self, values: dict[str, Value], seconds: float, suspect: dict[str, Value] | None = None) -> None:
        """Report *values* each period, those in *suspect* as doubtful, for so long."""
        for _ in range(round(seconds / self.every_s)):
            self.driver.now_s += self.every_s
            now_s = self.driver.now_s
            good = [(name, value, Quality.GOOD) for name, value in values.items() if name not in (suspect or {})]
            doubtful = [(name, value, Quality.SUSPECT) for name, value in (suspect or {}).items()]
            self.driver.send(
                Observed(
                    tuple(
                        Observation(PointId(f"{UPS}.{name}"), value, quality, now_s, now_s, "nut:ups")
                        for name, value, quality in [*good, *doubtful]
                    )
                )
            )

    def silent(self, seconds: float) -> None:
        """The server says for so long that its driver is gone."""
        for _ in range(round(seconds / self.every_s)):
            self.driver.now_s += self.every_s
            values = dict.fromkeys(f"{UPS}.{name}" for name in ON_MAINS | VALUES)
            self.driver.see(values, quality=Quality.UNKNOWN)

    def tier(self, alarm: str) -> Tier:
        found = self.driver.state.durable.alarms.get(f"{UPS}.{alarm}")
        return found.tier() if found is not None else Tier.OK

    def standing(self) -> set[str]:
        alarms = self.driver.state.durable.alarms
        return {a.key.partition(".")[2] for a in alarms.values() if a.tier() is not Tier.OK}


def test_a_ups_that_is_well_stands_in_no_alarm() -> None:
    ups = Ups()

    ups.says(ON_MAINS | VALUES, 600)

    assert ups.driver.state.durable.alarms == {}


# ---------------------------------------------------------------- the tables


def rung(alarm: str, tier: Tier) -> Rung:
    (found,) = [r for r in SPECS[alarm].rungs if r.tier is tier]
    return found


@pytest.mark.parametrize(
    ("alarm", "tier", "limit", "on_delay_s"),
    [
        ("mains_absent", Tier.YELLOW, None, 10.0),
        ("mains_absent", Tier.ORANGE, None, 300.0),
        ("mains_absent", Tier.RED, None, 0.0),
        ("lost_on_battery", Tier.RED, None, 15.0),
        ("runtime_low", Tier.YELLOW, 1500.0 / RUNTIME_DERATING, 0.0),
        ("runtime_low", Tier.ORANGE, 600.0 / RUNTIME_DERATING, 0.0),
        ("runtime_low", Tier.RED, 360.0 / RUNTIME_DERATING, 0.0),
        ("charge_low", Tier.YELLOW, 0.80, 0.0),
        ("charge_low", Tier.ORANGE, 0.50, 0.0),
        ("charge_low", Tier.RED, 0.30, 0.0),
        ("recharge_slow", Tier.YELLOW, 0.95, 86_400.0),
        ("recharge_slow", Tier.ORANGE, 0.80, 86_400.0),
        ("load_high", Tier.YELLOW, 0.70, 60.0),
        ("load_high", Tier.ORANGE, 0.80, 300.0),
        ("load_high", Tier.RED, 1.00, 30.0),
        ("input_voltage_low", Tier.YELLOW, 198.0, 60.0),
        ("input_voltage_low", Tier.ORANGE, 187.0, 300.0),
        ("input_voltage_high", Tier.YELLOW, 242.0, 60.0),
        ("input_voltage_high", Tier.ORANGE, 253.0, 300.0),
        ("input_frequency_low", Tier.YELLOW, 49.5, 60.0),
        ("input_frequency_low", Tier.ORANGE, 49.0, 60.0),
        ("input_frequency_high", Tier.YELLOW, 50.5, 60.0),
        ("input_frequency_high", Tier.ORANGE, 51.0, 60.0),
        ("battery_hot", Tier.YELLOW, 30.0, 60.0),
        ("battery_hot", Tier.ORANGE, 40.0, 60.0),
        ("battery_hot", Tier.RED, 45.0, 60.0),
        ("battery_weak", Tier.ORANGE, None, 5.0),
        ("replace_battery", Tier.YELLOW, None, 0.0),
        ("replace_battery", Tier.ORANGE, None, 7 * 86_400.0),
        ("bypass", Tier.ORANGE, None, 0.0),
        ("bypass", Tier.RED, None, 0.0),
        ("output_off", Tier.RED, None, 30.0),
        ("forced_shutdown", Tier.RED, None, 0.0),
        ("device_alarm", Tier.ORANGE, None, 0.0),
        ("overloaded", Tier.ORANGE, None, 0.0),
        ("calibrating_long", Tier.YELLOW, None, 3600.0),
        ("contradictory", Tier.ORANGE, None, 2.5),
        ("unreadable", Tier.YELLOW, None, 60.0),
        ("unreadable", Tier.ORANGE, None, 300.0),
    ],
)
def test_every_row_of_the_default_limits_is_shipped(
    alarm: str, tier: Tier, limit: float | None, on_delay_s: float
) -> None:
    row = rung(alarm, tier)

    assert row.on_delay_s == on_delay_s
    if limit is not None:
        assert limit in [condition.value for condition in row.enter]


def test_every_limit_has_a_gap_between_enter_and_leave() -> None:
    for spec in SPECS.values():
        for row in spec.rungs:
            for enter in row.enter:
                if enter.op in (Op.ABOVE, Op.BELOW):
                    (leave,) = [c for c in row.leave if c.point == enter.point]
                    assert isinstance(leave.value, float)
                    assert isinstance(enter.value, float)
                    assert (leave.value < enter.value) if enter.op is Op.ABOVE else (leave.value > enter.value)


def test_a_ladder_rises_and_its_keys_are_its_own() -> None:
    order = [Tier.YELLOW, Tier.ORANGE, Tier.RED]
    for spec in SPECS.values():
        tiers = [row.tier for row in spec.rungs]
        assert tiers == [tier for tier in order if tier in tiers]
        assert spec.key == f"{UPS}.{spec.name}"
        assert not spec.acts
        assert all(condition.point.startswith(f"{UPS}.") for row in spec.rungs for condition in row.enter + row.leave)


def test_what_the_way_to_another_supply_takes_moves_the_runtime_ladder() -> None:
    slow = {spec.name: spec for spec in ups_alarms(UPS, needed_s=1800.0, shutdown_s=600.0)}["runtime_low"]
    limits = [c.value for row in slow.rungs for c in row.enter if c.op is Op.BELOW]

    assert limits == [3000.0 / RUNTIME_DERATING, 2100.0 / RUNTIME_DERATING, 780.0 / RUNTIME_DERATING]


# ---------------------------------------------------------------- mains


def test_mains_absent_is_yellow_after_ten_seconds_and_orange_after_five_minutes() -> None:
    ups = Ups()
    ups.says(ON_BATTERY | VALUES, 10)
    assert ups.tier("mains_absent") is Tier.OK
    ups.says(ON_BATTERY | VALUES, 1)
    assert ups.tier("mains_absent") is Tier.YELLOW
    ups.says(ON_BATTERY | VALUES, 289)
    assert ups.tier("mains_absent") is Tier.YELLOW

    ups.says(ON_BATTERY | VALUES, 1)

    assert ups.tier("mains_absent") is Tier.ORANGE


def test_a_low_battery_without_mains_is_red_at_once() -> None:
    ups = Ups()

    ups.says(ON_BATTERY | VALUES | {"battery_low": True}, 1)

    assert ups.tier("mains_absent") is Tier.RED


def test_a_low_battery_with_mains_is_orange_and_says_that_the_battery_is_weak() -> None:
    ups = Ups()

    ups.says(ON_MAINS | VALUES | {"battery_low": True}, 7)

    assert ups.standing() == {"battery_weak"}
    assert ups.tier("battery_weak") is Tier.ORANGE


def test_a_dip_of_the_mains_is_no_alarm() -> None:
    ups = Ups()
    for _ in range(5):
        ups.says(ON_BATTERY | VALUES, 8)
        ups.says(ON_MAINS | VALUES, 2)

    assert ups.driver.state.durable.incidents == {}


def test_mains_is_back_after_three_good_polls() -> None:
    ups = Ups()
    ups.says(ON_BATTERY | VALUES, 20)

    ups.says(ON_MAINS | VALUES, LEAVE_DELAY_S)
    assert ups.tier("mains_absent") is Tier.YELLOW
    ups.says(ON_MAINS | VALUES, 1)

    assert ups.standing() == set()


# ---------------------------------------------------------------- silence


def test_silence_on_battery_is_red_after_fifteen_seconds() -> None:
    ups = Ups()
    ups.says(ON_BATTERY | VALUES, 30)

    ups.silent(15)
    assert ups.tier("lost_on_battery") is Tier.OK
    ups.silent(1)

    assert ups.tier("lost_on_battery") is Tier.RED
    assert ups.tier("mains_absent") is Tier.YELLOW  # not seeing does not clear it
    ups.says(ON_BATTERY | VALUES, 1)
    assert ups.tier("lost_on_battery") is Tier.OK


def test_silence_on_mains_is_yellow_after_a_minute_orange_after_five_and_never_a_lost_mains() -> None:
    ups = Ups()
    ups.silent(60)
    assert ups.standing() == set()
    ups.silent(1)
    assert ups.tier("unreadable") is Tier.YELLOW
    ups.silent(240)

    assert ups.tier("unreadable") is Tier.ORANGE
    assert ups.standing() == {"unreadable"}


def test_a_probe_that_says_nothing_at_all_is_silence_too() -> None:
    ups = Ups()
    ups.driver.wait(65.0)

    assert ups.standing() == {"unreadable"}


# ---------------------------------------------------------------- self-test and contradiction

SELF_TEST: dict[str, Value] = {"mains_present": False, "on_battery": True}


def test_a_self_test_is_no_outage() -> None:
    ups = Ups()

    ups.says(ON_MAINS | VALUES | {"calibrating": True}, 3000, suspect=SELF_TEST)

    assert ups.standing() == set()
    assert "ups-a.mains_absent" not in ups.driver.state.durable.alarms


def test_a_self_test_that_does_not_end_is_yellow_after_an_hour() -> None:
    ups = Ups(period_s=10.0)

    ups.says(ON_MAINS | VALUES | {"calibrating": True}, 3620, suspect=SELF_TEST)

    assert ups.standing() == {"calibrating_long"}


def test_silence_after_a_self_test_is_not_taken_for_an_outage() -> None:
    ups = Ups()
    ups.says(ON_MAINS | VALUES | {"calibrating": True}, 20, suspect=SELF_TEST)

    ups.silent(59)

    assert ups.tier("lost_on_battery") is Tier.OK


def test_flags_that_contradict_each_other_are_unknown_for_a_poll_and_then_orange() -> None:
    ups = Ups()
    both: dict[str, Value] = {"mains_present": None, "on_battery": None}
    ups.says(ON_MAINS | VALUES, 2, suspect=both)
    assert ups.standing() == set()

    ups.says(ON_MAINS | VALUES, 2, suspect=both)

    assert ups.standing() == {"contradictory"}
    assert ups.tier("contradictory") is Tier.ORANGE


# ---------------------------------------------------------------- battery


def on_battery_with(**values: Value) -> Ups:
    ups = Ups()
    ups.says(ON_BATTERY | VALUES | values, 1)
    return ups


@pytest.mark.parametrize(
    ("runtime_s", "tier"),
    [(2200.0, Tier.OK), (2100.0, Tier.YELLOW), (850.0, Tier.ORANGE), (500.0, Tier.RED), (0.0, Tier.RED)],
)
def test_runtime_on_battery_climbs_the_ladder(runtime_s: float, tier: Tier) -> None:
    assert on_battery_with(battery_runtime_s=runtime_s).tier("runtime_low") is tier


@pytest.mark.parametrize(
    ("charge", "tier"), [(0.81, Tier.OK), (0.79, Tier.YELLOW), (0.49, Tier.ORANGE), (0.29, Tier.RED)]
)
def test_charge_on_battery_climbs_the_ladder(charge: float, tier: Tier) -> None:
    assert on_battery_with(battery_charge_ratio=charge).tier("charge_low") is tier


def test_a_low_charge_on_mains_is_a_battery_that_is_being_filled() -> None:
    ups = Ups()

    ups.says(ON_MAINS | VALUES | {"battery_charge_ratio": 0.2, "battery_runtime_s": 100.0}, 600)

    assert ups.standing() == set()


def test_a_battery_that_is_not_full_a_day_after_the_mains_came_back_is_told() -> None:
    ups = Ups(period_s=600.0)
    ups.says(ON_MAINS | VALUES | {"battery_charge_ratio": 0.9}, 86_400)
    assert ups.standing() == set()
    ups.says(ON_MAINS | VALUES | {"battery_charge_ratio": 0.9}, 1200)
    assert ups.tier("recharge_slow") is Tier.YELLOW

    ups.says(ON_MAINS | VALUES | {"battery_charge_ratio": 0.98}, 1200)

    assert ups.standing() == set()


# ---------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("flag", "seconds", "alarm", "tier"),
    [
        ("replace_battery", 1, "replace_battery", Tier.YELLOW),
        ("bypass", 1, "bypass", Tier.ORANGE),
        ("output_off", 31, "output_off", Tier.RED),
        ("forced_shutdown", 1, "forced_shutdown", Tier.RED),
        ("alarm", 1, "device_alarm", Tier.ORANGE),
        ("overloaded", 1, "overloaded", Tier.ORANGE),
    ],
)
def test_a_flag_comes_to_its_tier(flag: str, seconds: int, alarm: str, tier: Tier) -> None:
    ups = Ups()

    ups.says(ON_MAINS | VALUES | {flag: True}, seconds)

    assert ups.standing() == {alarm}
    assert ups.tier(alarm) is tier


def test_bypass_without_mains_is_red() -> None:
    ups = Ups()

    ups.says(ON_BATTERY | VALUES | {"bypass": True}, 1)

    assert ups.tier("bypass") is Tier.RED


def test_a_load_far_above_its_limit_is_red_after_half_a_minute() -> None:
    ups = Ups()

    ups.says(ON_MAINS | VALUES | {"load_ratio": 1.2}, 31)

    assert ups.tier("load_high") is Tier.RED


def test_a_sentinel_value_is_neither_good_nor_bad() -> None:
    ups = Ups()
    ups.says(ON_BATTERY | VALUES | {"battery_runtime_s": 300.0}, 2)
    assert ups.tier("runtime_low") is Tier.RED

    ups.says(ON_BATTERY | VALUES, 60, suspect={"battery_runtime_s": None})

    assert ups.tier("runtime_low") is Tier.RED


def test_a_low_voltage_on_battery_is_the_outage_and_not_the_voltage() -> None:
    ups = Ups()

    ups.says(ON_BATTERY | VALUES | {"input_voltage_volt": 0.0, "input_frequency_hertz": 0.0}, 400)

    assert ups.standing() == {"mains_absent"}


def test_every_alarm_has_a_way_back_to_normal() -> None:
    assert [spec.name for spec in SPECS.values() for row in spec.rungs if not row.leave] == []
