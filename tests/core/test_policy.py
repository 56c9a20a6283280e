"""Policy: each guard with its words, locks, blocks and budgets, and the way home."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.model import (
    CommandEnded,
    HoldAsked,
    JournalHealth,
    Mode,
    Outcome,
    Quality,
    ReleaseAsked,
    ResetAsked,
    Started,
)
from agent.core.records import (
    JournalTrouble,
    Refused,
    RunEnded,
    RunOpened,
)
from tests.fakes.sites import Driver, bank, swap
from tests.fakes.swaps import FAR, kill_primary, refused, started, swapped

# ---------------------------------------------------------------- guards of a swap


def test_held_says_by_whom_and_why() -> None:
    driver = started()
    driver.send(HoldAsked("wang", "work on the rack", False, None))
    kill_primary(driver)

    assert refused(driver) == ("held", "on hold by wang: work on the rack")


def test_safe_mode_says_why() -> None:
    driver = started()
    driver.send(Started("1", "x", False, "record 7 is altered"))
    driver.send(ReleaseAsked("wang"))
    driver.all_good()
    kill_primary(driver)

    assert refused(driver) == ("safe_mode", "safe mode: record 7 is altered")


def test_a_journal_that_cannot_be_written_lets_nothing_start() -> None:
    driver = started()
    driver.send(JournalHealth(False, "no space left"))
    kill_primary(driver)
    assert refused(driver) == ("journal_not_durable", "the journal is not durable: no space left")
    assert driver.bodies(JournalTrouble)

    driver.send(JournalHealth(True))
    driver.rungs("wan2")

    assert len(driver.commands()) == 1


def test_the_boot_guard_says_how_long_it_still_only_looks() -> None:
    driver = Driver(bank(boot_guard_s=30.0)).start()
    driver.all_good()
    driver.now_s += 10.0
    kill_primary(driver)

    assert refused(driver) == ("boot_guard", "started a moment ago: only looking for 20 s more")


def test_a_cause_elsewhere_is_named() -> None:
    driver = started()
    driver.now_s += 0.3
    for name in ("wan1", "wan2"):
        driver.rungs(name, ("hq",))
    driver.keep_good(1, dead={"wan1": ("hq",), "wan2": ("hq",)})

    assert refused(driver) == ("cause_elsewhere", "the cause is headquarters, not wan1: swapping would not help")


def test_an_unsettled_cause_is_named_with_all_that_are_in_question() -> None:
    driver = started()
    driver.now_s += 0.3
    for name in ("wan1", "wan2"):
        driver.rungs(name, FAR)

    code, text = refused(driver)
    assert code == "cause_elsewhere"
    assert text.startswith("the cause is not settled (line:wan1:access")


def test_a_line_that_nobody_sees_bad_is_not_left() -> None:
    driver = started(books=swap(Mode.WATCH))
    kill_primary(driver)
    driver.send(Started("1", "x", True))
    driver.rungs("wan2")

    assert refused(driver) == ("not_seen_bad", "wan1 is not seen bad right now")


def test_lines_that_fail_within_ten_seconds_failed_together() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan2", ("second_site",))
    driver.now_s += 3.0
    driver.rungs("wan2")
    kill_primary(driver)
    assert refused(driver) == ("failed_together", "wan2 failed within 10 s too: a common cause is likely")


def test_the_standby_must_have_answered_since_the_trouble_began() -> None:
    driver = started()
    driver.now_s += 0.3
    driver.rungs("wan1", FAR)
    assert refused(driver) == (
        "target_not_proven",
        "wan2.edge.lost_in_row has not been asked since the trouble began",
    )

    driver.now_s += 0.2
    driver.see({"wan2.edge.lost_in_row": 0, "wan2.hq.lost_in_row": 1})
    assert run_opened(driver) == []
    driver.now_s += 6.0
    driver.see({"wan2.hq.lost_in_row": None}, quality=Quality.UNKNOWN)

    assert run_opened(driver) == []


def run_opened(driver: Driver) -> list[RunOpened]:
    return driver.bodies(RunOpened)


def test_a_standby_that_loses_as_much_is_not_better() -> None:
    driver = started()
    driver.now_s += 11.0
    driver.rungs("wan2", loss=0.24)
    driver.now_s += 0.3
    driver.rungs("wan1", loss=0.26)
    driver.now_s += 0.3
    driver.rungs("wan2", loss=0.24)
    assert len(driver.commands()) == 1

    other = started()
    other.now_s += 0.3
    other.rungs("wan1", loss=0.4)
    other.now_s += 0.3
    for rung in FAR:
        other.see({f"wan2.{rung}.lost_in_row": 0, f"wan2.{rung}.loss_ratio": 0.24})
    other.see({"wan2.hq.loss_ratio": None}, quality=Quality.UNKNOWN)
    assert len(other.commands()) <= 1


@pytest.mark.parametrize("mode", [Mode.WATCH, Mode.OFF, Mode.ASK])
def test_only_auto_acts_by_itself(mode: Mode) -> None:
    driver = started(books=swap(mode))
    kill_primary(driver)
    driver.keep_good(5, dead={"wan1": FAR})

    assert driver.commands() == []
    runs = list(driver.state.durable.runs.values())
    assert len(runs) == (1 if mode is Mode.ASK else 0)
    codes = {refusal.code for refusal in driver.bodies(Refused) if refusal.runbook == "standby"}
    assert ("watch_only" in codes) is (mode is Mode.WATCH)


def test_watch_records_what_it_would_have_done_with_its_facts() -> None:
    driver = started(books=swap(Mode.WATCH))
    kill_primary(driver)

    refusal = driver.state.durable.refusals["standby"]
    assert refusal.text == "in mode watch: would now move the site from wan1 to wan2"
    assert {"wan2.edge.lost_in_row", "wan1.edge.lost_in_row"} <= {fact.point for fact in refusal.facts}


def test_a_reason_is_recorded_once_while_it_stays_the_same() -> None:
    driver = started(books=swap(Mode.WATCH))
    kill_primary(driver)
    before = len(driver.bodies(Refused))

    driver.keep_good(30, dead={"wan1": FAR})

    assert len(driver.bodies(Refused)) == before


# ---------------------------------------------------------------- locks, blocks, budgets


def test_a_spent_budget_locks_with_its_figure_and_a_person_lifts_it() -> None:
    driver = swapped(started(books=swap(budget=1)))
    driver.keep_good(64, via="wan2")
    driver.answer()
    driver.path("wan1")
    kill_primary(driver)
    assert refused(driver) == ("locked", "locked until a person resets it: 1 runs in 60 min")

    driver.send(ResetAsked("li", "standby"))

    assert "standby" not in driver.state.durable.lockouts
    assert dict(driver.commands()[-1].wanted)["to"] == "wan2"


def test_a_run_that_touched_nothing_keeps_its_runbook_quiet_for_a_minute() -> None:
    driver = started()
    kill_primary(driver)
    driver.send(CommandEnded("R1.0.1", Outcome.REFUSED, "not armed"))
    assert driver.bodies(RunEnded)[-1].reason == "the executor refused: not armed"

    driver.keep_good(1, dead={"wan1": FAR})
    code, text = refused(driver)
    assert code == "blocked"
    assert text.startswith(("quiet for 5", "quiet for 6"))
    assert text.endswith("the executor refused: not armed")
    driver.keep_good(60, dead={"wan1": FAR})

    assert len(driver.commands()) == 2


def test_an_open_run_of_the_same_lock_is_named() -> None:
    there, back = swap()
    other = replace(there, name="other", arrangement="elsewhere")
    driver = started(books=(there, back, other))
    kill_primary(driver)

    assert len(driver.commands()) == 1
    assert refused(driver, "other") == ("other_run", "run R1 of standby is not finished")


# ---------------------------------------------------------------- the way home


def test_home_must_have_been_good_for_its_time_and_says_for_how_long_it_has() -> None:
    driver = swapped(started())
    driver.keep_good(1, via="wan2", dead={"wan1": FAR})
    code, text = refused(driver, "standby.return")
    assert code == "home_not_good_long_enough"
    assert text.startswith("wan1 is still bad: wan1.")

    driver.keep_good(64, via="wan2")

    assert dict(driver.commands()[-1].wanted) == {"from": "wan2", "to": "wan1"}


def test_a_return_that_a_person_decides_about_is_only_told() -> None:
    there, back = swap()
    assert back.failback is not None
    by_hand = replace(back, failback=replace(back.failback, automatic=False))
    driver = swapped(started(books=(there, by_hand)))

    driver.keep_good(70, via="wan2")

    assert refused(driver, "standby.return") == ("return_by_hand", "a person decides about the return")


def test_returns_of_a_day_are_counted() -> None:
    driver = started(books=swap(budget=None, per_day=1))
    for _ in range(2):
        swapped(driver)
        driver.keep_good(64, via="wan2")
        if len(driver.state.durable.arrangements) and driver.commands()[-1].run != "R3":
            driver.answer()
            driver.now_s += 0.05
            driver.path("wan1")
            driver.keep_good(2)

    assert refused(driver, "standby.return") == (
        "returned_often",
        "1 returns in 24 h: a person decides about the next",
    )


def test_a_block_of_the_swap_never_stops_the_way_home() -> None:
    there, back = swap()
    quiet = replace(there, limits=replace(there.limits, block_s=86_400.0))
    driver = swapped(started(books=(quiet, back)))
    assert "standby" in driver.state.durable.blocks

    driver.keep_good(64, via="wan2")

    assert driver.commands()[-1].wanted == (("from", "wan2"), ("to", "wan1"))
