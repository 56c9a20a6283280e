"""Incidents: one per cause, with id and start that stay, children that stay, merging, splitting and closing."""

from __future__ import annotations

import itertools

import pytest

from agent.core.apply import apply
from agent.core.incident import TRANSITIONS, Cause, IncidentState, Turn
from agent.core.model import At, Quality, ResetAsked, Started, Tier, Value
from agent.core.records import (
    Body,
    IncidentChanged,
    IncidentClosed,
    IncidentMerged,
    IncidentOpened,
    Locked,
    Record,
)
from agent.core.state import KEEP_ENDED, Durable
from tests.fakes.sites import Driver, bank, line, swap

NOW = At("boot-1", 1000.0, 1_700_000_000.0)
LATER = At("boot-1", 1010.0, 1_700_000_010.0)
FAR = ("edge", "hq", "second_site")
NO_HQ = ("cpe", "edge", "second_site")
CAUSE = Cause(("line:wan1:access",), "line", ("wan1",), True, (), "the access line of wan1", False)


def started(**site: object) -> Driver:
    site = {"books": (), **site}
    driver = Driver(bank(**site)).start()  # type: ignore[arg-type]
    driver.all_good()
    driver.keep_good(5)
    return driver


def opened(number: int = 1) -> Body:
    return IncidentOpened(f"I{number}", CAUSE, Tier.ORANGE, (), (), ())


def turned(turn: Turn) -> Body:
    bodies: dict[Turn, Body] = {
        Turn.UPDATED: IncidentChanged("I1", CAUSE, Tier.RED, (), (), ()),
        Turn.CLEARED: IncidentClosed("I1"),
        Turn.ABSORBED: IncidentMerged("I1", "I0"),
    }
    return bodies[turn]


# ---------------------------------------------------------------- the table


def in_state(state: IncidentState) -> Durable:
    durable = apply(Durable(), Record(NOW, opened()))
    way = {IncidentState.OPEN: (), IncidentState.CLOSED: (Turn.CLEARED,), IncidentState.MERGED: (Turn.ABSORBED,)}
    for turn in way[state]:
        durable = apply(durable, Record(NOW, turned(turn)))
    return durable


@pytest.mark.parametrize(("state", "turn"), list(itertools.product(IncidentState, Turn)))
def test_every_pair_turns_as_the_table_says_and_an_ended_incident_never_moves(state: IncidentState, turn: Turn) -> None:
    before = in_state(state)
    target = TRANSITIONS.get((state, turn))

    if target is not None:
        assert apply(before, Record(LATER, turned(turn))).incidents["I1"].state is target
    else:
        with pytest.raises(KeyError):
            apply(before, Record(LATER, turned(turn)))
        assert before.incidents["I1"].state is state


def test_only_open_incidents_move_and_every_state_is_reached() -> None:
    assert {at for at, _ in TRANSITIONS} == {IncidentState.OPEN}
    assert set(TRANSITIONS.values()) == set(IncidentState)


def test_the_newest_ended_incidents_are_kept_and_an_open_one_always() -> None:
    durable = apply(Durable(), Record(NOW, opened(1)))
    for number in range(2, KEEP_ENDED + 5):
        durable = apply(durable, Record(NOW, opened(number)))
        durable = apply(durable, Record(NOW, IncidentClosed(f"I{number}")))

    assert len(durable.incidents) == KEEP_ENDED + 1
    assert "I1" in durable.incidents
    assert "I2" not in durable.incidents


def test_a_chain_of_merges_leads_to_the_incident_that_stands() -> None:
    durable = Durable()
    for number in (1, 2, 3):
        durable = apply(durable, Record(NOW, opened(number)))
    durable = apply(durable, Record(NOW, IncidentMerged("I3", "I2")))
    durable = apply(durable, Record(NOW, IncidentMerged("I2", "I1")))

    found = durable.incident_now("I3")
    assert found is not None
    assert found.id == "I1"
    assert durable.incident_now("I9") is None


# ---------------------------------------------------------------- in the core


def test_one_cause_is_one_incident_with_all_its_alarms() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.rungs("wan1", FAR)

    (incident,) = driver.state.durable.open_incidents()
    assert incident.cause.candidates == ("line:wan1:access",)
    assert {alarm.partition(".")[2] for alarm in incident.alarms} == {f"{rung}_dead" for rung in FAR}
    assert incident.tier is Tier.ORANGE


