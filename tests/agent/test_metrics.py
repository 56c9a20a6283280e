"""The metrics: all there from the first scrape, from the state, cached, and never lost as a whole."""

from __future__ import annotations

import math
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from agent import metrics
from agent.core.model import HoldAsked, Quality
from agent.metrics import Exporter, SiteCollector
from agent.runtime.tally import Tally
from tests.fakes.desk import Desk
from tests.fakes.sites import Driver, bank

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
FAR = ("edge", "hq", "second_site")


def scraped(exporter: Exporter) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples by name and label values, these in the order of their labels' names."""
    families = text_string_to_metric_families(exporter.render().decode())
    return {
        (s.name, tuple(value for _, value in sorted(s.labels.items()))): s.value for f in families for s in f.samples
    }


def swapping() -> Driver:
    driver = Driver(bank()).start()
    driver.all_good()
    driver.keep_good(70)
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    driver.now_s += 0.02
    driver.rungs("wan2")
    return driver


def test_every_configured_point_is_there_before_anything_was_seen():
    driver = Driver(bank()).start()

    found = scraped(Exporter(Desk(driver), Tally()))

    for point in driver.site.points:
        labels = tuple(point.split(".", 1))
        assert math.isnan(found["changeover_point_value", (*labels, driver.site.points[point].unit)])
        assert found["changeover_point_quality", labels] == 0
        assert math.isnan(found["changeover_point_age_seconds", labels])
    for name, labels, value in (
        ("changeover_alarm_tier", ("mains_absent", "ups-a"), 1),
        ("changeover_incident_open", ("line",), 0),
        ("changeover_site_tier", (), 1),
        ("changeover_runs_total", ("done", "standby"), 0),
        ("changeover_run_state", ("standby", "held"), 0),
        ("changeover_arrangement_active", ("on_standby_line",), 0),
        ("changeover_hold", (), 0),
        ("changeover_lockout", ("standby",), 0),
        ("changeover_journal_durable", (), 1),
        ("changeover_journal_last_sequence", (), 5),
        ("changeover_loop_passes_total", (), 1),
        ("changeover_poll_abandoned_total", (), 0),
        ("changeover_collector_errors_total", ("points",), 0),
    ):
        assert found[name, labels] == value, name


def test_values_qualities_and_words_follow_the_state():
    driver = swapping()
    driver.see({"ups-a.mains_present": True}, quality=Quality.SUSPECT)

    found = scraped(Exporter(Desk(driver)))

    assert found["changeover_point_value", ("wan1", "hq.lost_in_row", "")] == 4
    assert found["changeover_point_value", ("path", "answered", "bool")] == 1
    assert found["changeover_point_state", ("path", "line", "wan1")] == 1
    assert found["changeover_point_quality", ("wan1", "hq.lost_in_row")] == 2
    assert found["changeover_point_quality", ("ups-a", "mains_present")] == 1
    assert found["changeover_alarm_tier", ("hq_dead", "wan1")] == 3
    assert found["changeover_alarm_tier", ("hq_dead", "wan2")] == 0
    assert found["changeover_incident_open", ("line",)] == 1
    assert found["changeover_incident_tier", ("the access line of wan1", "I1", "line")] == 3
    assert found["changeover_site_tier", ()] == 3
    assert found["changeover_run_state", ("standby", "acting")] == 1
    assert found["changeover_acting_allowed", ()] == 1


def test_run_and_arrangement_are_counted_when_they_end():
    driver = swapping()
    desk = Desk(driver)
    exporter = Exporter(desk)
    driver.answer()
    driver.now_s += 0.05
    driver.path("wan2")
    desk.tell()

    found = scraped(exporter)

    assert found["changeover_runs_total", ("done", "standby")] == 1
    assert found["changeover_arrangement_active", ("on_standby_line",)] == 1


def test_hold_is_a_metric():
    driver = swapping()
    driver.send(HoldAsked("lin", "work", False, None))

    found = scraped(Exporter(Desk(driver)))

    assert found["changeover_hold", ()] == 1
    assert found["changeover_acting_allowed", ()] == 0


def test_text_is_made_once_a_second_at_most():
    driver = swapping()
    exporter = Exporter(Desk(driver))
    first = exporter.render()

    driver.now_s += 0.5
    assert exporter.render() is first
    driver.now_s += 0.6
    assert exporter.render() is not first


def test_collector_that_fails_costs_its_own_series_alone():
    def wrong(scrape):
        raise ZeroDivisionError("division by zero")

    driver = swapping()
    exporter = Exporter(Desk(driver))
    collector = SiteCollector(exporter._read, {**metrics.COLLECTORS, "points": wrong})

    for times in (1, 2):
        found = {
            s.name: s for family in collector.collect() for s in family.samples if s.labels.get("collector") != "x"
        }
        errors = {
            s.labels["collector"]: s.value
            for family in collector.collect()
            for s in family.samples
            if s.name == "changeover_collector_errors_total"
        }
        assert "changeover_point_value" not in found
        assert "changeover_site_tier" in found
        assert errors["points"] == 2 * times
        assert errors["alarms"] == 0


def test_polls_are_counted_by_equipment():
    tally = Tally()
    tally.know("ups-a")
    tally.poll("ups-a")
    tally.fault("ups-a")
    tally.slot(0.25)

    found = scraped(Exporter(Desk(swapping()), tally))

    assert found["changeover_poll_attempts_total", ("ups-a",)] == 1
    assert found["changeover_poll_faults_total", ("ups-a",)] == 1
    assert found["changeover_poll_restarts_total", ("ups-a",)] == 0
    assert found["changeover_poll_lateness_seconds", ("1",)] == 0.25


def test_every_metric_has_its_row_in_the_docs_with_type_and_labels():
    tally = Tally()
    tally.know("ups-a")
    families = text_string_to_metric_families(Exporter(Desk(swapping()), tally).render().decode())

    real = {(f.samples[0].name, f.type, frozenset(f.samples[0].labels)) for f in families}

    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {(name, kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows} == real
