"""Another site in the place of the one before: state that stays, state that goes, and what forbids it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.core import invariants
from agent.core.alarm import AlarmState
from agent.core.model import AlarmKey, PointId, Ticked
from agent.core.records import SiteReloaded
from agent.core.reload import reloaded, why_not_reload
from agent.core.runbook import OnReturn
from agent.core.site import Site
from tests.fakes.sites import Driver, bank, line, swap

FAR = ("edge", "hq", "second_site")


def good(**site: Any) -> Driver:
    driver = Driver(bank(**site)).start()
    driver.all_good()
    driver.keep_good(70)
    return driver


def fail_primary(driver: Driver) -> None:
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2")


def reload(driver: Driver, new: Site, *forget: str) -> None:
    """Put *new* under the driver, as the loop does."""
    record = SiteReloaded(new.digest, "li", (), ())
    points = [PointId(point) for point in forget]
    stepped = reloaded(driver.site, new, driver.state, record, points, driver.at())
    invariants.check(new, driver.state, Ticked(), stepped, driver.at())
    driver.site, driver.state = new, stepped.state
    driver.records += stepped.records
    driver.effects += stepped.effects


def with_delay(site: Site, key: str, on_delay_s: float) -> Site:
    """Return *site* with another on-delay on every tier of one alarm."""
    spec = site.alarms[AlarmKey(key)]
    other = replace(spec, rungs=tuple(replace(rung, on_delay_s=on_delay_s) for rung in spec.rungs))
    return replace(site, alarms={**site.alarms, other.key: other})


def test_alarms_and_incidents_keep_their_ids_over_a_reload():
    driver = good(books=())
    fail_primary(driver)
    before = driver.state.durable

    reload(driver, bank(books=(), ups=("ups-a", "ups-b")))

    after = driver.state.durable
    assert after.alarms.items() >= before.alarms.items()
    assert after.incidents == before.incidents


def test_an_alarm_without_equipment_ends_and_takes_its_incident_along():
    driver = good(books=())
    driver.mains("ups-a", present=False)
    for _ in range(30):
        driver.now_s += 1.0
        driver.mains("ups-a", present=False)
    assert driver.state.durable.open_incidents()

    reload(driver, bank(books=(), ups=()))

    assert not [key for key in driver.state.durable.alarms if key.startswith("ups-a.")]
    assert driver.state.durable.open_incidents() == []
    assert not [point for point in driver.state.volatile.seen if point.startswith("ups-a.")]
    assert not [key for key in driver.state.volatile.raw if key.startswith("ups-a.")]


def test_the_running_delay_of_a_changed_alarm_starts_anew():
    driver = good(books=())
    driver.mains("ups-a", present=False)
    pending = driver.state.durable.alarms["ups-a.mains_absent"]
    assert pending.state() is AlarmState.PENDING
    driver.now_s += 1.0

    reload(driver, with_delay(driver.site, "ups-a.mains_absent", 100.0))

    moved = driver.state.durable.alarms["ups-a.mains_absent"]
    assert moved.deadline_s() == driver.now_s + 100.0
    assert moved.since == pending.since


def test_the_running_delay_of_an_unchanged_alarm_goes_on():
    driver = good(books=())
    driver.mains("ups-a", present=False)
    before = driver.state.durable.alarms["ups-a.mains_absent"]
    driver.now_s += 1.0

    reload(driver, with_delay(driver.site, "ups-a.load_high", 100.0))

    assert driver.state.durable.alarms["ups-a.mains_absent"] == before


def test_what_is_looked_at_otherwise_is_not_seen_until_it_is_seen_anew():
    driver = good(books=())
    points = [point for point in driver.site.points if point.startswith("wan2.")]
    assert AlarmKey("wan2.hq_dead") in driver.state.volatile.seen_good

    reload(driver, driver.site, *points)

    seen = driver.state.volatile
    assert not set(points) & seen.seen.keys()
    assert AlarmKey("wan2.hq_dead") not in seen.seen_good
    assert seen.raw[AlarmKey("wan2.hq_dead")].good_since is None
    assert "wan1.hq.lost_in_row" in seen.seen


def test_a_standing_fault_under_a_new_runbook_is_answered_by_it():
    driver = good(books=())
    fail_primary(driver)
    assert driver.commands() == []

    reload(driver, bank(books=swap()))
    driver.now_s += 0.1
    driver.rungs("wan1", FAR)
    driver.rungs("wan2")
    driver.path(None)

    assert [command.verb for command in driver.commands()] == ["route"]


def test_an_open_run_forbids_what_takes_its_ground_away():
    driver = good()
    fail_primary(driver)
    durable, old = driver.state.durable, driver.site
    there, back = swap()
    other_script = (replace(there, digest="e"), back)
    other_steps = (replace(there, steps=(replace(there.steps[0], within_s=1.0),)), back)

    def why(new: Site, lines: tuple[str, ...] = ()) -> str:
        return " ".join(why_not_reload(durable, old, new, lines))

    assert "no longer has that runbook" in why(bank(books=()))
    assert "another script or other lines" in why(bank(books=other_script))
    assert "another script or other lines" in why(bank(books=other_steps))
    assert "other keys for wan2" in why(old, ("wan2",))
    assert why(old, ("lte",)) == ""
    assert why(bank(books=swap(budget=9))) == ""
    assert why(bank(books=(replace(there, on_return=OnReturn.UNDO), back), ups=())) == ""


def test_a_run_that_has_ended_forbids_nothing():
    driver = good()
    fail_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    assert driver.state.durable.open_runs() == []

    assert why_not_reload(driver.state.durable, driver.site, bank(books=()), ("wan1", "wan2")) == ()


def test_runs_locks_and_budgets_stay():
    driver = good()
    fail_primary(driver)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    before = driver.state.durable

    reload(driver, bank(lines=(line("wan1", "primary"), line("wan2", "standby"), line("lte", "standby"))))

    after = driver.state.durable
    assert (after.runs, after.spent, after.arrangements) == (before.runs, before.spent, before.arrangements)
    assert after.reload is not None