def test_refining_the_cause_keeps_id_and_start_and_is_a_record() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", ("hq", "second_site"))
    driver.rungs("wan1", ("hq", "second_site"))
    first = driver.state.durable.incidents["I1"]
    assert first.cause.candidates == ("line:wan1:core",)

    driver.now_s += 1.0
    driver.rungs("wan1", FAR)

    (incident,) = driver.state.durable.open_incidents()
    assert incident.cause.candidates == ("line:wan1:access",)
    assert (incident.id, incident.opened_at) == (first.id, first.opened_at)
    assert driver.bodies(IncidentChanged)[-1].cause == incident.cause
    assert driver.bodies(IncidentChanged)[-1].evidence


def test_causes_that_have_nothing_in_common_are_two_incidents() -> None:
    driver = started()
    driver.mains("ups-a", present=False)
    driver.now_s += 11.0
    driver.mains("ups-a", present=False)
    driver.rungs("wan1", FAR)
    driver.rungs("wan2")

    kinds = [incident.cause.kind for incident in driver.state.durable.open_incidents()]
    assert kinds == ["utility", "line"]


def test_a_second_witness_refines_the_cause_from_the_input_to_the_mains() -> None:
    driver = Driver(bank(books=(), ups=("ups-a", "ups-b"))).start()
    driver.all_good()
    driver.keep_good(5)
    for _ in range(12):
        driver.now_s += 1.0
        at(driver, "ups-a", on_battery=True)
        at(driver, "ups-b", on_battery=False)
    assert driver.state.durable.incidents["I1"].cause.candidates == ("input:ups-a",)

    for _ in range(12):
        driver.now_s += 1.0
        at(driver, "ups-a", on_battery=True)
        at(driver, "ups-b", on_battery=True)

    (incident,) = driver.state.durable.open_incidents()
    assert incident.id == "I1"
    assert incident.cause.candidates == ("utility:utility",)


def at(driver: Driver, ups: str, *, on_battery: bool) -> None:
    values: dict[str, Value] = {f"{ups}.on_battery": on_battery, f"{ups}.battery_low": False}
    driver.see(values)


def test_two_incidents_that_turn_out_to_be_one_merge_into_the_older() -> None:
    """First each line has lost its edge alone; then all far targets of their common provider are dead."""
    lines = tuple(line(name, name, provider="telecom", rungs=NO_HQ) for name in ("wan1", "wan2"))
    driver = started(lines=lines)
    for name in ("wan1", "wan2"):
        driver.now_s += 0.5
        driver.rungs(name, ("edge",))
    assert [i.cause.equipment for i in driver.state.durable.open_incidents()] == [("wan1",), ("wan2",)]
    first = driver.state.durable.incidents["I1"]

    for name in ("wan1", "wan2"):
        driver.now_s += 0.5
        driver.rungs(name, ("edge", "second_site"))

    (incident,) = driver.state.durable.open_incidents()
    assert (incident.id, incident.opened_at) == (first.id, first.opened_at)
    assert incident.cause.candidates == ("provider:telecom",)
    assert set(incident.alarms) == {f"{name}.{rung}_dead" for name in ("wan1", "wan2") for rung in NO_HQ[1:]}
    younger = driver.state.durable.incidents["I2"]
    assert (younger.state, younger.merged_into, younger.alarms) == (IncidentState.MERGED, "I1", ())
    assert [m.into for m in driver.bodies(IncidentMerged)] == ["I1"]


def test_an_incident_closes_when_its_last_alarm_is_normal_and_not_before() -> None:
    driver = started()
    driver.mains("ups-a", present=False)
    driver.now_s += 11.0
    driver.mains("ups-a", present=False)
    assert [i.id for i in driver.state.durable.open_incidents()] == ["I1"]

    driver.keep_good(3)
    assert [i.id for i in driver.state.durable.open_incidents()] == ["I1"]
    driver.keep_good(2)

    assert driver.state.durable.open_incidents() == []
    closed = driver.state.durable.incidents["I1"]
    assert (closed.state, closed.tier, closed.alarms) == (IncidentState.CLOSED, Tier.OK, ())
    assert closed.ended_at is not None


