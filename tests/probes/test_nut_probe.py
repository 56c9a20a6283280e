"""What the NUT probe makes of a UPS's words and numbers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProbeFault
from agent.ports import Suspect
from probes.nut import KIND, NutConfig, NutProbe, read_status, read_variables
from tests.fakes.scripted_server import Connection, ScriptedServer, saying

DUMPS = Path(__file__).parent.parent / "fixtures" / "nut"
FALSE_FLAGS = dict.fromkeys(
    [
        *("battery_low", "replace_battery", "overloaded", "bypass"),
        *("calibrating", "output_off", "forced_shutdown", "alarm"),
    ],
    False,
)


def dump(name: str) -> dict[str, str]:
    lines = (DUMPS / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {variable: value.strip() for variable, _, value in pairs}


def test_line_interactive_ups_on_mains():
    variables = dump("usb-line-interactive.txt")

    status = {"mains_present": True, "on_battery": False, **FALSE_FLAGS, "status": "OL CHRG"}
    assert read_status(variables["ups.status"]) == status
    assert read_variables(variables) == {
        "battery_charge_ratio": 1.0,
        "battery_runtime_s": 1830.0,
        "battery_voltage_volt": 13.6,
        "input_voltage_volt": 229.6,
        "load_ratio": pytest.approx(0.23),
    }


def test_rack_ups_at_the_end_of_its_battery():
    variables = dump("rack-online-on-battery.txt")
    status = read_status(variables["ups.status"])
    measured = read_variables(variables)

    true = {point for point, value in status.items() if value is True}
    assert true == {"on_battery", "battery_low", "overloaded", "replace_battery", "alarm"}
    assert status["mains_present"] is False
    assert measured["battery_runtime_s"] == 95.0
    assert measured["battery_charge_ratio"] == pytest.approx(0.08)
    assert measured["load_ratio"] == pytest.approx(1.04)
    assert measured["input_voltage_volt"] == 0.0


def test_card_that_fills_in_words_and_sentinels_gives_no_false_number():
    measured = read_variables(dump("snmp-card-odd-values.txt"))

    numbers = {point: value for point, value in measured.items() if not isinstance(value, Suspect)}
    assert numbers == {"input_frequency_hertz": 49.98}
    assert all(value.value is None and value.reason for value in measured.values() if isinstance(value, Suspect))
    assert len(measured) == 7


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1e309", "1e1", "-5", "101", "0x10", "1,200", "", " 5", "5 ", "+5", "٣"]
)
def test_charge_that_is_no_plain_number_within_its_range_is_suspect(text: str):
    charge = read_variables({"battery.charge": text})["battery_charge_ratio"]

    assert isinstance(charge, Suspect)
    assert charge.value is None
    assert "battery.charge" in charge.reason


@given(st.text())
def test_no_text_makes_a_measured_value_that_is_impossible(text: str):
    charge = read_variables({"battery.charge": text})["battery_charge_ratio"]

    assert isinstance(charge, Suspect) or (isinstance(charge, float) and 0 <= charge <= 1)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("OL LB", "battery_low"),
        ("OL RB", "replace_battery"),
        ("OL OVER", "overloaded"),
        ("OL BYPASS", "bypass"),
        ("OL CAL", "calibrating"),
        ("OL TEST", "calibrating"),
        ("OL OFF", "output_off"),
        ("FSD OL", "forced_shutdown"),
        ("ALARM OL", "alarm"),
    ],
)
def test_each_word_of_the_status_sets_its_point_and_no_other(text: str, point: str):
    wanted = {"mains_present": True, "on_battery": False, **FALSE_FLAGS, point: True, "status": text}

    assert read_status(text) == wanted


@pytest.mark.parametrize("text", ["OL OB", "OB OL LB", "FOO BAR", "CHRG", "ol", "OLOB"])
def test_contradiction_or_silence_about_the_input_is_suspect_without_value(text: str):
    readings = read_status(text)

    for point in ("mains_present", "on_battery"):
        reading = readings[point]
        assert isinstance(reading, Suspect)
        assert reading.value is None


@pytest.mark.parametrize("text", ["OFF", "BYPASS", "FSD"])
def test_ups_that_need_not_speak_of_its_input_leaves_it_out(text: str):
    readings = read_status(text)

    assert "mains_present" not in readings
    assert "on_battery" not in readings


@pytest.mark.parametrize("text", ["OB CAL", "OB DISCHRG TEST"])
def test_discharge_on_purpose_is_no_lost_mains(text: str):
    readings = read_status(text)

    assert readings["mains_present"] == Suspect(False, "self-test or calibration")
    assert readings["on_battery"] == Suspect(True, "self-test or calibration")
    assert readings["calibrating"] is True


@pytest.mark.parametrize(
    ("text", "fault"), [("WAIT", "wait"), ("OL WAIT", "wait"), ("", "bad_reply"), ("  ", "bad_reply")]
)
def test_status_without_news_is_a_fault(text: str, fault: str):
    with pytest.raises(ProbeFault) as caught:
        read_status(text)

    assert caught.value.fault == fault


def test_list_of_a_server_that_has_nothing_yet_is_a_fault():
    with pytest.raises(ProbeFault, match="wait"):
        read_variables({"ups.status": "WAIT"})


def test_status_is_shown_escaped_and_short():
    shown = read_status("OL \x1b[31mred\x07 " + "x" * 1000)["status"]

    assert isinstance(shown, str)
    assert shown.startswith("OL \\x1b[31mred\\x07 xxx")
    assert len(shown) == 120


async def test_list_that_trickles_does_not_delay_the_status():
    listing = asyncio.Event()

    async def never_ending(connection: Connection) -> None:
        await connection.asked()
        await connection.say("BEGIN LIST VAR a\n")
        listing.set()

    async with ScriptedServer(never_ending, saying('VAR a ups.status "OB"\n')) as server:
        probe = NutProbe("ups-a", NutConfig("a", *server.address))
        slow = asyncio.create_task(probe.poll("variables"))
        await listing.wait()

        assert (await probe.poll("status"))["on_battery"] is True
        assert not slow.done()
        slow.cancel()
        await probe.close()


def test_every_point_belongs_to_one_lane_with_the_lane_s_period():
    config = NutConfig("a", status_period_s=2.0, variables_period_s=30.0)
    probe = NutProbe("ups-a", config)
    specs = KIND.specs(config)

    assert sorted(point for lane in probe.lanes for point in lane.points) == sorted(specs)
    assert all(specs[point].period_s == lane.period_s for lane in probe.lanes for point in lane.points)
    assert {lane.name: lane.deadline_s for lane in probe.lanes} == {"status": 5.0, "variables": 5.0}
    assert set(read_status("OL")) <= set(specs)


def test_channel_names_the_server():
    assert KIND.channel("ups-a", NutConfig("a", "192.0.2.9")) == "nut:192.0.2.9:3493"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ups": ""}, "ups: "),
        ({"ups": "a\nFSD a"}, "control character"),
        ({"host": " "}, "host: "),
        ({"port": 0}, "port: "),
        ({"port": 65536}, "port: "),
        ({"status_period_s": 0}, "status_period_s: "),
        ({"variables_period_s": 1e9}, "variables_period_s: "),
        ({"connect_timeout_s": -1.0}, "connect_timeout_s: "),
        ({"reply_timeout_s": float("nan")}, "reply_timeout_s: "),
    ],
)
def test_config_that_cannot_work_is_refused_with_its_key(wrong: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=said):
        NutConfig(**{"ups": "a", **wrong})
