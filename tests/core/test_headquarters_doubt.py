"""Is it the line or headquarters? A lossy headquarters moves nothing, and a fault that recedes keeps its name."""

from __future__ import annotations

from agent.core.records import Refused, RunOpened
from tests.fakes.sites import Driver, bank, line

RUNGS = ("cpe", "edge", "hq")


def two_lines() -> Driver:
    lines = (line("wan1", "primary", rungs=RUNGS), line("wan2", "standby", rungs=RUNGS))
    driver = Driver(bank(lines=lines)).start()
    driver.all_good()
    driver.wait(1.0)
    driver.all_good()
    driver.wait(2.0)
    driver.all_good()
    return driver


def lose_one(driver: Driver) -> None:
    """See the standby lose one probe to headquarters and answer the next."""
    driver.see({"wan2.hq.lost_in_row": 1}, since=driver.now_s)
    driver.now_s += 0.02
    driver.see({"wan2.hq.lost_in_row": 0})


def test_a_line_whose_core_is_dead_is_left_at_once_for_one_that_reaches_headquarters_cleanly():
    driver = two_lines()
    driver.now_s += 0.3

    driver.rungs("wan1", dead=("hq",))
    driver.now_s += 0.02
    driver.rungs("wan2")

    assert driver.bodies(RunOpened)


def test_headquarters_that_is_lossy_over_both_lines_moves_nothing():
    driver = two_lines()
    driver.now_s += 0.3

    driver.rungs("wan1", dead=("hq",))
    driver.now_s += 0.02
    lose_one(driver)
    driver.rungs("wan2")

    assert not driver.bodies(RunOpened)
    assert driver.bodies(Refused)[-1].code == "headquarters_suspected"


def test_headquarters_that_loses_a_tenth_over_the_standby_stays_suspected():
    driver = two_lines()
    driver.now_s += 0.3

    driver.rungs("wan1", dead=("hq",))
    for _ in range(4):
        driver.now_s += 1.0
        driver.rungs("wan1", dead=("hq",))
        driver.rungs("wan2", loss=0.1)

    assert not driver.bodies(RunOpened)


def test_the_swap_follows_when_the_standby_has_reached_headquarters_cleanly_for_two_seconds():
    driver = two_lines()
    driver.now_s += 0.3
    driver.rungs("wan1", dead=("hq",))
    driver.now_s += 0.02
    lose_one(driver)

    for _ in range(4):
        driver.now_s += 0.6
        driver.rungs("wan1", dead=("hq",))
        driver.rungs("wan2")

    assert driver.bodies(RunOpened)


def test_an_edge_that_is_dead_too_speaks_against_headquarters():
    driver = two_lines()
    driver.now_s += 0.3

    driver.rungs("wan1", dead=("edge", "hq"))
    driver.now_s += 0.02
    lose_one(driver)
    driver.rungs("wan2")

    assert driver.bodies(RunOpened)


def test_a_fault_of_headquarters_keeps_its_name_while_one_line_clears_before_the_other():
    driver = two_lines()
    driver.now_s += 0.3
    for name in ("wan1", "wan2"):
        driver.rungs(name, dead=("hq",))
        driver.see({f"{name}.hq.loss_ratio": 0.5}, since=driver.now_s - 0.2)
    (before,) = driver.state.durable.open_incidents()

    driver.now_s += 1.0
    driver.see({"wan2.hq.lost_in_row": 0, "wan2.hq.loss_ratio": 0.1})  # not clean yet, not bad any more
    driver.rungs("wan1")
    driver.wait(1.0)

    (incident,) = driver.state.durable.open_incidents()
    assert before.cause.kind == "hq"
    assert incident.cause == before.cause
