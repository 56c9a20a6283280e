"""The views: the shape of status, and explanations with facts and reasons, of states that the real core made."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import (
    HoldAsked,
    JournalHealth,
    Mode,
    Observation,
    Observed,
    PointId,
    Quality,
    Started,
    Ticked,
    TimeGap,
)
from agent.render import explain_text, status_text
from agent.views import UnknownName, explain, status
from tests.fakes.desk import SOUND
from tests.fakes.sites import Driver, bank, swap

PAGE = Path(__file__).resolve().parents[2] / "docs" / "status-json.md"
FAR = ("edge", "hq", "second_site")


def seen(**site: Any) -> Driver:
    driver = Driver(bank(**site)).start()
    driver.all_good()
    driver.keep_good(70)
    return driver


def broken(driver: Driver, dead: tuple[str, ...] = FAR) -> Driver:
    driver.now_s += 0.3
    driver.rungs("wan1", dead)
    driver.now_s += 0.02
    driver.rungs("wan2")
    return driver


def swapped(driver: Driver) -> Driver:
    broken(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    return driver


def stands(driver: Driver, **more: Any) -> dict[str, Any]:
    found = status(driver.site, driver.state, driver.at(), SOUND, **more)
    json.dumps(found, allow_nan=False)
    assert status_text(found)
    return found


def why(driver: Driver, name: str) -> tuple[dict[str, Any], str]:
    found = explain(driver.site, driver.state, driver.at(), name)
    json.dumps(found, allow_nan=False)
    return found, explain_text(found)


# ---------------------------------------------------------------- status


def test_before_anything_is_seen_all_is_unknown_and_null():
    found = stands(Driver(bank()).start())

    assert found["site"] == {"id": "b1", "tier": "unknown", "cause": None, "name": "Branch one"}
    assert {one["tier"] for one in found["equipment"].values()} == {"unknown"}
    point = found["equipment"]["ups-a"]["points"]["on_battery"]
    nothing = {"value": None, "unit": "", "quality": "unknown", "age_s": None, "source": None, "fault": "not_seen"}
    assert point == nothing
    assert found["readiness"] == {"wan2": {"state": "unknown", "reason": "edge cannot be seen over wan2"}}


def test_good_site_is_ok_and_may_act():
    found = stands(seen())

    assert found["site"]["tier"] == "ok"
    assert found["mode"] == "normal"
    assert found["acting"] == {"allowed": True, "why_not": None, "code": None}
    assert found["hold"] is None
    assert found["alarms"] == found["incidents"] == found["runs"] == found["blocks"] == found["arrangements"] == []
    assert found["readiness"]["wan2"]["state"] == "ready"
    assert "No incident and no alarm." in status_text(found)


def test_status_has_every_key_of_its_documented_shape():
    found = stands(swapped(seen()))

    assert found.keys() >= {
        *("site", "mode", "hold", "acting", "arrangements", "blocks", "journal", "equipment", "alarms", "incidents"),
        *("runs", "readiness"),
    }
    assert found["equipment"]["wan1"].keys() == {"kind", "tier", "points"}
    point_keys = found["equipment"]["wan1"]["points"]["hq.loss_ratio"].keys()
    assert point_keys >= {"value", "unit", "quality", "age_s", "source"}
    alarm_keys = {"id", "alarm", "equipment", "tier", "state", "since", "unconfirmed", "acknowledged_by"}
    assert found["alarms"][0].keys() >= alarm_keys | {"shelved_until"}
    assert found["incidents"][0].keys() >= {"id", "cause", "tier", "opened_at", "evidence", "children"}
    assert found["runs"][0].keys() >= {"id", "runbook", "state", "step", "reason"}


def test_example_in_the_docs_has_just_the_keys_of_the_real_thing():
    (block,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    driver = seen(books=tuple(replace(b, limits=replace(b.limits, block_s=300.0)) for b in swap()))

    real, told = stands(swapped(driver)), json.loads(block)

    def one(found: Any) -> Any:
        if isinstance(found, dict):
            return next(iter(found.values()))
        return found[0]

    assert told.keys() == real.keys()
    for key in ("site", "acting", "journal", "agent"):
        assert told[key].keys() == real[key].keys(), key
    for key in ("arrangements", "blocks", "equipment", "alarms", "incidents", "runs", "readiness", "runbooks"):
        assert one(told[key]).keys() == one(real[key]).keys(), key
    assert one(told["incidents"][0]["evidence"]).keys() == one(real["incidents"][0]["evidence"]).keys()
    assert one(one(told["equipment"])["points"]).keys() == one(one(real["equipment"])["points"]).keys()


def test_swap_shows_cause_run_and_arrangement():
    found = stands(swapped(seen()))

    assert found["site"]["tier"] == "orange"
    assert found["site"]["cause"] == "the access line of wan1"
    assert [run["state"] for run in found["runs"]] == ["done"]
    (arrangement,) = found["arrangements"]
    assert (arrangement["name"], arrangement["line"], arrangement["run"]) == ("on_standby_line", "wan2", "R1")
    assert found["incidents"][0]["opened_at"].endswith("Z")
    assert found["runbooks"]["standby.return"]["refusal"]["code"] == "home_not_good_long_enough"


def test_stale_point_is_unknown_and_its_equipment_no_longer_ok():
    driver = seen()
    driver.now_s += 3.5
    driver.rungs("wan1")

    found = stands(driver)

    assert found["equipment"]["wan1"]["tier"] == "ok"
    ups = found["equipment"]["ups-a"]
    assert ups["tier"] == "unknown"
    assert ups["points"]["on_battery"]["value"] is None
    assert ups["points"]["on_battery"]["fault"] == "stale"
    assert ups["points"]["on_battery"]["age_s"] == pytest.approx(3.5)


def test_fault_that_hides_a_point_is_named():
    driver = seen()

    driver.see({"ups-a.on_battery": None}, quality=Quality.UNKNOWN)

    assert stands(driver)["equipment"]["ups-a"]["points"]["on_battery"]["fault"] == "timed_out"


def test_suspect_value_is_shown_as_such():
    driver = seen()

    driver.see({"ups-a.mains_present": True}, quality=Quality.SUSPECT)

    point = stands(driver)["equipment"]["ups-a"]["points"]["mains_present"]
    assert (point["value"], point["quality"]) == (True, "suspect")


def test_number_that_json_has_no_word_for_is_null():
    driver = seen()
    point = PointId("ups-a.battery_runtime_s")

    driver.send(Observed((Observation(point, float("inf"), Quality.GOOD, driver.now_s, driver.now_s, "t"),)))

    assert stands(driver)["equipment"]["ups-a"]["points"]["battery_runtime_s"]["value"] is None


def test_hold_is_a_mode_with_owner_reason_and_end():
    driver = seen()

    driver.send(HoldAsked("lin", "cable work", False, 60.0))
    driver.now_s += 10.0

    found = stands(driver)
    assert found["mode"] == "hold"
    assert found["hold"]["owner"] == "lin"
    assert found["hold"]["ends_in_s"] == pytest.approx(50.0)
    assert (found["acting"]["allowed"], found["acting"]["code"]) == (False, "held")
    assert "On hold by lin" in status_text(found)


def test_journal_that_is_not_durable_is_told_and_keeps_from_acting():
    driver = seen()

    driver.send(JournalHealth(False, "no space left on device"))

    view = replace(SOUND, durable=False, reason="no space left on device", seq=9)
    found = status(driver.site, driver.state, driver.at(), view)
    assert found["acting"]["code"] == "journal_not_durable"
    assert found["journal"]["durable"] is False
    assert "NOT DURABLE: no space left on device" in status_text(found)


def test_broken_journal_is_safe_mode():
    driver = Driver(bank())

    driver.send(Started("1", "x", False, "record 7 is missing"))

    found = stands(driver)
    assert found["mode"] == "safe"
    assert not found["acting"]["allowed"]


def test_agent_that_is_down_is_told_and_sees_nothing():
    driver = swapped(seen())
    driver.send(Started("1", "x", True))

    found = stands(driver, running=False)

    assert found["agent"]["running"] is False
    assert found["acting"] == {"allowed": False, "why_not": "the agent is not running", "code": "not_running"}
    assert found["arrangements"]
    assert "NOT RUNNING" in status_text(found)


def test_locked_runbook_is_a_block_and_raises_the_site():
    driver = seen()
    broken(driver)
    driver.answer()
    for _ in range(40):
        driver.now_s += 1.0
        driver.path("wan1")
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        if driver.commands()[-1].undo:
            break
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan1")
    driver.send(Ticked())

    found = stands(driver)

    (block,) = [b for b in found["blocks"] if b["kind"] == "lockout"]
    assert block["runbook"] == "standby"
    assert found["site"]["tier"] == "red"


@pytest.mark.parametrize(
    ("dead", "state"), [((), "ready"), (("hq",), "not_ready"), (("second_site",), "not_ready"), (("cpe",), "not_ready")]
)
def test_standby_is_ready_only_while_nothing_of_it_is_dead(dead, state):
    driver = seen()

    driver.rungs("wan2", dead)

    assert stands(driver)["readiness"]["wan2"]["state"] == state


def test_standby_that_loses_packets_is_not_ready():
    driver = seen(books=())
    driver.now_s += 0.1

    driver.see({"wan2.hq.loss_ratio": 0.3, "wan2.hq.lost_in_row": 0})

    assert stands(driver)["readiness"]["wan2"]["state"] == "not_ready"


def test_readiness_is_unknown_after_a_time_gap():
    driver = seen()

    driver.now_s += 30.0
    driver.send(TimeGap(30.0, "suspended"))

    assert stands(driver)["readiness"]["wan2"]["state"] == "unknown"


# ---------------------------------------------------------------- explain


def test_incident_tells_cause_what_refuted_others_and_the_run():
    found, text = why(swapped(seen()), "I1")

    assert found["type"] == "incident"
    assert {p["seen"] for c in found["named"] for p in c["predicts"]} == {"bad"}
    assert ("line:wan1:port", "wan1.cpe_dead is seen good since") in {
        (row["id"], row["reason"]) for row in found["not_taken"]
    }
    assert found["facts"]
    assert "It comes from the access line of wan1." in text
    assert "standby: run R1 is done" in text


def test_headquarters_dead_says_why_nothing_was_swapped():
    driver = seen()
    driver.now_s += 0.3
    driver.rungs("wan1", ("hq",))
    driver.rungs("wan2", ("hq",))

    found, text = why(driver, "I1")

    assert found["cause"] == "headquarters"
    (book,) = [b for b in found["runbooks"] if b["runbook"] == "standby"]
    assert book["refusal"]["code"] == "cause_elsewhere"
    assert book["refusal"]["facts"]
    assert "the cause is headquarters, not wan1: swapping would not help" in text


def test_power_incident_says_that_the_swap_has_nothing_to_do_with_it():
    driver = seen()
    for _ in range(12):
        driver.now_s += 1.0
        driver.mains("ups-a", present=False)

    found, text = why(driver, "I1")

    assert found["kind"] == "utility"
    assert found["marks"] == ["one witness"]
    assert "standby had nothing to do" in text


def test_alarm_is_found_by_id_and_by_key():
    driver = broken(seen())

    by_id, text = why(driver, "A1")
    by_key, _ = why(driver, by_id["key"])

    assert by_id == by_key
    assert by_id["acts"] is True
    assert by_id["incidents"] == ["I1"]
    assert by_id["rungs"][0]["enter"] == [{"text": "wan1.edge.lost_in_row at least 4", "holds": True}]
    assert "It may move a runbook." in text


def test_quiet_alarm_tells_its_limits_and_a_pending_one_when_it_comes():
    driver = seen()
    driver.now_s += 1.0
    driver.mains("ups-a", present=False)

    pending, text = why(driver, "ups-a.mains_absent")
    quiet, _ = why(driver, "wan2.hq_dead")

    assert pending["rungs"][0]["next"] == "active"
    assert pending["rungs"][0]["changes_in_s"] == pytest.approx(10.0)
    assert "active in 10 s" in text
    assert (quiet["state"], quiet["tier"], quiet["id"]) == ("normal", "ok", None)


def test_run_that_waits_for_approval_tells_the_choice():
    driver = seen(books=swap(Mode.ASK))

    broken(driver)

    found, text = why(driver, "R1")
    assert found["choices"] == ["approve", "abort"]
    assert found["step_list"][0]["progress"] == "waiting"
    assert "A person may choose: approve, abort." in text


def test_run_tells_its_steps_and_its_proof():
    found, text = why(swapped(seen()), "R1")

    assert found["state"] == "done"
    assert found["step_list"][0]["progress"] == "done"
    assert found["step_list"][0]["commands_sent"] == 1
    assert found["arrangements"] == ["on_standby_line"]
    assert "path.line is wan2 (holds)" in text


def test_runbook_answers_with_every_guard():
    driver = broken(seen(books=swap(Mode.WATCH)))

    found, text = why(driver, "standby")

    assert found["now"]["code"] == "watch_only"
    assert {row["guard"]: row["against"] for row in found["guards"]}["cause_elsewhere"] is None
    assert found["facts"]
    assert "mode watch" in text


def test_runbook_without_work_says_so():
    found, text = why(seen(), "standby")

    assert found["now"]["answer"] == "nothing_to_do"
    assert found["guards"] == []
    assert "wan1 has no active alarm that moves a runbook" in text


def test_unknown_name_is_refused_with_what_is_known():
    with pytest.raises(UnknownName, match=r"nothing here is called X9; known are .*standby"):
        why(seen(), "X9")


def test_views_of_a_state_whose_site_file_has_changed_do_not_fail():
    driver = swapped(seen())
    driver.site = bank(books=(), ups=(), lines=())

    stands(driver)
    for name in ("I1", "R1", "A1"):
        why(driver, name)