def test_children_stay_also_when_the_parent_recovers_first() -> None:
    """The line is good again, the site's own traffic is still dead: one incident, which remembers both."""
    driver = started()
    for _ in range(8):
        driver.now_s += 1.0
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)
    assert "path.path_dead" in driver.state.durable.incidents["I1"].alarms
    for _ in range(90):
        driver.now_s += 1.0
        driver.rungs("wan1")
        driver.rungs("wan2")
        driver.mains("ups-a", present=True)
        driver.path(None)

    (incident,) = driver.state.durable.open_incidents()
    assert incident.alarms == ("path.path_dead",)
    assert {"wan1.hq_dead", "wan1.edge_dead", "path.path_dead"} <= set(incident.children)
    assert (incident.id, incident.cause.kind) == ("I1", "line")  # the late cause, "path", neither splits nor renames it


def test_a_cause_for_want_of_a_better_one_is_replaced_by_a_real_one() -> None:
    driver = started()
    for _ in range(8):
        driver.now_s += 1.0
        driver.rungs("wan1")
        driver.path(None)
    assert driver.state.durable.incidents["I1"].cause.late

    for _ in range(3):
        driver.now_s += 0.3
        driver.rungs("wan1", FAR)
        driver.rungs("wan2")
        driver.path(None)

    (incident,) = driver.state.durable.open_incidents()
    assert (incident.id, incident.cause.candidates) == ("I1", ("line:wan1:access",))


def test_an_incident_whose_alarms_turn_out_to_have_two_causes_is_split() -> None:
    """All far targets of one provider are dead; then an edge answers, which clears the provider as a whole."""
    lines = tuple(line(name, name, provider="telecom", rungs=NO_HQ) for name in ("wan1", "wan2"))
    driver = started(lines=lines)
    for name in ("wan1", "wan2"):
        driver.now_s += 0.5
        driver.rungs(name, NO_HQ[1:])
    (first,) = driver.state.durable.open_incidents()
    assert first.cause.candidates == ("provider:telecom",)

    driver.now_s += 0.5
    driver.rungs("wan1", ("second_site",))
    (both,) = driver.state.durable.open_incidents()
    assert not both.cause.settled
    for _ in range(11):
        driver.now_s += 1.0
        driver.rungs("wan1", ("second_site",))
        driver.rungs("wan2", NO_HQ[1:])

    kept, other = driver.state.durable.open_incidents()
    assert (kept.id, kept.opened_at, kept.cause.candidates) == ("I1", first.opened_at, ("line:wan1:core",))
    assert (other.id, other.cause.candidates) == ("I2", ("line:wan2:access",))
    assert set(other.alarms) == {"wan2.edge_dead", "wan2.second_site_dead"}
    assert not set(kept.alarms) & set(other.alarms)


def test_a_standby_that_flaps_beside_a_dead_primary_does_not_open_and_merge_incidents_again_and_again() -> None:
    driver = started()
    for second in range(120):
        driver.now_s += 1.0
        driver.rungs("wan1", FAR)
        for rung in FAR:
            lost, loss = (1, 0.3) if second % 3 == 0 else (0, 0.0)
            driver.see({f"wan2.{rung}.lost_in_row": lost, f"wan2.{rung}.loss_ratio": loss})

    assert [incident.id for incident in driver.bodies(IncidentOpened)] == ["I1", "I2"]
    assert [(merged.id, merged.into) for merged in driver.bodies(IncidentMerged)] == [("I2", "I1")]


def test_an_incident_is_red_while_a_runbook_for_it_is_locked() -> None:
    driver = started(books=swap(budget=0))
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2")
    driver.keep_good(1, dead={"wan1": FAR})
    assert driver.bodies(Locked)
    assert driver.state.durable.open_incidents()[0].tier is Tier.RED

    driver.site = bank(books=())
    driver.send(ResetAsked("li", "standby"))
    driver.keep_good(1, dead={"wan1": FAR})

    assert driver.state.durable.open_incidents()[0].tier is Tier.ORANGE


def test_not_seeing_after_a_restart_does_not_rename_the_cause() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.rungs("wan1", FAR)
    before = driver.state.durable.incidents["I1"]

    driver.send(Started("1", "x", True))
    driver.wait(30.0)
    for rung in FAR:
        driver.see({f"wan1.{rung}.lost_in_row": None}, quality=Quality.UNKNOWN)

    (incident,) = [i for i in driver.state.durable.open_incidents() if i.id == "I1"]
    assert (incident.cause, incident.opened_at) == (before.cause, before.opened_at)
