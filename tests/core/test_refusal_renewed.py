"""Why a runbook did not act is recorded anew when the cause that speaks against it changes."""

from __future__ import annotations

from agent.core.records import IncidentChanged, Refused
from tests.fakes.sites import Driver


def dead_hq(driver: Driver, line: str) -> None:
    """See headquarters dead over *line*, and nothing else of it."""
    silent = {f"{line}.hq.lost_in_row": 4, f"{line}.second_site.lost_in_row": 4}
    driver.see(silent, since=driver.now_s - 0.2)


def test_a_refusal_names_the_cause_that_stands_now_and_not_the_first_one_that_was_named():
    driver = Driver().start()
    driver.all_good()
    driver.wait(1.0)

    for line in ("wan1", "wan2"):
        dead_hq(driver, line)
    before = [refused.text for refused in driver.bodies(Refused)]
    driver.wait(0.5)
    for line in ("wan1", "wan2"):
        driver.rungs(line, dead=("hq",))
    driver.wait(3.0)

    texts = [refused.text for refused in driver.bodies(Refused)]
    assert len(texts) == len(set(texts)), texts
    assert driver.bodies(IncidentChanged)
    assert not any("headquarters" in text for text in before), before
    assert "headquarters" in texts[-1], texts
    assert driver.commands() == []
